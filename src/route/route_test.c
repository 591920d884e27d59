#include "test/test.h"

#include "mail/address.h"
#include "route/route.h"

#include <stdlib.h>

/* The tables below were made by asking Postfix's own trivial-rewrite, smtpd and cleanup with the same settings. */

static const struct conf_override base[] = {
    { STR_INIT("compatibility_level"), STR_INIT("3.6") },
    { STR_INIT("myhostname"), STR_INIT("mx.example.com") },
    { STR_INIT("mydomain"), STR_INIT("example.com") },
    { STR_INIT("myorigin"), STR_INIT("example.com") },
    { STR_INIT("mydestination"), STR_INIT("example.com, mx.example.com, localhost") },
    { STR_INIT("inet_interfaces"), STR_INIT("127.0.0.1, ::1") },
    { STR_INIT("proxy_interfaces"), STR_INIT("192.0.2.1") },
    { STR_INIT("relayhost"), STR_INIT("[127.0.0.1]:9") },
    { STR_INIT("recipient_delimiter"), STR_INIT("+") },
    { STR_INIT("append_dot_mydomain"), STR_INIT("no") },
    { STR_INIT("relay_domains"), STR_INIT("relay.example, all.relay.example, sub.relay.example") },
    { STR_INIT("virtual_alias_domains"), STR_INIT("va.example, cat.example") },
    { STR_INIT("virtual_mailbox_domains"), STR_INIT("vm.example") },
    { STR_INIT("virtual_mailbox_maps"), STR_INIT("inline:{ {x@vm.example=x/} }") },
    { STR_INIT("relay_recipient_maps"), STR_INIT("inline:{ {x@relay.example=1}, {@all.relay.example=1} }") },
    { STR_INIT("local_recipient_maps"), STR_INIT("inline:{ {loc=1}, {full@localhost=1} }") },
    { STR_INIT("relocated_maps"), STR_INIT("inline:{ {moved@example.com=new@there.example}, {mv2=n2@x}, "
                                           "{r@other.example=n3@y}, {@gone.example=n4@z} }") },
    { STR_INIT("recipient_canonical_maps"), STR_INIT("inline:{ {rc=loc} }") },
    { STR_INIT("sender_canonical_maps"), STR_INIT("inline:{ {sc@example.com=loc} }") },
    { STR_INIT("canonical_maps"),
      STR_INIT("inline:{ {canon@example.com=loc@example.com}, {@candom.example=z@other.example}, {c1=c2}, {c2=c3}, "
               "{cl1=cl2}, {cl2=cl1}, {@cd2.example=@cd3.example}, {cself=cself}, {cext=cres@far.example}, "
               "{cmul=p@x.test, q@y.test}, {cq=\"a b\"@z.example} }") },
    { STR_INIT("virtual_alias_maps"),
      STR_INIT("inline:{ {a@va.example=b@c.example}, {l@va.example=l@va.example}, {loop1@va.example=loop2@va.example}, "
               "{loop2@va.example=loop1@va.example}, {ping@va.example=ping@va.example pong@va.example}, "
               "{pong@va.example=ping@va.example}, {multi=x@a.test,y@b.test}, {m2=m2, other@o.test}, "
               "{m3=third@o.test, m3}, {grow=grow@va.example}, {grow@va.example=grow x@va.example}, "
               "{@vdom.example=@target.example}, {chain=chain2}, {chain2=chain3, chain4}, {chain3=fin@f.test}, "
               "{ex=res@r.test}, {emp=,}, {com=x@c.test (comment), \"q r\"@c.test}, {@cat.example=catch@c.test}, "
               "{self2=Self2@example.com}, {wide=w1@w w2@w w3@w w4@w w5@w} }") },
    { STR_INIT("transport_maps"),
      STR_INIT("inline:{ {t1.example=smtp:nh1}, {t2.example=:nh2}, {t3.example=smtp:}, {.t4.example=relay:[t4]}, "
               "{u@t5.example=error:nope}, {t6.example=:}, {va.example=smtp:vax}, {t7.example=smtp}, "
               "{t8.example=error:}, {t9.example=error}, {e4.example=error:4.2.1 later on}, "
               "{e5.example=error:5.7.0 no way}, {re.example=retry:4.9.9 x}, {x@relay.example=lmtp:[rl]:24}, "
               "{vm.example=:vmnh}, {lo@example.com=smtp:lonh}, {example.net=:[nn]:25}, {loc=smtp:bare} }") },
};
enum { BASE = sizeof base / sizeof base[0], EXTRA_MAX = 8 };

struct fixture {
    struct conf *c;
    struct router *r;
    struct arena *a;
};

/* `extra`: pairs of name and value, ended by NULL; they come after, and so win over, the base. */
static struct fixture open_router(const char *const *extra) {
    struct conf_override all[BASE + EXTRA_MAX];
    size_t n = 0;
    for (; n < BASE; n++)
        all[n] = base[n];
    for (; extra && extra[0]; extra += 2) {
        assert_true(n < BASE + EXTRA_MAX);
        all[n++] = (struct conf_override){ str_c(extra[0]), str_c(extra[1]) };
    }
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = all,
                                  .override_count = n,
                                  .process_name = STR("test"),
                                  .service_name = STR("test"),
                                  .missing_is_empty = true };
    struct fixture f = { .a = arena_new() };
    error e = conf_load(&source, f.a, &f.c);
    if (e)
        fail_msg("%.*s", STR_ARG(e->text));
    f.r = router_new(f.c);
    return f;
}

static void close_router(struct fixture *f) {
    router_free(f->r);
    conf_free(f->c);
    arena_free(f->a);
}

/* A copy without terminator, so that reading past it is seen. */
static struct str copy(const char *c, char **ret) {
    size_t n = strlen(c);
    *ret = malloc(n ? n : 1);
    memcpy(*ret, c, n);
    return (struct str){ *ret, n };
}

/* --- rewriting --- */

static const struct {
    const char *in, *plain, *dotted; /* append_dot_mydomain = no, yes; NULL: the same */
} rewrites[] = {
    { "user", "user@example.com", NULL },
    { "user@host", "user@host", "user@host.example.com" },
    { "user@host.", "user@host", NULL },
    { "user@host..", "user@host..", NULL },
    { "user%host", "user@host", "user@host.example.com" },
    { "host!user", "user@host", "user@host.example.com" },
    { "a!b!c", "b!c@a", "b!c@a.example.com" },
    { "a!b@c.com", "a!b@c.com", NULL },
    { "@a,@b:user@c.com", "user@c.com", NULL },
    { "@a:user", "user@example.com", NULL },
    { "user@", "user@", NULL },
    { "@", "@", NULL },
    { "@host", "@host", "@host.example.com" },
    { "@host.", "@host", NULL },
    { "", "", NULL },
    { "a b@x.com", "a b@x.com", NULL },
    { "user%a%b", "user%a@b", "user%a@b.example.com" },
    { "user%a@example.com", "user%a@example.com", NULL },
    { "user%", "user@", NULL },
    { "!user", "user@", NULL },
    { "host!", "@host", "@host.example.com" },
    { "a!b%c", "b%c@a", "b%c@a.example.com" },
    { "user@[1.2.3.4]", "user@[1.2.3.4]", NULL },
    { "user@[1.2.3.4].", "user@[1.2.3.4]", NULL },
    { "user@x@y.com", "user@x@y.com", NULL },
    { "user.", "user.@example.com", NULL },
    { "user@.", "user@.", NULL },
    { "user+ext", "user+ext@example.com", NULL },
    { "user@a..b", "user@a..b", NULL },
    { "user@HOST.EXAMPLE.", "user@HOST.EXAMPLE", NULL },
    { "u@a_b", "u@a_b", "u@a_b.example.com" },
    { "u@[x]", "u@[x]", NULL },
};

static void test_rewrite(void **state) {
    (void)state;
    const char *const yes[] = { "append_dot_mydomain", "yes", NULL };
    struct fixture plain = open_router(NULL), dotted = open_router(yes);
    for (size_t i = 0; i < sizeof rewrites / sizeof rewrites[0]; i++) {
        char *mem;
        struct str in = copy(rewrites[i].in, &mem);
        assert_str(route_rewrite(plain.r, plain.a, in, STR("example.com")), rewrites[i].plain);
        assert_str(route_rewrite(dotted.r, dotted.a, in, STR("example.com")),
                   rewrites[i].dotted ? rewrites[i].dotted : rewrites[i].plain);
        free(mem);
    }
    /* addresses from elsewhere are not made ours */
    assert_str(route_rewrite(dotted.r, dotted.a, STR("user"), STR("domain.invalid")), "user@domain.invalid");
    assert_str(route_rewrite(dotted.r, dotted.a, STR("user@host"), STR("domain.invalid")), "user@host.domain.invalid");
    close_router(&plain);
    close_router(&dotted);

    const char *const off[] = { "swap_bangpath", "no", "allow_percent_hack", "no", "append_at_myorigin", "no", NULL };
    struct fixture none = open_router(off);
    assert_str(route_rewrite(none.r, none.a, STR("a!b"), STR("example.com")), "a!b");
    assert_str(route_rewrite(none.r, none.a, STR("a%b"), STR("example.com")), "a%b");
    close_router(&none);
}

/* --- resolving --- */

#define L "local mx.example.com "
#define S "smtp [127.0.0.1]:9 "
#define BAD "501 5.1.3 bad address syntax"

static const struct {
    const char *recipient, *want; /* class, transport, next hop, recipient, R for routed */
} resolves[] = {
    { "user@example.com", "1 " L "user@example.com" },
    { "user@MX.example.com", "1 " L "user@MX.example.com" },
    { "user@[127.0.0.1]", "1 " L "user@[127.0.0.1]" },
    { "user@[IPv6:::1]", "1 " L "user@[IPv6:::1]" },
    { "user@[192.0.2.1]", "1 " L "user@[192.0.2.1]" },
    { "user@[1.2.3.4]", "5 " S "user@[1.2.3.4]" },
    { "user@[::1]", BAD },
    { "user@1.2.3.4", BAD },
    { "user", "1 " L "user@mx.example.com" },
    { "", "1 " L "MAILER-DAEMON@mx.example.com" },
    { "@example.com", "1 " L "MAILER-DAEMON@example.com" },
    { "@other.example", "5 " S "@other.example" },
    { "a@va.example", "2 error 5.1.1 User unknown in virtual alias table a@va.example" },
    { "x@VM.example", "3 virtual vmnh x@VM.example" },
    { "x@relay.example", "4 lmtp [rl]:24 x@relay.example" },
    { "y@relay.example", "4 relay [127.0.0.1]:9 y@relay.example" },
    { "x@sub.relay.example", "4 relay [127.0.0.1]:9 x@sub.relay.example" },
    { "x@Other.EXAMPLE", "5 " S "x@Other.EXAMPLE" },
    { "x@t1.example", "5 smtp nh1 x@t1.example" },
    { "x@sub.t1.example", "5 " S "x@sub.t1.example" },
    { "x@t2.example", "5 smtp nh2 x@t2.example" },
    { "x@t3.example", "5 smtp t3.example x@t3.example" },
    { "x@t4.example", "5 " S "x@t4.example" },
    { "x@a.t4.example", "5 relay [t4] x@a.t4.example" },
    { "u@t5.example", "5 error nope u@t5.example" },
    { "u+x@t5.example", "5 error nope u+x@t5.example" },
    { "v@t5.example", "5 " S "v@t5.example" },
    { "x@t6.example", "5 " S "x@t6.example" },
    { "x@t7.example", "5 smtp t7.example x@t7.example" },
    { "x@t8.example", "5 error Address is undeliverable x@t8.example" },
    { "x@t9.example", "5 error Address is undeliverable x@t9.example" },
    { "x@re.example", "5 retry 4.9.9 x x@re.example" },
    { "lo+x@example.com", "1 smtp lonh lo+x@example.com" },
    { "loc@example.com", "1 " L "loc@example.com" },
    { "x@example.net", "5 smtp [nn]:25 x@example.net" },
    { "moved@example.com", "1 error 5.1.6 User has moved to new@there.example moved@example.com" },
    { "a@b@example.com", "5 " S "a@b" },
    { "a%other.net@example.com", "5 " S "a@other.net" },
    { "other.net!a@example.com", "5 " S "a@other.net" },
    { "x@example.com@example.com@localhost", "1 " L "x@example.com" },
    { "a@[127.0.0.1]@localhost", "1 " L "a@[127.0.0.1]" },
    { "a%b@[127.0.0.1]", "5 " S "a@b" },
    { "a@b@other.example", "5 " S "a@b@other.example R" },
    { "a%b@relay.example", "4 relay [127.0.0.1]:9 a%b@relay.example R" },
    { "a!b@relay.example", "4 relay [127.0.0.1]:9 a!b@relay.example R" },
    { "a b@other.example", "5 " S "a b@other.example" },
    { "user@", BAD },
    { "@", BAD },
    { "!", BAD },
    { "user@[]", BAD },
    { "user@[127.0.0.1", BAD },
    { "user@other.example.", "5 " S "user@other.example" },
    { "user@example.com.", "1 " L "user@example.com" },
    { "user@other..example", BAD },
    { "user@-bad.example", BAD },
    { "user@.example.com", BAD },
    { "user@bad_name.example", "5 " S "user@bad_name.example" },
    { "user@b\xc3\xbc"
      "cher.example",
      "5 " S "user@b\xc3\xbc"
      "cher.example" },
    { "user@b\xfc"
      "cher.example",
      BAD },
};

static struct str resolved(struct fixture *f, struct str sender, struct str recipient) {
    struct route route;
    error e = route_resolve(f->r, f->a, sender, recipient, &route);
    if (e)
        return arena_printf(f->a, "%d %.*s %.*s", e->code, STR_ARG(e->dsn), STR_ARG(e->text));
    return arena_printf(f->a, "%d %.*s %.*s %.*s%s", route.class, STR_ARG(route.transport), STR_ARG(route.nexthop),
                        STR_ARG(route.recipient), route.routed ? " R" : "");
}

static void test_resolve(void **state) {
    (void)state;
    struct fixture f = open_router(NULL);
    for (size_t i = 0; i < sizeof resolves / sizeof resolves[0]; i++) {
        char *mem;
        struct str in = copy(resolves[i].recipient, &mem);
        assert_str(resolved(&f, STR("s@x.test"), in), resolves[i].want);
        free(mem);
    }
    char big[5000];
    memset(big, '@', sizeof big);
    assert_str(resolved(&f, STR(""), (struct str){ big, sizeof big }), BAD);
    close_router(&f);

    const char *const variant[] = {
        "resolve_numeric_domain", "yes", "resolve_dequoted_address", "no", "show_user_unknown_table_name", "no", NULL
    };
    f = open_router(variant);
    assert_str(resolved(&f, STR(""), STR("user@1.2.3.4")), "5 " S "user@[1.2.3.4]");
    assert_str(resolved(&f, STR(""), STR("user@127.0.0.1")), "1 " L "user@[127.0.0.1]");
    assert_str(resolved(&f, STR(""), STR("a@b@example.com")), "1 " L "a@b@example.com R");
    assert_str(resolved(&f, STR(""), STR("other.net!a@example.com")), "5 " S "a@other.net");
    assert_str(resolved(&f, STR(""), STR("a@va.example")), "2 error 5.1.1 User unknown a@va.example");
    close_router(&f);

    const char *const star[] = { "transport_maps", "inline:{ {*=:star} }", "virtual_transport", "lmtp:unix:/x", NULL };
    f = open_router(star);
    assert_str(resolved(&f, STR(""), STR("x@vm.example")), "3 lmtp star x@vm.example");
    assert_str(resolved(&f, STR(""), STR("x@y.test")), "5 smtp star x@y.test");
    close_router(&f);

    const char *const senders[] = { "relayhost",
                                    "",
                                    "sender_dependent_relayhost_maps",
                                    "inline:{ {u@s.test=[rh]:1}, {@t.test=rh2}, {d@t.test=DUNNO}, {<>=nullhost} }",
                                    "sender_dependent_default_transport_maps",
                                    "inline:{ {u@s.test=slow:}, {@w.test=slow:[wh]} }",
                                    "default_transport",
                                    "fast",
                                    "virtual_transport",
                                    "lmtp:unix:/x",
                                    "transport_maps",
                                    "",
                                    NULL };
    f = open_router(senders);
    assert_str(resolved(&f, STR("u@s.test"), STR("x@y.test")), "5 slow [rh]:1 x@y.test");
    assert_str(resolved(&f, STR("U+e@s.test"), STR("x@y.test")), "5 slow [rh]:1 x@y.test");
    assert_str(resolved(&f, STR("a@t.test"), STR("x@y.test")), "5 fast rh2 x@y.test");
    assert_str(resolved(&f, STR("a@t.test"), STR("x@sub.relay.example")), "4 relay rh2 x@sub.relay.example");
    assert_str(resolved(&f, STR("d@t.test"), STR("x@y.test")), "5 fast y.test x@y.test");
    assert_str(resolved(&f, STR("a@w.test"), STR("x@y.test")), "5 slow [wh] x@y.test");
    assert_str(resolved(&f, STR(""), STR("x@y.test")), "5 fast nullhost x@y.test");
    assert_str(resolved(&f, STR("a@else"), STR("x@y.test")), "5 fast y.test x@y.test");
    assert_str(resolved(&f, STR(""), STR("x@vm.example")), "3 lmtp unix:/x x@vm.example");
    close_router(&f);
}

static error unlisted(struct fixture *f, bool is_sender, struct str address) {
    struct route_check c;
    route_check(f->r, f->a,
                &(struct route_question){
                    .is_sender = is_sender, .want = ROUTE_WANT_LISTED, .sender = STR(""), .address = address },
                &c);
    return c.unlisted;
}

/* A table that fails makes mail wait; it never makes it go elsewhere. */
static void test_failing_tables(void **state) {
    (void)state;
    static const char *const tables[] = { "transport_maps",
                                          "relocated_maps",
                                          "virtual_alias_domains",
                                          "mydestination",
                                          "virtual_mailbox_domains",
                                          "relay_domains",
                                          "sender_dependent_relayhost_maps",
                                          "sender_dependent_default_transport_maps" };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const char *const bad[] = { tables[i], "texthash:/nonexistent/file", NULL };
        struct fixture f = open_router(bad);
        struct route route;
        error e = route_resolve(f.r, f.a, STR("s@x"), STR("a@y.test"), &route);
        if (!e || e->kind != ERR_TEMP || e->code != 451)
            fail_msg("%s", tables[i]);
        e = unlisted(&f, false, STR("a@y.test"));
        if (strncmp(tables[i], "sender_", 7) != 0 && (!e || e->code != 451))
            fail_msg("validate: %s", tables[i]);
        close_router(&f);
    }
    static const char *const recipients[][2] = { { "local_recipient_maps", "a@example.com" },
                                                 { "virtual_mailbox_maps", "a@vm.example" },
                                                 { "relay_recipient_maps", "a@relay.example" },
                                                 { "virtual_alias_maps", "a@y.test" },
                                                 { "canonical_maps", "a@y.test" } };
    for (size_t i = 0; i < sizeof recipients / sizeof recipients[0]; i++) {
        const char *const bad[] = { recipients[i][0], "texthash:/nonexistent/file", NULL };
        struct fixture f = open_router(bad);
        error e = unlisted(&f, false, str_c(recipients[i][1]));
        if (!e || e->kind != ERR_TEMP || !str_eq(e->dsn, STR("4.3.0")))
            fail_msg("%s", recipients[i][0]);
        close_router(&f);
    }
}

/* --- does it exist? --- */

static const struct {
    const char *address, *recipient, *sender; /* NULL: yes */
} validations[] = {
    { "", NULL, NULL },
    { "loc@example.com", NULL, NULL },
    { "loc+x@example.com", NULL, NULL },
    { "LOC@example.com", NULL, NULL },
    { "loc", NULL, NULL },
    { "full@localhost", NULL, NULL },
    { "loc@[127.0.0.1]", NULL, NULL },
    { "nobody@example.com", "550 5.1.1 User unknown in local recipient table",
      "550 5.1.0 User unknown in local recipient table" },
    { "full@example.com", "550 5.1.1 User unknown in local recipient table",
      "550 5.1.0 User unknown in local recipient table" },
    { "postmaster+x@example.com", "550 5.1.1 User unknown in local recipient table",
      "550 5.1.0 User unknown in local recipient table" },
    { "moved+x@example.com", "550 5.1.6 User has moved to new@there.example",
      "550 5.1.7 User has moved to new@there.example" },
    { "mv2@example.com", "550 5.1.6 User has moved to n2@x", "550 5.1.7 User has moved to n2@x" },
    { "a@gone.example", "550 5.1.6 User has moved to n4@z", "550 5.1.7 User has moved to n4@z" },
    { "x+y@relay.example", NULL, NULL },
    { "y@relay.example", "550 5.1.1 User unknown in relay recipient table",
      "550 5.1.0 User unknown in relay recipient table" },
    { "z@all.relay.example", NULL, NULL },
    { "x+1@vm.example", NULL, NULL },
    { "postmaster@vm.example", "550 5.1.1 User unknown in virtual mailbox table",
      "550 5.1.0 User unknown in virtual mailbox table" },
    { "a@va.example", NULL, NULL },
    { "a+x@va.example", NULL, NULL },
    { "no@va.example", "550 5.1.1 User unknown in virtual alias table",
      "550 5.1.7 User unknown in virtual alias table" },
    { "any@cat.example", NULL, NULL },
    { "multi@example.com", NULL, NULL },
    { "canon@example.com", NULL, NULL },
    { "q@candom.example", NULL, NULL },
    { "rc@example.com", NULL, "550 5.1.0 User unknown in local recipient table" },
    { "sc@example.com", "550 5.1.1 User unknown in local recipient table", NULL },
    { "u@t5.example", "550 5.1.1 nope", "550 5.1.0 nope" },
    { "x@e4.example", "550 5.2.1 later on", "550 5.2.1 later on" },
    { "x@e5.example", "550 5.7.0 no way", "550 5.7.0 no way" },
    { "x@re.example", "450 4.9.9 x", "450 4.9.9 x" },
    { "x@t8.example", "550 5.1.1 Address is undeliverable", "550 5.1.0 Address is undeliverable" },
    { "POSTMASTER@localhost", NULL, NULL },
    { "mailer-daemon@example.com", NULL, NULL },
    { "double-bounce@example.com", NULL, NULL },
    { "a@b@other.example", NULL, NULL },
    { "x@bad..example", "501 5.1.3 bad address syntax", "501 5.1.7 bad address syntax" },
    { "x@-bad.example", "501 5.1.3 bad address syntax", "501 5.1.7 bad address syntax" },
};

static struct str verdict(struct fixture *f, error e) {
    return e ? arena_printf(f->a, "%d %.*s %.*s", e->code, STR_ARG(e->dsn), STR_ARG(e->text)) : STR("yes");
}

static void test_validate(void **state) {
    (void)state;
    struct fixture f = open_router(NULL);
    for (size_t i = 0; i < sizeof validations / sizeof validations[0]; i++) {
        char *mem;
        struct str in = copy(validations[i].address, &mem);
        assert_str(verdict(&f, unlisted(&f, false, in)), validations[i].recipient ? validations[i].recipient : "yes");
        assert_str(verdict(&f, unlisted(&f, true, in)), validations[i].sender ? validations[i].sender : "yes");
        free(mem);
    }
    close_router(&f);

    const char *const codes[] = { "unknown_local_recipient_reject_code",
                                  "551",
                                  "show_user_unknown_table_name",
                                  "no",
                                  "unknown_virtual_alias_reject_code",
                                  "450",
                                  NULL };
    f = open_router(codes);
    assert_str(verdict(&f, unlisted(&f, false, STR("nobody@example.com"))), "551 5.1.1 User unknown");
    assert_str(verdict(&f, unlisted(&f, false, STR("no@va.example"))), "450 4.1.1 User unknown");
    assert_str(verdict(&f, unlisted(&f, false, STR("moved@example.com"))),
               "550 5.1.6 User has moved to new@there.example");
    close_router(&f);

    const char *const open[] = { "local_recipient_maps", "", "relay_recipient_maps", "", NULL };
    f = open_router(open);
    assert_null(unlisted(&f, false, STR("nobody@example.com")));
    assert_null(unlisted(&f, false, STR("y@relay.example")));
    close_router(&f);
}

/* Both questions at once have the answers of each: with tables that ask for the sender, and without. */
static void test_check(void **state) {
    (void)state;
    static const char *const plain[] = { NULL };
    static const char *const by_sender[] = { "sender_dependent_default_transport_maps",
                                             "inline:{ {x@s.test=error:no} }", NULL };
    static const struct {
        const char *address, *class, *listed;
    } rows[] = {
        { "", "5", "yes" },
        { "loc@example.com", "1", "yes" },
        { "loc", "1", "yes" },
        { "nobody@example.com", "1", "550 5.1.1 User unknown in local recipient table" },
        { "a%b.test@relay.example", "4 R", "550 5.1.1 User unknown in relay recipient table" },
        { "y@else.test", "5", "yes" },
        { "y@1.2.3.4", BAD, BAD },
    };
    for (int variant = 0; variant < 2; variant++) {
        struct fixture f = open_router(variant ? by_sender : plain);
        assert_int_equal(route_depends_on_sender(f.c), variant);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            struct route_check c;
            struct route_question q = { .want = ROUTE_WANT_CLASS | ROUTE_WANT_LISTED,
                                        .sender = STR("x@s.test"),
                                        .address = str_c(rows[i].address) };
            route_check(f.r, f.a, &q, &c);
            struct str class =
                c.unroutable ? verdict(&f, c.unroutable) : arena_printf(f.a, "%d%s", c.class, c.routed ? " R" : "");
            assert_str(class, rows[i].class);
            /* what the sender's own transport says is not about the recipient */
            assert_str(verdict(&f, c.unlisted), rows[i].listed);
            q.want = ROUTE_WANT_CLASS;
            route_check(f.r, f.a, &q, &c);
            assert_null(c.unlisted);
        }
        close_router(&f);
    }
}

/* A service has tables of its own; where mail goes stays the router's business. */
static void test_lists_of_a_service(void **state) {
    (void)state;
    static const char *const own[] = { "local_recipient_maps", "inline:{ {else=x} }", "mydestination", "other.test",
                                       NULL };
    struct fixture f = open_router(NULL), g = open_router(own);
    router_add_lists(f.r, STR("127.0.0.1:10026"), g.r);
    static const struct {
        const char *service, *address;
        bool listed;
    } rows[] = {
        { "", "nobody@example.com", false },
        { "smtp", "nobody@example.com", false },
        { "127.0.0.1:10026", "loc@example.com", false },
        { "127.0.0.1:10026", "else@example.com", true },
        { "", "else@example.com", false },
        { "127.0.0.1:10026", "nobody@other.test", true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct route_check c;
        struct route_question q = { .service = str_c(rows[i].service),
                                    .want = ROUTE_WANT_LISTED,
                                    .address = str_c(rows[i].address) };
        route_check(f.r, f.a, &q, &c);
        if (!c.unlisted != rows[i].listed)
            fail_msg("%s %s", rows[i].service, rows[i].address);
    }
    assert_true(route_is_list_parameter(STR("local_recipient_maps")));
    assert_false(route_is_list_parameter(STR("mydestination")));
    close_router(&f);
    conf_free(g.c);
    arena_free(g.a);
}

/* --- aliases --- */

#define LATER "-- "
static const struct {
    const char *in, *want; /* separated by blanks; "-- " in front of an error's detail */
} expansions[] = {
    { "nobody@example.com", "nobody@example.com" },
    { "multi@example.com", "x@a.test y@b.test" },
    { "m2@example.com", "m2@example.com other@o.test" },
    { "m3@example.com", "third@o.test m3@example.com" },
    { "ping@va.example", "ping@va.example ping@va.example" },
    { "l@va.example", "l@va.example" },
    { "self2@example.com", "Self2@example.com" },
    { "q@vdom.example", "q@target.example" },
    { "q+e@vdom.example", "q+e@target.example" },
    { "who+e@cat.example", "catch@c.test" },
    { "chain+1@example.com", "fin+1@f.test chain4+1@example.com" },
    { "ex+abc@example.com", "res+abc@r.test" },
    { "com@example.com", "x@c.test q r@c.test" },
    { "loop1@va.example", LATER "unreasonable virtual_alias_maps map nesting for loop1@va.example" },
    { "grow@va.example", LATER "unreasonable virtual_alias_maps map nesting for grow@va.example" },
    { "emp@example.com", LATER "virtual_alias_maps map lookup problem for emp@example.com" },
};

static struct str expanded(struct fixture *f, struct str in) {
    struct str *at;
    size_t n;
    error e = route_expand_virtual(f->r, f->a, in, &at, &n);
    if (e) {
        assert_int_equal(e->kind, ERR_TEMP);
        return arena_cat(f->a, STR(LATER), e->detail);
    }
    struct str out = STR("");
    for (size_t i = 0; i < n; i++)
        out = arena_printf(f->a, "%.*s%s%.*s", STR_ARG(out), i ? " " : "", STR_ARG(at[i]));
    return out;
}

static void test_virtual(void **state) {
    (void)state;
    struct fixture f = open_router(NULL);
    for (size_t i = 0; i < sizeof expansions / sizeof expansions[0]; i++)
        assert_str(expanded(&f, str_c(expansions[i].in)), expansions[i].want);
    close_router(&f);

    const char *const tight[] = { "virtual_alias_expansion_limit",
                                  "4",
                                  "propagate_unmatched_extensions",
                                  "canonical",
                                  "virtual_alias_address_length_limit",
                                  "10",
                                  NULL };
    f = open_router(tight);
    assert_str(expanded(&f, STR("wide@example.com")),
               LATER "unreasonable virtual_alias_maps map expansion size for wide@example.com");
    assert_str(expanded(&f, STR("ex+abc@example.com")), "res@r.test");
    assert_str(expanded(&f, STR("self2@example.com")),
               LATER "unreasonable virtual_alias_maps result Self2@example.com... in map lookup for self2@example.com");
    close_router(&f);
}

/* A member that is no address makes the mail wait; it is not left out. */
static void test_virtual_overlong(void **state) {
    (void)state;
    char map[1200];
    snprintf(map, sizeof map, "inline:{ { a@va.example = ok@o.test, %0*d@o.test } }", ADDRESS_MAX, 1);
    const char *const settings[] = { "virtual_alias_maps", map, NULL };
    struct fixture f = open_router(settings);
    assert_str(expanded(&f, STR("a@va.example")), LATER "virtual_alias_maps map lookup problem for a@va.example");
    close_router(&f);
}

static void test_canonical(void **state) {
    (void)state;
    static const struct {
        const char *in, *class_name, *want;
    } rows[] = {
        { "canon@example.com", "envelope_sender", "loc@example.com" },
        { "c1@example.com", "header_recipient", "c3@example.com" },
        { "cl1@example.com", "envelope_recipient", "cl1@example.com" },
        { "p+e@cd2.example", "envelope_sender", "p+e@cd3.example" },
        { "cself@example.com", "envelope_sender", "cself@example.com" },
        { "cext+yy@example.com", "envelope_sender", "cres+yy@far.example" },
        { "cmul@example.com", "envelope_sender", "p@x.test" },
        { "cq@example.com", "envelope_sender", "a b@z.example" },
        { "rc@example.com", "envelope_recipient", "loc@example.com" },
        { "rc@example.com", "envelope_sender", "rc@example.com" },
        { "sc@example.com", "header_sender", "loc@example.com" },
        { "sc@example.com", "header_recipient", "sc@example.com" },
        { "", "envelope_sender", "" },
    };
    struct fixture f = open_router(NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct str got;
        assert_null(route_canonical(f.r, f.a, str_c(rows[i].in), str_c(rows[i].class_name), &got));
        assert_str(got, rows[i].want);
    }
    close_router(&f);
    const char *const classes[] = { "canonical_classes", "envelope_recipient", NULL };
    f = open_router(classes);
    struct str got;
    assert_null(route_canonical(f.r, f.a, STR("canon@example.com"), STR("envelope_sender"), &got));
    assert_str(got, "canon@example.com");
    close_router(&f);
}

static void test_masquerade(void **state) {
    (void)state;
    static const struct {
        const char *in, *want;
    } rows[] = {
        { "user@a.hidden.test", "user@hidden.test" },
        { "user@a.b.HIDDEN.test", "user@hidden.test" },
        { "user@hidden.test", "user@hidden.test" },
        { "user@nothidden.test", "user@nothidden.test" },
        { "user@x.shown.hidden.test", "user@x.shown.hidden.test" },
        { "user@shown.hidden.test", "user@shown.hidden.test" },
        { "root@a.hidden.test", "root@a.hidden.test" },
        { "ROOT@a.hidden.test", "ROOT@a.hidden.test" },
        { "user", "user" },
        { "", "" },
    };
    const char *const settings[] = { "masquerade_domains",
                                     "!shown.hidden.test, Hidden.test",
                                     "masquerade_exceptions",
                                     "root",
                                     "masquerade_classes",
                                     "envelope_sender",
                                     NULL };
    struct fixture f = open_router(settings);
    struct str got;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_null(route_canonical(f.r, f.a, str_c(rows[i].in), STR("envelope_sender"), &got));
        assert_str(got, rows[i].want);
    }
    assert_null(route_canonical(f.r, f.a, STR("user@a.hidden.test"), STR("header_sender"), &got));
    assert_str(got, "user@a.hidden.test");
    close_router(&f);
    const char *const failing[] = { "masquerade_domains", "hidden.test", "masquerade_exceptions", "fail:x", NULL };
    f = open_router(failing);
    error e = route_canonical(f.r, f.a, STR("user@a.hidden.test"), STR("envelope_sender"), &got);
    assert_non_null(e);
    assert_int_equal(e->kind, ERR_TEMP);
    assert_null(route_canonical(f.r, f.a, STR("user@hidden.test"), STR("envelope_sender"), &got));
    close_router(&f);
}

static void test_generic(void **state) {
    (void)state;
    static const struct {
        const char *in, *want;
    } rows[] = {
        { "his@inside.example", "hisaccount@isp.test" },
        { "her@inside.example", "heraccount@isp.test" },
        { "her+x@inside.example", "heraccount@isp.test" },
        { "who@inside.example", "all+who@isp.test" },
        { "bare@example.com", "outer@isp.test" },
        { "other@elsewhere.test", "other@elsewhere.test" },
        { "", "" },
    };
    struct fixture f = open_router(NULL);
    struct maps *maps = maps_open(f.c,
                                  STR("inline:{ {his@inside.example=hisaccount@isp.test} "
                                      "{her@inside.example=heraccount@isp.test, ignored@isp.test} "
                                      "{hisaccount@isp.test=never@isp.test} {bare=outer@isp.test} "
                                      "{who@inside.example=all+who@isp.test} }"),
                                  TABLE_FOLD);
    struct str got;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_null(route_generic(f.r, f.a, maps, STR("smtp_generic_maps"), str_c(rows[i].in), &got));
        assert_str(got, rows[i].want);
    }
    maps_close(maps);
    maps = maps_open(f.c, STR("fail:x"), TABLE_FOLD);
    error e = route_generic(f.r, f.a, maps, STR("smtp_generic_maps"), STR("a@b.test"), &got);
    assert_non_null(e);
    assert_int_equal(e->kind, ERR_TEMP);
    maps_close(maps);
    close_router(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rewrite),
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_lists_of_a_service),
        cmocka_unit_test(test_failing_tables),
        cmocka_unit_test(test_validate),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_virtual),
        cmocka_unit_test(test_virtual_overlong),
        cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_masquerade),
        cmocka_unit_test(test_generic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
