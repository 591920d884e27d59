#include "smtp/tls_policy.h"

#include "base/log.h"
#include "base/pack.h"
#include "mail/address.h"
#include "smtp/tls_policy_text.h"

static void add_match(struct arena *a, struct tls_policy *p, struct str name) {
    *vec_add(a, &p->match) = str_c(arena_cstr(a, name));
}

void tls_policy_match(struct arena *a, struct str list, struct str nexthop, struct str host, struct tls_policy *p) {
    struct str word;
    while (str_word(&list, STR(": \t\r\n,"), &word)) {
        if (str_eq_icase(word, STR("hostname")))
            add_match(a, p, host);
        else if (str_eq_icase(word, STR("nexthop")))
            add_match(a, p, nexthop);
        else if (str_eq_icase(word, STR("dot-nexthop")))
            add_match(a, p, arena_cat(a, STR("."), nexthop));
        else
            add_match(a, p, word);
    }
}

/* Fingerprints have colons in them. */
static void match_prints(struct arena *a, struct str list, struct tls_policy *p) {
    struct str word;
    while (str_word(&list, STR(" \t\r\n,|"), &word))
        add_match(a, p, word);
}

static struct str sni_name(struct arena *a, struct str value, struct str nexthop, struct str host) {
    if (str_eq_icase(value, STR("hostname")))
        value = host;
    else if (str_eq_icase(value, STR("nexthop")))
        value = nexthop;
    return str_c(arena_cstr(a, value));
}

/* A list of a policy: colons for blanks. */
static struct str with_commas(struct arena *a, struct str list) {
    char *p = arena_cstr(a, list);
    for (size_t i = 0; i < list.n; i++)
        if (p[i] == ':')
            p[i] = ',';
    return str_n(p, list.n);
}

static void fill_match(const struct tls_settings *s, const struct policy_text *own, struct arena *a, struct str nexthop,
                       struct str host, struct tls_policy *p) {
    const struct str defaults[] = { [TLS_LEVEL_FINGERPRINT] = s->print_match,
                                    [TLS_LEVEL_VERIFY] = s->verify_match,
                                    [TLS_LEVEL_SECURE] = s->secure_match };
    if (p->level != TLS_LEVEL_FINGERPRINT && p->level != TLS_LEVEL_VERIFY && p->level != TLS_LEVEL_SECURE)
        return;
    const struct str *lists = own->match_count ? own->match : &defaults[p->level];
    for (size_t i = 0; i < (own->match_count ? own->match_count : 1); i++) {
        if (p->level == TLS_LEVEL_FINGERPRINT)
            match_prints(a, lists[i], p);
        else
            tls_policy_match(a, lists[i], nexthop, host, p);
    }
}

/* What main.cf says for the level, and what the destination's own policy puts in its place. */
static void fill_in(const struct tls_settings *s, const struct policy_text *own, struct arena *a, struct str nexthop,
                    struct str host, struct tls_policy *p) {
    bool mandatory = p->level > TLS_LEVEL_MAY;
    p->protocols = own->protocols_given ? own->protocols : mandatory ? s->mandatory_protocols : s->protocols;
    p->grade = own->grade_given ? own->grade : mandatory ? s->mandatory_ciphers : s->ciphers;
    if (own->exclude_given) {
        p->excluded[p->excluded_count++] = with_commas(a, own->exclude);
    } else {
        p->excluded[p->excluded_count++] = s->exclude;
        if (mandatory)
            p->excluded[p->excluded_count++] = s->mandatory_exclude;
    }
    p->sni = sni_name(a, own->sni_given ? own->sni : s->servername, nexthop, host);
    p->reuse = own->reuse_given ? own->reuse : s->connection_reuse;
    fill_match(s, own, a, nexthop, host, p);
}

/* --- tables --- */

/* The destination as it is written, and for a bare domain those above it with a dot in front. */
static enum table_result find_policy(const struct tls_settings *s, struct arena *a, struct str text, struct str *ret) {
    enum table_result r = maps_get(s->policies, text, a, ret, NULL);
    if (!hostname_valid(text))
        return r;
    for (ptrdiff_t dot; r == TABLE_NOT_FOUND && (dot = str_index(str_from(text, 1), '.')) >= 0;) {
        text = str_from(text, (size_t)dot + 1);
        r = maps_get_partial(s->policies, text, a, ret, NULL);
    }
    return r;
}

static bool own_policy(const struct tls_settings *s, struct arena *a, struct str text, struct policy_text *ret) {
    const char *program = s->lmtp ? "lmtp" : "smtp";
    struct str value = STR(""), why = STR("policy table lookup error");
    enum table_result r = find_policy(s, a, text, &value);
    if (r == TABLE_NOT_FOUND)
        return true;
    if (r == TABLE_ERROR || !policy_text_parse(a, value, ret, &why)) {
        log_warn("%s_tls_policy_maps, next-hop destination \"%.*s\": %.*s", program, STR_ARG(text), STR_ARG(why));
        return false;
    }
    if (ret->ignored.n)
        log_warn("%s_tls_policy_maps, next-hop destination \"%.*s\": ignoring attribute \"%.*s\" with TLS disabled",
                 program, STR_ARG(text), STR_ARG(ret->ignored));
    return true;
}

enum site { SITE_UNKNOWN, SITE_NONE, SITE_MAY, SITE_MUST_NOPEERMATCH, SITE_MUST };

/* smtp_tls_per_site, which came before policies: asked for the destination and for the host; the stronger counts. */
static bool site_level(const struct tls_settings *s, struct arena *a, struct str text, struct str host,
                       enum tls_level *level, struct failure *ret_why) {
    static const struct str names[] = { [SITE_NONE] = STR_INIT("NONE"),
                                        [SITE_MAY] = STR_INIT("MAY"),
                                        [SITE_MUST_NOPEERMATCH] = STR_INIT("MUST_NOPEERMATCH"),
                                        [SITE_MUST] = STR_INIT("MUST") };
    const struct {
        const char *what;
        struct str key;
    } asked[] = { { "next-hop destination", text }, { "host", host } };
    const char *program = s->lmtp ? "lmtp" : "smtp";
    enum site site = SITE_UNKNOWN;
    for (size_t i = 0; i < 2; i++) {
        struct str value;
        enum table_result r = maps_get(s->sites, asked[i].key, a, &value, NULL);
        if (r == TABLE_ERROR) {
            log_warn("%s_tls_per_site: %s \"%.*s\": per-site table lookup error", program, asked[i].what,
                     STR_ARG(asked[i].key));
            *ret_why = (struct failure){ STR("4.3.0"), STR("Temporary lookup error") };
            return false;
        }
        if (r == TABLE_NOT_FOUND)
            continue;
        enum site found = SITE_MUST;
        while (found > SITE_UNKNOWN && !str_eq_icase(value, names[found]))
            found--;
        if (found == SITE_UNKNOWN) {
            log_warn("%s_tls_per_site: unknown TLS policy '%.*s' for %s %.*s", program, STR_ARG(value), asked[i].what,
                     STR_ARG(asked[i].key));
            return false;
        }
        site = found > site ? found : site;
    }
    static const enum tls_level levels[] = { [SITE_NONE] = TLS_LEVEL_NONE,
                                             [SITE_MAY] = TLS_LEVEL_MAY,
                                             [SITE_MUST_NOPEERMATCH] = TLS_LEVEL_ENCRYPT,
                                             [SITE_MUST] = TLS_LEVEL_VERIFY };
    if (site == SITE_MAY && *level > TLS_LEVEL_MAY)
        return true;
    if (site != SITE_UNKNOWN)
        *level = levels[site];
    return true;
}

static void make_key(struct arena *a, struct tls_policy *p) {
    struct buf b = { 0 };
    pack_u8(&b, (uint8_t)p->level);
    pack_u8(&b, p->reuse);
    pack_str(&b, p->protocols);
    pack_str(&b, p->grade);
    pack_str(&b, p->sni);
    for (size_t i = 0; i < p->excluded_count; i++)
        pack_str(&b, p->excluded[i]);
    for (size_t i = 0; i < p->match.n; i++)
        pack_str(&b, p->match.at[i]);
    p->key = arena_str(a, buf_str(&b));
    buf_free(&b);
}

static bool read_level(const struct tls_settings *s, struct arena *a, struct str text, struct str host,
                       struct policy_text *own, struct failure *ret_why) {
    *own = (struct policy_text){ .level = s->level };
    *ret_why = (struct failure){ STR("4.7.5"), STR("client TLS configuration problem") };
    if (s->policies)
        return own_policy(s, a, text, own);
    return !s->sites || site_level(s, a, text, host, &own->level, ret_why);
}

/* TLSA records are not asked for yet, so what wants them gets what Postfix gives it where DNSSEC is off. */
static bool without_dane(struct str text, enum tls_level *level) {
    if (*level != TLS_LEVEL_DANE && *level != TLS_LEVEL_DANE_ONLY)
        return true;
    log_warn("%.*s: %.*s configured with dnssec lookups disabled", STR_ARG(text), STR_ARG(tls_level_name(*level)));
    bool only = *level == TLS_LEVEL_DANE_ONLY;
    *level = only ? TLS_LEVEL_ENCRYPT : TLS_LEVEL_MAY;
    return !only;
}

bool tls_policy_find(const struct client_config *c, struct arena *a, struct str text, const struct destination *d,
                     struct str host, bool optional, struct tls_policy *ret, struct failure *ret_why) {
    const struct tls_settings *s = &c->tls;
    struct policy_text own;
    if (str_starts(text, STR("inet:")))
        text = str_from(text, 5);
    bool good = read_level(s, a, text, host, &own, ret_why);
    if (optional && own.level > TLS_LEVEL_MAY && !s->wrapper)
        own.level = TLS_LEVEL_MAY;
    good = good && without_dane(text, &own.level);
    *ret = (struct tls_policy){ .level = own.level, .log_level = s->log_level };
    if (good && s->wrapper && ret->level < TLS_LEVEL_ENCRYPT) {
        const char *program = s->lmtp ? "lmtp" : "smtp";
        log_warn("%s_tls_wrappermode requires \"%s_tls_security_level = encrypt\" (or stronger)", program, program);
        *ret_why = (struct failure){ STR("4.3.0"), STR("server unavailable or unable to receive mail") };
        return false;
    }
    if (good && ret->level != TLS_LEVEL_NONE)
        fill_in(s, &own, a, d->host, host, ret);
    if (good && ret->level == TLS_LEVEL_FINGERPRINT && ret->match.n == 0) {
        log_warn("nexthop domain %.*s: configured at fingerprint security level, but with no fingerprints to match.",
                 STR_ARG(text));
        good = false;
    }
    if (!good) {
        log_warn("TLS policy lookup for %.*s/%.*s: %.*s", STR_ARG(text), STR_ARG(host), STR_ARG(ret_why->text));
        return false;
    }
    make_key(a, ret);
    return true;
}

void tls_policy_plain(struct tls_policy *p) {
    *p = (struct tls_policy){ .log_level = p->log_level };
}
