/* restriction.h - access restriction lists (SMTPD_ACCESS_README) as a table of rows.
 *
 * restrictions_parse() turns a parameter's text into rows once; the check_...() functions run the lists that belong to
 * a stage of the session. Each returns NULL, or a refusal that has been logged and wants to be told to the client. */
#ifndef ANGARIUM_SMTPD_RESTRICTION_H
#define ANGARIUM_SMTPD_RESTRICTION_H

#include "smtpd/session.h"

enum verdict { DUNNO, PERMIT, REFUSE };

/* One run over the lists of one stage. */
struct checks {
    struct session *s;
    struct arena *arena;
    struct str subject; /* what <...> shows: NAME[ADDR], the HELO name, an address, "DATA" */
    const char *class;  /* "Client host" */
    bool have_sender;
    struct str sender; /* internal form */
    bool have_recipient;
    struct str recipient;
    struct str etrn;                      /* domain; empty: this is not ETRN */
    bool warn;                            /* warn_if_reject stands before this restriction */
    bool recipient_listed, sender_listed; /* looked up already */
    unsigned known;                       /* enum route_want: of `recipient`, what has been asked */
    struct route_check about;
    bool before_mail; /* a client or HELO stage of its own (smtpd_delay_reject = no): there is no message to act on */
    struct deferral defer_if_permit, defer_if_reject;
    error refusal; /* after REFUSE */
};

enum restriction_argument { ARG_NONE, ARG_NUMBER, ARG_MAP };
struct restriction_row {
    struct str name;
    enum restriction_argument argument;
    enum verdict (*run)(struct checks *c, const struct restriction *r);
};
extern const struct restriction_row restriction_rows[];
extern const size_t restriction_row_count;

/* A bare type:table means `by_default`, the list's own kind of check; empty: it has none. Tables are opened, and belong
 * to `set`. */
void restrictions_parse(struct settings *set, struct str text, struct str by_default, struct restrictions *ret);
/* The same for what an access table answers: nothing is opened, a check of a table is an error when it is run. */
void restrictions_parse_answer(struct arena *a, struct str text, struct restrictions *ret);
/* True when the list can refuse relaying: reject_unauth_destination and its likes. */
bool restrictions_guard_relay(const struct restrictions *list);

error check_client(struct session *s);
error check_helo(struct session *s);
error check_sender(struct session *s);
error check_recipient(struct session *s, struct str recipient);
error check_data(struct session *s);
error check_end_of_data(struct session *s);
error check_etrn(struct session *s, struct str domain);
/* Is the client one for whom headers are rewritten as for local mail (local_header_rewrite_clients)? Never logs. */
bool check_local_rewrite(struct session *s);

/* For the rows: refuse, or warn, or defer, as the run's state says. `prefixed` puts `<subject>: CLASS rejected: `
 * before the text. A failure of ours (`soft` false) is never turned into a warning. */
enum verdict check_refuse(struct checks *c, int code, const char *dsn, bool prefixed, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
enum verdict check_fail(struct checks *c, int code, const char *dsn, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Run a list under the subject and class that are set. */
enum verdict check_list(struct checks *c, const struct restrictions *list);
/* To be refused later: the first text counts. */
void check_defer(struct checks *c, struct deferral *d, struct str dsn, struct str text);
/* access.c: what a table says of ... */
enum verdict access_client(struct checks *c, const struct restriction *r);
enum verdict access_reverse_client(struct checks *c, const struct restriction *r);
enum verdict access_helo(struct checks *c, const struct restriction *r);
enum verdict access_sender(struct checks *c, const struct restriction *r);
enum verdict access_recipient(struct checks *c, const struct restriction *r);
enum verdict access_etrn(struct checks *c, const struct restriction *r);
/* relay.c */
/* user%elsewhere@relay, which whoever gets it next may send anywhere; also when nobody can say. */
bool check_recipient_is_routed(struct checks *c);
enum verdict
check_auth_destination(struct checks *c); /* PERMIT: final or relay_domains; DUNNO: neither; REFUSE: no answer */
enum verdict check_listed_recipient(struct checks *c);
enum verdict check_listed_sender(struct checks *c);
#endif
