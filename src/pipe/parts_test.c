#include "test/test.h"

#include "pipe/form.h"
#include "pipe/macros.h"
#include <pwd.h>
#include <unistd.h>

/* --- attributes --- */
static error parse(struct arena *a, const char *text, bool root, struct pipe_attributes *ret) {
    struct str rest = str_c(text), word;
    VEC(struct str) args = { 0 };
    while (str_word(&rest, STR("~"), &word))
        *vec_add(a, &args) = word;
    const struct passwd *daemon = getpwnam("daemon");
    assert_non_null(daemon);
    return pipe_attributes_parse(a, args.at, args.n, root, daemon->pw_uid, daemon->pw_gid, ret);
}

static void test_attributes(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct pipe_attributes p;
    const struct passwd *nobody = getpwnam("nobody");
    assert_null(parse(a, "user=nobody~argv=/bin/x~y=z", true, &p));
    assert_int_equal(p.as.uid, nobody->pw_uid);
    assert_int_equal(p.as.gid, nobody->pw_gid);
    assert_int_equal(p.flags, 0);
    assert_int_equal(p.argc, 2);
    assert_str(p.argv[0], "/bin/x");
    assert_str(p.argv[1], "y=z");
    assert_str(p.eol, "\n");
    assert_str(p.null_sender, "MAILER-DAEMON");
    assert_null(p.chroot);
    assert_null(p.directory);
    assert_null(parse(
        a, "flags=BD~flags=.>~user=nobody:mail~chroot=/c~directory=/d~size=77~null_sender=~eol=\\r\\n~argv=", true,
        &p));
    assert_int_equal(p.flags, PIPE_BLANK_LINE | PIPE_DELIVERED_TO | PIPE_DOT | PIPE_QUOTE_FROM);
    assert_int_not_equal(p.as.gid, nobody->pw_gid);
    assert_string_equal(p.chroot, "/c");
    assert_string_equal(p.directory, "/d");
    assert_int_equal(p.size_limit, 77);
    assert_str(p.null_sender, "");
    assert_str(p.eol, "\r\n");
    assert_str(p.argv[0], "");
    arena_free(a);
}

static void test_bad_attributes(void **state) {
    (void)state;
    static const struct {
        const char *text, *why;
    } rows[] = {
        { "argv=/bin/true", "missing user=" },
        { "user=nobody", "missing argv=" },
        { "user=nobody~flags=DZ~argv=x", "unknown flag in flags= \"DZ\"" },
        { "user=nobody~size=x~argv=x", "bad size= value: \"x\"" },
        { "user=nobody~size=-1~argv=x", "bad size= value: \"-1\"" },
        { "user=nobody~foo=x~argv=x", "unknown attribute \"foo=x\"" },
        { "user=nobody~foo~argv=x", "unknown attribute \"foo\"" },
        { "user=no-such-user~argv=x", "unknown user name: \"no-such-user\"" },
        { "user=nobody:no-such-group~argv=x", "unknown group name: \"no-such-group\"" },
        { "user=root~argv=x", "root's rights" },
        { "user=nobody:root~argv=x", "root's rights" },
        { "user=daemon~argv=x", "rights of mail_owner" },
        { "user=nobody:daemon~argv=x", "rights of mail_owner" },
    };
    struct arena *a = arena_new();
    struct pipe_attributes p;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        error e = parse(a, rows[i].text, true, &p);
        if (!e || !str_contains(e->text, str_c(rows[i].why)))
            fail_msg("%s: %s", rows[i].text, e ? arena_cstr(a, e->text) : "no error");
    }
    error e = parse(a, "user=nobody~chroot=/~argv=x", false, &p);
    assert_non_null(e);
    assert_true(str_contains(e->text, STR("only root can chroot")));
    arena_free(a);
}

static void test_unescape(void **state) {
    (void)state;
    static const struct {
        const char *in, *want;
    } rows[] = {
        { "\\r\\n", "\r\n" },
        { "\\a\\b\\f\\t\\v", "\a\b\f\t\v" },
        { "\\\\", "\\" },
        { "\\q", "q" },
        { "\\1012\\7x", "A2\ax" },
        { "\\", "\\" },
        { "", "" },
        { "\\1", "\1" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_str(pipe_unescape(a, str_c(rows[i].in)), rows[i].want);
    arena_free(a);
}

/* --- macros --- */
static void test_macros(void **state) {
    (void)state;
    static const struct {
        unsigned flags;
        const char *argument, *want; /* arguments joined with '|', or what is wrong */
    } rows[] = {
        { 0, "plain", "plain" },
        { 0, "", "" },
        { 0, "$$a$$", "$a$" },
        { 0, "$sender", "S@Y.example" },
        { 0, "-f${sender}-$(nexthop).$queue_id", "-fS@Y.example-Next.Hop.ABC" },
        { 0, "$size", "4711" },
        { 0, "$client_address,$client_helo,$client_hostname,$client_port,$client_protocol",
          "192.0.2.1,helo,name,77,ESMTP" },
        { 0, "$sasl_method/$sasl_sender/$sasl_username", "PLAIN/me@x/joe" },
        { 0, "$recipient", "U+Ex@X.Example|$user@x" },
        { 0, "<$original_recipient>$sender", "<o@x>S@Y.example|<$(recipient)@x>S@Y.example" },
        { 0, "$user", "U|$user" },
        { 0, "$extension", "Ex|" },
        { 0, "$mailbox", "U+Ex|$user" },
        { 0, "$domain", "X.Example|x" },
        { PIPE_FOLD_DOMAIN, "$recipient$domain$nexthop$sender",
          "U+Ex@x.examplex.examplenext.hopS@Y.example|"
          "$user@xxnext.hopS@Y.example" },
        { PIPE_FOLD_USER, "$recipient,$user,$extension,$mailbox,$sender",
          "u+ex@X.Example,u,ex,u+ex,S@Y.example|"
          "$user@x,$user,,$user,S@Y.example" },
        { 0, "a$", "empty macro name: \"$\"" },
        { 0, "a$-", "empty macro name: \"$-\"" },
        { 0, "a${}", "empty macro name: \"${}\"" },
        { 0, "a${recipient", "truncated macro reference: \"${recipient\"" },
        { 0, "a$(recipient}", "truncated macro reference: \"$(recipient}\"" },
        { 0, "$recipients", "unknown macro name: \"recipients\"" },
        { 0, "${recipient?x}", "unknown macro name: \"recipient?x\"" },
        { 0, "$sender$foo", "unknown macro name: \"foo\"" },
        { 0, "$recipient$foo", "unknown macro name: \"foo\"" },
    };
    struct rcpt rcpts[] = { { .address = STR("U+Ex@X.Example"), .orig = STR("o@x") },
                            { .address = STR("$user@x"), .orig = STR("$(recipient)@x") } };
    struct delivery_request r = {
        .id = { "ABC" },
        .nexthop = STR("Next.Hop"),
        .content = { .size = 4711 },
        .env = { .sender = STR("S@Y.example"),
                 .rcpts = rcpts,
                 .rcpt_count = 2,
                 .client = { .address = STR("192.0.2.1"),
                             .helo = STR("helo"),
                             .name = STR("name"),
                             .port = STR("77"),
                             .protocol = STR("ESMTP"),
                             .sasl_method = STR("PLAIN"),
                             .sasl_sender = STR("me@x"),
                             .sasl_username = STR("joe") } },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str argument = str_c(rows[i].argument);
        struct pipe_attributes p = { .flags = rows[i].flags, .argv = &argument, .argc = 1 };
        char **argv;
        struct buf b = { 0 };
        error e = pipe_arguments(a, &p, &r, (struct extension_rules){ STR("+"), true }, &argv);
        if (e)
            buf_add(&b, e->text);
        for (size_t k = 0; !e && argv[k]; k++)
            buf_printf(&b, "%s%s", k ? "|" : "", argv[k]);
        assert_str(buf_str(&b), rows[i].want);
        buf_free(&b);
    }
    arena_free(a);
}

static void test_addresses(void **state) {
    (void)state;
    struct rcpt rcpt = { .address = STR("A b@X.Example"), .orig = STR("A b@X.Example") };
    struct delivery_request r = { .env = { .rcpts = &rcpt, .rcpt_count = 1 } };
    static const struct {
        unsigned flags;
        const char *argument, *null_sender, *want;
    } rows[] = {
        { PIPE_QUOTE, "$recipient $user", "", "\"A b\"@X.Example A b" },
        { PIPE_QUOTE | PIPE_FOLD_USER | PIPE_FOLD_DOMAIN, "$original_recipient", "", "\"a b\"@x.example" },
        { PIPE_QUOTE, "<$sender>", "", "<>" },
        { PIPE_QUOTE, "<$sender>", "a b", "<\"a b\">" },
        { 0, "<$sender>", "a b", "<a b>" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str argument = str_c(rows[i].argument);
        struct pipe_attributes p = {
            .flags = rows[i].flags, .null_sender = str_c(rows[i].null_sender), .argv = &argument, .argc = 1
        };
        char **argv;
        assert_null(pipe_arguments(a, &p, &r, (struct extension_rules){ STR(""), true }, &argv));
        assert_string_equal(argv[0], rows[i].want);
    }
    arena_free(a);
}

/* --- form --- */
static void test_form(void **state) {
    (void)state;
    static const struct {
        unsigned flags;
        const char *eol, *in, *want;
    } rows[] = {
        { 0, "\n", "a\n\nb\n", "a\n\nb\n" },
        { 0, "\n", "a", "a\n" },
        { 0, "\n", "", "" },
        { 0, "\r\n", "a\n\nb", "a\r\n\r\nb\r\n" },
        { 0, "", "a\nb\n", "ab" },
        { PIPE_BLANK_LINE, "\r\n", "a", "a\r\n\r\n" },
        { PIPE_BLANK_LINE, "\n", "", "\n" },
        { PIPE_DOT, "\n", ".\n..\na.\n.b", "..\n...\na.\n..b\n" },
        { PIPE_QUOTE_FROM, "\n", "From x\n>From x\n From x\nFrom: x\nFrom \nFrom",
          ">From x\n>From x\n From x\nFrom: x\n>From \nFrom\n" },
        { PIPE_QUOTE_FROM | PIPE_DOT, "\n", ".From \nFrom .\nF\nFro\n.", "..From \n>From .\nF\nFro\n..\n" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str in = str_c(rows[i].in);
        for (size_t step = 1; step <= in.n + 1; step++) {
            struct pipe_attributes p = { .flags = rows[i].flags, .eol = str_c(rows[i].eol) };
            struct pipe_form f = pipe_form_start(&p);
            struct buf b = { 0 };
            for (size_t at = 0; at < in.n; at += step)
                pipe_form_add(&f, &b, str_sub(in, at, step));
            pipe_form_end(&f, &b);
            assert_str(buf_str(&b), rows[i].want);
            buf_free(&b);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attributes), cmocka_unit_test(test_bad_attributes), cmocka_unit_test(test_unescape),
        cmocka_unit_test(test_macros),     cmocka_unit_test(test_addresses),      cmocka_unit_test(test_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
