/* reply.h - SMTP replies (RFC 5321, 4.2) as a client reads them. */
#ifndef ANGARIUM_MAIL_REPLY_H
#define ANGARIUM_MAIL_REPLY_H

#include "base/buf.h"

enum { REPLY_LINES_MAX = 1000, REPLY_BYTES_MAX = 64 * 1024 };

struct reply {
    int code;        /* 200..599 */
    struct str dsn;  /* "5.1.1" or empty; borrowed from `text` */
    struct str text; /* all lines joined by '\n', codes and enhanced codes of each line kept as sent, made printable */
    size_t lines;
};

/* Collects lines (with or without their CRLF) until the reply is whole. */
struct reply_reader {
    struct buf text;
    int code;
    size_t lines;
};
enum reply_state { REPLY_MORE, REPLY_DONE, REPLY_BAD /* not SMTP, or over a limit */ };
/* `{0}` starts a reader; after REPLY_DONE, `*ret` borrows from the reader until the next line or the reset. */
enum reply_state reply_line(struct reply_reader *r, struct str line, struct reply *ret);
void reply_reset(struct reply_reader *r);
void reply_free(struct reply_reader *r);
#endif
