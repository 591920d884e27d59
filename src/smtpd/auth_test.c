#include "smtpd/auth.h"

#include "smtpd/harness.h"
#include "test/fake_sys.h"
#include "test/test.h"

#define ON "smtpd_sasl_auth_enable = yes\n"

static void play(struct harness *h, const char *options, const char *script) {
    struct arena *a = arena_new();
    fake_sys_install();
    harness_begin(h, arena_cat(a, STR(ON), str_c(options)).p);
    harness_script(h, "127.0.0.1", script);
    arena_free(a);
}

static void end(struct harness *h) {
    harness_end(h);
    fake_sys_remove();
}

static void test_offered(void **state) {
    (void)state;
    static const struct {
        const char *options, *first, *second; /* NULL: not there */
    } rows[] = {
        { "", "250-AUTH PLAIN LOGIN CRAM-MD5 XMUT", NULL },
        { "broken_sasl_auth_clients = yes\n", "250-AUTH PLAIN LOGIN CRAM-MD5 XMUT",
          "250-AUTH=PLAIN LOGIN CRAM-MD5 XMUT" },
        { "smtpd_sasl_security_options =\n", "250-AUTH PLAIN LOGIN CRAM-MD5 ANONYMOUS XMUT", NULL },
        { "smtpd_sasl_security_options = noplaintext, noanonymous\n", "250-AUTH CRAM-MD5 XMUT", NULL },
        { "smtpd_sasl_security_options = mutual_auth\n", "250-AUTH XMUT", NULL },
        { "smtpd_sasl_security_options = forward_secrecy\n", "250-AUTH XMUT", NULL },
        { "smtpd_sasl_security_options = noactive, nodictionary, noanonymous\n", "250-AUTH PLAIN LOGIN XMUT", NULL },
        { "smtpd_sasl_tls_security_options = noplaintext\n", "250-AUTH PLAIN LOGIN CRAM-MD5 XMUT", NULL },
        { "smtpd_sasl_mechanism_filter = plain, cram-md5\n", "250-AUTH PLAIN CRAM-MD5", NULL },
        { "smtpd_sasl_mechanism_filter = !login, static:rest\n", "250-AUTH PLAIN CRAM-MD5 XMUT", NULL },
        { "smtpd_sasl_mechanism_filter = nosuch\n", NULL, NULL },
        { "smtpd_sasl_mechanism_filter = fail:x, plain\n", NULL, NULL },
        { "smtpd_sasl_mechanism_filter =\n", "250-AUTH PLAIN LOGIN CRAM-MD5 XMUT", NULL },
        { "smtpd_sasl_exceptions_networks = 127.0.0.0/8\nbroken_sasl_auth_clients = yes\n", NULL, NULL },
        { "smtpd_sasl_exceptions_networks = !127.0.0.1, 127.0.0.0/8\n", "250-AUTH PLAIN LOGIN CRAM-MD5 XMUT", NULL },
        { "smtpd_tls_auth_only = yes\n", NULL, NULL },
        { "smtpd_discard_ehlo_keywords = auth\nbroken_sasl_auth_clients = yes\n", NULL, NULL },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct harness h;
        struct str script = arena_printf(a,
                                         "< 220\n> EHLO x\n< 250-\n< 250-PIPELINING\n< 250-SIZE\n< 250-VRFY\n< "
                                         "250-ETRN\n%s%s%s%s%s< 250-ENH\nskip 250 \n"
                                         "> QUIT\n< 221\neof\n",
                                         rows[i].first ? "<| " : "", rows[i].first ? rows[i].first : "",
                                         rows[i].first ? "\\r\\n\n" : "", rows[i].second ? "< " : "",
                                         rows[i].second ? rows[i].second : "");
        if (rows[i].second)
            script = arena_printf(
                a, "< 220\n> EHLO x\nskip 250-AUTH PLAIN\n< %s\n< 250-ENH\nskip 250 \n> QUIT\n< 221\neof\n",
                rows[i].second);
        play(&h, rows[i].options, script.p);
        end(&h);
    }
    arena_free(a);
}

/* `n` bytes of base64 as one line; `more` follows. */
static struct str long_line(struct arena *a, const char *before, size_t n, const char *more) {
    struct buf b = { 0 };
    buf_add(&b, str_c(before));
    for (size_t i = 0; i < n; i++)
        buf_byte(&b, 'S');
    buf_add(&b, str_c(more));
    struct str r = arena_str(a, buf_str(&b));
    buf_free(&b);
    return r;
}

static void test_limits(void **state) {
    (void)state;
    struct arena *a = arena_new();
    static const struct {
        size_t n;
        const char *reply;
    } rows[] = { { 12284, "535 5.7.8" }, { 12288, "500 5.5.6 SASL response limit exceeded" }, { 60000, "500 5.5.6" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct harness h;
        play(&h, "",
             long_line(a, "< 220\n> EHLO x\n<< 250\n> AUTH LOGIN\n< 334\n> ", rows[i].n,
                       arena_printf(a, "\n< %s\n> NOOP\n< 250\n> QUIT\n< 221\neof\n", rows[i].reply).p)
                 .p);
        assert_false(harness_logged(&h, "*SSSS*")); /* nothing of it in the log */
        if (i > 0)
            assert_true(harness_logged(&h, "*localhost*127.0.0.1*: SASL response longer than 12288"));
        end(&h);
    }
    /* more than anybody would read: the session ends */
    struct harness h;
    play(&h, "", long_line(a, "< 220\n> EHLO x\n<< 250\n> AUTH LOGIN\n< 334\n> ", 200000, "\n< 500\ndrop\n").p);
    end(&h);
    /* an initial response that does not fit into a command line is not cut */
    play(&h, "", long_line(a, "< 220\n> EHLO x\n<< 250\n> AUTH PLAIN ", 4096, "\n< 500 5.5.6\n> QUIT\n< 221\neof\n").p);
    assert_false(harness_logged(&h, "*SSSS*"));
    assert_true(harness_logged(&h, "*request longer than 2048: AUTH..."));
    end(&h);
    arena_free(a);
}

/* What is sent with AUTH instead of after it may be a password. */
static void test_pipelined(void **state) {
    (void)state;
    struct harness h;
    play(&h, "",
         "< 220\n> EHLO x\n<< 250\n>| AUTH LOGIN\\r\\nc2VjcmV0\\r\\n\n< 554 5.5.0 Error: SMTP protocol "
         "synchronization\neof\n");
    assert_true(harness_logged(&h, "improper command pipelining after AUTH from *: (not shown)"));
    assert_false(harness_logged(&h, "*c2VjcmV0*"));
    end(&h);
}

static void test_gone(void **state) {
    (void)state;
    struct harness h;
    play(&h, "", "< 220\n> EHLO x\n<< 250\n> AUTH LOGIN\n< 334\nclose\n");
    assert_true(harness_logged(&h, "*lost connection after AUTH from *"));
    end(&h);
    play(&h, "", "< 220\n> EHLO x\n<< 250\n> AUTH LOGIN\n< 334\nwait 400\n< 421 4.4.2\neof\n");
    assert_true(harness_logged(&h, "*timeout after AUTH from *"));
    end(&h);
}

static void test_message(void **state) {
    (void)state;
    static const struct {
        const char *options, *word, *received;
    } rows[] = {
        { "", "Z29vZA==", "Received: from x (localhost [127.0.0.1])\n\tby mx.here.example (Angarium) with ESMTPA id " },
        { "smtpd_sasl_authenticated_header = yes\n", "Z29vZA==",
          "Received: from x (localhost [127.0.0.1])\n\t(Authenticated sender: joe)\n\tby mx.here.example (Angarium) "
          "with "
          "ESMTPA id " },
        { "smtpd_sasl_authenticated_header = yes\n", "bWFzaw==",
          "Received: from x (localhost [127.0.0.1])\n\t(Authenticated sender: a?b??c)\n\tby mx.here.example" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct harness h;
        struct str script =
            arena_printf(a,
                         "< 220\n> EHLO x\n<< 250\n> AUTH PLAIN %s\n< 235\n> MAIL FROM:<a@b.example> AUTH=q\n"
                         "< 250\n> RCPT TO:<user@here.example>\n< 250\n> DATA\n< 354\n> .\n< 250\n"
                         "> MAIL FROM:<>\n< 250\n> RCPT TO:<nobody@here.example>\n< 550\n> QUIT\n< 221\neof\n",
                         rows[i].word);
        play(&h, rows[i].options, script.p);
        struct str content = buf_str(&h.messages[0].content);
        if (!str_starts(content, str_c(rows[i].received)))
            fail_msg("%.*s", STR_ARG(content));
        if (i == 0) {
            assert_true(harness_logged(&h, "*: client=*, sasl_method=PLAIN, sasl_username=joe, sasl_sender=q"));
            /* AUTH= was of the message before */
            assert_true(harness_logged(
                &h, "NOQUEUE: reject: RCPT from *; from=<> to=<nobody@here.example> proto=ESMTP helo=<x> "
                    "sasl_method=PLAIN sasl_username=joe"));
        }
        end(&h);
    }
    arena_free(a);
}

static void test_settings(void **state) {
    (void)state;
    struct arena *a = arena_new();
    static const char *const names[] = { "smtpd_sasl_security_options", "smtpd_sasl_tls_security_options" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct conf_override at[] = { { STR("smtpd_sasl_auth_enable"), STR("yes") },
                                      { str_c(names[i]), STR("noplaintext, foo") } };
        struct conf_source source = { .config_directory = STR("/nonexistent"),
                                      .overrides = at,
                                      .override_count = 2,
                                      .process_name = STR("smtpd"),
                                      .service_name = STR("smtp"),
                                      .missing_is_empty = true };
        struct conf *c;
        struct auth_settings s;
        assert_null(conf_load(&source, a, &c));
        error e = auth_settings_load(c, a, &s);
        assert_non_null(e);
        assert_str(e->text, arena_printf(a, "unknown %s value \"foo\" in \"noplaintext, foo\"", names[i]).p);
        auth_settings_free(&s);
        conf_free(c);
    }
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offered), cmocka_unit_test(test_limits),  cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_gone),    cmocka_unit_test(test_message), cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
