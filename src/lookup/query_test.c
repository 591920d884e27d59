#include "lookup/query.h" /* before cmocka: setjmp */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
/* last */
#include <cmocka.h>

struct bench {
    char path[64];
    struct table t;
    struct source *s;
};

static int setup(void **state) {
    struct bench *b = calloc(1, sizeof *b);
    snprintf(b->path, sizeof b->path, "/tmp/query_test.XXXXXX");
    int fd = mkstemp(b->path);
    if (fd < 0)
        return -1;
    close(fd);
    b->t.arena = arena_new();
    b->t.gen = arena_new();
    b->t.error_arena = arena_new();
    b->t.name = str_c(b->path);
    b->t.spec = arena_printf(b->t.arena, "mysql:%s", b->path);
    *state = b;
    return 0;
}

static int teardown(void **state) {
    struct bench *b = *state;
    source_close(b->s);
    unlink(b->path);
    arena_free(b->t.arena);
    arena_free(b->t.gen);
    arena_free(b->t.error_arena);
    free(b);
    return 0;
}

static struct source *source_of(struct bench *b, const char *text) {
    source_close(b->s);
    FILE *f = fopen(b->path, "we");
    fputs(text, f);
    fclose(f);
    b->t.file_count = 0;
    assert_null(source_open(&b->t, &b->s));
    return b->s;
}

static bool double_quotes(void *ctx, struct buf *b, struct str text) {
    (void)ctx;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '!')
            return false;
        if (text.p[i] == '\'')
            buf_byte(b, '\'');
        buf_byte(b, text.p[i]);
    }
    return true;
}

static void test_expand(void **state) {
    (void)state;
    static const struct {
        const char *format, *key;
        enum query_result want;
        const char *query;
    } rows[] = {
        { "'%s'", "a@b.c", QUERY_OK, "'a@b.c'" },
        { "'%s' '%%s'", "i'j", QUERY_OK, "'i''j' '%s'" },
        { "%s%s", "%s", QUERY_OK, "%s%s" },
        { "%u|%d|%S|%U|%D", "a@b.c", QUERY_OK, "a|b.c|a@b.c|a|b.c" },
        { "%u|%d", "x@y@z.w", QUERY_OK, "x@y|z.w" },
        { "%u", "user", QUERY_OK, "user" },
        { "%u", "a@", QUERY_OK, "a" },
        { "%s", "@", QUERY_OK, "@" },
        { "%d", "@b", QUERY_OK, "b" },
        { "%1.%2.%3", "u@mail.example.com", QUERY_OK, "com.example.mail" },
        { "%1", "a@b.", QUERY_OK, "b" },
        { "%1%2", "a@b..c", QUERY_OK, "cb" },
        { "%9", "a@1.2.3.4.5.6.7.8.9", QUERY_OK, "1" },
        { "none", "a", QUERY_OK, "none" },
        { "%u", "@x", QUERY_SUPPRESSED, "" },
        { "%u", "@", QUERY_SUPPRESSED, "" },
        { "%d", "a", QUERY_SUPPRESSED, "" },
        { "%D", "a@", QUERY_SUPPRESSED, "" },
        { "%1", "b.c", QUERY_SUPPRESSED, "" },
        { "%1", "a@..", QUERY_SUPPRESSED, "" },
        { "%2", "a@b.", QUERY_SUPPRESSED, "" },
        { "%s", "", QUERY_SUPPRESSED, "" },
        { "none", "", QUERY_SUPPRESSED, "" },
        { "%s", "a!b", QUERY_TOO_LONG, "" },
        { "!", "a", QUERY_OK, "!" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf b = { 0 };
        enum query_result got = query_expand(str_c(rows[i].format), str_c(rows[i].key), double_quotes, NULL, &b);
        if (got != rows[i].want || (got == QUERY_OK && !str_eq(buf_str(&b), str_c(rows[i].query))))
            fail_msg("row %zu: %d \"%.*s\"", i, (int)got, STR_ARG(buf_str(&b)));
        buf_free(&b);
    }
}

static void test_expand_limit(void **state) {
    (void)state;
    char *key = malloc(TABLE_KEY_MAX);
    memset(key, 'a', TABLE_KEY_MAX);
    struct buf b = { 0 };
    struct str k = str_n(key, TABLE_KEY_MAX);
    assert_int_equal(query_expand(STR("%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s"), k, NULL, NULL, &b), QUERY_OK);
    assert_int_equal(b.n, QUERY_MAX);
    buf_clear(&b);
    assert_int_equal(query_expand(STR("%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%sx"), k, NULL, NULL, &b), QUERY_TOO_LONG);
    buf_free(&b);
    free(key);
}

static void test_check(void **state) {
    struct bench *b = *state;
    struct source *s = source_of(b, "query = x\n");
    static const char *const good[] = { "", "x", "%%", "%s%u%d%S%U%D%1%9" };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_null(query_check(s, "query", str_c(good[i]), false));
    static const char *const bad[] = { "%", "%x", "%0", "a%%%", "% s", "%s%" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error e = query_check(s, "query", str_c(bad[i]), i & 1);
        assert_true(e && e->kind == ERR_CONFIG);
        assert_true(str_contains(e->text, STR("line 1: query: Invalid ")));
        assert_true(str_contains(e->text, i & 1 ? STR("result template") : STR("query template")));
    }
}

/* Rows of a result, one per word; '-' is an empty one. */
static void rows_to_text(struct bench *b, const char *file, const char *key, const char *rows,
                         enum query_rows_result want, const char *text) {
    struct query_common common;
    assert_null(query_common_open(&b->t, source_of(b, file), "result_filter", &common));
    struct query_rows r = { .common = &common, .key = str_c(key) };
    struct str rest = str_c(rows), word;
    enum query_rows_result got = QUERY_ROWS_OK;
    while (got == QUERY_ROWS_OK && str_word(&rest, STR(" "), &word))
        got = query_rows_add(&r, str_eq(word, STR("-")) ? STR("") : word);
    assert_int_equal(got, want);
    if (got == QUERY_ROWS_OK) {
        struct str value = STR("");
        enum table_result found = query_rows_done(&r, b->t.gen, &value);
        assert_int_equal(found, *text ? TABLE_FOUND : TABLE_NOT_FOUND);
        if (!str_eq(value, str_c(text)))
            fail_msg("%s: \"%.*s\"", file, STR_ARG(value));
    }
    buf_free(&r.all);
    query_common_close(&common);
}

static void test_rows(void **state) {
    struct bench *b = *state;
    rows_to_text(b, "", "k", "a b", QUERY_ROWS_OK, "a,b");
    rows_to_text(b, "", "k", "- a - b", QUERY_ROWS_OK, "a,b");
    rows_to_text(b, "", "k", "-", QUERY_ROWS_OK, "");
    rows_to_text(b, "", "k", "", QUERY_ROWS_OK, "");
    rows_to_text(b, "result_format = smtp:[%s]\n", "k", "a b", QUERY_ROWS_OK, "smtp:[a],smtp:[b]");
    rows_to_text(b, "result_filter = <%s>\n", "k", "a", QUERY_ROWS_OK, "<a>");
    rows_to_text(b, "result_filter = <%s>\nresult_format = (%s)\n", "k", "a", QUERY_ROWS_OK, "(a)");
    rows_to_text(b, "result_format = %u at %d for %U of %D, %2, 100%%\n", "x@y.z", "a@b c @d e@", QUERY_ROWS_OK,
                 "a at b for x of y.z, y, 100%");
    rows_to_text(b, "result_format = %s%S\n", "%u", "%d", QUERY_ROWS_OK, "%d%u");
    rows_to_text(b, "result_format = OK\n", "k", "- a b", QUERY_ROWS_OK, "OK,OK");
    rows_to_text(b, "expansion_limit = 2\n", "k", "a - b", QUERY_ROWS_OK, "a,b");
    rows_to_text(b, "expansion_limit = 2\n", "k", "a b c", QUERY_ROWS_LIMIT, "");
    rows_to_text(b, "expansion_limit = 1\nresult_format = %d\n", "k", "a b@c d", QUERY_ROWS_OK, "c");
    rows_to_text(b, "expansion_limit = -1\n", "k", "a b", QUERY_ROWS_OK, "a,b");
}

static void test_result_limit(void **state) {
    struct bench *b = *state;
    struct query_common common;
    assert_null(query_common_open(&b->t, source_of(b, ""), NULL, &common));
    char *value = malloc(LOOKUP_RESULT_MAX + 1);
    memset(value, 'a', LOOKUP_RESULT_MAX + 1);
    struct query_rows r = { .common = &common, .key = STR_INIT("k") };
    assert_int_equal(query_rows_add(&r, str_n(value, LOOKUP_RESULT_MAX)), QUERY_ROWS_OK);
    assert_int_equal(query_rows_add(&r, STR("a")), QUERY_ROWS_TOO_LONG);
    buf_free(&r.all);
    assert_int_equal(query_rows_add(&r, str_n(value, LOOKUP_RESULT_MAX + 1)), QUERY_ROWS_TOO_LONG);
    buf_free(&r.all);
    free(value);
    query_common_close(&common);
}

static void test_common_errors(void **state) {
    struct bench *b = *state;
    static const struct {
        const char *file, *want;
    } rows[] = {
        { "result_format = %x\n", "Invalid result template" },
        { "result_format =\n", "must not be empty" },
        { "result_filter = %x\n", "line 1: result_filter: Invalid result template" },
        { "expansion_limit = x\n", "bad numerical configuration" },
        { "expansion_limit = 2147483648\n", "invalid value" },
        { "domain = /nonexistent/list\n", "line 1: domain: " },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct query_common common;
        error e = query_common_open(&b->t, source_of(b, rows[i].file), "result_filter", &common);
        if (!e || !str_contains(e->text, str_c(rows[i].want)))
            fail_msg("row %zu: %s", i, e ? e->text.p : "no error");
        query_common_close(&common);
    }
}

static void test_allows(void **state) {
    struct bench *b = *state;
    static const struct {
        const char *file, *key;
        bool want;
    } rows[] = {
        { "", "a", true },
        { "", "@x", true },
        { "", "", false },
        { "domain = b.c, d.e\n", "a@b.c", true },
        { "domain = b.c, d.e\n", "a@D.E", true },
        { "domain = b.c\n", "a@x.b.c", false },
        { "domain = b.c\n", "b.c", false },
        { "domain = b.c\n", "@b.c", false },
        { "domain = b.c\n", "a@", false },
        { "domain = b.c\n", "a", false },
        { "domain = static:x\n", "a@any", true },
        { "domain = static:x\n", "any", false },
        { "domain = !b.c, static:x\n", "a@b.c", false },
        { "result_format = %s %D\n", "a", false },
        { "result_format = %s %d\n", "a", true },
        { "result_format = %2\n", "a@b", false },
        { "result_format = %2\n", "a@b.c", true },
        { "result_format = %U\n", "@b.c", false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct query_common common;
        assert_null(query_common_open(&b->t, source_of(b, rows[i].file), NULL, &common));
        bool failed = true;
        enum query_result got = query_common_allows(&common, &b->t, str_c(rows[i].key), &failed);
        if (failed || (got == QUERY_OK) != rows[i].want)
            fail_msg("row %zu: %d", i, (int)got);
        query_common_close(&common);
    }
    struct query_common common;
    error e = query_common_open(&b->t, source_of(b, "domain = fail:x\n"), NULL, &common);
    assert_null(e);
    bool failed = false;
    query_common_allows(&common, &b->t, STR("a@b.c"), &failed);
    assert_true(failed);
    assert_true(str_contains(b->t.error->text, STR("domain list")));
    query_common_close(&common);
}

static void test_sql(void **state) {
    struct bench *b = *state;
    static const struct {
        const char *file;
        bool function;
        const char *want;
    } rows[] = {
        { "query = Q %s\ntable = t\nselect_function = f\n", true, "Q %s" },
        { "select_function = f\ntable = t\n", true, "SELECT f('%s')" },
        { "select_function = f\ntable = t\nselect_field = a\nwhere_field = b\n", false,
          "SELECT a FROM t WHERE b = '%s' " },
        { "table = t\nselect_field = a\nwhere_field = b\nadditional_conditions = and c = 1\n", true,
          "SELECT a FROM t WHERE b = '%s' and c = 1" },
    };
    struct str sql;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_null(query_sql_open(source_of(b, rows[i].file), &b->t, rows[i].function, &sql));
        assert_string_equal(sql.p, rows[i].want);
    }
    static const char *const bad[] = {
        "",          "table = t\n",  "table = t\nselect_field = a\n",
        "query =\n", "query = %x\n", "table = t%x\nselect_field = a\nwhere_field = b\n"
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error e = query_sql_open(source_of(b, bad[i]), &b->t, false, &sql);
        assert_true(e && e->kind == ERR_CONFIG);
    }
}

static void test_hosts_syntax(void **state) {
    struct bench *b = *state;
    struct source *s = source_of(b, "hosts = x\n");
    struct query_hosts *h = NULL;
    struct str list = STR("a, inet:b:3307 [::1]:12 [::2]\tunix:/tmp/s c:smtp postgresql://u@h/d postgres://x /tmp/d "
                          "unix:/tmp/d:5433");
    assert_null(query_hosts_open(&b->t, s, list, true, &h));
    static const struct {
        const char *text, *address;
        bool is_unix, is_uri;
        uint16_t port;
    } want[] = {
        { "a", "a", false, false, 0 },
        { "inet:b:3307", "b", false, false, 3307 },
        { "[::1]:12", "::1", false, false, 12 },
        { "[::2]", "::2", false, false, 0 },
        { "unix:/tmp/s", "/tmp/s", true, false, 0 },
        { "c:smtp", "c", false, false, 25 },
        { "postgresql://u@h/d", "postgresql://u@h/d", false, true, 0 },
        { "postgres://x", "postgres://x", false, true, 0 },
        { "/tmp/d", "/tmp/d", true, false, 0 },
        { "unix:/tmp/d:5433", "/tmp/d", true, false, 5433 },
    };
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        struct query_host *host = query_hosts_at(h, i);
        assert_non_null(host);
        assert_string_equal(host->text.p, want[i].text);
        assert_string_equal(host->address.p, want[i].address);
        assert_int_equal(host->is_unix, want[i].is_unix);
        assert_int_equal(host->is_uri, want[i].is_uri);
        assert_int_equal(host->port, want[i].port);
    }
    assert_null(query_hosts_at(h, sizeof want / sizeof want[0]));
    assert_null(query_hosts_at(NULL, 0));
    static const char *const bad[] = { "a:",    "a:0",   "a:65536", "a:b-no-such-service",
                                       "a:-1",  "[::1",  "[::1]x",  ":25",
                                       "unix:", "inet:", "[]:1" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error e = query_hosts_open(&b->t, s, str_c(bad[i]), false, &h);
        if (!e || e->kind != ERR_CONFIG || !str_contains(e->text, str_c(bad[i])))
            fail_msg("%s", bad[i]);
    }
    assert_non_null(query_hosts_open(&b->t, s, STR("unix:/tmp/d:x-y-z"), true, &h));
    struct buf many = { 0 };
    for (int i = 0; i < LOOKUP_HOSTS_MAX; i++)
        buf_add(&many, STR("h "));
    assert_null(query_hosts_open(&b->t, s, buf_str(&many), false, &h));
    buf_add(&many, STR("h"));
    assert_non_null(query_hosts_open(&b->t, s, buf_str(&many), false, &h));
    buf_free(&many);
    assert_non_null(query_hosts_open(&b->t, source_of(b, "retry_interval = 0\n"), STR("a"), false, &h));
    assert_non_null(query_hosts_open(&b->t, source_of(b, "idle_interval = x\n"), STR("a"), false, &h));
}

static void test_hosts_order(void **state) {
    struct bench *b = *state;
    struct query_hosts *h = NULL;
    assert_null(
        query_hosts_open(&b->t, source_of(b, "retry_interval = 1000\n"), STR("a b unix:/s unix:/t c"), false, &h));
    unsigned first_unix[5] = { 0 }, first_inet[5] = { 0 };
    for (int round = 0; round < 400; round++) {
        query_hosts_begin(h);
        bool seen[5] = { false };
        for (int i = 0; i < 5; i++) {
            struct query_host *host = query_hosts_next(h);
            assert_non_null(host);
            size_t index = (size_t)(host - query_hosts_at(h, 0));
            assert_false(seen[index]);
            seen[index] = true;
            assert_int_equal(host->is_unix, i < 2);
            if (i == 0)
                first_unix[index]++;
            if (i == 2)
                first_inet[index]++;
        }
        assert_null(query_hosts_next(h));
    }
    /* 400 throws: the odds of so few are below one in a million million */
    assert_true(first_unix[2] > 100 && first_unix[3] > 100);
    assert_true(first_inet[0] > 50 && first_inet[1] > 50 && first_inet[4] > 50);

    int dummy;
    query_hosts_at(h, 1)->connection = &dummy;
    query_hosts_begin(h);
    assert_ptr_equal(query_hosts_next(h), query_hosts_at(h, 1));
    for (size_t i = 0; i < 4; i++)
        query_host_failed(h, query_hosts_at(h, i));
    query_hosts_begin(h);
    assert_ptr_equal(query_hosts_next(h), query_hosts_at(h, 4));
    assert_null(query_hosts_next(h));

    assert_null(query_hosts_idle(h));
    query_hosts_at(h, 1)->last_used -= 60;
    assert_ptr_equal(query_hosts_idle(h), query_hosts_at(h, 1));
    query_hosts_at(h, 1)->connection = NULL;
    assert_null(query_hosts_idle(h));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expand),
        cmocka_unit_test(test_expand_limit),
        cmocka_unit_test_setup_teardown(test_check, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_result_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_common_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sql, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hosts_syntax, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hosts_order, setup, teardown),
    };
    return cmocka_run_group_tests_name("query", tests, NULL, NULL);
}
