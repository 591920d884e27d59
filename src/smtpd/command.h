/* command.h - the commands of SMTP (RFC 5321, 4.1) as a table. */
#ifndef ANGARIUM_SMTPD_COMMAND_H
#define ANGARIUM_SMTPD_COMMAND_H

#include "smtpd/session.h"

enum command_flags {
    COMMAND_LAST = 1,    /* nothing may be sent behind it before its reply (RFC 2920, 3.1) */
    COMMAND_JUNK = 2,    /* does no work: counts against smtpd_junk_command_limit */
    COMMAND_PRE_TLS = 4, /* also while mandatory TLS is not there yet (RFC 3207, 4) */
};
struct command {
    struct str name;   /* upper case; counters show it in lower case */
    const char *stage; /* the same, for logs */
    const char *lower;
    unsigned flags;
    bool (*run)(struct session *s, struct str args); /* `args`: what follows the name, trimmed; true: 2xx or 3xx */
};

extern const struct command commands[];
extern const size_t command_count; /* at most COMMAND_MAX */
/* In any case; NULL: none. */
const struct command *command_find(struct str name);

/* A client's name for itself, as it goes into headers and logs; in the scratch arena. */
struct str helo_clean(struct session *s, struct str args);
/* A session may leave names behind in its arena for so long. False: the client has been told. */
bool may_greet(struct session *s);

/* ehlo.c */
bool ehlo_reply(struct session *s);
/* Does smtpd_discard_ehlo_keywords name it for this client? */
bool ehlo_keyword_off(struct session *s, struct str keyword);

/* mail_rcpt.c, data.c, bdat.c, etrn.c; STARTTLS: starttls.h */
bool command_mail(struct session *s, struct str args);
bool command_rcpt(struct session *s, struct str args);
bool command_vrfy(struct session *s, struct str args);
bool command_data(struct session *s, struct str args);
bool command_bdat(struct session *s, struct str args);
bool command_etrn(struct session *s, struct str args);
#endif
