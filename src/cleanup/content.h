/* content.h - the content of a message on its way into the queue: a state machine over its header and body.
 *
 * Bytes come in pieces of any size and go out through `write`, in order. Memory: one header field of at most
 * header_size_limit bytes, nothing of the body. In the header section fields are counted (Received:), dropped
 * (message_drop_headers), completed (addresses) and, where they are missing, added at its end (Date:, From:,
 * Message-Id:, To:; RFC 5322, 3.6; for resent mail the Resent- ones, 3.6.6). A header section that ends without an
 * empty line gets one. Never waits, never logs; what is to be logged goes to `message_id` and into the results. */
#ifndef ANGARIUM_CLEANUP_CONTENT_H
#define ANGARIUM_CLEANUP_CONTENT_H

#include "base/buf.h"
#include "conf/conf.h"
#include "mail/header.h"

struct byte_set { /* one bit per byte value */
    uint64_t bits[4];
    bool any;
};
static inline bool byte_set_has(const struct byte_set *s, unsigned char c) {
    return s->bits[c / 64] >> (c % 64) & 1;
}
/* message_strip_characters: C escapes (\0 \r \n \t \a \b \f \v \\ \ooo) and plain bytes. */
struct byte_set byte_set_parse(struct str escaped);

/* What main.cf says; the same for all messages. */
struct content_rules {
    bool replace_stray_cr; /* cleanup_replace_stray_cr_lf */
    struct byte_set strip, reject;
    size_t header_size_limit; /* bytes; the rest of a longer field is cut off */
    struct str drop_headers;  /* message_drop_headers */
    uint64_t drop_ids;        /* those of them that are in the header table, a bit each */
    bool drop_others;         /* there are some that are not */
    struct str undisclosed;   /* undisclosed_recipients_header, or empty */
    bool from_obsolete;       /* header_from_format = obsolete */
    struct str host;          /* myhostname, for Message-Id: */
};
/* Strings are borrowed from the configuration. */
struct content_rules content_rules(const struct conf *c);

/* What is special to this message. */
struct content_message {
    bool add_missing;            /* fields that are missing are added */
    bool detect_utf8;            /* is there UTF-8 in the header? */
    bool rewrite;                /* addresses in header fields go through `address` */
    struct str queue_id, sender; /* the complete sender, internal form */
    struct str full_name;        /* of a local submitter, or empty */
    int64_t now;                 /* seconds since the epoch */
    void *ctx;
    void (*write)(void *ctx, struct str bytes);
    /* The complete form of one address of a header field (internal form, HEADER_SENDER_ADDRESS or
     * HEADER_RECIPIENT_ADDRESS); the result lives in `a`. */
    struct str (*address)(void *ctx, struct arena *a, struct str address, unsigned header_flags);
    /* A Message-Id: or Resent-Message-Id: field, or an empty value once when there is no Message-Id:. */
    void (*message_id)(void *ctx, bool resent, struct str value);
};

struct content {
    const struct content_rules *rules;
    const struct content_message *m;
    struct arena *arena;        /* for one header field at a time */
    struct buf field;           /* the header field being gathered, its lines whole but for the last */
    size_t line;                /* where its last line begins; 0 until the first one is whole */
    bool in_header, line_start; /* line_start: the next byte begins a line */
    bool cut;                   /* over header_size_limit: the rest of the field is dropped */
    bool line_open;             /* body: the last byte was no LF */
    uint64_t seen;              /* header_id bits */
    bool resent;                /* a Resent- field was seen */
    /* results */
    unsigned hops;            /* Received: fields */
    bool utf8;                /* `detect_utf8`: a header field is not ASCII */
    bool rejected;            /* a byte of message_reject_characters was there */
    struct buf rejected_line; /* the beginning of its line, for the log */
};

/* `rules` and `m` must outlive the content. */
void content_begin(struct content *c, const struct content_rules *rules, const struct content_message *m);
void content_feed(struct content *c, struct str bytes);
/* The end: what is gathered is written, missing fields are added, a last line without LF gets one. */
void content_end(struct content *c);
void content_free(struct content *c);

/* "From: full name <address>" or its obsolete form "From: address (full name)", without LF. An empty sender gives
 * MAILER-DAEMON. Control bytes of the name become blanks. */
struct str content_from(struct arena *a, struct str prefix, struct str sender, struct str full_name, bool obsolete);
#endif
