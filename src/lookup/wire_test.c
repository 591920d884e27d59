/* Unit tests of lookup/wire: whom the resolver is asked for. */
#include "lookup/wire.h"
#include "run/sys.h"
#include "test/test.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int asked_names;

/* In place of the C library's: numbers only; a name is counted and stands for 127.0.0.1. */
int getaddrinfo(const char *restrict name, const char *restrict service, const struct addrinfo *restrict hints,
                struct addrinfo **restrict ret) {
    static struct sockaddr_in at;
    static struct addrinfo found;
    bool number = inet_pton(AF_INET, name, &at.sin_addr) == 1;
    if (!number && hints->ai_flags & AI_NUMERICHOST)
        return EAI_NONAME;
    if (!number || !(hints->ai_flags & AI_NUMERICHOST))
        asked_names++;
    if (!number && strcmp(name, "nowhere.example") == 0)
        return EAI_AGAIN;
    at.sin_family = AF_INET;
    at.sin_port = htons((uint16_t)strtoul(service, NULL, 10));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    found = (struct addrinfo){ .ai_family = AF_INET, .ai_addr = (struct sockaddr *)&at, .ai_addrlen = sizeof at };
    *ret = &found;
    return 0;
}

void freeaddrinfo(struct addrinfo *list) {
    (void)list;
}

static void resolver_is_for_names(void **state) {
    (void)state;
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof at;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(server, 5), 0);
    assert_int_equal(getsockname(server, (struct sockaddr *)&at, &len), 0);
    char port[8];
    snprintf(port, sizeof port, "%u", ntohs(at.sin_port));
    static const struct {
        const char *host;
        int names;
        bool good;
    } rows[] = { { "127.0.0.1", 0, true }, { "there.example", 1, true }, { "nowhere.example", 1, false } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct wire w = { .fd = -1 };
        asked_names = 0;
        error e = wire_connect(&w, str_c(rows[i].host), str_c(port), sys->mono_us() + 20 * 1000000);
        assert_int_equal(e == NULL, rows[i].good);
        assert_int_equal(wire_is_open(&w), rows[i].good);
        assert_int_equal(asked_names, rows[i].names);
        wire_close(&w);
    }
    close(server);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(resolver_is_for_names) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
