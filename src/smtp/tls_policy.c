#include "smtp/tls_policy.h"

#include "base/log.h"
#include "base/pack.h"

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

/* What main.cf says for the level. */
static void fill_in(const struct tls_settings *s, struct arena *a, struct str nexthop, struct str host,
                    struct tls_policy *p) {
    bool mandatory = p->level > TLS_LEVEL_MAY;
    p->protocols = mandatory ? s->mandatory_protocols : s->protocols;
    p->grade = mandatory ? s->mandatory_ciphers : s->ciphers;
    p->excluded[p->excluded_count++] = s->exclude;
    if (mandatory)
        p->excluded[p->excluded_count++] = s->mandatory_exclude;
    if (str_eq_icase(s->servername, STR("hostname")))
        p->sni = str_c(arena_cstr(a, host));
    else if (str_eq_icase(s->servername, STR("nexthop")))
        p->sni = str_c(arena_cstr(a, nexthop));
    else
        p->sni = s->servername;
    if (p->level == TLS_LEVEL_VERIFY)
        tls_policy_match(a, s->verify_match, nexthop, host, p);
    else if (p->level == TLS_LEVEL_SECURE)
        tls_policy_match(a, s->secure_match, nexthop, host, p);
    else if (p->level == TLS_LEVEL_FINGERPRINT)
        match_prints(a, s->print_match, p);
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

static bool refuse(struct str text, struct str host, struct failure *ret_why) {
    *ret_why = (struct failure){ STR("4.7.5"), STR("client TLS configuration problem") };
    log_warn("TLS policy lookup for %.*s/%.*s: client TLS configuration problem", STR_ARG(text), STR_ARG(host));
    return false;
}

bool tls_policy_find(const struct client_config *c, struct arena *a, struct str text, const struct destination *d,
                     struct str host, struct tls_policy *ret, struct failure *ret_why) {
    const struct tls_settings *s = &c->tls;
    if (str_starts(text, STR("inet:")))
        text = str_from(text, 5);
    *ret = (struct tls_policy){ .level = s->level, .log_level = s->log_level, .reuse = s->connection_reuse };
    if (s->wrapper && ret->level < TLS_LEVEL_ENCRYPT) {
        const char *program = s->lmtp ? "lmtp" : "smtp";
        log_warn("%s_tls_wrappermode requires \"%s_tls_security_level = encrypt\" (or stronger)", program, program);
        *ret_why = (struct failure){ STR("4.3.0"), STR("server unavailable or unable to receive mail") };
        return false;
    }
    if (ret->level != TLS_LEVEL_NONE)
        fill_in(s, a, d->host, host, ret);
    if (ret->level == TLS_LEVEL_FINGERPRINT && ret->match.n == 0) {
        log_warn("nexthop domain %.*s: configured at fingerprint security level, but with no fingerprints to match.",
                 STR_ARG(text));
        return refuse(text, host, ret_why);
    }
    make_key(a, ret);
    return true;
}

void tls_policy_plain(struct tls_policy *p) {
    *p = (struct tls_policy){ .log_level = p->log_level };
}
