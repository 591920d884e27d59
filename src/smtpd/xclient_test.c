#include "smtpd/xclient.h"

#include "smtpd/harness.h"
#include "smtpd/session.h"
#include "test/fake_sys.h"
#include "test/test.h"

#define ON                                                                                                             \
    "smtpd_authorized_xclient_hosts = 127.0.0.1\nsmtpd_authorized_xforward_hosts = 127.0.0.1\n"                        \
    "local_header_rewrite_clients = permit_mynetworks\nsmtpd_sasl_auth_enable = yes\n"
#define MESSAGE "> MAIL FROM:<a@b.example>\n< 250\n> RCPT TO:<user@here.example>\n< 250\n> DATA\n< 354\n> .\n< 250\n"

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
    struct harness h;
    play(&h, "",
         "< 220\n> EHLO x\nskip 250-AUTH\n"
         "<| 250-XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT\\r\\n\n"
         "<| 250-XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT\\r\\n\n< 250-ENH\nskip 250 \n> QUIT\n< 221\neof\n");
    end(&h);
    play(&h, "smtpd_authorized_xclient_hosts =\nsmtpd_authorized_xforward_hosts = !127.0.0.1, static:all\n",
         "< 220\n> EHLO x\nskip 250-AUTH\n< 250-ENH\nskip 250 \n> XFORWARD IDENT=x\n< 550\n> QUIT\n< 221\neof\n");
    end(&h);
    /* a table that fails lets nobody in */
    play(&h, "smtpd_authorized_xclient_hosts = fail:x\nsmtpd_authorized_xforward_hosts = fail:x\n",
         "< 220\n> EHLO x\nskip 250-AUTH\n< 250-ENH\nskip 250 \n> XCLIENT NAME=x\n< 550\n> XFORWARD IDENT=x\n< 550\n"
         "> QUIT\n< 221\neof\n");
    end(&h);
}

/* The envelope, which delivery agents pass on, has the client that was named. */
static void test_envelope(void **state) {
    (void)state;
    static const struct {
        const char *before, *client;
        bool local;
    } rows[] = {
        { "", "localhost [127.0.0.1]:4711 ESMTP x  ", false },
        { "> XFORWARD NAME=f.example ADDR=192.0.2.1 PORT=99 HELO=h.example PROTO=SMTP IDENT=QQ\n< 250\n",
          "f.example [192.0.2.1]:99 SMTP h.example QQ ", false },
        { "> XFORWARD ADDR=192.0.2.1\n< 250\n", "unknown [192.0.2.1]:unknown    ", false },
        { "> XFORWARD IDENT=QQ\n< 250\n", "localhost [127.0.0.1]:4711 ESMTP x QQ ", false },
        { "> XFORWARD SOURCE=LOCAL\n< 250\n", "localhost [127.0.0.1]:4711 ESMTP x  ", true },
        { "> XFORWARD SOURCE=LOCAL\n< 250\n> XFORWARD SOURCE=REMOTE\n< 250\n", "localhost [127.0.0.1]:4711 ESMTP x  ",
          false },
        { "> XCLIENT NAME=c.example ADDR=127.0.0.2 PORT=1 LOGIN=joe\n< 220\n> EHLO y\nskip 250 \n",
          "c.example [127.0.0.2]:1 ESMTP y  joe", true },
        { "> AUTH PLAIN Z29vZA==\n< 235\n> XCLIENT ADDR=192.0.2.9\n< 220\n", "localhost [192.0.2.9]:4711 SMTP   ",
          false },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct harness h;
        play(&h, "",
             arena_printf(a, "< 220\n> EHLO x\nskip 250 \n%s" MESSAGE "> QUIT\n< 221\neof\n", rows[i].before).p);
        assert_str(h.messages[0].client, rows[i].client);
        assert_int_equal((h.messages[0].flags & SUBMIT_LOCAL_HEADERS) != 0, rows[i].local);
        end(&h);
    }
    arena_free(a);
}

static void add_long(struct buf *script, const char *command, const char *reply) {
    buf_printf(script, "> %s", command);
    for (int k = 0; k < 250; k++)
        buf_byte(script, 'i');
    buf_printf(script, "\n< %s\n", reply);
}

/* What a front says over and over does not add up. */
static void test_memory(void **state) {
    (void)state;
    struct buf script = { 0 };
    buf_add(&script, STR("< 220\n> EHLO x\nskip 250 \n"));
    for (int i = 0; i < 60; i++)
        add_long(&script, "XFORWARD IDENT=", "250");
    for (int i = 0; i < 20; i++)
        add_long(&script, "XFORWARD IDENT=", "");
    for (int i = 0; i < 20; i++)
        add_long(&script, "XFORWARD IDENT=", "501 5.5.4 Error: too many attributes");
    buf_add(&script, STR("> RSET\n< 250\n> XFORWARD IDENT=x\n< 250\n> QUIT\n< 221\neof\n"));
    struct harness h;
    play(&h, "smtpd_hard_error_limit = 1000\n", script.p);
    end(&h);
    buf_clear(&script);
    buf_add(&script, STR("< 220\n"));
    for (int i = 0; i < 40; i++)
        add_long(&script, "XCLIENT HELO=", "220");
    for (int i = 0; i < 100; i++) {
        buf_add(&script, STR("> XCLIENT HELO="));
        for (int k = 0; k < 250; k++)
            buf_byte(&script, 'h');
        buf_byte(&script, '\n');
    }
    buf_add(&script, STR("skip 421 4.7.0\ndrop\n"));
    play(&h, "smtpd_forbid_unauth_pipelining = no\n", script.p);
    end(&h);
    buf_free(&script);
}

/* Whoever runs `sendmail -bs` names nobody. */
static void test_standard_input(void **state) {
    (void)state;
    struct harness h;
    fake_sys_install();
    harness_begin(&h, ON);
    h.standard_input = true;
    harness_script(&h, "127.0.0.1", "< 220\n> XCLIENT NAME=x\n< 550\n> XFORWARD NAME=x\n< 550\n> QUIT\n< 221\neof\n");
    end(&h);
}

static void test_haproxy(void **state) {
    (void)state;
    struct harness h;
    play(&h, "smtpd_upstream_proxy_protocol = haproxy\n",
         "slow 0.01\n> PROXY TCP6 2001:db8::1 2001:db8::2 1 25\n< 220\n> QUIT\n< 221\neof\n");
    assert_true(harness_logged(&h, "connect from unknown*2001:db8::1*"));
    end(&h);
    play(&h, "smtpd_upstream_proxy_protocol = haproxy\n",
         "quiet 4.9\n< 421 4.3.0 mx.here.example Server local error\neof\n");
    assert_true(harness_logged(&h, "warning: haproxy read: timeout error from localhost*127.0.0.1*"));
    end(&h);
    play(&h, "smtpd_upstream_proxy_protocol = haproxy\n", ">| \\r\\n\\r\\n\\0\nclose\n");
    assert_true(harness_logged(&h, "warning: haproxy read: lost connection from *: ?r?n?r?n?000"));
    end(&h);
    /* standard input has no proxy in front */
    fake_sys_install();
    harness_begin(&h, "smtpd_upstream_proxy_protocol = haproxy\n");
    h.standard_input = true;
    harness_script(&h, "127.0.0.1", "< 220\n> QUIT\n< 221\neof\n");
    end(&h);
}

static void test_settings(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct conf_override at[] = { { STR("smtpd_upstream_proxy_protocol"), STR("foo") } };
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = at,
                                  .override_count = 1,
                                  .process_name = STR("smtpd"),
                                  .service_name = STR("smtp"),
                                  .missing_is_empty = true };
    struct conf *c;
    struct front_settings f;
    assert_null(conf_load(&source, a, &c));
    error e = front_settings_load(c, a, &f);
    assert_non_null(e);
    assert_str(e->text, "unsupported smtpd_upstream_proxy_protocol value: foo");
    front_settings_free(&f);
    conf_free(c);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offered),        cmocka_unit_test(test_envelope), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_standard_input), cmocka_unit_test(test_haproxy),  cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
