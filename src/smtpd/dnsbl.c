#include "smtpd/dnsbl.h"

#include "base/die.h"
#include "base/log.h"
#include "base/map.h"
#include "conf/expand.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "smtpd/footer.h"
#include "smtpd/restriction.h"
#include <stdlib.h>

/* --- lists --- */
error dns_list_parse(struct arena *a, struct str text, struct dns_list **ret) {
    struct dns_list *l = ARENA_NEW(a, struct dns_list);
    ptrdiff_t at = str_index(text, '=');
    l->argument = arena_str(a, text);
    l->domain = at < 0 ? l->argument : str_sub(l->argument, 0, (size_t)at);
    l->filtered = at >= 0;
    *ret = l;
    if (l->domain.n == 0)
        return err_make(a, ERR_SYNTAX, "need a domain in front of =");
    return l->filtered ? dnsxl_filter_parse(a, str_from(l->argument, (size_t)at + 1), &l->filter) : NULL;
}

static bool has(const struct dns_list *l, const struct dns_answer *answer) {
    for (size_t i = 0; i < answer->count; i++)
        if (!l->filtered || dnsxl_filter_match(&l->filter, answer->records[i].addr.u.in.sin_addr))
            return true;
    return false;
}

/* --- what they have said --- */
struct dns_cache {
    struct arena *arena;
    struct map map; /* name -> struct dns_answer */
};

void dns_cache_free(struct dns_cache *c) {
    if (!c)
        return;
    map_free(&c->map);
    arena_free(c->arena);
    free(c);
}

static const struct dns_answer *ask(struct session *s, struct str name) {
    struct arena *a = session_scratch(s);
    struct str key = arena_lower(a, name);
    if (s->dns_cache && s->dns_cache->map.n >= DNS_CACHE_MAX) {
        dns_cache_free(s->dns_cache);
        s->dns_cache = NULL;
    }
    if (!s->dns_cache) {
        s->dns_cache = calloc(1, sizeof *s->dns_cache);
        if (!s->dns_cache)
            die_no_memory(sizeof *s->dns_cache);
        s->dns_cache->arena = arena_new();
    }
    struct dns_cache *c = s->dns_cache;
    struct dns_answer *known = map_get(&c->map, key);
    if (known)
        return known;
    struct dns_answer *answer = ARENA_NEW(a, struct dns_answer);
    s->back->dns_query(s->back->ctx, a, name, DNS_A, answer);
    if (answer->status == DNS_OK || answer->status == DNS_NOT_FOUND || answer->status == DNS_NO_DATA) {
        struct dns_answer *kept = ARENA_NEW(c->arena, struct dns_answer);
        *kept = (struct dns_answer){ .status = answer->status, .count = answer->count };
        kept->records = arena_array(c->arena, answer->count, sizeof *kept->records);
        for (size_t i = 0; i < answer->count; i++)
            kept->records[i] = (struct dns_record){ .type = answer->records[i].type, .addr = answer->records[i].addr };
        map_put(&c->map, arena_str(c->arena, key), kept);
    } else {
        log_warn("%.*s: RBL lookup error: Host or domain name not found. Name service error for name=%.*s type=A: %.*s",
                 STR_ARG(name), STR_ARG(name), STR_ARG(dns_status_text(answer->status)));
    }
    return answer;
}

/* Where a list has what is asked about, and why: the list's own words. */
struct listing {
    struct str query;
    bool listed, failed;
};

static struct listing look_up(struct checks *c, const struct dns_list *l, struct str name) {
    struct listing found = { .query = name };
    const struct dns_answer *answer = ask(c->s, found.query);
    found.listed = has(l, answer);
    found.failed = answer->status == DNS_RETRY || answer->status == DNS_INVALID;
    return found;
}

static struct str reason(struct checks *c, struct str query) {
    struct dns_answer answer;
    c->s->back->dns_query(c->s->back->ctx, c->arena, query, DNS_TXT, &answer);
    if (answer.status != DNS_OK || answer.count == 0) {
        if (answer.status == DNS_RETRY || answer.status == DNS_INVALID)
            log_warn("%.*s: TXT lookup error: %.*s", STR_ARG(query), STR_ARG(dns_status_text(answer.status)));
        return STR("");
    }
    return answer.records[0].text;
}

/* --- the reply --- */
struct reply_names {
    struct checks *c;
    struct str code, domain, what, text;
    const char *class;
};

static bool reply_name(void *ctx, struct str name, struct expand_value *ret) {
    const struct reply_names *n = ctx;
    const struct {
        struct str name, value;
    } own[] = {
        { STR_INIT("rbl_code"), n->code },   { STR_INIT("rbl_domain"), n->domain },
        { STR_INIT("rbl_reason"), n->text }, { STR_INIT("rbl_txt"), n->text },
        { STR_INIT("rbl_what"), n->what },   { STR_INIT("rbl_class"), str_c(n->class) },
    };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (str_eq(name, own[i].name)) {
            *ret =
                (struct expand_value){ filtered_text(n->c->arena, n->c->s->set->expansion_filter, own[i].value), true };
            return true;
        }
    return session_value(n->c->arena, n->c->s, name, ret);
}

static bool fill_in(struct checks *c, const struct reply_names *names, struct str template, struct str *ret) {
    error e = expand(template, reply_name, (void *)(uintptr_t)names, c->arena, ret);
    if (e)
        log_warn("%.*s: bad rbl reply template for domain %.*s: %.*s", STR_ARG(template), STR_ARG(names->domain),
                 STR_ARG(e->text));
    return !e;
}

static enum verdict refuse(struct checks *c, const struct dns_list *l, struct str query, struct str what,
                           const char *class) {
    const struct settings *set = c->s->set;
    struct str template = set->rbl_reply, text;
    if (set->rbl_replies) {
        enum table_result found = maps_get(set->rbl_replies, l->argument, c->arena, &template, NULL);
        if (found == TABLE_ERROR)
            return check_config_error(c);
        if (found == TABLE_NOT_FOUND)
            template = set->rbl_reply;
    }
    const struct reply_names names = { .c = c,
                                       .code = arena_printf(c->arena, "%d", set->rbl_code),
                                       .domain = l->domain,
                                       .what = what,
                                       .text = reason(c, query),
                                       .class = class };
    if (!fill_in(c, &names, template, &text) && !fill_in(c, &names, set->rbl_reply, &text))
        return check_config_error(c);
    /* "554 5.7.1 text": the code, and the status, may be missing */
    int code = set->rbl_code;
    text = str_trim(text);
    if (text.n >= 3 && (text.p[0] == '4' || text.p[0] == '5') && byte_is_digit(text.p[1]) && byte_is_digit(text.p[2]) &&
        (text.n == 3 || byte_is_space(text.p[3]))) {
        code = (text.p[0] - '0') * 100 + (text.p[1] - '0') * 10 + (text.p[2] - '0');
        text = str_trim(str_from(text, 3));
    }
    struct str status, rest, old_subject = c->subject;
    const char *old_class = c->class;
    dsn_split(text, STR("4.7.1"), &status, &rest);
    c->subject = what;
    c->class = class;
    status = access_fitting_status(c, status);
    enum verdict v = check_refuse(c, code, arena_cstr(c->arena, status), false, "%.*s",
                                  STR_ARG(rest.n ? rest : STR("Access denied")));
    c->subject = old_subject;
    c->class = old_class;
    return v;
}

/* --- the rows --- */
static bool client_in_list(struct checks *c, const struct dns_list *l, struct str *ret) {
    struct endpoint client;
    return endpoint_ip(c->s->address, 0, &client) && dnsxl_name(c->arena, &client, l->domain, ret);
}

static struct str domain_in_list(struct checks *c, const struct dns_list *l, struct str domain) {
    return arena_printf(c->arena, "%.*s.%.*s", STR_ARG(domain), STR_ARG(l->domain));
}

enum verdict row_rbl_client(struct checks *c, const struct restriction *r) {
    struct str name;
    if (!client_in_list(c, r->list, &name))
        return DUNNO;
    struct listing found = look_up(c, r->list, name);
    return found.listed ? refuse(c, r->list, found.query, c->s->address, "Client host") : DUNNO;
}

/* A list that vouches and cannot be asked: nobody is refused for good. */
static enum verdict permit(struct checks *c, const struct listing *found, struct str subject, const char *class) {
    if (found->listed)
        return PERMIT;
    if (found->failed)
        check_defer(c, &c->defer_if_reject, 450, STR("4.7.1"), false,
                    arena_printf(c->arena, "<%.*s>: %s rejected: Service unavailable", STR_ARG(subject), class));
    return DUNNO;
}

enum verdict row_dnswl_client(struct checks *c, const struct restriction *r) {
    struct str name;
    if (!client_in_list(c, r->list, &name))
        return DUNNO;
    struct listing found = look_up(c, r->list, name);
    return permit(c, &found, c->s->address, "Client host");
}

/* The domain to ask about; empty: none that a list could have. */
static struct str domain_of(struct str what) {
    struct address_parts p = address_split(what);
    struct str domain = p.has_domain ? p.domain : what;
    struct endpoint e;
    if (domain.n > 1 && domain.p[domain.n - 1] == '.')
        domain.n--;
    if (domain.n == 0 || domain.p[0] == '[' || str_eq_icase(domain, STR("unknown")) || endpoint_ip(domain, 0, &e))
        return STR("");
    return domain;
}

enum verdict row_rhswl_client(struct checks *c, const struct restriction *r) {
    struct str domain = domain_of(c->s->name);
    if (domain.n == 0)
        return DUNNO;
    struct listing found = look_up(c, r->list, domain_in_list(c, r->list, domain));
    return permit(c, &found, c->s->name, "Client host");
}

enum verdict row_rhsbl(struct checks *c, const struct restriction *r) {
    const struct session *s = c->s;
    const struct {
        struct str name, what;
        const char *class;
    } rows[] = {
        { STR_INIT("reject_rhsbl_client"), s->name, "Client host" },
        { STR_INIT("reject_rhsbl_reverse_client"), s->reverse_name, "Unverified Client host" },
        { STR_INIT("reject_rhsbl_helo"), s->helo, "Helo command" },
        { STR_INIT("reject_rhsbl_sender"), c->have_sender ? c->sender : STR(""), "Sender address" },
        { STR_INIT("reject_rhsbl_recipient"), c->have_recipient ? c->recipient : STR(""), "Recipient address" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!str_eq(r->row->name, rows[i].name))
            continue;
        /* an address without a domain has none in a list */
        bool address = i >= 3;
        struct str domain = address && !address_split(rows[i].what).has_domain ? STR("") : domain_of(rows[i].what);
        if (domain.n == 0)
            return DUNNO;
        struct listing found = look_up(c, r->list, domain_in_list(c, r->list, domain));
        return found.listed ? refuse(c, r->list, found.query, rows[i].what, rows[i].class) : DUNNO;
    }
    return DUNNO;
}
