/* transcript.h - what was said in a session with errors, for the postmaster (notify_classes, error_notice_recipient).
 *
 * A transcript is kept while a session runs, and only where notify_classes names a class that smtpd has: in a buffer of
 * the session, of at most TRANSCRIPT_MAX bytes; of a longer one the end stays. What may be a password is not in it. */
#ifndef ANGARIUM_SMTPD_TRANSCRIPT_H
#define ANGARIUM_SMTPD_TRANSCRIPT_H

#include "base/buf.h"
#include "conf/conf.h"

struct session;

/* Classes of errors as notify_classes names them: sets of these. */
enum error_class {
    ERROR_NONE = 0,
    ERROR_BOUNCE = 1, /* mail that cannot be delivered */
    ERROR_DATA = 2,   /* a table could not be asked */
    ERROR_POLICY = 4,
    ERROR_PROTOCOL = 8,
    ERROR_RESOURCE = 16,
    ERROR_SOFTWARE = 32, /* our configuration, or a program of ours */
};

enum {
    TRANSCRIPT_MAX = 64 * 1024,
    TRANSCRIPT_LINE = 79, /* where lines are folded */
};

struct transcript {
    struct buf text; /* lines that end in LF */
    size_t lines;
};

/* Those of notify_classes that are ours. */
unsigned error_classes_parse(struct str notify_classes);
/* One line: '<' what the client said, '>' what it heard. */
void transcript_add(struct session *s, char direction, struct str line);
/* Between two messages: a transcript of more than smtpd_history_flush_threshold lines begins anew. */
void transcript_flush(struct session *s);
/* The session is over: mail it, if there was an error of a class that is wanted. Waits for cleanup. */
void transcript_send(struct session *s);
void transcript_free(struct transcript *t); /* what the session's arena does not hold of it; NULL is allowed */
/* `line`, indented by a blank, in lines of at most TRANSCRIPT_LINE bytes where blanks allow it. */
void transcript_fold(struct buf *b, struct str line);
#endif
