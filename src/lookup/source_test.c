#include "lookup/query.h" /* before cmocka: setjmp */

#include "base/log.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
/* last */
#include <cmocka.h>

struct bench {
    char folder[64], path[128];
    struct table t;
    struct buf log;
};

static void keep(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)level, (void)tag;
    struct bench *b = ctx;
    buf_add(&b->log, text);
    buf_byte(&b->log, '\n');
}

static struct str slice(struct arena *a, const char *text) { /* without a terminator behind it */
    size_t n = strlen(text);
    char *p = arena_alloc(a, n ? n : 1);
    memcpy(p, text, n);
    return str_n(p, n);
}

static int setup(void **state) {
    struct bench *b = calloc(1, sizeof *b);
    snprintf(b->folder, sizeof b->folder, "/tmp/source_test.XXXXXX");
    if (!b || !mkdtemp(b->folder))
        return -1;
    snprintf(b->path, sizeof b->path, "%s/t.cf", b->folder);
    b->t.arena = arena_new();
    b->t.gen = arena_new();
    b->t.error_arena = arena_new();
    b->t.name = str_c(b->path);
    b->t.spec = arena_printf(b->t.arena, "mysql:%s", b->path);
    log_set_sink(keep, b);
    *state = b;
    return 0;
}

static int teardown(void **state) {
    struct bench *b = *state;
    log_set_sink(NULL, NULL);
    source_preload_clear();
    unlink(b->path);
    rmdir(b->folder);
    arena_free(b->t.arena);
    arena_free(b->t.gen);
    arena_free(b->t.error_arena);
    buf_free(&b->log);
    free(b);
    return 0;
}

static void put(struct bench *b, const char *text, size_t n) {
    FILE *f = fopen(b->path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

static struct source *open_text(struct bench *b, const char *text) {
    put(b, text, strlen(text));
    b->t.file_count = 0;
    struct source *s = NULL;
    error e = source_open(&b->t, &s);
    if (e)
        fail_msg("%.*s", STR_ARG(e->text));
    return s;
}

static void expect(struct str got, const char *want) {
    if (!str_eq(got, str_c(want)))
        fail_msg("\"%.*s\" instead of \"%s\"", STR_ARG(got), want);
}

static void test_values(void **state) {
    struct bench *b = *state;
    struct source *s = open_text(b, "# comment\n\nhosts =  a b\n  # inside\n\tc\nquery=SELECT '$myhostname %s' = 1\n"
                                    "empty =\nlast = no newline");
    expect(source_str(s, "hosts", STR("x")), "a b\tc");
    expect(source_str(s, "query", STR("x")), "SELECT '$myhostname %s' = 1");
    expect(source_str(s, "empty", STR("x")), "");
    expect(source_str(s, "last", STR("x")), "no newline");
    expect(source_str(s, "absent", STR("x")), "x");
    assert_int_equal(source_str(s, "last", STR("")).p[10], 0);
    assert_true(source_has(s, "empty") && !source_has(s, "absent"));
    expect(source_where(s, "last"), arena_printf(b->t.gen, "%s, line 8: last", b->path).p);
    assert_int_equal(b->t.file_count, 1);
    source_close(s);
}

static void test_numbers(void **state) {
    struct bench *b = *state;
    struct source *s = open_text(b, "n = 12\nbad = 12x\nbig = 100\nminus = -3\nyes = YES\nno = no\nmaybe = 1\nnil =\n");
    int64_t n;
    bool flag;
    assert_null(source_int(s, "n", 5, 0, 99, &n));
    assert_int_equal(n, 12);
    assert_null(source_int(s, "absent", 5, 0, 99, &n));
    assert_int_equal(n, 5);
    assert_null(source_int(s, "minus", 5, -3, 99, &n));
    assert_int_equal(n, -3);
    error e = source_int(s, "bad", 5, 0, 99, &n);
    assert_non_null(e);
    assert_int_equal(e->kind, ERR_CONFIG);
    assert_true(str_contains(e->text, STR("line 2: bad: bad numerical configuration: 12x")));
    e = source_int(s, "big", 5, 0, 99, &n);
    assert_true(e && str_contains(e->text, STR("from 0 to 99")));
    assert_non_null(source_int(s, "minus", 5, -2, 99, &n));
    assert_null(source_bool(s, "yes", false, &flag));
    assert_true(flag);
    assert_null(source_bool(s, "no", true, &flag));
    assert_false(flag);
    assert_null(source_bool(s, "absent", true, &flag));
    assert_true(flag);
    e = source_bool(s, "maybe", true, &flag);
    assert_true(e && str_contains(e->text, STR("bad boolean configuration: 1")));
    struct str text;
    assert_null(source_required(s, "n", &text));
    expect(text, "12");
    assert_non_null(source_required(s, "nil", &text));
    assert_non_null(source_required(s, "absent", &text));
    source_close(s);
}

static void test_malformed(void **state) {
    struct bench *b = *state;
    char many[SOURCE_SETTINGS_MAX * 8 + 16] = "";
    for (int i = 0; i <= SOURCE_SETTINGS_MAX; i++)
        snprintf(many + strlen(many), 9, "a%d=1\n", i);
    const struct {
        const char *text;
        size_t n;
        const char *want;
    } rows[] = {
        { "a = 1\nsecret\n", 13, "line 2: missing '=' after attribute name" },
        { "= 1\n", 4, "line 1: missing attribute name" },
        { "a = 1\0\n", 7, "line 1: NUL byte" },
        { many, strlen(many), "more than 200 settings" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        put(b, rows[i].text, rows[i].n);
        struct source *s = NULL;
        error e = source_open(&b->t, &s);
        assert_non_null(e);
        assert_null(s);
        assert_int_equal(e->kind, ERR_CONFIG);
        if (!str_contains(e->text, str_c(rows[i].want)))
            fail_msg("row %zu: %.*s", i, STR_ARG(e->text));
        assert_false(str_contains(e->text, STR("secret")));
    }
    char *big = calloc(1, SOURCE_FILE_MAX + 1);
    memset(big, 'a', SOURCE_FILE_MAX + 1);
    put(b, big, SOURCE_FILE_MAX + 1);
    struct source *s = NULL;
    error e = source_open(&b->t, &s);
    assert_true(e && str_contains(e->text, STR("larger than")));
    big[1] = '=';
    put(b, big, SOURCE_FILE_MAX);
    e = source_open(&b->t, &s);
    assert_true(e && str_contains(e->text, STR("the value is longer than 65536 bytes")));
    free(big);
    unlink(b->path);
    e = source_open(&b->t, &s);
    assert_true(e && e->kind == ERR_TEMP && str_contains(e->text, STR("No such file")));
    mkdir(b->path, 0700);
    e = source_open(&b->t, &s);
    assert_true(e && str_contains(e->text, STR("directory")));
    rmdir(b->path);
}

static void test_warnings(void **state) {
    struct bench *b = *state;
    struct source *s = open_text(b, "user = x\npasword = hidden\nuser = y\n");
    expect(source_str(s, "user", STR("")), "y");
    source_warn_unused(s);
    expect(buf_str(&b->log), arena_printf(b->t.gen,
                                          "warning: %s, line 3: overriding earlier entry: user\n"
                                          "warning: %s, line 2: unused parameter: pasword\n",
                                          b->path, b->path)
                                 .p);
    source_close(s);
}

static void test_main_cf(void **state) {
    struct bench *b = *state;
    const struct conf_override set[] = {
        { STR_INIT("users_hosts"), STR_INIT("$mine b") },
        { STR_INIT("mine"), STR_INIT("a") },
        { STR_INIT("users_expansion_limit"), STR_INIT("x") },
    };
    struct conf_source from = {
        .config_directory = STR_INIT("/nonexistent"), .overrides = set, .override_count = 3, .missing_is_empty = true
    };
    struct conf *c = NULL;
    assert_null(conf_load(&from, b->t.error_arena, &c));
    b->t.conf = c;
    b->t.name = STR("users");
    struct source *s = NULL;
    assert_null(source_open(&b->t, &s));
    expect(source_str(s, "hosts", STR("")), "a b");
    expect(source_str(s, "hosts", STR("")), "a b");
    assert_false(source_has(s, "query"));
    int64_t n;
    error e = source_int(s, "expansion_limit", 0, 0, 9, &n);
    assert_true(e && str_contains(e->text, STR("main.cf: users_expansion_limit: bad numerical")));
    source_close(s);
    conf_free(c);
}

static void test_preload(void **state) {
    struct bench *b = *state;
    if (geteuid() != 0) /* only root can lose a right here */
        skip();
    put(b, "user = x\n", 9);
    chmod(b->path, 0400);
    chmod(b->folder, 0755);
    source_preload_text(arena_printf(b->t.gen, "a { check_x mysql:/nonexistent, proxy:mysql:%s}", b->path));
    assert_int_equal(seteuid(65534), 0);
    struct source *s = NULL;
    error e = source_open(&b->t, &s);
    assert_null(e);
    expect(source_str(s, "user", STR("")), "x");
    assert_false(source_needs_restart());
    source_close(s);
    assert_int_equal(seteuid(0), 0);
    put(b, "user = yy\n", 10);
    assert_int_equal(seteuid(65534), 0);
    e = source_open(&b->t, &s);
    assert_int_equal(seteuid(0), 0);
    assert_true(e && e->kind == ERR_TEMP && str_contains(e->text, STR("restarting")));
    assert_true(source_needs_restart());
    source_preload_clear();
    assert_int_equal(seteuid(65534), 0);
    e = source_open(&b->t, &s);
    assert_int_equal(seteuid(0), 0);
    assert_true(e && str_contains(e->text, STR("Permission denied")));
    /* no type before it, or no path behind it */
    source_preload_text(slice(b->t.gen, "xmysql:"));
    source_preload_text(slice(b->t.gen, "mysql:"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_warnings, setup, teardown),
        cmocka_unit_test_setup_teardown(test_main_cf, setup, teardown),
        cmocka_unit_test_setup_teardown(test_preload, setup, teardown),
    };
    return cmocka_run_group_tests_name("source", tests, NULL, NULL);
}
