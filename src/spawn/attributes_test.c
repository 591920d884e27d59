#include "test/test.h"

#include "spawn/attributes.h"
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

static const char *parse(struct arena *a, const char *text, bool root, struct spawn_attributes *ret) {
    struct str rest = str_c(text), word;
    VEC(struct str) args = { 0 };
    while (str_word(&rest, STR(" "), &word))
        *vec_add(a, &args) = word;
    const struct passwd *daemon = getpwnam("daemon");
    assert_non_null(daemon);
    error e = spawn_attributes_parse(a, args.at, args.n, root, daemon->pw_uid, daemon->pw_gid, ret);
    return e ? arena_cstr(a, e->text) : NULL;
}

static void test_good(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct spawn_attributes s;
    const struct passwd *nobody = getpwnam("nobody");
    assert_null(parse(a, "user=nobody argv=/bin/sh -c user=x", true, &s));
    assert_int_equal(s.as.uid, nobody->pw_uid);
    assert_int_equal(s.as.gid, nobody->pw_gid);
    assert_string_equal(s.argv[0], "/bin/sh");
    assert_string_equal(s.argv[2], "user=x");
    assert_null(s.argv[3]);
    assert_null(parse(a, "user=nobody:mail argv=/bin/true", true, &s));
    assert_int_not_equal(s.as.gid, nobody->pw_gid);
    arena_free(a);
}

static void test_bad(void **state) {
    (void)state;
    static const struct {
        const char *text, *why;
    } rows[] = {
        { "argv=/bin/true", "missing user=" },
        { "user=nobody", "missing argv=" },
        { "user=nobody argv=", "missing argv=" },
        { "user=nobody flags=R argv=/bin/true", "unknown attribute \"flags=R\"" },
        { "user=no-such-user argv=/bin/true", "unknown user name: \"no-such-user\"" },
        { "user=nobody:no-such-group argv=/bin/true", "unknown group name: \"no-such-group\"" },
        { "user=root argv=/bin/true", "root's rights" },
        { "user=nobody:root argv=/bin/true", "root's rights" },
        { "user=daemon argv=/bin/true", "rights of mail_owner" },
        { "user=nobody:daemon argv=/bin/true", "rights of mail_owner" },
    };
    struct arena *a = arena_new();
    struct spawn_attributes s;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *why = parse(a, rows[i].text, true, &s);
        if (!why || !strstr(why, rows[i].why))
            fail_msg("%s: %s", rows[i].text, why ? why : "no error");
    }
    if (geteuid() != getpwnam("nobody")->pw_uid) {
        const char *why = parse(a, "user=nobody argv=/bin/true", false, &s);
        assert_non_null(why);
        assert_non_null(strstr(why, "only root"));
    }
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_good), cmocka_unit_test(test_bad) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
