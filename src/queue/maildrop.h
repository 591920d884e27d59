/* maildrop.h - local submissions: what sendmail says to postdrop, what postdrop keeps in maildrop/, what pickup reads.
 *
 * One form for all three, so that mail can be handed in while the mail system is down. A stream is a series of records
 * u8 type, u32 length, bytes (base/pack.h), in this order:
 *
 *     SENDER  (FULL_NAME | ENVID | RET | FLAGS)*  RCPT*  CONTENT*  RCPT*  END
 *
 * with one SENDER, one END with nothing behind it, at least one RCPT, and none of the optional ones twice. Each
 * reader checks all of it again: whoever may write to the socket or the directory of another is not trusted for it.
 *
 * A file in maildrop/ is whole when its owner may execute it (mode MAILDROP_READY); it is owned by its sender. */
#ifndef ANGARIUM_QUEUE_MAILDROP_H
#define ANGARIUM_QUEUE_MAILDROP_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "mail/envelope.h"

enum {
    MAILDROP_CONTENT_MAX = 64 * 1024, /* bytes of one CONTENT record */
    MAILDROP_RECORD_MAX = MAILDROP_CONTENT_MAX,
    MAILDROP_FULL_NAME_MAX = 1000, /* bytes */
    MAILDROP_READY = 0744,         /* mode of a whole file: pickup is another user than its owner */
    MAILDROP_UNFINISHED = 0600,
};

enum maildrop_type {
    MAILDROP_SENDER = 1, /* internal form; may be empty */
    MAILDROP_FULL_NAME,
    MAILDROP_ENVID,   /* decoded (RFC 3461, 4.4) */
    MAILDROP_RET,     /* u8 enum dsn_ret */
    MAILDROP_FLAGS,   /* u8 enum maildrop_flags; with VERP its two delimiters */
    MAILDROP_RCPT,    /* u8 enum dsn_notify mask, then the address in internal form */
    MAILDROP_CONTENT, /* LF line endings */
    MAILDROP_END,
};
enum maildrop_flags {
    MAILDROP_8BIT = 1,     /* sendmail -B8BITMIME */
    MAILDROP_SMTPUTF8 = 2, /* sendmail -O smtputf8=yes */
    MAILDROP_GATEWAY = 4,  /* sendmail -G: headers are not made ours */
    MAILDROP_VERIFY = 8,   /* sendmail -bv: what would become of it? */
    MAILDROP_TRACE = 16,   /* sendmail -v: a report of the first attempt */
    MAILDROP_VERP = 32,    /* sendmail -XV (mail/verp.h) */
};

void maildrop_put(struct buf *b, enum maildrop_type type, struct str bytes);
void maildrop_put_u8(struct buf *b, enum maildrop_type type, uint8_t value);
/* `delimiters`: of VERP, otherwise empty. */
void maildrop_put_flags(struct buf *b, uint8_t flags, struct str delimiters);
void maildrop_put_rcpt(struct buf *b, unsigned notify, struct str address);

struct maildrop_record {
    enum maildrop_type type;
    struct str bytes; /* SENDER, FULL_NAME, ENVID, FLAGS (VERP's delimiters), RCPT (the address), CONTENT; borrowed from
                       * the reader */
    uint8_t value;    /* RET, FLAGS, RCPT (the mask) */
};

/* A push parser: `{0}` starts it. */
struct maildrop_reader {
    struct buf in;
    size_t at; /* bytes of `in` used up */
    unsigned seen;
    bool content, rcpt_after, ended, bad;
};
enum maildrop_state {
    MAILDROP_RECORD, /* `*ret` is one; borrowed until the next call */
    MAILDROP_MORE,   /* maildrop_feed() more, or maildrop_eof() */
    MAILDROP_BAD,    /* not the form above; for ever */
};
void maildrop_feed(struct maildrop_reader *r, struct str bytes);
enum maildrop_state maildrop_next(struct maildrop_reader *r, struct maildrop_record *ret);
/* No more bytes will come: was it whole? */
bool maildrop_eof(const struct maildrop_reader *r);
void maildrop_reader_free(struct maildrop_reader *r);

/* The same from a descriptor (blocking reads through run/sys.h). ERR_SYNTAX: not the form above, or not whole; END is
 * given after the end of the stream was seen. */
error maildrop_read(struct maildrop_reader *r, int fd, struct maildrop_record *ret);
#endif
