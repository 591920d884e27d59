/* memcache: writing, and listing the backup; what can be seen through postmap is in tests/lookup/test_memcache.py. */
#include "test/test.h"

#include "lookup/lookup.h"
#include "table/remote.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT = 4096 };

static struct {
    int listener;
    pthread_t thread;
    const char *answer;
    char heard[TEXT];
    size_t n;
    char directory[32], file[64];
} peer;

/* One connection: each packet is answered with the same line. */
static void *serve(void *arg) {
    (void)arg;
    int fd = accept(peer.listener, NULL, NULL);
    ssize_t n;
    while ((n = recv(fd, peer.heard + peer.n, TEXT - 1 - peer.n, 0)) > 0) {
        peer.n += (size_t)n;
        send(fd, peer.answer, strlen(peer.answer), MSG_NOSIGNAL);
    }
    close(fd);
    return NULL;
}

static struct table *open_with(const char *answer, const char *more) {
    memset(peer.heard, 0, sizeof peer.heard);
    peer.n = 0;
    peer.answer = answer;
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof at;
    peer.listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(peer.listener, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(peer.listener, 5), 0);
    assert_int_equal(getsockname(peer.listener, (struct sockaddr *)&at, &size), 0);
    assert_int_equal(pthread_create(&peer.thread, NULL, serve, NULL), 0);
    strcpy(peer.directory, "/tmp/memcache-XXXXXX");
    assert_non_null(mkdtemp(peer.directory));
    snprintf(peer.file, sizeof peer.file, "%s/cf", peer.directory);
    FILE *f = fopen(peer.file, "w");
    assert_non_null(f);
    fprintf(f, "memcache = inet:127.0.0.1:%d\nmax_try = 1\n%s", ntohs(at.sin_port), more);
    fclose(f);
    struct arena *a = arena_new();
    struct table *t = table_open(NULL, arena_printf(a, "memcache:%s", peer.file), TABLE_FOLD | TABLE_WRITE);
    arena_free(a);
    assert_null(table_error(t));
    return t;
}

/* What the server has heard. */
static struct str end(struct table *t) {
    table_close(t);
    shutdown(peer.listener, SHUT_RDWR); /* where nobody has connected */
    pthread_join(peer.thread, NULL);
    close(peer.listener);
    unlink(peer.file);
    rmdir(peer.directory);
    return str_n(peer.heard, peer.n);
}

static void put(void **state) {
    (void)state;
    struct table *t = open_with("STORED\r\n", "key_format = p:%s\nttl = 5\nflags = 7\n");
    assert_int_equal(table_put(t, STR("Key"), STR("va lue")), TABLE_FOUND);
    assert_str(end(t), "set p:key 7 5 6\r\nva lue\r\n");
    t = open_with("NOT_STORED\r\n", "");
    assert_int_equal(table_put(t, STR("k"), STR("v")), TABLE_ERROR);
    assert_non_null(table_error(t));
    end(t);
    t = open_with("STORED\r\n", "data_size_limit = 3\n");
    assert_int_equal(table_put(t, STR("k"), STR("four")), TABLE_ERROR);
    assert_str(end(t), "");
}

static void skipped(void **state) {
    (void)state;
    struct table *t = open_with("STORED\r\n", "domain = example.com\n");
    assert_int_equal(table_put(t, STR("k"), STR("v")), TABLE_NOT_FOUND);
    assert_int_equal(table_put(t, STR("a b@example.com"), STR("v")), TABLE_NOT_FOUND);
    assert_int_equal(table_delete(t, STR("k@example.org")), TABLE_NOT_FOUND);
    assert_str(end(t), "");
}

static void delete (void **state) {
    (void)state;
    struct table *t = open_with("DELETED\r\n", "");
    assert_int_equal(table_delete(t, STR("k")), TABLE_FOUND);
    assert_str(end(t), "delete k\r\n");
    t = open_with("NOT_FOUND\r\n", "");
    assert_int_equal(table_delete(t, STR("k")), TABLE_NOT_FOUND);
    end(t);
    t = open_with("ERROR\r\n", "");
    assert_int_equal(table_delete(t, STR("k")), TABLE_ERROR);
    end(t);
}

/* A table of one entry, to stand behind memcached. */
static struct {
    bool full;
    char key[TEXT], value[TEXT];
} one;

static error one_open(struct table *t) {
    (void)t;
    return NULL;
}

static enum table_result one_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    (void)t;
    if (!one.full || !str_eq(key, str_c(one.key)))
        return TABLE_NOT_FOUND;
    *ret_value = arena_str(a, str_c(one.value));
    return TABLE_FOUND;
}

static enum table_result one_put(struct table *t, struct str key, struct str value) {
    (void)t;
    snprintf(one.key, sizeof one.key, "%.*s", STR_ARG(key));
    snprintf(one.value, sizeof one.value, "%.*s", STR_ARG(value));
    one.full = true;
    return TABLE_FOUND;
}

static enum table_result one_del(struct table *t, struct str key) {
    (void)t, (void)key;
    enum table_result r = one.full ? TABLE_FOUND : TABLE_NOT_FOUND;
    one.full = false;
    return r;
}

static enum table_result one_next(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                                  struct str *ret_value) {
    if (after.n)
        return TABLE_NOT_FOUND;
    *ret_key = str_c(one.key);
    return one_get(t, *ret_key, a, ret_value);
}

static const struct table_type one_type = { .name = STR_INIT("one"),
                                            .fixed = true,
                                            .open = one_open,
                                            .get = one_get,
                                            .put = one_put,
                                            .del = one_del,
                                            .next = one_next };

static void backup(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct str key, value;
    struct table *t = open_with("END\r\n", "");
    assert_int_equal(table_next(t, STR(""), a, &key, &value), TABLE_ERROR);
    end(t);
    t = open_with("STORED\r\n", "backup = one:x\n");
    assert_int_equal(table_put(t, STR("K"), STR("v")), TABLE_FOUND);
    assert_true(one.full);
    assert_int_equal(table_next(t, STR(""), a, &key, &value), TABLE_FOUND);
    assert_str(key, "k");
    assert_str(value, "v");
    assert_int_equal(table_next(t, key, a, &key, &value), TABLE_NOT_FOUND);
    assert_str(end(t), "set k 0 3600 1\r\nv\r\n");
    t = open_with("ERROR\r\n", "backup = one:x\n"); /* what cannot be taken out of memcached stays in both */
    assert_int_equal(table_delete(t, STR("k")), TABLE_ERROR);
    assert_true(one.full);
    end(t);
    t = open_with("NOT_FOUND\r\n", "backup = one:x\n"); /* the backup is what counts */
    assert_int_equal(table_delete(t, STR("k")), TABLE_FOUND);
    assert_false(one.full);
    assert_int_equal(table_delete(t, STR("k")), TABLE_NOT_FOUND);
    end(t);
    arena_free(a);
}

int main(void) {
    static const struct table_type *const types[] = { &table_type_memcache, &one_type };
    table_register(types, 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put),
        cmocka_unit_test(skipped),
        cmocka_unit_test(delete),
        cmocka_unit_test(backup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
