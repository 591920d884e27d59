/* The order of things in one look-up, with servers that do what the test says. */
#include "lookup/sql.h" /* before cmocka: setjmp */

#include "base/log.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
/* last */
#include <cmocka.h>

/* What each server does, a letter for each attempt; the last one stays. C: cannot be connected. F: the connection is
 * lost. R: refuses the statement. N: no result set. M: too much. U: the key is not in its character set. Q: the key
 * cannot be quoted. Digit: that many values. */
struct server {
    char name;
    const char *script;
};
static struct {
    struct server servers[4];
    struct buf trace; /* connects as "+a", statements as "a", ends as "-a" */
    struct buf query;
    int open;
} world;

static void *fake_connect(struct sql *s, const struct query_host *host, int64_t deadline, struct buf *why) {
    (void)s;
    assert_true(deadline > sql_now_ms() && deadline <= sql_now_ms() + LOOKUP_HOST_SECONDS * 1000);
    struct server *server = &world.servers[host->address.p[0] - 'a'];
    server->name = host->address.p[0];
    buf_printf(&world.trace, "+%c ", server->name);
    if (server->script[0] == 'C') {
        server->script += server->script[1] != 0;
        buf_add(why, STR("refused"));
        return NULL;
    }
    world.open++;
    return server;
}

static void fake_disconnect(void *connection) {
    const struct server *server = connection;
    buf_printf(&world.trace, "-%c ", server->name);
    world.open--;
}

static bool fake_quote(void *connection, struct buf *b, struct str text) {
    const struct server *server = connection;
    buf_printf(b, "<%.*s>", STR_ARG(text));
    return server->script[0] != 'Q';
}

static bool fake_may_ask(void *connection, struct str key) {
    const struct server *server = connection;
    (void)key;
    return server->script[0] != 'U';
}

static enum sql_outcome fake_ask(void *connection, struct str query, int64_t deadline, struct query_rows *rows,
                                 struct buf *why) {
    struct server *server = connection;
    char what = server->script[0];
    assert_true(deadline > sql_now_ms());
    buf_printf(&world.trace, "%c ", server->name);
    buf_clear(&world.query);
    buf_add(&world.query, query);
    server->script += server->script[1] != 0;
    enum sql_outcome outcome = SQL_ANSWERED;
    for (int i = 0; what >= '0' && what <= '9' && i < what - '0' && outcome == SQL_ANSWERED; i++) {
        char value[2] = { (char)('a' + i), 0 };
        outcome = sql_add_value(rows, str_c(value), why);
    }
    if (what == 'F' || what == 'R')
        sql_add_value(rows, STR("half"), why); /* it does not count */
    if (what == 'F' || what == 'R' || what == 'M')
        buf_printf(why, "reason %c", what);
    return what == 'F'   ? SQL_FAILED
           : what == 'R' ? SQL_REFUSED
           : what == 'M' ? SQL_TOO_MUCH
           : what == 'N' ? SQL_NO_RESULT
                         : outcome;
}

static const struct sql_client fake = { fake_connect, fake_disconnect, fake_quote, fake_ask, fake_may_ask };

struct bench {
    char path[64];
    struct table t;
    struct buf log;
};

static void keep(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)level, (void)tag;
    struct bench *b = ctx;
    buf_add(&b->log, text);
}

static int setup(void **state) {
    struct bench *b = calloc(1, sizeof *b);
    snprintf(b->path, sizeof b->path, "/tmp/sql_test.XXXXXX");
    int fd = mkstemp(b->path);
    if (fd < 0)
        return -1;
    close(fd);
    b->t.arena = arena_new();
    b->t.gen = arena_new();
    b->t.error_arena = arena_new();
    b->t.name = str_c(b->path);
    b->t.spec = STR("mysql:x");
    log_set_sink(keep, b);
    *state = b;
    return 0;
}

static int teardown(void **state) {
    struct bench *b = *state;
    sql_close(&b->t);
    log_set_sink(NULL, NULL);
    assert_int_equal(world.open, 0);
    buf_free(&world.trace);
    buf_free(&world.query);
    buf_free(&b->log);
    unlink(b->path);
    arena_free(b->t.arena);
    arena_free(b->t.gen);
    arena_free(b->t.error_arena);
    free(b);
    return 0;
}

static struct sql *open_with(struct bench *b, const char *file) {
    sql_close(&b->t);
    b->t.state = NULL;
    FILE *f = fopen(b->path, "we");
    fputs(file, f);
    fclose(f);
    b->t.file_count = 0;
    struct sql *s = NULL;
    error e = sql_open(&b->t, &fake, STR("d"), false, &s);
    if (e)
        fail_msg("%.*s", STR_ARG(e->text));
    buf_clear(&world.trace);
    return s;
}

/* `want`: the value, "-" for not found, "!text" for an error with this text. */
static void look_up(struct bench *b, const char *key, const char *want, const char *trace) {
    struct str value = STR("");
    buf_clear(&world.trace);
    enum table_result r = sql_get(&b->t, str_c(key), b->t.gen, &value);
    struct str got = r == TABLE_NOT_FOUND ? STR("-")
                     : r == TABLE_ERROR   ? arena_cat(b->t.gen, STR("!"), b->t.error->text)
                                          : value;
    if (want[0] == '!' ? !str_contains(got, str_c(want + 1)) || got.p[0] != '!' : !str_eq(got, str_c(want)))
        fail_msg("\"%.*s\" instead of \"%s\"", STR_ARG(got), want);
    if (!str_eq(str_trim(buf_str(&world.trace)), str_c(trace)))
        fail_msg("%s: \"%.*s\" instead of \"%s\"", key, STR_ARG(buf_str(&world.trace)), trace);
}

static void scripts(const char *a, const char *b) {
    world.servers[0] = (struct server){ 'a', a };
    world.servers[1] = (struct server){ 'b', b };
}

static void test_answers(void **state) {
    struct bench *b = *state;
    scripts("2", "");
    open_with(b, "hosts = a\nquery = q %s %u\n");
    look_up(b, "k@x", "a,b", "+a a");
    assert_string_equal(world.query.p, "q <k@x> <k>");
    look_up(b, "k", "a,b", "a"); /* the connection stays */
    scripts("0", "");
    look_up(b, "k", "-", "a");
    look_up(b, "@x", "-", ""); /* not asked for */
    scripts("U", "");
    look_up(b, "k", "-", "");
    scripts("Q", "");
    look_up(b, "k", "!cannot be put into the query", "");
    assert_int_equal(b->log.n, 0);
}

static void test_default_host(void **state) {
    struct bench *b = *state;
    world.servers[3] = (struct server){ 'd', "1" };
    open_with(b, "hosts = ,\nquery = q %s\n");
    look_up(b, "k", "a", "+d d");
    open_with(b, "query = q %s\n");
    look_up(b, "k", "a", "+d d");
}

static void test_no_result(void **state) {
    struct bench *b = *state;
    scripts("N", "");
    struct sql *s = open_with(b, "hosts = a\nquery = q %s\n");
    look_up(b, "k", "-", "+a a");
    s->no_result_is_error = true;
    look_up(b, "k", "!require_result_set", "a");
}

static void test_limits(void **state) {
    struct bench *b = *state;
    scripts("3", "");
    open_with(b, "hosts = a\nquery = q %s\nexpansion_limit = 2\n");
    look_up(b, "k", "!expansion_limit", "+a a -a");
    scripts("M", "");
    look_up(b, "k", "!reason M", "+a a -a"); /* the host does not rest */
    scripts("2", "");
    look_up(b, "k", "a,b", "+a a");
}

static void test_failover(void **state) {
    struct bench *b = *state;
    scripts("C1", "2");
    open_with(b, "hosts = unix:a, b\nquery = q %s\n");
    look_up(b, "k", "a,b", "+a +b b");
    assert_true(str_contains(buf_str(&b->log), STR("mysql:x: server unix:a: refused")));
    look_up(b, "k", "a,b", "b"); /* the first one rests, though it is well again */
    scripts("1", "F");
    look_up(b, "k", "!server b: reason F", "b -b +b b -b");
    look_up(b, "k", "!all servers rest", "");
}

static void test_reconnect(void **state) {
    struct bench *b = *state;
    scripts("1F2", "1");
    open_with(b, "hosts = unix:a, b\nquery = q %s\n");
    look_up(b, "k", "a", "+a a");
    look_up(b, "k", "a,b", "a -a +a a"); /* what was left of the old answer is gone */
    assert_int_equal(b->log.n, 0);       /* nothing has failed */
    scripts("FC", "1");
    look_up(b, "k", "a", "a -a +a +b b");
}

static void test_refused(void **state) {
    struct bench *b = *state;
    scripts("R", "1");
    open_with(b, "hosts = unix:a, b\nquery = q %s\n");
    look_up(b, "k", "a", "+a a +b b");
    look_up(b, "k", "a", "a b"); /* neither rests */
    scripts("R", "R");
    look_up(b, "k", "!server b: reason R", "a b");
    assert_int_equal(b->log.n, 0);
}

static void test_idle(void **state) {
    struct bench *b = *state;
    scripts("1", "");
    struct sql *s = open_with(b, "hosts = a\nquery = q %s\nidle_interval = 100\n");
    look_up(b, "k", "a", "+a a");
    query_hosts_at(s->hosts, 0)->last_used -= 99;
    look_up(b, "k", "a", "a");
    query_hosts_at(s->hosts, 0)->last_used -= 101;
    look_up(b, "k", "a", "-a +a a");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_default_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_result, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failover, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reconnect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle, setup, teardown),
    };
    return cmocka_run_group_tests_name("sql", tests, NULL, NULL);
}
