#include "test/test.h"

#include "conf/master_cf.h"

#include <stdlib.h>

#include "test/fixture.h"

static error parse(const char *text, struct master_cf *ret) {
    struct str whole = str_c(text);
    char *exact = malloc(whole.n + 1);
    memcpy(exact + 1, whole.p, whole.n); /* ends where the memory ends */
    error e = master_cf_parse((struct str){ exact + 1, whole.n }, STR("master.cf"), false, 100, arena, ret);
    free(exact);
    return e;
}

static struct master_cf parse_good(const char *text) {
    struct master_cf got;
    error e = parse(text, &got);
    if (e)
        fail_msg("%s: %s", text, e->text.p);
    return got;
}

static void columns(void **state) {
    (void)state;
    struct master_cf got = parse_good("# comment\n"
                                      "smtp      inet  n       -       y       -       -       smtpd\n"
                                      "flush\tunix n - y 1000? 0 flush\n"
                                      "local unix - n n - - local\n"
                                      "pickup fifo n - - 60 1 pickup\n"
                                      "postlog unix-dgram n - n - 1 postlogd\n"
                                      "smtpd pass - - n - - smtpd -v -vv\n");
    assert_int_equal(got.count, 6);
    const struct master_entry *e = got.entries;
    assert_str(e[0].name, "smtp");
    assert_int_equal(e[0].type, SERVICE_INET);
    assert_false(e[0].is_private);
    assert_true(e[0].unprivileged);
    assert_true(e[0].chroot);
    assert_int_equal(e[0].wakeup, 0);
    assert_int_equal(e[0].maxproc, 100);
    assert_str(e[0].command, "smtpd");
    assert_int_equal(e[0].line, 2);
    assert_int_equal(e[1].wakeup, 1000);
    assert_true(e[1].wakeup_if_used);
    assert_int_equal(e[1].maxproc, 0);
    assert_false(e[2].unprivileged);
    assert_true(e[2].is_private);
    assert_int_equal(e[3].type, SERVICE_FIFO);
    assert_false(e[3].chroot);
    assert_int_equal(e[3].wakeup, 60);
    assert_false(e[3].wakeup_if_used);
    assert_int_equal(e[4].type, SERVICE_UNIX_DGRAM);
    assert_int_equal(e[5].type, SERVICE_PASS);
    assert_int_equal(e[5].verbose, 3);
    assert_int_equal(e[5].arg_count, 0);
}

static void arguments(void **state) {
    (void)state;
    struct master_cf got = parse_good("relay unix - - y - - smtp\n"
                                      "  -o syslog_name=postfix/$service_name\n"
                                      "# between\n"
                                      "  -o { smtpd_banner = $myhostname ESMTP } -oempty= -v\n"
                                      "  -o a={b}\n"
                                      "x unix - n n - - pipe\n"
                                      "  flags=R user=a argv=/bin/x -o kept=1 -v {one word} {} ${nexthop}\n"
                                      "y unix - n n - - daemon -D -o p=q\n");
    const struct master_entry *e = got.entries;
    assert_int_equal(e[0].override_count, 4);
    assert_str(e[0].overrides[0].name, "syslog_name");
    assert_str(e[0].overrides[0].value, "postfix/$service_name");
    assert_str(e[0].overrides[1].name, "smtpd_banner");
    assert_str(e[0].overrides[1].value, "$myhostname ESMTP");
    assert_str(e[0].overrides[2].name, "empty");
    assert_str(e[0].overrides[2].value, "");
    assert_str(e[0].overrides[3].value, "{b}");
    assert_int_equal(e[0].verbose, 1);
    static const char *const args[] = { "flags=R",  "user=a", "argv=/bin/x", "-o", "kept=1", "-v",
                                        "one word", "",       "${nexthop}" };
    assert_int_equal(e[1].override_count, 0);
    assert_int_equal(e[1].verbose, 0);
    assert_int_equal(e[1].arg_count, sizeof args / sizeof args[0]);
    for (size_t i = 0; i < e[1].arg_count; i++)
        assert_str(e[1].args[i], args[i]);
    assert_int_equal(e[2].override_count, 1);
    assert_int_equal(e[2].arg_count, 1);
}

static const struct {
    const char *text, *error;
} bad[] = {
    { "smtp inet n - y - -\n", "missing \"command\" field" },
    { "smtp\n", "missing \"transport\" field" },
    { "smtp foo n - y - - smtpd\n", "bad transport type: foo" },
    { "foo unix x - y - - smtpd\n", "field \"private\": bad value: \"x\"" },
    { "foo unix Y - y - - smtpd\n", "field \"private\": bad value: \"Y\"" },
    { "foo unix n x y - - smtpd\n", "field \"unprivileged\": bad value: \"x\"" },
    { "foo unix n - z - - smtpd\n", "field \"chroot\": bad value: \"z\"" },
    { "foo unix n - y 10x - smtpd\n", "field \"wakeup_time\": bad value: \"10x\"" },
    { "foo unix n - y 10?? - smtpd\n", "field \"wakeup_time\": bad value: \"10??\"" },
    { "foo unix n - y -? - smtpd\n", "field \"wakeup_time\": bad value: \"-?\"" },
    { "foo unix n - y -1 - smtpd\n", "field \"wakeup_time\": bad value: \"-1\"" },
    { "foo unix n - y - x smtpd\n", "field \"max_proc\": bad value: \"x\"" },
    { "foo unix n - y - -1 smtpd\n", "field \"max_proc\": bad value: \"-1\"" },
    { "foo unix n - y - 100000000000 smtpd\n", "field \"max_proc\": bad value: \"100000000000\"" },
    { "foo unix n - y - - /bin/sh\n", "field \"command\": bad value: \"/bin/sh\"" },
    { "foo unix n - y - - ../sh\n", "field \"command\": bad value: \"../sh\"" },
    { "smtp inet y - y - - smtpd\n", "inet service cannot be private" },
    { "smtp inet - - y - - smtpd\n", "inet service cannot be private" },
    { "foo unix n - y - - smtpd -o { c = d e\n", "missing '}' in \"{ c = d e\"" },
    { "foo unix n - y - - pipe { a b }c\n", "syntax error after '}' in \"{ a b }c\"" },
    { "foo unix n - y - - smtpd -o a\n", "invalid \"-o a\" option value: missing '=' after attribute name" },
    { "foo unix n - y - - smtpd -o =b\n", "invalid \"-o =b\" option value: missing attribute name" },
    { "foo unix n - y - - smtpd -o {}\n", "invalid \"-o \" option value: missing attribute name" },
    { "foo unix n - y - - smtpd -o\n", "option needs a value: \"-o\"" },
    { "{} unix n - y - - smtpd\n", "field \"service\": bad value: \"\"" },
    { "a/b unix n - y - - smtpd\n", NULL },
    { "../b unix n - y - - smtpd\n", NULL },
    /* CF-11 */
    { "25x inet n - y - - smtpd\n", "garbage after numerical service in \"25x\"" },
    { "+25 inet n - y - - smtpd\n", "bad port in \"+25\"" },
    { "-1 inet n - y - - smtpd\n", "bad port in \"-1\"" },
    { "{host: 25} inet n - y - - smtpd\n", "bad port in \"host: 25\"" },
    { "65536 inet n - y - - smtpd\n", "port number out of range in \"65536\"" },
    { "0 inet n - y - - smtpd\n", "port number out of range in \"0\"" },
    { "127.0.0.1: inet n - y - - smtpd\n", "missing port in \"127.0.0.1:\"" },
    { "[::1:25 inet n - y - - smtpd\n", "missing ']' in \"[::1:25\"" },
    { "::1:25 inet n - y - - smtpd\n", "an IPv6 address needs [ ] around it in \"::1:25\"" },
};

static void bad_entries(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct master_cf got;
        error e = parse(bad[i].text, &got);
        if (!e) {
            fail_msg("accepted: %s", bad[i].text);
            return;
        }
        assert_int_equal(e->kind, ERR_CONFIG);
        assert_true(str_starts(e->text, STR("master.cf: line 1: ")));
        if (bad[i].error)
            assert_str(str_from(e->text, 19), bad[i].error);
    }
}

static void inet_names(void **state) {
    (void)state;
    static const struct {
        const char *name, *host, *port;
    } cases[] = { { "smtp", "", "smtp" },
                  { "25", "", "25" },
                  { ":25", "", "25" },
                  { "127.0.0.1:10025", "127.0.0.1", "10025" },
                  { "mail.example.com:submission", "mail.example.com", "submission" },
                  { "[::1]:smtps", "::1", "smtps" },
                  { "[127.0.0.1]:65535", "127.0.0.1", "65535" } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str host, port;
        assert_null(inet_service_split(str_c(cases[i].name), &host, &port));
        assert_str(host, cases[i].host);
        assert_str(port, cases[i].port);
    }
}

static void duplicates(void **state) {
    (void)state;
    struct master_cf got = parse_good("  stray inet n - y - - smtpd\n"
                                      "foo unix - - y - - smtp\n"
                                      "bar unix - - y - - smtp\n"
                                      "foo unix - - y - 7 lmtp\n"
                                      "foo unix n - y - - lmtp\n"
                                      "foo fifo - - y - - pickup\n");
    assert_int_equal(got.count, 4);
    assert_str(got.entries[0].command, "lmtp");
    assert_int_equal(got.entries[0].maxproc, 7);
    assert_int_equal(got.warning_count, 2);
    assert_str(got.warnings[0],
               "master.cf: logical line must not start with whitespace: \"  stray inet n - y - - smtpd\"");
    assert_str(got.warnings[1], "duplicate master.cf entry for service \"foo\" (private/foo) -- using the last entry");
}

/* The services that stock files of Postfix 3.12 and of Debian have, commented-out ones included. */
static const char stock[] =
    "smtp inet n - y - - smtpd\n"
    "smtp inet n - n - 1 postscreen\n"
    "smtpd pass - - n - - smtpd\n"
    "dnsblog unix - - n - 0 dnsblog\n"
    "tlsproxy unix - - n - 0 tlsproxy\n"
    "127.0.0.1:submission inet n - n - - smtpd\n"
    "submission inet n - y - - smtpd\n"
    "  -o syslog_name=postfix/submission\n"
    "  -o smtpd_forbid_unauth_pipelining=no\n"
    "  -o smtpd_tls_security_level=encrypt\n"
    "  -o smtpd_sasl_auth_enable=yes\n"
    "  -o smtpd_tls_auth_only=yes\n"
    "  -o local_header_rewrite_clients=static:all\n"
    "  -o smtpd_reject_unlisted_recipient=no\n"
    "  -o smtpd_hide_client_session=yes\n"
    "  -o smtpd_client_restrictions=\n"
    "  -o smtpd_helo_restrictions=\n"
    "  -o smtpd_sender_restrictions=\n"
    "  -o smtpd_relay_restrictions=\n"
    "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n"
    "  -o milter_macro_daemon_name=ORIGINATING\n"
    "submissions     inet  n       -       y       -       -       smtpd\n"
    "  -o smtpd_tls_wrappermode=yes\n"
    "628       inet  n       -       n       -       -       qmqpd\n"
    "pickup    unix  n       -       n       60      1       pickup\n"
    "cleanup   unix  n       -       n       -       0       cleanup\n"
    "qmgr      unix  n       -       n       300     1       qmgr\n"
    "qmgr     unix  n       -       n       300     1       oqmgr\n"
    "tlsmgr    unix  -       -       n       1000?   1       tlsmgr\n"
    "rewrite   unix  -       -       n       -       -       trivial-rewrite\n"
    "bounce    unix  -       -       n       -       0       bounce\n"
    "defer     unix  -       -       n       -       0       bounce\n"
    "trace     unix  -       -       n       -       0       bounce\n"
    "verify    unix  -       -       n       -       1       verify\n"
    "flush     unix  n       -       n       1000?   0       flush\n"
    "proxymap  unix  -       -       n       -       -       proxymap\n"
    "proxywrite unix -       -       n       -       1       proxymap\n"
    "smtp      unix  -       -       n       -       -       smtp\n"
    "relay     unix  -       -       n       -       -       smtp\n"
    "        -o syslog_name=${multi_instance_name?{$multi_instance_name}:{postfix}}/$service_name\n"
    "  -o smtp_helo_timeout=5 -o smtp_connect_timeout=5\n"
    "showq     unix  n       -       n       -       -       showq\n"
    "error     unix  -       -       n       -       -       error\n"
    "retry     unix  -       -       n       -       -       error\n"
    "discard   unix  -       -       n       -       -       discard\n"
    "local     unix  -       n       n       -       -       local\n"
    "virtual   unix  -       n       n       -       -       virtual\n"
    "lmtp      unix  -       -       n       -       -       lmtp\n"
    "anvil     unix  -       -       n       -       1       anvil\n"
    "scache    unix  -       -       n       -       1       scache\n"
    "postlog   unix-dgram n  -       n       -       1       postlogd\n"
    "nbdb_reindex unix - - n - 0 nbdb_reindexd\n"
    "maildrop  unix  -       n       n       -       -       pipe\n"
    "  flags=DRXhu user=vmail argv=/usr/local/bin/maildrop -d ${recipient}\n"
    "cyrus     unix  -       n       n       -       10      pipe\n"
    "  flags=DRX user=cyrus argv=/cyrus/bin/deliver -e -r ${sender} -m ${extension} ${user}\n"
    "old-cyrus unix  -       n       n       -       -       pipe\n"
    "  flags=R user=cyrus argv=/cyrus/bin/deliver -e -m ${extension} ${user}\n"
    "uucp      unix  -       n       n       -       -       pipe\n"
    "  flags=Fqhu user=uucp argv=uux -r -n -z -a$sender - $nexthop!rmail ($recipient)\n"
    "ifmail    unix  -       n       n       -       -       pipe\n"
    "  flags=F user=ftn argv=/usr/lib/ifmail/ifmail -r $nexthop ($recipient)\n"
    "bsmtp     unix  -       n       n       -       -       pipe\n"
    "  flags=Fq. user=bsmtp argv=/usr/lib/bsmtp/bsmtp -t$nexthop -f$sender $recipient\n"
    "scalemail-backend unix -       n       n       -       2       pipe\n"
    "  flags=R user=scalemail argv=/usr/lib/scalemail/bin/scalemail-store ${nexthop} ${user} "
    "${extension}\n"
    "mailman   unix  -       n       n       -       -       pipe\n"
    "  flags=FRX user=list argv=/usr/lib/mailman/bin/postfix-to-mailman.py ${nexthop} ${user}\n";

static void stock_services(void **state) {
    (void)state;
    struct master_cf got = parse_good(stock);
    assert_int_equal(got.count, 41); /* smtp and qmgr are there twice */
    const struct master_entry *uucp = NULL;
    for (size_t i = 0; i < got.count; i++)
        if (str_eq(got.entries[i].name, STR("uucp")))
            uucp = &got.entries[i];
    if (!uucp) {
        fail_msg("no uucp");
        return;
    }
    assert_int_equal(uucp->arg_count, 10);
    assert_str(uucp->args[9], "($recipient)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns),    cmocka_unit_test(arguments),  cmocka_unit_test(bad_entries),
        cmocka_unit_test(inet_names), cmocka_unit_test(duplicates), cmocka_unit_test(stock_services),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
