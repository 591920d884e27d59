/* names.c - restrictions on how a HELO name or an address looks (RFC 5321, 4.1.1.1, 4.1.2). */
#include "smtpd/restriction.h"

#include "base/utf8.h"
#include "mail/address.h"

/* --- HELO names --- */
bool helo_is_literal(struct str helo) {
    return helo.n && helo.p[0] == '[';
}

static bool is_address(struct str s) {
    struct endpoint e;
    return endpoint_ip(s, 0, &e);
}

static struct str without_dot(struct str name) {
    return name.n > 1 && name.p[name.n - 1] == '.' ? str_sub(name, 0, name.n - 1) : name;
}

enum verdict check_helo_literal(struct checks *c) {
    if (address_domain_is_literal(c->s->helo))
        return DUNNO;
    return check_refuse(c, c->s->set->invalid_hostname_code, "5.5.2", false,
                        "<%.*s>: Helo command rejected: invalid ip address", STR_ARG(c->s->helo));
}

enum verdict row_reject_invalid_helo(struct checks *c, const struct restriction *r) {
    (void)r;
    struct str helo = c->s->helo;
    if (helo.n == 0)
        return DUNNO;
    if (helo_is_literal(helo))
        return check_helo_literal(c);
    if (hostname_valid(without_dot(helo)) || is_address(helo))
        return DUNNO;
    return check_refuse(c, c->s->set->invalid_hostname_code, "5.5.2", false,
                        "<%.*s>: Helo command rejected: Invalid name", STR_ARG(helo));
}

enum verdict row_reject_non_fqdn_helo(struct checks *c, const struct restriction *r) {
    (void)r;
    struct str helo = c->s->helo;
    if (helo.n == 0)
        return DUNNO;
    if (helo_is_literal(helo))
        return check_helo_literal(c);
    struct str name = without_dot(helo);
    if (hostname_valid(name) && str_index(name, '.') >= 0)
        return DUNNO;
    return check_refuse(c, c->s->set->non_fqdn_code, "5.5.2", false,
                        "<%.*s>: Helo command rejected: need fully-qualified hostname", STR_ARG(helo));
}

/* --- addresses --- */
static bool is_complete(struct str address) {
    struct address_parts p = address_split(address);
    if (p.domain.n && p.domain.p[0] == '[')
        return true;
    struct str name = without_dot(p.domain);
    return name.n && str_index(name, '.') >= 0 && (hostname_valid(name) || !str_is_ascii(name));
}

static enum verdict non_fqdn(struct checks *c, struct str address, const char *class) {
    if (address.n == 0 || is_complete(address))
        return DUNNO;
    return check_refuse(c, c->s->set->non_fqdn_code, "4.5.2", false,
                        "<%.*s>: %s rejected: need fully-qualified address", STR_ARG(address), class);
}

enum verdict row_reject_non_fqdn_sender(struct checks *c, const struct restriction *r) {
    (void)r;
    return c->have_sender ? non_fqdn(c, c->sender, "Sender address") : DUNNO;
}

enum verdict row_reject_non_fqdn_recipient(struct checks *c, const struct restriction *r) {
    (void)r;
    return c->have_recipient ? non_fqdn(c, c->recipient, "Recipient address") : DUNNO;
}

/* A bounce has one recipient; until DATA we only know that there is a second one. */
enum verdict row_reject_multi_recipient_bounce(struct checks *c, const struct restriction *r) {
    (void)r;
    const struct tx *tx = c->s->tx;
    bool recipient_stage = strcmp(c->s->stage, "RCPT") == 0;
    if (!c->have_sender || c->sender.n || !tx || tx->rcpts < (recipient_stage ? 1 : 2))
        return DUNNO;
    return check_refuse(c, c->s->set->multi_bounce_code, "5.5.3", true, "Multi-recipient bounce");
}
