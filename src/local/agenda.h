/* agenda.h - what is still to be done for one recipient, last in first out: aliases, forward files and lists are
 * expanded without recursion, and one limit counts for all of them.
 *
 *   recipient.c  takes the next piece of work
 *   expand.c     aliases, ~/.forward and :include: files add more
 *   resolve.c    asks where mail for a member goes
 *   user.c       a recipient that is none of these: a mailbox, or nobody */
#ifndef ANGARIUM_LOCAL_AGENDA_H
#define ANGARIUM_LOCAL_AGENDA_H

#include "base/map.h"
#include "local/local.h"
#include "mail/address.h"
#include "route/route.h"

/* Where a member's mail goes, or why nobody can say. */
struct resolution {
    struct route route;
    error refusal;
};

enum work_kind { WORK_RECIPIENT, WORK_MEMBER, WORK_COMMAND, WORK_FILE, WORK_INCLUDE };
struct work {
    enum work_kind kind;
    struct str text; /* address, command, path */
    const struct origin *from;
    const struct resolution *resolution; /* of a member, found out ahead of its turn; in the agenda's `ahead` */
};
struct agenda {
    VEC(struct work) list;
    size_t steps;
    struct map seen; /* deliveries already made: duplicate_filter_limit */
    size_t seen_count, seen_limit;
    struct arena *ahead; /* resolutions, until none of them waits to be used */
    size_t ahead_count;
    bool one_by_one;
};

void plan(struct delivery *d, struct agenda *g, enum work_kind kind, struct str text, const struct origin *from);
/* True the first time. Beyond duplicate_filter_limit nothing is remembered, as in Postfix. */
bool first_time(struct delivery *d, struct agenda *g, const char *kind, struct str what);

/* --- expand.c: true when the recipient stands for something else, which has been planned, or failed to be --- */
bool try_alias(struct delivery *d, struct agenda *g, const struct origin *from, struct str address, struct str name,
               struct str extension, struct str unmatched);
bool try_forward(struct delivery *d, struct agenda *g, const struct origin *from, struct str address,
                 const struct account *user, const struct local_names *names);
void include(struct delivery *d, struct agenda *g, struct str path, const struct origin *from);

/* --- resolve.c --- */
/* An error: nobody answers. What is found out now lives in d->scratch. */
error member_resolve(struct delivery *d, const struct work *w, struct resolution *ret);
/* Ask for the members that come next, many at a time. What fails is asked again when its turn comes. */
void members_resolve_ahead(struct delivery *d, struct agenda *g);
void resolution_used(struct agenda *g, const struct work *w); /* w->resolution is not used any more */

/* --- user.c --- */
struct local_user { /* a recipient that is no alias */
    struct str address, name, extension, delivered, delimiter;
    const struct account *account; /* NULL: nobody here has that name */
};
/* The mailbox or what stands in for it. False: luser_relay has the recipient now, `*ret_relay` says who that is. */
bool user_deliver(struct delivery *d, const struct origin *from, const struct local_user *user,
                  struct header_addresses *ret_relay);

/* Nothing that an alias or a user names is done as root: default_privs does it. */
struct account not_root(const struct delivery *d, struct account rights);
struct local_names names_of(struct arena *a, const struct account *user, struct str address, struct str extension,
                            struct str delimiter);
/* "|command" and mailbox_command, for `from`'s sender; `user` is $USER. */
void run_command(struct delivery *d, struct str text, const struct account *rights, const struct origin *from,
                 const struct local_user *user);
void defer(struct delivery *d, const struct origin *from, struct str reason);
#endif
