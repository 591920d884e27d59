/* access.c - access(5) tables: who is looked up, and how. */
#include "smtpd/restriction.h"

#include "base/log.h"
#include "mail/address.h"

enum verdict access_answer(struct checks *c, const struct restriction *r, enum table_result found, struct str key,
                           struct str value, struct str subject, const char *class, after_nested *after) {
    struct str old_subject = c->subject;
    const char *old_class = c->class;
    enum verdict v = DUNNO;
    c->subject = subject;
    c->class = class;
    if (found == TABLE_ERROR) {
        log_warn("%.*s lookup error for \"%.*s\"", STR_ARG(r->argument), STR_ARG(key));
        v = check_fail(c, ERROR_POLICY, 451, "4.3.5", "<%.*s>: %s rejected: Server configuration error",
                       STR_ARG(subject), class);
    } else if (found == TABLE_FOUND) {
        v = access_apply(c, r->argument, key, value);
        if (v == NESTED)
            c->nested.after = after;
        else if (after)
            v = after(c, r, v);
    }
    c->subject = old_subject;
    c->class = old_class;
    return v;
}

unsigned access_parent_flags(const struct checks *c) {
    return c->s->set->access_parents ? ADDR_FIND_PARENT_NO_DOT : 0;
}

static enum table_result find_host(struct checks *c, const struct restriction *r, struct str name, struct str *ret) {
    enum table_result found = name_find(r->maps, name, access_parent_flags(c), c->arena, ret);
    return found == TABLE_NOT_FOUND ? ip_find(r->maps, c->s->address, c->arena, ret) : found;
}

enum verdict access_client(struct checks *c, const struct restriction *r) {
    struct str value;
    struct session *s = c->s;
    enum table_result found = find_host(c, r, s->name, &value);
    return access_answer(c, r, found, s->name, value, s->log_name, "Client host", NULL);
}

/* The name is the client's own word: it opens no doors. */
enum verdict access_reverse_client(struct checks *c, const struct restriction *r) {
    struct str value, name = c->s->reverse_name;
    enum table_result found = find_host(c, r, name, &value);
    return access_answer(c, r, found, name, value, name, "Unverified Client host", check_forbid_ok);
}

/* Fingerprints are of a certificate that the client holds the key of: nobody need vouch for it. */
enum verdict access_ccert(struct checks *c, const struct restriction *r) {
    const struct tls_facts *tls = &c->s->tls;
    for (unsigned order = r->search_order; tls->active && order; order >>= 4) {
        struct str value, key = (order & 15) == CCERT_FINGERPRINT ? tls->cert_print : tls->key_print;
        if (key.n == 0)
            continue;
        enum table_result found = maps_get(r->maps, key, c->arena, &value, NULL);
        if (found != TABLE_NOT_FOUND)
            return access_answer(c, r, found, key, value, tls->subject, "Client certificate", NULL);
    }
    return DUNNO;
}

enum verdict access_sasl(struct checks *c, const struct restriction *r) {
    struct str value, user = c->s->login.username;
    if (user.n == 0)
        return DUNNO;
    enum table_result found = maps_get(r->maps, user, c->arena, &value, NULL);
    return access_answer(c, r, found, user, value, user, "SASL login name", NULL);
}

enum verdict access_helo(struct checks *c, const struct restriction *r) {
    struct str value, helo = c->s->helo;
    if (helo.n == 0)
        return DUNNO;
    enum table_result found = name_find(r->maps, helo, access_parent_flags(c), c->arena, &value);
    return access_answer(c, r, found, helo, value, helo, "Helo command", NULL);
}

struct str whole_address(struct checks *c, struct str address) {
    const struct conf *conf = c->s->set->conf;
    struct address_parts p = address_split(address);
    if (!p.has_domain && conf_bool(conf, PARAM_append_at_myorigin))
        return arena_printf(c->arena, "%.*s@%.*s", STR_ARG(address), STR_ARG(conf_str(conf, PARAM_myorigin)));
    if (p.domain.n && str_index(p.domain, '.') < 0 && str_index(p.domain, ':') < 0 &&
        conf_bool(conf, PARAM_append_dot_mydomain))
        return arena_printf(c->arena, "%.*s.%.*s", STR_ARG(address), STR_ARG(conf_str(conf, PARAM_mydomain)));
    return address;
}

static enum table_result find_mailbox(struct checks *c, const struct restriction *r, struct str address,
                                      struct str *ret) {
    struct str extension;
    unsigned flags = ADDR_FIND_DOMAIN | ADDR_FIND_LOCAL_AT | access_parent_flags(c);
    return addr_find(r->maps, whole_address(c, address), false, flags, c->s->set->extensions, c->arena, ret,
                     &extension);
}

enum verdict access_sender(struct checks *c, const struct restriction *r) {
    struct str value, key = c->sender.n ? c->sender : c->s->set->null_sender_key;
    if (!c->have_sender)
        return DUNNO;
    enum table_result found =
        c->sender.n ? find_mailbox(c, r, key, &value) : maps_get(r->maps, key, c->arena, &value, NULL);
    return access_answer(c, r, found, key, value, c->sender, "Sender address", NULL);
}

/* OK does not make user%elsewhere@relay a way to everywhere. */
static enum verdict unless_routed(struct checks *c, const struct restriction *r, enum verdict v) {
    (void)r;
    return v == PERMIT && check_recipient_is_routed(c) ? DUNNO : v;
}

enum verdict access_recipient(struct checks *c, const struct restriction *r) {
    struct str value;
    if (!c->have_recipient)
        return DUNNO;
    enum table_result found = find_mailbox(c, r, c->recipient, &value);
    return access_answer(c, r, found, c->recipient, value, c->recipient, "Recipient address", unless_routed);
}

enum verdict access_etrn(struct checks *c, const struct restriction *r) {
    struct str value;
    if (c->etrn.n == 0)
        return DUNNO;
    enum table_result found = name_find(r->maps, c->etrn, access_parent_flags(c), c->arena, &value);
    return access_answer(c, r, found, c->etrn, value, c->etrn, "Etrn command", NULL);
}
