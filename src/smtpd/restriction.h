/* restriction.h - access restriction lists (SMTPD_ACCESS_README) as a table of rows (restriction_table.c).
 *
 * restrictions_parse() turns a parameter's text into rows once; the check_...() functions run the lists that belong to
 * a stage of the session. Each returns NULL, or a refusal that has been logged and wants to be told to the client. */
#ifndef ANGARIUM_SMTPD_RESTRICTION_H
#define ANGARIUM_SMTPD_RESTRICTION_H

#include "smtpd/session.h"

enum verdict {
    DUNNO,
    PERMIT,
    REFUSE,
    NESTED, /* rows only: the list in checks.nested has the word */
};
enum { RESTRICTION_NESTING_MAX = 100 /* classes, and restrictions that tables name, inside each other */ };

struct checks;
/* What a row makes of the verdict of a list that it had run in its place. */
typedef enum verdict after_nested(struct checks *c, const struct restriction *r, enum verdict v);

/* One run over the lists of one stage. */
struct checks {
    struct session *s;
    struct arena *arena;
    struct str subject;                       /* what <...> shows: NAME[ADDR], the HELO name, an address, "DATA" */
    const char *class;                        /* "Client host" */
    const struct restriction_row *bare_table; /* what a bare type:table means in this list; NULL: nothing */
    bool have_sender;
    struct str sender; /* internal form */
    bool have_recipient;
    struct str recipient;
    struct str etrn;                      /* domain; empty: this is not ETRN */
    unsigned depth;                       /* of the list that runs; 1: the stage's own */
    unsigned warn;                        /* warn_if_reject stands before this restriction: in a list of this depth */
    bool recipient_listed, sender_listed; /* looked up already */
    unsigned known;                       /* enum route_want: of `recipient`, what has been asked */
    struct route_check about;
    bool before_mail; /* a client or HELO stage of its own (smtpd_delay_reject = no): there is no message to act on */
    struct deferral defer_if_permit, defer_if_reject;
    error refusal; /* after REFUSE */
    struct {       /* with NESTED: */
        const struct restrictions *list;
        struct str subject;
        const char *class;
        after_nested *after; /* NULL: the verdict stands */
    } nested;
    struct str permitted_by;  /* the table that did; empty: a restriction of its own */
    struct str permit_action; /* what that table said */
};

enum restriction_argument {
    ARG_NONE,
    ARG_NUMBER,
    ARG_MAP,      /* restriction.maps */
    ARG_CCERT,    /* restriction.maps, restriction.search_order */
    ARG_DNS_LIST, /* restriction.list */
    ARG_POLICY,   /* restriction.policy */
};
struct restriction_row {
    struct str name;
    enum restriction_argument argument;
    enum verdict (*run)(struct checks *c, const struct restriction *r);
};
extern const struct restriction_row restriction_rows[];
extern const size_t restriction_row_count;

/* --- restriction_table.c --- */
/* smtpd_restriction_classes: the names first, so that lists may use them in any order. ERR_CONFIG: one that is not
 * defined. */
error restriction_classes_read(struct settings *set, struct arena *err_arena);
/* A bare type:table means `by_default`, the list's own kind of check; empty: it has none. Tables are opened, and belong
 * to `set`. */
void restrictions_parse(struct settings *set, struct str text, struct str by_default, struct restrictions *ret);
/* The same for what an access table answers: nothing is opened, a check of a table is an error when it is run. */
void restrictions_parse_answer(struct arena *a, const struct settings *set, struct str text, struct restrictions *ret);
/* True when the list can refuse relaying: reject_unauth_destination and its likes. */
bool restrictions_guard_relay(const struct restrictions *list);
/* permit, reject, defer: what stands behind them is never reached. */
void restrictions_warn_about_rest(const struct restrictions *list, size_t at, bool warn_only);

error check_client(struct session *s);
error check_helo(struct session *s);
error check_sender(struct session *s);
error check_recipient(struct session *s, struct str recipient);
error check_data(struct session *s);
error check_end_of_data(struct session *s);
error check_etrn(struct session *s, struct str domain);
/* Is the client one for whom headers are rewritten as for local mail (local_header_rewrite_clients)? */
bool check_local_rewrite(struct session *s);

/* --- for the rows --- */
/* Refuse, or warn, or defer, as the run's state says. `prefixed` puts `<subject>: CLASS rejected: ` before the text. A
 * failure of ours (check_fail()) is never turned into a warning. */
enum verdict check_refuse(struct checks *c, int code, const char *dsn, bool prefixed, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* The same, without prefix, of a recipient or sender that does not exist. */
enum verdict check_undeliverable(struct checks *c, int code, const char *dsn, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
enum verdict check_fail(struct checks *c, unsigned error_class, int code, const char *dsn, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
enum verdict check_config_error(struct checks *c); /* 451 4.3.5; the caller has logged why */
enum verdict check_lookup_failed(struct checks *c, struct str about);
/* OK from data that a client chooses itself would open doors: a configuration error, unless the mail is thrown away. */
enum verdict check_forbid_ok(struct checks *c, const struct restriction *r, enum verdict v);
/* To be refused later: the first text counts. `prefixed` as above. */
void check_defer(struct checks *c, struct deferral *d, int code, struct str dsn, bool prefixed, struct str text);
/* Nobody can say now (reject_tempfail_action): deferred at once, or when nothing else refuses it. The text is whole. */
enum verdict check_tempfail(struct checks *c, enum tempfail_action action, int code, const char *dsn,
                            const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Run a list of a stage under the subject and class that are set. */
enum verdict check_list(struct checks *c, const struct restrictions *list);

/* --- access_action.c --- */
/* Do what access(5) says of `value`, which `table` has for `key`; the subject and class are in `c`. */
enum verdict access_apply(struct checks *c, struct str table, struct str key, struct str value);
/* Of a look-up: nothing, the value's action, or an error of ours. Replies are about `subject`, whatever list this
 * stands in. `after` (NULL: nothing) has the last word, also when the value names restrictions. */
enum verdict access_answer(struct checks *c, const struct restriction *r, enum table_result found, struct str key,
                           struct str value, struct str subject, const char *class, after_nested *after);
/* An enhanced status that fits what is refused here: X.1.Y is about an address (RFC 3463, 3.2). */
struct str access_fitting_status(struct checks *c, struct str status);

/* --- the rows, by theme --- */
#define ROW_RUN(name) enum verdict name(struct checks *c, const struct restriction *r)
/* restriction.c */
ROW_RUN(row_permit);
ROW_RUN(row_reject);
ROW_RUN(row_defer);
ROW_RUN(row_warn_if_reject);
ROW_RUN(row_defer_if_permit);
ROW_RUN(row_defer_if_reject);
ROW_RUN(row_sleep);
ROW_RUN(row_class);
ROW_RUN(row_bare_table);
ROW_RUN(row_removed);
/* client.c: who the client is */
ROW_RUN(row_permit_mynetworks);
ROW_RUN(row_permit_inet_interfaces);
ROW_RUN(row_permit_sasl_authenticated);
ROW_RUN(row_permit_tls_clientcerts);
ROW_RUN(row_permit_tls_all_clientcerts);
ROW_RUN(row_reject_unauth_pipelining);
ROW_RUN(row_reject_plaintext_session);
ROW_RUN(row_reject_unknown_client);
ROW_RUN(row_reject_unknown_reverse);
/* names.c: how names and addresses look */
ROW_RUN(row_reject_invalid_helo);
ROW_RUN(row_reject_non_fqdn_helo);
ROW_RUN(row_reject_non_fqdn_sender);
ROW_RUN(row_reject_non_fqdn_recipient);
ROW_RUN(row_reject_multi_recipient_bounce);
bool helo_is_literal(struct str helo);
enum verdict check_helo_literal(struct checks *c);
/* access.c */
ROW_RUN(access_client);
ROW_RUN(access_reverse_client);
ROW_RUN(access_ccert);
ROW_RUN(access_sasl);
ROW_RUN(access_helo);
ROW_RUN(access_sender);
ROW_RUN(access_recipient);
ROW_RUN(access_etrn);
unsigned access_parent_flags(const struct checks *c); /* flags for name_find() */
/* The address with a whole domain, as the queue will have it and as tables do; in c->arena, or `address` itself. */
struct str whole_address(struct checks *c, struct str address);
/* search_order of check_ccert_access: bits, the first key in the lowest four */
enum ccert_key { CCERT_FINGERPRINT = 1, CCERT_PUBKEY_FINGERPRINT };
enum { CCERT_DEFAULT_ORDER = CCERT_FINGERPRINT | CCERT_PUBKEY_FINGERPRINT << 4 };
/* policy.c */
ROW_RUN(row_check_policy_service);
/* dns_access.c: what the name service says of names */
ROW_RUN(row_dns_access);
ROW_RUN(row_reject_unknown_helo);
ROW_RUN(row_reject_unknown_sender_domain);
ROW_RUN(row_reject_unknown_recipient_domain);
/* dnsbl.c */
ROW_RUN(row_rbl_client);
ROW_RUN(row_rhsbl);
ROW_RUN(row_dnswl_client);
ROW_RUN(row_rhswl_client);
/* login.c */
ROW_RUN(row_sender_login_mismatch);
ROW_RUN(row_authenticated_login_mismatch);
ROW_RUN(row_known_login_mismatch);
ROW_RUN(row_unauthenticated_login_mismatch);
/* verify.c */
ROW_RUN(row_reject_unverified_sender);
ROW_RUN(row_reject_unverified_recipient);
/* mx_backup.c */
ROW_RUN(row_permit_mx_backup);
/* relay.c */
ROW_RUN(row_reject_unlisted_sender);
ROW_RUN(row_reject_unlisted_recipient);
ROW_RUN(row_permit_auth_destination);
ROW_RUN(row_reject_unauth_destination);
ROW_RUN(row_defer_unauth_destination);
/* user%elsewhere@relay, which whoever gets it next may send anywhere; also when nobody can say. */
bool check_recipient_is_routed(struct checks *c);
enum verdict
check_auth_destination(struct checks *c); /* PERMIT: final or relay_domains; DUNNO: neither; REFUSE: no answer */
enum verdict check_listed_recipient(struct checks *c);
enum verdict check_listed_sender(struct checks *c);
/* Where an address belongs. False: `ret_verdict` is what to return (nobody can say). */
bool check_class_of(struct checks *c, struct str address, struct route_check *ret, enum verdict *ret_verdict);
#endif
