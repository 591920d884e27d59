#include "base/log.h"
#include "local/local.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

enum { FALLBACK_PORT = 512 /* biff/udp, as /etc/services would say */ };

uint16_t biff_port(void) {
    const struct servent *s = getservbyname("biff", "udp");
    return s ? ntohs((uint16_t)s->s_port) : FALLBACK_PORT;
}

/* One datagram to whoever listens here; a system without comsat loses nothing. */
void biff_notify(const struct local *l, struct str user, uint64_t offset) {
    char text[300];
    int n = snprintf(text, sizeof(text), "%.*s@%ju", STR_ARG(user), (uintmax_t)offset);
    if (n < 0 || (size_t)n >= sizeof(text))
        return;
    int fd = sys->socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        log_warn("biff: cannot make a socket: %m");
        return;
    }
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(l->biff_port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct iovec v = { text, (size_t)n };
    const struct msghdr m = { .msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &v, .msg_iovlen = 1 };
    (void)sys->sendmsg(fd, &m, MSG_DONTWAIT);
    sys->close(fd);
}
