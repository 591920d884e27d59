/* restriction_table.c - the names of restrictions, and lists of them as text. */
#include "smtpd/restriction.h"

#include "base/log.h"
#include "smtpd/dnsbl.h"
#include "smtpd/policy.h"

enum { SLEEP_MAX = 3600 /* seconds a restriction may pause */ };

#define ROW(name, argument, run)                                                                                       \
    { STR_INIT(name), argument, run }
const struct restriction_row restriction_rows[] = {
    ROW("permit", ARG_NONE, row_permit),
    ROW("reject", ARG_NONE, row_reject),
    ROW("defer", ARG_NONE, row_defer),
    ROW("warn_if_reject", ARG_NONE, row_warn_if_reject),
    ROW("defer_if_permit", ARG_NONE, row_defer_if_permit),
    ROW("defer_if_reject", ARG_NONE, row_defer_if_reject),
    ROW("sleep", ARG_NUMBER, row_sleep),

    ROW("permit_mynetworks", ARG_NONE, row_permit_mynetworks),
    ROW("permit_inet_interfaces", ARG_NONE, row_permit_inet_interfaces),
    ROW("permit_sasl_authenticated", ARG_NONE, row_permit_sasl_authenticated),
    ROW("permit_tls_clientcerts", ARG_NONE, row_permit_tls_clientcerts),
    ROW("permit_tls_all_clientcerts", ARG_NONE, row_permit_tls_all_clientcerts),
    ROW("reject_unauth_pipelining", ARG_NONE, row_reject_unauth_pipelining),
    ROW("reject_plaintext_session", ARG_NONE, row_reject_plaintext_session),
    ROW("reject_unknown_client_hostname", ARG_NONE, row_reject_unknown_client),
    ROW("reject_unknown_client", ARG_NONE, row_reject_unknown_client),
    ROW("reject_unknown_reverse_client_hostname", ARG_NONE, row_reject_unknown_reverse),

    ROW("check_policy_service", ARG_POLICY, row_check_policy_service),

    ROW("check_client_access", ARG_MAP, access_client),
    ROW("check_reverse_client_hostname_access", ARG_MAP, access_reverse_client),
    ROW("check_ccert_access", ARG_CCERT, access_ccert),
    ROW("check_sasl_access", ARG_MAP, access_sasl),
    ROW("check_helo_access", ARG_MAP, access_helo),
    ROW("check_sender_access", ARG_MAP, access_sender),
    ROW("check_recipient_access", ARG_MAP, access_recipient),
    ROW("check_etrn_access", ARG_MAP, access_etrn),

    ROW("check_client_a_access", ARG_MAP, row_dns_access),
    ROW("check_client_mx_access", ARG_MAP, row_dns_access),
    ROW("check_client_ns_access", ARG_MAP, row_dns_access),
    ROW("check_reverse_client_hostname_a_access", ARG_MAP, row_dns_access),
    ROW("check_reverse_client_hostname_mx_access", ARG_MAP, row_dns_access),
    ROW("check_reverse_client_hostname_ns_access", ARG_MAP, row_dns_access),
    ROW("check_helo_a_access", ARG_MAP, row_dns_access),
    ROW("check_helo_mx_access", ARG_MAP, row_dns_access),
    ROW("check_helo_ns_access", ARG_MAP, row_dns_access),
    ROW("check_sender_a_access", ARG_MAP, row_dns_access),
    ROW("check_sender_mx_access", ARG_MAP, row_dns_access),
    ROW("check_sender_ns_access", ARG_MAP, row_dns_access),
    ROW("check_recipient_a_access", ARG_MAP, row_dns_access),
    ROW("check_recipient_mx_access", ARG_MAP, row_dns_access),
    ROW("check_recipient_ns_access", ARG_MAP, row_dns_access),

    ROW("reject_rbl_client", ARG_DNS_LIST, row_rbl_client),
    ROW("reject_rbl", ARG_DNS_LIST, row_rbl_client), /* its old name */
    ROW("reject_rhsbl_client", ARG_DNS_LIST, row_rhsbl),
    ROW("reject_rhsbl_reverse_client", ARG_DNS_LIST, row_rhsbl),
    ROW("reject_rhsbl_helo", ARG_DNS_LIST, row_rhsbl),
    ROW("reject_rhsbl_sender", ARG_DNS_LIST, row_rhsbl),
    ROW("reject_rhsbl_recipient", ARG_DNS_LIST, row_rhsbl),
    ROW("permit_dnswl_client", ARG_DNS_LIST, row_dnswl_client),
    ROW("permit_rhswl_client", ARG_DNS_LIST, row_rhswl_client),

    ROW("reject_non_fqdn_helo_hostname", ARG_NONE, row_reject_non_fqdn_helo),
    ROW("reject_non_fqdn_hostname", ARG_NONE, row_reject_non_fqdn_helo),
    ROW("reject_invalid_helo_hostname", ARG_NONE, row_reject_invalid_helo),
    ROW("reject_invalid_hostname", ARG_NONE, row_reject_invalid_helo),
    ROW("reject_unknown_helo_hostname", ARG_NONE, row_reject_unknown_helo),
    ROW("reject_unknown_hostname", ARG_NONE, row_reject_unknown_helo),

    ROW("reject_non_fqdn_sender", ARG_NONE, row_reject_non_fqdn_sender),
    ROW("reject_non_fqdn_recipient", ARG_NONE, row_reject_non_fqdn_recipient),
    ROW("reject_unknown_sender_domain", ARG_NONE, row_reject_unknown_sender_domain),
    ROW("reject_unknown_address", ARG_NONE, row_reject_unknown_sender_domain),
    ROW("reject_unknown_recipient_domain", ARG_NONE, row_reject_unknown_recipient_domain),
    ROW("reject_unlisted_sender", ARG_NONE, row_reject_unlisted_sender),
    ROW("reject_unlisted_recipient", ARG_NONE, row_reject_unlisted_recipient),
    ROW("check_recipient_maps", ARG_NONE, row_reject_unlisted_recipient), /* its old name */
    ROW("reject_unverified_sender", ARG_NONE, row_reject_unverified_sender),
    ROW("reject_unverified_recipient", ARG_NONE, row_reject_unverified_recipient),
    ROW("reject_sender_login_mismatch", ARG_NONE, row_sender_login_mismatch),
    ROW("reject_authenticated_sender_login_mismatch", ARG_NONE, row_authenticated_login_mismatch),
    ROW("reject_known_sender_login_mismatch", ARG_NONE, row_known_login_mismatch),
    ROW("reject_unauthenticated_sender_login_mismatch", ARG_NONE, row_unauthenticated_login_mismatch),
    ROW("reject_multi_recipient_bounce", ARG_NONE, row_reject_multi_recipient_bounce),

    ROW("permit_auth_destination", ARG_NONE, row_permit_auth_destination),
    ROW("reject_unauth_destination", ARG_NONE, row_reject_unauth_destination),
    ROW("defer_unauth_destination", ARG_NONE, row_defer_unauth_destination),
    ROW("permit_mx_backup", ARG_NONE, row_permit_mx_backup),

    /* gone since Postfix 3.9 */
    ROW("check_relay_domains", ARG_NONE, row_removed),
    ROW("permit_naked_ip_address", ARG_NONE, row_removed),
    ROW("reject_maps_rbl", ARG_NONE, row_removed),
};
const size_t restriction_row_count = sizeof restriction_rows / sizeof *restriction_rows;

static const struct restriction_row class_row = ROW("restriction class", ARG_NONE, row_class);
static const struct restriction_row bare_table_row = ROW("type:table", ARG_MAP, row_bare_table);

static const struct restriction_row *row_find(struct str name) {
    for (size_t i = 0; i < restriction_row_count; i++)
        if (str_eq_icase(name, restriction_rows[i].name))
            return &restriction_rows[i];
    return NULL;
}

static const struct restriction_class *class_find(const struct settings *set, struct str name) {
    for (size_t i = 0; i < set->classes.n; i++)
        if (str_eq(name, set->classes.at[i]->name)) /* a parameter's name: case counts */
            return set->classes.at[i];
    return NULL;
}

/* --- arguments --- */
static struct maps *open_maps(struct settings *set, struct str spec) {
    struct maps *m = maps_open(set->conf, spec, TABLE_FOLD);
    *vec_add(set->arena, &set->access_maps) = m;
    return m;
}

static void read_map(struct arena *a, struct settings *set, struct restriction *r) {
    if (set && str_index(r->argument, ':') >= 0)
        r->maps = open_maps(set, r->argument);
    else
        r->problem = arena_printf(a, "restriction %.*s: bad argument \"%.*s\": need maptype:mapname", STR_ARG(r->name),
                                  STR_ARG(r->argument.n ? r->argument : r->name));
}

static bool is_braced(struct str s) {
    return s.n >= 2 && s.p[0] == '{' && s.p[s.n - 1] == '}';
}

static struct str unbraced(struct str s) {
    return is_braced(s) ? str_trim(str_sub(s, 1, s.n - 2)) : s;
}

/* "cert_fingerprint, pubkey_fingerprint": 0 for anything else. */
static unsigned search_order(struct str text) {
    static const struct {
        struct str word;
        enum ccert_key key;
    } words[] = { { STR_INIT("cert_fingerprint"), CCERT_FINGERPRINT },
                  { STR_INIT("pubkey_fingerprint"), CCERT_PUBKEY_FINGERPRINT } };
    unsigned order = 0, shift = 0;
    struct str word;
    while (str_word(&text, STR_COMMA_SPACE, &word)) {
        enum ccert_key key = 0;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (str_eq_icase(word, words[i].word))
                key = words[i].key;
        if (!key || shift > 4)
            return 0;
        order |= (unsigned)key << shift;
        shift += 4;
    }
    return order;
}

/* type:table, or { type:table, { search_order = ... } } */
static void read_ccert(struct arena *a, struct settings *set, struct restriction *r) {
    struct str whole = r->argument, rest = unbraced(whole), word, order;
    r->search_order = CCERT_DEFAULT_ORDER;
    if (is_braced(whole)) {
        if (!str_word_braced(&rest, STR_COMMA_SPACE, &word))
            word = STR("");
        rest = str_trim(rest);
        while (rest.n && rest.p[0] == ',')
            rest = str_trim(str_from(rest, 1));
        r->argument = arena_str(a, word);
        order = unbraced(rest);
        if (str_starts(order, STR("search_order"))) {
            order = str_trim(str_from(order, 12));
            r->search_order = order.n && order.p[0] == '=' ? search_order(str_trim(str_from(order, 1))) : 0;
        } else if (order.n) {
            r->search_order = 0;
        }
    }
    read_map(a, set, r);
    if (r->search_order == 0)
        r->problem = arena_printf(a,
                                  "restriction %.*s: bad argument \"%.*s\": need { type:table, { search_order = "
                                  "cert_fingerprint, pubkey_fingerprint } }",
                                  STR_ARG(r->name), STR_ARG(whole));
}

static void read_dns_list(struct arena *a, struct restriction *r) {
    struct dns_list *list;
    if (r->argument.n == 0) {
        r->problem = arena_printf(a, "restriction %.*s requires domain name argument", STR_ARG(r->name));
        return;
    }
    error e = dns_list_parse(a, r->argument, &list);
    if (e)
        r->problem = arena_printf(a, "restriction %.*s: bad argument \"%.*s\": %.*s", STR_ARG(r->name),
                                  STR_ARG(r->argument), STR_ARG(e->text));
    r->list = list;
}

/* Restrictions with the same text have the same server and connections. */
static void read_policy(struct arena *a, struct settings *set, struct restriction *r) {
    struct policy_service *p = NULL;
    for (size_t i = 0; set && i < set->policies.n; i++)
        if (str_eq(set->policies.at[i]->text, r->argument))
            r->policy = set->policies.at[i];
    if (r->policy)
        return;
    error e = NULL;
    if (r->argument.n == 0 || !set)
        r->problem = arena_printf(a, "restriction %.*s must be followed by transport:server", STR_ARG(r->name));
    else if ((e = policy_service_parse(set->arena, set->conf, r->argument, &p)))
        r->problem = arena_printf(a, "restriction %.*s: bad argument \"%.*s\": %.*s", STR_ARG(r->name),
                                  STR_ARG(r->argument), STR_ARG(e->text));
    else
        *vec_add(set->arena, &set->policies) = r->policy = p;
}

static void read_argument(struct arena *a, struct settings *set, struct restriction *r) {
    switch (r->row->argument) {
    case ARG_NONE:
        break;
    case ARG_NUMBER:
        if (!str_to_u32(r->argument, SLEEP_MAX, &r->number))
            r->problem = arena_printf(a, "restriction %.*s must be followed by a number of seconds up to %d",
                                      STR_ARG(r->name), SLEEP_MAX);
        break;
    case ARG_MAP:
        read_map(a, set, r);
        break;
    case ARG_CCERT:
        read_ccert(a, set, r);
        break;
    case ARG_DNS_LIST:
        read_dns_list(a, r);
        break;
    case ARG_POLICY:
        read_policy(a, set, r);
        break;
    }
}

/* --- lists --- */
static void parse(struct arena *a, const struct settings *names, struct settings *set, struct str text,
                  struct restrictions *ret) {
    VEC(struct restriction) v = { 0 };
    struct str word;
    while (str_word_braced(&text, STR_COMMA_SPACE, &word)) {
        const struct restriction_class *class = class_find(names, word);
        struct restriction r = { .row = class ? &class_row : row_find(word),
                                 .name = arena_str(a, word),
                                 .argument = STR(""),
                                 .problem = STR("") };
        if (class)
            r.class = &class->list;
        if (!r.row && str_index(word, ':') >= 0) {
            r.row = &bare_table_row;
            r.argument = r.name;
        } else if (r.row && r.row->argument != ARG_NONE && str_word_braced(&text, STR_COMMA_SPACE, &word)) {
            r.argument = arena_str(a, word);
        }
        if (r.row)
            read_argument(a, set, &r);
        else
            r.problem = arena_printf(a, "unknown smtpd restriction: \"%.*s\"", STR_ARG(r.name));
        *vec_add(a, &v) = r;
    }
    if (text.n) /* unbalanced braces: nobody can say what was meant */
        *vec_add(a, &v) = (struct restriction){
            .name = arena_str(a, text),
            .argument = STR(""),
            .problem = arena_printf(a, "unknown smtpd restriction: \"%.*s\"", STR_ARG(text)),
        };
    *ret = (struct restrictions){ .at = v.at, .n = v.n };
}

void restrictions_parse(struct settings *set, struct str text, struct str by_default, struct restrictions *ret) {
    parse(set->arena, set, set, text, ret);
    ret->bare_table = by_default.n ? row_find(by_default) : NULL;
}

void restrictions_parse_answer(struct arena *a, const struct settings *set, struct str text, struct restrictions *ret) {
    parse(a, set, NULL, text, ret);
}

error restriction_classes_read(struct settings *set, struct arena *err_arena) {
    struct str list = conf_str(set->conf, PARAM_smtpd_restriction_classes), name;
    while (str_word(&list, STR_COMMA_SPACE, &name)) {
        struct restriction_class *c = ARENA_NEW(set->arena, struct restriction_class);
        c->name = arena_str(set->arena, name);
        if (!conf_lookup(set->conf, name, set->arena, &c->text))
            return err_make(err_arena, ERR_CONFIG, "restriction class `%.*s' needs a definition", STR_ARG(name));
        *vec_add(set->arena, &set->classes) = c;
    }
    for (size_t i = 0; i < set->classes.n; i++)
        restrictions_parse(set, set->classes.at[i]->text, STR(""), &set->classes.at[i]->list);
    return NULL;
}

static bool guards_relay(const struct restrictions *list, unsigned depth) {
    static const struct str guards[] = {
        STR_INIT("reject_unauth_destination"),
        STR_INIT("defer_unauth_destination"),
        STR_INIT("reject"),
        STR_INIT("defer"),
        STR_INIT("defer_if_permit"),
        STR_INIT("check_relay_domains"),
    };
    for (size_t i = 0; i < list->n; i++) {
        const struct restriction *r = &list->at[i];
        for (size_t k = 0; k < sizeof guards / sizeof *guards; k++)
            if (r->row && str_eq_icase(r->name, guards[k]))
                return true;
        if (r->class && depth < RESTRICTION_NESTING_MAX && guards_relay(r->class, depth + 1))
            return true;
        if (r->row && r->row->run == row_permit)
            return false;
    }
    return false;
}

bool restrictions_guard_relay(const struct restrictions *list) {
    return guards_relay(list, 1);
}

void restrictions_warn_about_rest(const struct restrictions *list, size_t at, bool warn_only) {
    const struct restriction *r = &list->at[at];
    if (!r->row || at + 1 >= list->n)
        return;
    if (r->row->run == row_permit || (!warn_only && (r->row->run == row_reject || r->row->run == row_defer)))
        log_warn("restriction `%.*s' after `%.*s' is ignored", STR_ARG(list->at[at + 1].name), STR_ARG(r->name));
}
