/* client.c - restrictions that know who the client is: its address, name, login, certificate. */
#include "smtpd/restriction.h"

#include "base/log.h"

enum verdict row_permit_mynetworks(struct checks *c, const struct restriction *r) {
    (void)r;
    switch (match_find(c->s->set->mynetworks, c->s->name, c->s->address)) {
    case MATCH_YES:
        return PERMIT;
    case MATCH_ERROR:
        return check_lookup_failed(c, c->subject);
    default:
        return DUNNO;
    }
}

enum verdict row_permit_inet_interfaces(struct checks *c, const struct restriction *r) {
    (void)r;
    const struct settings *set = c->s->set;
    for (size_t i = 0; i < set->own_address_count; i++)
        if (str_eq(set->own_addresses[i], c->s->address))
            return PERMIT;
    return DUNNO;
}

enum verdict row_permit_sasl_authenticated(struct checks *c, const struct restriction *r) {
    (void)r;
    return c->s->login.username.n ? PERMIT : DUNNO;
}

/* --- certificates --- */
static bool has_certificate(const struct session *s) {
    return s->tls.active && (s->tls.cert_print.n || s->tls.key_print.n);
}

/* The fingerprint is enough: who issued the certificate does not matter. */
enum verdict row_permit_tls_clientcerts(struct checks *c, const struct restriction *r) {
    const struct session *s = c->s;
    const struct str prints[] = { s->tls.cert_print, s->tls.key_print };
    if (s->tls.active && !s->tls.requested_cert)
        log_warn("%.*s is requested, but \"smtpd_tls_ask_ccert = no\"", STR_ARG(r->name));
    if (!has_certificate(s) || !s->set->relay_clientcerts)
        return DUNNO;
    for (size_t i = 0; i < 2; i++) {
        struct str value;
        enum table_result found =
            prints[i].n ? maps_get(s->set->relay_clientcerts, prints[i], c->arena, &value, NULL) : TABLE_NOT_FOUND;
        if (found == TABLE_FOUND)
            return PERMIT;
        if (found == TABLE_ERROR) {
            log_warn("relay_clientcerts: lookup error for fingerprint '%.*s'", STR_ARG(prints[i]));
            return check_lookup_failed(c, c->subject);
        }
    }
    return DUNNO;
}

enum verdict row_permit_tls_all_clientcerts(struct checks *c, const struct restriction *r) {
    const struct session *s = c->s;
    if (s->tls.active && !s->tls.requested_cert)
        log_warn("%.*s is requested, but \"smtpd_tls_ask_ccert = no\"", STR_ARG(r->name));
    return has_certificate(s) && s->tls.trusted ? PERMIT : DUNNO;
}

/* --- the connection --- */
enum verdict row_reject_unauth_pipelining(struct checks *c, const struct restriction *r) {
    (void)r;
    if (!c->s->pipelined)
        return DUNNO;
    return check_refuse(c, 503, "5.5.0", true, "Improper use of SMTP command pipelining");
}

enum verdict row_reject_plaintext_session(struct checks *c, const struct restriction *r) {
    (void)r;
    if (c->s->tls.active)
        return DUNNO;
    return check_refuse(c, c->s->set->plaintext_code, "4.7.1", false, "Session encryption is required");
}

enum verdict row_reject_unknown_client(struct checks *c, const struct restriction *r) {
    (void)r;
    const struct session *s = c->s;
    if (!str_eq(s->name, STR("unknown")))
        return DUNNO;
    int code = s->name_status == DNS_RETRY ? 450 : s->set->unknown_client_code;
    return check_refuse(c, code, "4.7.25", false, "Client host rejected: cannot find your hostname, [%.*s]",
                        STR_ARG(s->address));
}

enum verdict row_reject_unknown_reverse(struct checks *c, const struct restriction *r) {
    (void)r;
    const struct session *s = c->s;
    if (!str_eq(s->reverse_name, STR("unknown")))
        return DUNNO;
    int code = s->reverse_status == DNS_RETRY ? 450 : s->set->unknown_client_code;
    return check_refuse(c, code, "4.7.1", false, "Client host rejected: cannot find your reverse hostname, [%.*s]",
                        STR_ARG(s->address));
}
