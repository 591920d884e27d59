/* select.h - which messages: the --sender, --recipient, --domain, --reason and --older options of postqueue and
 * postsuper. A message is taken when everything that is asked for holds; what is asked of recipients must hold for one
 * and the same recipient that is not done yet. */
#ifndef ANGARIUM_SHOWQ_SELECT_H
#define ANGARIUM_SHOWQ_SELECT_H

#include "base/err.h"
#include "proto/listing.h"
#include <getopt.h>

enum { /* what getopt_long() gives */
       SELECT_SENDER = 256,
       SELECT_RECIPIENT,
       SELECT_DOMAIN,
       SELECT_REASON,
       SELECT_OLDER,
};
#define SELECT_OPTIONS                                                                                                 \
    { "sender", required_argument, NULL, SELECT_SENDER }, { "recipient", required_argument, NULL, SELECT_RECIPIENT },  \
        { "domain", required_argument, NULL, SELECT_DOMAIN }, { "reason", required_argument, NULL, SELECT_REASON },    \
        { "older", required_argument, NULL, SELECT_OLDER }, {                                                          \
        NULL, 0, NULL, 0                                                                                               \
    }

struct selection { /* `{0}`: all messages. Texts are borrowed. NULL: not asked for */
    const char *sender,
        *recipient;     /* as listed, letter case aside; '*' stands for any text. "" and "<>": MAILER-DAEMON */
    const char *domain; /* of a recipient; with a dot in front, all domains below it */
    const char *reason; /* somewhere in why a recipient waits, letter case aside */
    bool by_age;
    int64_t older_s; /* since it arrived, seconds */
};
/* False: not one of these options. An error in `*ret_error`, for people: a bad value. */
bool selection_option(struct selection *s, int option, const char *value, const char **ret_error);
bool selection_is_set(const struct selection *s);
/* `e` with all its recipients. */
bool selection_takes(const struct selection *s, const struct listing_entry *e, int64_t now_s);
#endif
