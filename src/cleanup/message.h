/* message.h - one message between OPEN and RESULT; for the files of this room only. */
#ifndef ANGARIUM_CLEANUP_MESSAGE_H
#define ANGARIUM_CLEANUP_MESSAGE_H

#include "cleanup/cleanup.h"
#include "proto/submit.h"

struct message {
    struct cleanup *s;
    struct arena *arena;
    unsigned flags; /* enum submit_flags */
    struct spool_new *file;
    struct queue_id id;
    struct envelope env; /* the sender as it will be queued; without recipients until the end */
    bool has_envelope, has_full_name;
    struct str full_name;
    bool discard;            /* SUBMIT_ACTION_DISCARD */
    bool passed;             /* no more checks (header_checks(5), PASS) */
    struct str redirect;     /* SUBMIT_ACTION_REDIRECT, or empty */
    struct milters *filters; /* filter.c; NULL: none yet */
    bool filters_are_smtpd;  /* who sent the message hears the reply of a filter */
    bool filter_mail;        /* an invented session has come to MAIL, */
    struct str filter_rcpt;  /* and to this recipient */
    size_t bytes;            /* envelope and recipients, as received */
    VEC(struct rcpt) given;
    struct content_message about;
    struct content content;
    bool content_begun;
    /* what is wrong with it so far; SUBMIT_OK: nothing. The rest of the content is not kept then. */
    enum submit_status status;
    struct str dsn, text;
};

/* The message fails; the first reason counts. `text` is a literal or lives in the arena. */
void message_fail(struct message *m, enum submit_status status, struct str dsn, struct str text);
/* The sender as it will be queued. Always true. */
bool message_complete_sender(struct message *m);
/* A frame of the client. False: it breaks the protocol. */
bool message_envelope(struct message *m, struct str payload);
bool message_full_name(struct message *m, struct str payload);
bool message_rcpt(struct message *m, struct str payload);
bool message_action(struct message *m, struct str payload);
bool message_content(struct message *m, struct str bytes);
/* All has been said: make it durable. `*ret` lives as long as the arena. */
void message_end(struct message *m, struct submit_result *ret);

/* inspection.c: "QID: ACTION: WHAT TEXT from ...": what a check has found; `session`: with proto= and helo=. */
void message_log_content(const struct message *m, struct str action, const char *what, struct str text, bool session,
                         struct str why);
/* inspection.c: the message is refused for its form (5.6.0). `about`: the line in question, for the log. */
void message_refuse_form(struct message *m, struct str text, struct str about);
/* inspection.c: milter_header_checks. `*field` is whole, with its LF, and may be replaced. False: it goes away. */
bool message_check_filter_field(struct message *m, struct str *field);

/* recipients.c: the recipients as they will be queued, from `given`: complete, mapped, expanded, each once. */
void message_recipients(struct message *m);
#endif
