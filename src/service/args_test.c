#include "service/args.h"

#include "test/test.h"
#include <stdlib.h>

static struct service_args parse(struct arena *a, error *ret_error, const char *const *list) {
    char *argv[40];
    int argc = 0;
    for (; list[argc]; argc++)
        argv[argc] = arena_cstr(a, str_c(list[argc]));
    argv[argc] = NULL;
    struct service_args got;
    *ret_error = service_args_parse(argc, argv, a, &got);
    return got;
}
#define PARSE(a, e, ...) parse((a), (e), (const char *const[]){ __VA_ARGS__, NULL })

static void test_all(void **state) {
    (void)state;
    struct arena *a = arena_new();
    error e;
    struct service_args got =
        PARSE(a, &e, "pipe", "-n", "maildrop", "-t", "unix", "-u", "-c", "-v", "-v", "-s", "3", "-l", "-x", "25", "-o",
              "x=a = b", "-o", "{ y = c d }", "-o", "z=", "flags=DRhu", "-o", "argv=");
    assert_null(e);
    assert_str(got.name, "maildrop");
    assert_str(got.type, "unix");
    assert_true(got.unprivileged && got.chroot && got.single && !got.stdio);
    assert_int_equal(got.verbose, 2);
    assert_int_equal(got.sockets, 3);
    assert_int_equal(got.sessions, 25);
    assert_int_equal(got.override_count, 3);
    assert_str(got.overrides[0].name, "x");
    assert_str(got.overrides[0].value, "a = b");
    assert_str(got.overrides[1].name, "y");
    assert_str(got.overrides[1].value, "c d");
    assert_str(got.overrides[2].value, "");
    /* what follows the first argument is the program's, whatever it looks like */
    assert_int_equal(got.arg_count, 3);
    assert_str(got.args[1], "-o");
    arena_free(a);
}

static void test_round_trip(void **state) {
    (void)state;
    struct arena *a = arena_new();
    const struct conf_override o[] = { { STR("a"), STR(" v with blanks ") }, { STR("b"), STR("") } };
    const struct str args[] = { STR("-v"), STR(""), STR("user=x y") };
    struct service_args in = { .name = STR("127.0.0.1:25"),
                               .type = STR("inet"),
                               .unprivileged = true,
                               .sockets = 2,
                               .sessions = 100,
                               .verbose = 1,
                               .overrides = o,
                               .override_count = 2,
                               .args = args,
                               .arg_count = 3 };
    char **argv = service_args_make(&in, STR("smtpd"), a);
    int argc = 0;
    while (argv[argc])
        argc++;
    struct service_args out;
    assert_null(service_args_parse(argc, argv, a, &out));
    assert_str(str_c(argv[0]), "smtpd");
    assert_str(out.name, "127.0.0.1:25");
    assert_int_equal(out.sessions, 100);
    assert_int_equal(out.override_count, 2);
    assert_str(out.overrides[0].value, " v with blanks ");
    assert_int_equal(out.arg_count, 3);
    assert_str(out.args[0], "-v");
    assert_str(out.args[1], "");
    assert_false(out.chroot || out.single);
    arena_free(a);
}

static void test_bad(void **state) {
    (void)state;
    struct arena *a = arena_new();
    error e;
    const char *const bad[][3] = { { "-o", "novalue" }, { "-o", "=v" },         { "-o", "{ }" }, { "-s", "257" },
                                   { "-s", "x" },       { "-x", "-1" },         { "-Q", NULL },  { "-n", NULL },
                                   { "-o", "a b=c" },   { "-x", "99999999999" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        PARSE(a, &e, "smtpd", bad[i][0], bad[i][1]);
        assert_non_null(e);
        assert_int_equal(e->kind, ERR_CONFIG);
    }
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
