/* test_world.h - for tests: a tls_server from lines of main.cf, and what has been logged. */
#ifndef ANGARIUM_TLS_TEST_WORLD_H
#define ANGARIUM_TLS_TEST_WORLD_H

#include "base/buf.h"
#include "tls/tls.h"

struct test_world {
    struct arena *arena;
    struct conf *conf;
    struct tls_server *server; /* NULL: it could not be made */
    struct buf log;            /* a record a line */
};
/* `settings`: "name = value" lines. `mandatory` as in tls_server_open(). */
void test_world_begin(struct test_world *w, const char *settings, bool mandatory);
void test_world_end(struct test_world *w);
bool test_logged(const struct test_world *w, const char *text);
#endif
