/* content.h - the content of a message on its way into the queue: a state machine over its header and body.
 *
 * Bytes come in pieces of any size and go out through `write`, in order. Memory: one header field of at most
 * header_size_limit bytes, nothing of the body. In the header section fields are counted (Received:), dropped
 * (message_drop_headers), completed (addresses) and, where they are missing, added at its end (Date:, From:,
 * Message-Id:, To:; RFC 5322, 3.6; for resent mail the Resent- ones, 3.6.6). A header section that ends without an
 * empty line gets one. With an `inspector` the body is taken apart, too (mail/mime.h), a line or a piece of
 * `line_limit` bytes at a time. Never logs; what is to be logged goes to `message_id` and into the results. Waits only
 * where the caller's functions do. */
#ifndef ANGARIUM_CLEANUP_CONTENT_H
#define ANGARIUM_CLEANUP_CONTENT_H

#include "base/buf.h"
#include "conf/conf.h"
#include "mail/header.h"
#include "mail/mime.h"

struct byte_set { /* one bit per byte value */
    uint64_t bits[4];
    bool any;
};
static inline bool byte_set_has(const struct byte_set *s, unsigned char c) {
    return s->bits[c / 64] >> (c % 64) & 1;
}
/* message_strip_characters: C escapes (\0 \r \n \t \a \b \f \v \\ \ooo) and plain bytes. */
struct byte_set byte_set_parse(struct str escaped);

/* non_empty_end_of_header_action: what to do with a header section that ends without an empty line. */
enum header_end_action { HEADER_END_FIX, HEADER_END_ADD_FIELD, HEADER_END_REJECT };
#define HEADER_END_TEXT "message header was not terminated by empty line"

/* What main.cf says; the same for all messages. */
struct content_rules {
    bool replace_stray_cr; /* cleanup_replace_stray_cr_lf */
    struct byte_set strip, reject;
    size_t header_size_limit; /* bytes; the rest of a longer field is cut off */
    size_t address_tokens;    /* of one field that are looked at: header_address_token_limit */
    struct str drop_headers;  /* message_drop_headers */
    uint64_t drop_ids;        /* those of them that are in the header table, a bit each */
    bool drop_others;         /* there are some that are not */
    struct str undisclosed;   /* undisclosed_recipients_header, or empty */
    bool from_obsolete;       /* header_from_format = obsolete */
    struct str name_charset;  /* full_name_encoding_charset */
    struct str host;          /* myhostname, for Message-Id: */
    enum header_end_action header_end;
};
bool header_end_action(struct str name, enum header_end_action *ret); /* False: there is none of this name */
/* Strings are borrowed from the configuration. */
struct content_rules content_rules(const struct conf *c);

/* Who looks at header fields and body lines: header_checks, body_checks, strict_8bitmime and the like. */
struct content_inspector {
    bool downgrade; /* with `parts`: mail/mime.h */
    bool parts;     /* of multiparts and attached messages, too; without: !disable_mime_input_processing */
    size_t nesting_limit, boundary_limit;
    size_t line_limit; /* bytes of a line that are looked at together */
    /* A field without its last LF, a line without its LF. False: it goes away. `*text` may be made another one,
     * `*ret_before` goes before it (empty: nothing does); in the arena. NULL: of no interest. */
    bool (*header)(void *ctx, struct arena *a, enum mime_class class, struct str *text, struct str *ret_before);
    bool (*body)(void *ctx, struct arena *a, size_t offset, struct str *text, struct str *ret_before);
    void (*error)(void *ctx, enum mime_error e, struct str about);
};

/* What is special to this message. */
struct content_message {
    bool add_missing;                          /* fields that are missing are added */
    bool detect_utf8;                          /* is there UTF-8 in the header? */
    bool rewrite;                              /* addresses in header fields go through `address` */
    struct str queue_id, sender;               /* the complete sender, internal form */
    struct str full_name;                      /* of a local submitter, or empty */
    int64_t now;                               /* seconds since the epoch */
    const struct content_inspector *inspector; /* NULL: nobody */
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
    struct mime *mime;          /* with an inspector */
    struct buf text;            /* of the body line under way */
    bool text_first;            /* `text` begins a line */
    uint64_t seen;              /* header_id bits */
    bool resent;                /* a Resent- field was seen */
    /* results */
    unsigned hops;            /* Received: fields */
    bool eight_bit;           /* a Content-Transfer-Encoding: of 8bit or binary */
    bool requiretls;          /* Require-TLS-ESMTP: yes */
    bool tls_optional;        /* TLS-Required: no */
    bool utf8;                /* `detect_utf8`: a header field is not ASCII */
    bool rejected;            /* a byte of message_reject_characters was there */
    struct buf rejected_line; /* the beginning of its line, for the log */
    struct buf unended;       /* HEADER_END_REJECT: the beginning of the line where the empty one was wanted */
};

/* `rules` and `m` must outlive the content. */
void content_begin(struct content *c, const struct content_rules *rules, const struct content_message *m);
void content_feed(struct content *c, struct str bytes);
/* The end: what is gathered is written, missing fields are added, a last line without LF gets one. */
void content_end(struct content *c);
void content_free(struct content *c);

/* "From: full name <address>" or its obsolete form "From: address (full name)", without LF. An empty sender gives
 * MAILER-DAEMON. Control bytes of the name become blanks; a name that is not ASCII becomes encoded words of `charset`
 * (RFC 2047). */
struct str content_from(struct arena *a, struct str prefix, struct str sender, struct str full_name, struct str charset,
                        bool obsolete);
#endif
