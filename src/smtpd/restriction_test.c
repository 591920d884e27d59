/* restriction_test.c - each row of the table of restrictions, alone: what it does, and that without it the same session
 * goes another way. A row without a case here fails. */
#include "test/test.h"

#include "smtpd/dnsbl.h"
#include "smtpd/harness.h"
#include "smtpd/restriction.h"
#include "test/fake_sys.h"
#include <stdio.h>
#include <stdlib.h>

static const char zone[] = "1.2.0.192.rbl.example A 127.0.0.2\n"
                           "1.2.0.192.rbl.example TXT no such luck\n"
                           "client.example.rhsbl.example A 127.0.0.5\n"
                           "liar.example.rhsbl.example A 127.0.0.5\n"
                           "helo.example.rhsbl.example A 127.0.0.5\n"
                           "there.example.rhsbl.example A 127.0.0.5\n"
                           "here.example.rhsbl.example A 127.0.0.5\n"
                           "1.2.0.192.dead.example A !\n"
                           "broken.example MX !\n"
                           "broken.example A !\n"
                           "broken.example AAAA !\n"
                           "null.example MX 0 .\n"
                           "there.example MX 10 mx.spam.example\n"
                           "there.example NS ns.spam.example\n"
                           "there.example A 198.51.100.7\n"
                           "client.example MX 10 mx.spam.example\n"
                           "client.example NS ns.spam.example\n"
                           "client.example A 198.51.100.7\n"
                           "liar.example MX 10 mx.spam.example\n"
                           "liar.example NS ns.spam.example\n"
                           "liar.example A 198.51.100.7\n"
                           "sub.helo.example A 198.51.100.7\n"
                           "helo.example MX 10 mx.spam.example\n"
                           "helo.example NS ns.spam.example\n"
                           "helo.example A 198.51.100.7\n"
                           "here.example MX 10 mx.spam.example\n"
                           "here.example NS ns.spam.example\n"
                           "here.example A 198.51.100.7\n"
                           "backup.example MX 10 primary.example\n"
                           "backup.example MX 20 mx.here.example\n"
                           "primary.example A 198.51.100.9\n"
                           "mx.here.example A 127.0.0.1\n"
                           "mx.spam.example A 198.51.100.7\n"
                           "ns.spam.example A 198.51.100.7\n";

enum stage { RCPT, DATA };
enum { SENDERS = 3 * DNS_CACHE_MAX };
struct given { /* what the session has; the first of each is the usual */
    const char *client, *helo, *sender, *rcpt, *options;
    const char *server;               /* script of a policy server */
    struct verify_answer verified[2]; /* the second stays */
    enum stage stage;
    struct tls_facts tls;
    struct session_login login;
};

/* `with` is the reply when the list is `list`, `without` when the row is taken out of it. */
struct row_case {
    const char *row, *list, *with, *without;
    struct given given;
};

#define REFUSES(row, argument, reply, ...)                                                                             \
    {                                                                                                                  \
        row, row argument, reply, "250 2.1.5 Ok", {                                                                    \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define PERMITS(row, argument, ...)                                                                                    \
    {                                                                                                                  \
        row, row argument ", reject", "250 2.1.5 Ok", "554 5.7.1 <*>: Recipient address rejected: Access denied", {    \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define BLOCKED(class, what, list) "554 5.7.1 Service unavailable; " class " [" what "] blocked using " list
#define CERT                                                                                                           \
    .tls = { .active = true,                                                                                           \
             .trusted = true,                                                                                          \
             .requested_cert = true,                                                                                   \
             .subject = STR_INIT("c"),                                                                                 \
             .cert_print = STR_INIT("AA:BB"),                                                                          \
             .key_print = STR_INIT("CC:DD") }
#define LOGIN .login = { .method = STR_INIT("PLAIN"), .username = STR_INIT("joe"), .sender = STR_INIT("") }
#define OWNED .options = "smtpd_sender_login_maps = inline:{ {a@there.example = ann} }\n"
#define SERVER_IP " inline:{ {198.51.100.7 = REJECT spam} }"
#define SERVER_MX " inline:{ {mx.spam.example = REJECT spam} }"
#define SERVER_NS " inline:{ {ns.spam.example = REJECT spam} }"
#define SPAM(class, what) "554 5.7.1 <" what ">: " class " rejected: spam"

static const struct row_case cases[] = {
    PERMITS("permit", ""),
    REFUSES("reject", "", "554 5.7.1 <user@here.example>: Recipient address rejected: Access denied"),
    REFUSES("defer", "", "450 4.3.2 <user@here.example>: Recipient address rejected: Try again later"),
    { "warn_if_reject", "warn_if_reject reject", "250 2.1.5 Ok", "554 5.7.1 *", { 0 } },
    REFUSES("defer_if_permit", "",
            "450 4.7.0 <user@here.example>: Recipient address rejected: defer_if_permit requested"),
    { "defer_if_reject",
      "defer_if_reject, reject",
      "450 4.7.0 <user@here.example>: Recipient address rejected: defer_if_reject requested",
      "554 5.7.1 *",
      { 0 } },
    { "sleep", "sleep 7", "250 2.1.5 Ok", NULL, { 0 } }, /* its time: test_sleep() */

    PERMITS("permit_mynetworks", "", .client = "127.0.0.2"),
    PERMITS("permit_inet_interfaces", "", .client = "127.0.0.1"),
    PERMITS("permit_sasl_authenticated", "", LOGIN),
    PERMITS("permit_tls_clientcerts", "", .options = "relay_clientcerts = inline:{ CC:DD=yes }\n", CERT),
    PERMITS("permit_tls_all_clientcerts", "", CERT),
    { "reject_unauth_pipelining", NULL, NULL, NULL, { 0 } }, /* tests/dialogues/pipelining_restriction.dialogue */
    REFUSES("reject_plaintext_session", "", "450 4.7.1 Session encryption is required"),
    REFUSES("reject_unknown_client_hostname", "",
            "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.2]", .client = "192.0.2.2"),
    REFUSES("reject_unknown_client", "", "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.2]",
            .client = "192.0.2.2"),
    REFUSES("reject_unknown_reverse_client_hostname", "",
            "450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.9]", .client = "192.0.2.9"),

    REFUSES("check_policy_service", " unix:p", "450 4.2.0 <user@here.example>: Recipient address rejected: greylisted",
            .server = "lf\nskip mail_version=\n< \n>| action=450 4.2.0 greylisted\\n\\n\ndrop\n"),

    REFUSES("check_client_access", " inline:{ {192.0.2 = REJECT spam} }",
            SPAM("Client host", "client.example[192.0.2.1]")),
    REFUSES("check_reverse_client_hostname_access", " inline:{ {liar.example = REJECT spam} }",
            SPAM("Unverified Client host", "liar.example"), .client = "192.0.2.2"),
    REFUSES("check_ccert_access", " inline:{ {AA:BB = REJECT spam} }", SPAM("Client certificate", "c"), CERT),
    REFUSES("check_sasl_access", " inline:{ {joe = REJECT spam} }", SPAM("SASL login name", "joe"), LOGIN),
    REFUSES("check_helo_access", " inline:{ {helo.example = REJECT spam} }", SPAM("Helo command", "helo.example")),
    REFUSES("check_sender_access", " inline:{ {a@ = REJECT spam} }", SPAM("Sender address", "a@there.example")),
    REFUSES("check_recipient_access", " inline:{ {user@ = REJECT spam} }",
            SPAM("Recipient address", "user@here.example")),
    { "check_etrn_access", NULL, NULL, NULL, { 0 } }, /* tests/dialogues/etrn_access.dialogue */

    REFUSES("check_client_a_access", SERVER_IP, SPAM("Client host", "client.example[192.0.2.1]")),
    REFUSES("check_client_mx_access", SERVER_MX, SPAM("Client host", "client.example[192.0.2.1]")),
    REFUSES("check_client_ns_access", SERVER_NS, SPAM("Client host", "client.example[192.0.2.1]")),
    REFUSES("check_reverse_client_hostname_a_access", SERVER_IP, SPAM("Unverified Client host", "liar.example"),
            .client = "192.0.2.2"),
    REFUSES("check_reverse_client_hostname_mx_access", SERVER_MX, SPAM("Unverified Client host", "liar.example"),
            .client = "192.0.2.2"),
    REFUSES("check_reverse_client_hostname_ns_access", SERVER_NS, SPAM("Unverified Client host", "liar.example"),
            .client = "192.0.2.2"),
    REFUSES("check_helo_a_access", SERVER_IP, SPAM("Helo command", "helo.example")),
    REFUSES("check_helo_mx_access", SERVER_IP, SPAM("Helo command", "helo.example")),
    REFUSES("check_helo_ns_access", SERVER_IP, SPAM("Helo command", "sub.helo.example"), .helo = "sub.helo.example"),
    REFUSES("check_sender_a_access", SERVER_IP, SPAM("Sender address", "a@there.example")),
    REFUSES("check_sender_mx_access", SERVER_MX, SPAM("Sender address", "a@there.example")),
    REFUSES("check_sender_ns_access", SERVER_NS, SPAM("Sender address", "a@there.example")),
    REFUSES("check_recipient_a_access", SERVER_IP, SPAM("Recipient address", "user@here.example")),
    REFUSES("check_recipient_mx_access", SERVER_MX, SPAM("Recipient address", "user@here.example")),
    REFUSES("check_recipient_ns_access", SERVER_NS, SPAM("Recipient address", "user@here.example")),

    REFUSES("reject_rbl_client", " rbl.example=127.0.0.[1;2..4]",
            BLOCKED("Client host", "192.0.2.1", "rbl.example; no such luck")),
    REFUSES("reject_rbl", " rbl.example", BLOCKED("Client host", "192.0.2.1", "rbl.example; no such luck")),
    REFUSES("reject_rhsbl_client", " rhsbl.example", BLOCKED("Client host", "client.example", "rhsbl.example")),
    REFUSES("reject_rhsbl_reverse_client", " rhsbl.example",
            BLOCKED("Unverified Client host", "liar.example", "rhsbl.example"), .client = "192.0.2.2"),
    REFUSES("reject_rhsbl_helo", " rhsbl.example", BLOCKED("Helo command", "helo.example", "rhsbl.example")),
    REFUSES("reject_rhsbl_sender", " rhsbl.example", BLOCKED("Sender address", "a@there.example", "rhsbl.example")),
    REFUSES("reject_rhsbl_recipient", " rhsbl.example",
            BLOCKED("Recipient address", "user@here.example", "rhsbl.example")),
    PERMITS("permit_dnswl_client", " rbl.example"),
    PERMITS("permit_rhswl_client", " rhsbl.example"),

    REFUSES("reject_non_fqdn_helo_hostname", "", "504 5.5.2 <x>: Helo command rejected: need fully-qualified hostname",
            .helo = "x"),
    REFUSES("reject_non_fqdn_hostname", "", "504 5.5.2 <x>: Helo command rejected: need fully-qualified hostname",
            .helo = "x"),
    REFUSES("reject_invalid_helo_hostname", "", "501 5.5.2 <a..b>: Helo command rejected: Invalid name",
            .helo = "a..b"),
    REFUSES("reject_invalid_hostname", "", "501 5.5.2 <a..b>: Helo command rejected: Invalid name", .helo = "a..b"),
    REFUSES("reject_unknown_helo_hostname", "", "450 4.7.1 <gone.helo>: Helo command rejected: Host not found",
            .helo = "gone.helo"),
    REFUSES("reject_unknown_hostname", "", "450 4.7.1 <gone.helo>: Helo command rejected: Host not found",
            .helo = "gone.helo"),

    REFUSES("reject_non_fqdn_sender", "", "504 5.5.2 <a@b>: Sender address rejected: need fully-qualified address",
            .sender = "a@b"),
    REFUSES("reject_non_fqdn_recipient", "",
            "504 5.5.2 <user@localhost>: Recipient address rejected: need fully-qualified address",
            .rcpt = "user@localhost"),
    REFUSES("reject_unknown_sender_domain", "", "450 4.1.8 <a@x.gone>: Sender address rejected: Domain not found",
            .sender = "a@x.gone"),
    REFUSES("reject_unknown_address", "", "450 4.1.8 <a@x.gone>: Sender address rejected: Domain not found",
            .sender = "a@x.gone"),
    REFUSES("reject_unknown_recipient_domain", "",
            "450 4.1.2 <ok@relay.example>: Recipient address rejected: Domain not found", .rcpt = "ok@relay.example"),
    REFUSES("reject_unlisted_sender", "",
            "550 5.1.0 <no@here.example>: Sender address rejected: User unknown in local recipient table",
            .sender = "no@here.example"),
    REFUSES("reject_unlisted_recipient", "",
            "550 5.1.1 <no@here.example>: Recipient address rejected: User unknown in local recipient table",
            .rcpt = "no@here.example", .options = "smtpd_reject_unlisted_recipient = no\n"),
    REFUSES("check_recipient_maps", "",
            "550 5.1.1 <no@here.example>: Recipient address rejected: User unknown in local recipient table",
            .rcpt = "no@here.example", .options = "smtpd_reject_unlisted_recipient = no\n"),
    REFUSES("reject_unverified_sender", "",
            "450 4.1.7 <a@there.example>: Sender address rejected: undeliverable address: host x said: 550 no",
            .verified = { { VERIFY_TODO, STR_INIT("wait") }, { VERIFY_BOUNCE, STR_INIT("host x said: 550 no") } }),
    REFUSES("reject_unverified_recipient", "",
            "550 5.1.1 <user@here.example>: Recipient address rejected: undeliverable address: gone",
            .options = "unverified_recipient_reject_code = 550\nunverified_recipient_reject_reason = gone\n",
            .verified = { { VERIFY_BOUNCE, STR_INIT("x") } }),
    REFUSES("reject_sender_login_mismatch", "", "553 5.7.1 <a@there.example>: Sender address rejected: not logged in",
            OWNED),
    REFUSES("reject_authenticated_sender_login_mismatch", "",
            "553 5.7.1 <a@there.example>: Sender address rejected: not owned by user joe", OWNED, LOGIN),
    REFUSES("reject_known_sender_login_mismatch", "",
            "553 5.7.1 <a@there.example>: Sender address rejected: not owned by user joe", OWNED, LOGIN),
    REFUSES("reject_unauthenticated_sender_login_mismatch", "",
            "553 5.7.1 <a@there.example>: Sender address rejected: not logged in", OWNED),
    { "reject_multi_recipient_bounce",
      "reject_multi_recipient_bounce",
      "550 5.5.3 <DATA>: Data command rejected: Multi-recipient bounce",
      "354 *",
      { .sender = "", .stage = DATA } },

    PERMITS("permit_auth_destination", ""),
    { "reject_unauth_destination",
      "reject_unauth_destination",
      "554 5.7.1 <x@out.example>: Relay access denied",
      "250 *",
      { .rcpt = "x@out.example", .client = "127.0.0.2" } },
    { "defer_unauth_destination",
      "defer_unauth_destination",
      "454 4.7.1 <x@out.example>: Relay access denied",
      "250 *",
      { .rcpt = "x@out.example", .client = "127.0.0.2" } },
    PERMITS("permit_mx_backup", "", .rcpt = "x@backup.example", .client = "127.0.0.2"),

    REFUSES("check_relay_domains", "", "451 4.3.5 Server configuration error"),
    REFUSES("permit_naked_ip_address", "", "451 4.3.5 Server configuration error"),
    REFUSES("reject_maps_rbl", "", "451 4.3.5 Server configuration error"),
};
enum { CASES = sizeof cases / sizeof *cases };

static struct harness h;

static int set_up(void **state) {
    (void)state;
    fake_sys_install();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    harness_end(&h);
    fake_sys_remove();
    return 0;
}

#define assert_logged(pattern)                                                                                         \
    do {                                                                                                               \
        if (!harness_logged(&h, pattern))                                                                              \
            fail_msg("no record like \"%s\" in\n%s", pattern, h.log.p);                                                \
    } while (0)

static const char *or_usual(const char *given, const char *usual) {
    return given ? given : usual;
}

/* One session up to the stage, whose reply is `expect`. */
static void play(const struct given *g, const char *list, const char *expect) {
    struct buf options = { 0 }, script = { 0 };
    buf_printf(&options, "%s%s = %s\n", or_usual(g->options, ""),
               g->stage == DATA ? "smtpd_data_restrictions" : "smtpd_recipient_restrictions", list);
    harness_begin(&h, options.p);
    const char *const servers[] = { g->server, NULL };
    h.servers = servers;
    h.verified[0] = g->verified[0];
    for (size_t i = 1; i < sizeof h.verified / sizeof *h.verified; i++)
        h.verified[i] = g->verified[1].text.p ? g->verified[1] : g->verified[0];
    h.zone = zone;
    h.tls = g->tls;
    h.login = g->login;
    buf_printf(&script, "< 220 *\n> EHLO %s\n<< 250\n> MAIL FROM:<%s>\n<< 250\n", or_usual(g->helo, "helo.example"),
               or_usual(g->sender, "a@there.example"));
    if (g->stage == DATA)
        buf_printf(&script,
                   "> RCPT TO:<user@here.example>\n<< 250\n> RCPT TO:<user2@here.example>\n<< 250\n"
                   "> DATA\n< %s\ndrop\n",
                   expect);
    else
        buf_printf(&script, "> RCPT TO:<%s>\n< %s\n> QUIT\n<< 221\neof\n", or_usual(g->rcpt, "user@here.example"),
                   expect);
    harness_script(&h, or_usual(g->client, "192.0.2.1"), script.p);
    buf_free(&options);
    buf_free(&script);
}

static void test_row(void **state) {
    const struct row_case *c = *state;
    play(&c->given, c->list, c->with);
    if (!c->without)
        return;
    harness_end(&h);
    /* what stands behind the row and its argument */
    struct str rest = str_c(c->list), word;
    assert_true(str_word_braced(&rest, STR_COMMA_SPACE, &word));
    bool argument = false;
    for (size_t i = 0; i < restriction_row_count; i++)
        argument = argument || (str_eq(restriction_rows[i].name, word) && restriction_rows[i].argument != ARG_NONE);
    if (argument)
        assert_true(str_word_braced(&rest, STR_COMMA_SPACE, &word));
    struct buf b = { 0 };
    buf_add(&b, rest);
    play(&c->given, b.p ? b.p : "", c->without);
    buf_free(&b);
}

static void test_every_row_has_a_case(void **state) {
    (void)state;
    for (size_t i = 0; i < restriction_row_count; i++) {
        bool found = false;
        for (size_t k = 0; k < CASES; k++)
            found = found || str_eq(str_c(cases[k].row), restriction_rows[i].name);
        if (!found)
            fail_msg("%.*s has no case", STR_ARG(restriction_rows[i].name));
    }
}

/* --- more of some of them --- */
static void test_sleep(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_recipient_restrictions = sleep 7");
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> EHLO x\n<< 250\n> MAIL FROM:<a@b>\n<< 250\n> RCPT TO:<user@here.example>\nquiet 6.9\n"
                   "< 250 *\n> QUIT\n<< 221\neof\n");
}

static const struct row_case more[] = {
    /* lists */
    { "classes",
      "strict",
      "504 5.5.2 <x>: Helo command rejected: need fully-qualified hostname",
      NULL,
      { .helo = "x",
        .options = "smtpd_restriction_classes = strict, inner\nstrict = permit_inet_interfaces, inner, reject\n"
                   "inner = reject_non_fqdn_helo_hostname\n" } },
    { "a class permits for all",
      "strict, reject",
      "250 2.1.5 Ok",
      NULL,
      { .options = "smtpd_restriction_classes = strict\nstrict = permit\n" } },
    { "a class in itself",
      "loop",
      "451 4.3.5 Server configuration error",
      NULL,
      { .options = "smtpd_restriction_classes = loop\nloop = loop, reject\n" } },
    { "a class named by a table",
      "check_helo_access inline:{ {helo.example = strict} }",
      "554 5.7.1 <helo.example>: Helo command rejected: Access denied",
      NULL,
      { .options = "smtpd_restriction_classes = strict\nstrict = permit_inet_interfaces, reject\n" } },
    { "the list goes on under its own name",
      "check_helo_access inline:{ {helo.example = soft} }, reject",
      "554 5.7.1 <user@here.example>: Recipient address rejected: Access denied",
      NULL,
      { .options = "smtpd_restriction_classes = soft\nsoft = permit_inet_interfaces\n" } },
    { "a bare table in a class",
      "mine",
      "554 5.7.1 <user@here.example>: Recipient address rejected: bare",
      NULL,
      { .options = "smtpd_restriction_classes = mine\nmine = inline:{ {user@ = REJECT bare} }\n" } },
    { "a table in a table",
      "check_helo_access inline:{ {helo.example = check_helo_access static:OK} }",
      "451 4.3.5 Server configuration error",
      NULL,
      { 0 } },
    { "a warning for a whole class",
      "warn_if_reject two, permit",
      "250 2.1.5 Ok",
      NULL,
      { .options = "smtpd_restriction_classes = two\ntwo = permit_inet_interfaces, reject\n" } },
    { "OK of a nested list is no OK of a reverse name",
      "check_reverse_client_hostname_access inline:{ {liar.example = permit} }",
      "451 4.3.5 Server configuration error",
      NULL,
      { .client = "192.0.2.2" } },
    { "OK of a server",
      "check_sender_mx_access inline:{ {mx.spam.example = OK} }",
      "451 4.3.5 Server configuration error",
      NULL,
      { 0 } },
    { "no OK of a server",
      "check_sender_mx_access inline:{ {mx.spam.example = DUNNO} }, reject_unlisted_sender",
      "250 2.1.5 Ok",
      NULL,
      { 0 } },
    /* statuses */
    { "status of a sender",
      "check_sender_access inline:{ {a@ = REJECT 5.1.1 who} }",
      "554 5.1.7 <a@there.example>: Sender address rejected: who",
      NULL,
      { 0 } },
    { "status of a recipient",
      "check_recipient_access inline:{ {user@ = 522 5.1.8 who} }",
      "522 5.1.2 <user@here.example>: Recipient address rejected: who",
      NULL,
      { 0 } },
    { "status of a name",
      "check_helo_access inline:{ {helo.example = REJECT 5.1.1} }",
      "554 5.0.0 <helo.example>: Helo command rejected: Access denied",
      NULL,
      { 0 } },
    { "code of a deferral",
      "check_helo_access inline:{ {helo.example = DEFER_IF_PERMIT later} }",
      "451 4.7.1 <helo.example>: Helo command rejected: later",
      NULL,
      { .options = "access_map_defer_code = 451\n" } },
    { "all digits are OK",
      "check_helo_access inline:{ {helo.example = 1234567890} }, reject",
      "250 2.1.5 Ok",
      NULL,
      { 0 } },
    /* certificates */
    { "order of fingerprints",
      "check_ccert_access { inline:{ {AA:BB = REJECT cert}, {CC:DD = REJECT key} }, { search_order = "
      "pubkey_fingerprint, cert_fingerprint } }",
      "554 5.7.1 <c>: Client certificate rejected: key",
      NULL,
      { CERT } },
    { "malformed order",
      "check_ccert_access { inline:{ {AA:BB = OK} }, { search_order = name } }",
      "451 4.3.5 Server configuration error",
      NULL,
      { CERT } },
    { "a stranger's certificate",
      "permit_tls_all_clientcerts, reject",
      "554 5.7.1 *",
      NULL,
      { .tls = { .active = true, .requested_cert = true, .cert_print = STR_INIT("AA:BB") } } },
    { "encrypted", "reject_plaintext_session", "250 2.1.5 Ok", NULL, { CERT } },
    /* DNS lists */
    { "an answer that does not count", "reject_rbl_client rbl.example=127.0.0.[3..9]", "250 2.1.5 Ok", NULL, { 0 } },
    { "a bad filter", "reject_rbl_client rbl.example=127.0.0.", "451 4.3.5 Server configuration error", NULL, { 0 } },
    { "no list", "reject_rbl_client", "451 4.3.5 Server configuration error", NULL, { 0 } },
    { "a template",
      "reject_rbl_client rbl.example",
      "451 4.7.1 192.0.2.1 client.example helo.example a there.example user@here.example 554 rbl.example no such luck",
      NULL,
      { .options = "default_rbl_reply = 451 $client_address $client_name $helo_name $sender_name $sender_domain "
                   "$recipient $rbl_code $rbl_domain $rbl_reason\n" } },
    { "a template of its own",
      "reject_rbl_client rbl.example",
      "554 5.7.1 own [192.0.2.1]",
      NULL,
      { .options = "rbl_reply_maps = inline:{ {rbl.example = $$rbl_code own [$$rbl_what]} }\n" } },
    { "a template that is only a status",
      "reject_rbl_client rbl.example",
      "554 5.7.2 Access denied",
      NULL,
      { .options = "default_rbl_reply = 554 5.7.2\n" } },
    { "what a client says is not expanded",
      "reject_rbl_client rbl.example",
      "554 5.7.1 ${helo_name}",
      NULL,
      { .helo = "${helo_name}", .options = "default_rbl_reply = 554 $helo_name\n" } },
    { "a list that cannot be asked",
      "permit_dnswl_client dead.example, reject",
      "450 4.7.1 <192.0.2.1>: Client host rejected: Service unavailable",
      NULL,
      { 0 } },
    { "a list that cannot be asked refuses nobody", "reject_rbl_client dead.example", "250 2.1.5 Ok", NULL, { 0 } },
    { "no domain in an address",
      "reject_rhsbl_sender rhsbl.example",
      "250 2.1.5 Ok",
      NULL,
      { .sender = "a@[192.0.2.7]" } },
    /* names in the name service */
    { "a null MX for a sender",
      "reject_unknown_sender_domain",
      "550 5.7.27 <a@null.example>: Sender address rejected: Domain null.example does not accept mail (nullMX)",
      NULL,
      { .sender = "a@null.example" } },
    { "a null MX for a recipient",
      "permit_mynetworks, reject_unknown_recipient_domain",
      "250 2.1.5 Ok",
      NULL,
      { .rcpt = "a@null.example", .client = "127.0.0.2" } },
    { "a domain that cannot be asked about",
      "reject_unknown_sender_domain, reject",
      "554 5.7.1 *",
      NULL,
      { .sender = "a@broken.example" } },
    { "a domain that cannot be asked about, at once",
      "reject_unknown_sender_domain, reject",
      "450 4.1.8 <a@broken.example>: Sender address rejected: Domain not found",
      NULL,
      { .sender = "a@broken.example", .options = "unknown_address_tempfail_action = defer\n" } },
    { "HELO that cannot be asked about, at once",
      "reject_unknown_helo_hostname, reject",
      "450 4.7.1 <broken.example>: Helo command rejected: Host not found",
      NULL,
      { .helo = "broken.example", .options = "reject_tempfail_action = defer\n" } },
    { "codes",
      "reject_unknown_helo_hostname",
      "550 5.7.1 <x.gone>: Helo command rejected: Host not found",
      NULL,
      { .helo = "x.gone", .options = "unknown_hostname_reject_code = 550\n" } },
    { "an address is its own mail host",
      "check_sender_mx_access" SERVER_IP,
      SPAM("Sender address", "a@[198.51.100.7]"),
      NULL,
      { .sender = "a@[198.51.100.7]" } },
    /* address verification */
    { "a probe that takes too long",
      "reject_unverified_sender",
      "450 4.1.7 <a@there.example>: Sender address rejected: unverified address: wait",
      NULL,
      { .verified = { { VERIFY_TODO, STR_INIT("wait") } } } },
    { "a probe that takes too long, and something worse",
      "reject_unverified_sender, reject",
      "554 5.7.1 *",
      NULL,
      { .verified = { { VERIFY_TODO, STR_INIT("wait") } } } },
    { "at once",
      "reject_unverified_sender, reject",
      "451 4.1.7 <a@there.example>: Sender address rejected: unverified address: later",
      NULL,
      { .verified = { { VERIFY_DEFER, STR_INIT("later") } },
        .options = "unverified_sender_tempfail_action = defer\nunverified_sender_defer_code = 451\n" } },
    { "nobody to ask",
      "reject_unverified_sender",
      "450 4.1.7 <a@there.example>: Sender address rejected: address verification problem",
      NULL,
      { 0 } },
    { "an address that takes mail",
      "reject_unverified_sender, reject_unverified_recipient",
      "250 2.1.5 Ok",
      NULL,
      { .verified = { { VERIFY_OK, STR_INIT("250 ok") } } } },
    { "our own probes' sender",
      "reject_unverified_sender",
      "250 2.1.5 Ok",
      NULL,
      { .sender = "double-bounce@mx.here.example" } },
    /* login */
    { "a sender that is one's own",
      "reject_sender_login_mismatch",
      "250 2.1.5 Ok",
      NULL,
      { LOGIN, .options = "smtpd_sender_login_maps = inline:{ {a@there.example = ann, joe} }\n" } },
    { "a sender that is nobody's",
      "reject_authenticated_sender_login_mismatch",
      "553 5.7.1 <a@there.example>: Sender address rejected: not owned by user joe",
      NULL,
      { LOGIN, .options = "smtpd_sender_login_maps = inline:{ {b@there.example = ann} }\n" } },
    { "a sender that is nobody's, known ones only",
      "reject_known_sender_login_mismatch",
      "250 2.1.5 Ok",
      NULL,
      { LOGIN, .options = "smtpd_sender_login_maps = inline:{ {b@there.example = ann} }\n" } },
    { "owners that cannot be asked",
      "reject_sender_login_mismatch",
      "451 4.3.0 <a@there.example>: Temporary lookup failure",
      NULL,
      { .options = "smtpd_sender_login_maps = fail:x\n" } },
    /* backup */
    { "a backup of a stranger",
      "permit_mx_backup, reject",
      "554 5.7.1 *",
      NULL,
      { .rcpt = "x@backup.example",
        .client = "127.0.0.2",
        .options = "permit_mx_backup_networks = 203.0.113.0/24\n" } },
    { "a backup of a friend",
      "permit_mx_backup, reject",
      "250 2.1.5 Ok",
      NULL,
      { .rcpt = "x@backup.example",
        .client = "127.0.0.2",
        .options = "permit_mx_backup_networks = 198.51.100.0/24\n" } },
};

static void test_more(void **state) {
    const struct row_case *c = *state;
    play(&c->given, c->list, c->with);
}

/* A list is asked once in a session, its reason only for a refusal. */
static void test_lists_are_asked_once(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_recipient_restrictions = reject_rbl_client rbl.example=127.0.0.9, reject_rbl_client "
                      "rbl.example=127.0.0.8, permit_dnswl_client wl.example");
    h.zone = zone;
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> EHLO x\n<< 250\n> MAIL FROM:<a@b>\n<< 250\n> RCPT TO:<user@here.example>\n<< 250\n"
                   "> RCPT TO:<user2@here.example>\n<< 250\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.dns_queries, 2);
}

/* Nobody can make a session remember without end. */
static void test_many_senders(void **state) {
    (void)state;
    struct buf script = { 0 };
    harness_begin(&h, "smtpd_sender_restrictions = reject_rhsbl_sender rhsbl.example\n"
                      "smtpd_junk_command_limit = 10000");
    buf_add(&script, STR("< 220 *\n> EHLO x\n<< 250\n"));
    for (int i = 0; i < SENDERS; i++)
        buf_printf(&script,
                   "> MAIL FROM:<a@x%d.example>\n<< 250\n> RCPT TO:<user@here.example>\n<< 250\n> RSET\n<< 250\n", i);
    buf_add(&script, STR("> QUIT\n<< 221\neof\n"));
    harness_script(&h, "192.0.2.1", script.p);
    buf_free(&script);
    assert_int_equal(h.dns_queries, SENDERS);
}

static void test_hangup(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_sender_restrictions = check_sender_access inline:{ {a@b = HANGUP} }");
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> EHLO x\n<< 250\n> MAIL FROM:<a@b>\n<< 250\n> RCPT TO:<user@here.example>\neof\n");
    assert_logged("NOQUEUE: hangup: RCPT from client.example?192.0.2.1?: *");
    assert_logged("disconnect from client.example?192.0.2.1? *");
    assert_int_equal(h.message_count, 0);
}

static void test_permissions_are_logged(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_log_access_permit_actions = permit_inet_interfaces ok\n"
                      "smtpd_client_restrictions = permit_inet_interfaces\n"
                      "smtpd_helo_restrictions = check_helo_access inline:{ {helo.example = OK} }\n"
                      "smtpd_sender_restrictions = permit");
    harness_script(
        &h, "127.0.0.1",
        "< 220 *\n> EHLO helo.example\n<< 250\n> MAIL FROM:<a@b>\n<< 250\n> RCPT TO:<user@here.example>\n<< 250\n"
        "> QUIT\n<< 221\neof\n");
    assert_logged("NOQUEUE: permit: RCPT from localhost?127.0.0.1?: action=permit_inet_interfaces for Client "
                  "host=localhost?127.0.0.1? ; *");
    assert_logged("NOQUEUE: permit: RCPT from localhost?127.0.0.1?: action=OK for Helo "
                  "command=helo.example from inline:*; *");
    assert_int_equal(harness_log_count(&h, "*: permit: *"), 2);
}

static void test_removed_says_what_instead(void **state) {
    (void)state;
    play(&(struct given){ 0 }, "reject_maps_rbl", "451 4.3.5 *");
    assert_logged("warning: support for restriction \"reject_maps_rbl\" has been removed *specify \"reject_rbl_client "
                  "domain-name\"");
}

/* Whose headers are rewritten as for local mail. */
static void test_local_rewrite_clients(void **state) {
    (void)state;
    static const struct {
        const char *list;
        bool local;
    } rows[] = {
        { "check_address_map inline:{ {192.0.2 = x} }", true },
        { "inline:{ {client.example = x} }", true },
        { "check_address_map inline:{ {192.0.3 = x} }", false },
        { "permit_inet_interfaces", false },
        { "check_address_map", false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf options = { 0 };
        buf_printf(&options, "local_header_rewrite_clients = %s", rows[i].list);
        harness_begin(&h, options.p);
        harness_script(&h, "192.0.2.1",
                       "< 220 *\n> EHLO x\n<< 250\n> MAIL FROM:<a@b>\n<< 250\n> RCPT TO:<user@here.example>\n<< 250\n"
                       "> QUIT\n<< 221\neof\n");
        if (((h.messages[0].flags & SUBMIT_LOCAL_HEADERS) != 0) != rows[i].local)
            fail_msg("%s", rows[i].list);
        buf_free(&options);
        if (i + 1 < sizeof rows / sizeof *rows)
            harness_end(&h);
    }
}

/* --- footers --- */
static void test_footer(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_reject_footer = \\c. Call $server_name,\\nyou are $client_address:$client_port\n"
                      "smtpd_helo_restrictions = reject_invalid_helo_hostname");
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> NOOP\n< 250 2.0.0 Ok\n> FOO\n"
                   "< 500-5.5.2 Error: command not recognized. Call mx.here.example,\n"
                   "< 500 5.5.2 you are 192.0.2.1:4711\n> QUIT\n<< 221\neof\n");
}

static void test_footer_on_a_line_of_its_own(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_reject_footer = see $client_name\n"
                      "smtpd_reject_footer_maps = regexp:{ {/^502 5.5.1 VRFY/ no VRFY} }\n"
                      "disable_vrfy_command = yes");
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> FOO\n< 500-5.5.2 Error: command not recognized\n< 500 5.5.2 see client.example\n"
                   "> VRFY x\n< 502-5.5.1 VRFY command is disabled\n< 502 5.5.1 no VRFY\n> HELO\n"
                   "< 501-Syntax: HELO hostname\n< 501 see client.example\n> QUIT\n<< 221\neof\n");
}

static void test_bad_footer(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_reject_footer = $nobody");
    harness_script(&h, "192.0.2.1", "< 220 *\n> FOO\n< 500 5.5.2 Error: command not recognized\n> QUIT\n<< 221\neof\n");
    assert_logged("warning: bad smtpd_reject_footer template: *nobody*");
}

#define RESTRICTION_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void) {
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(test_every_row_has_a_case),
        RESTRICTION_TEST(test_sleep),
        RESTRICTION_TEST(test_lists_are_asked_once),
        RESTRICTION_TEST(test_many_senders),
        RESTRICTION_TEST(test_hangup),
        RESTRICTION_TEST(test_permissions_are_logged),
        RESTRICTION_TEST(test_removed_says_what_instead),
        RESTRICTION_TEST(test_local_rewrite_clients),
        RESTRICTION_TEST(test_footer),
        RESTRICTION_TEST(test_footer_on_a_line_of_its_own),
        RESTRICTION_TEST(test_bad_footer),
    };
    static struct CMUnitTest tests[CASES + sizeof more / sizeof *more + sizeof others / sizeof *others];
    size_t n = 0;
    for (size_t i = 0; i < CASES; i++)
        if (cases[i].list)
            tests[n++] = (struct CMUnitTest){ cases[i].row, test_row, set_up, tear_down, (void *)(uintptr_t)&cases[i] };
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        tests[n++] = (struct CMUnitTest){ more[i].row, test_more, set_up, tear_down, (void *)(uintptr_t)&more[i] };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        tests[n++] = others[i];
    return _cmocka_run_group_tests("restriction", tests, n, NULL, NULL);
}
