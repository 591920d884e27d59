/* notice.h - a delivery status notification put into words: RFC 3464 (message/delivery-status) in RFC 6522
 * (multipart/report), internationalized as RFC 6533 says when the message was SMTPUTF8.
 *
 *   headers, Notification (text/plain), Delivery report (message/delivery-status), the message or its headers
 *
 * The returned content is copied from `read` in pieces: constant memory whatever its size. notice_prepare() looks at
 * all that will be copied, to choose 7bit or 8bit and a boundary that is not in there; notice_write() then says it all
 * to `put`. Nothing the peer chose reaches a line of its own: reasons and addresses are made printable and folded. */
#ifndef ANGARIUM_BOUNCE_NOTICE_H
#define ANGARIUM_BOUNCE_NOTICE_H

#include "bounce/template.h"
#include "proto/bounce.h"

enum {
    NOTICE_HEADERS_MAX = 256 * 1024, /* bytes of returned headers; cut at a line */
    NOTICE_LINE = 79,                /* where text is folded */
    NOTICE_BOUNDARY_MAX = 128,
};

struct notice {
    enum bounce_kind kind;
    const struct bounce_template *template;
    struct str text;                    /* of the template, expanded; whole lines */
    bool postmaster;                    /* a copy for the postmaster: no explanation */
    bool full;                          /* return the whole message, not its headers only */
    struct str id;                      /* queue id of the message */
    struct str own_id;                  /* and of this notice */
    struct str to;                      /* where it goes, internal form */
    struct str host, origin, mail_name; /* myhostname, myorigin, mail_name */
    const struct envelope *env;         /* of the message */
    const struct spool_failure *rcpts;
    size_t rcpt_count;
    int64_t now;       /* seconds since the epoch */
    int64_t lifetime;  /* seconds: maximal_queue_lifetime (for DELAYED) */
    bool old_from;     /* header_from_format = obsolete */
    bool utf8;         /* smtputf8_enable: text is UTF-8, and the notice 8bit, whether or not this one needs it */
    bool threaded;     /* enable_threaded_bounces: refers to the message by its Message-ID */
    bool tls_optional; /* as the message, the notice need not have TLS (RFC 8689, 5) */
    bool redacted;     /* nothing of the message is returned (RFC 8689, 5) */
    uint64_t content_size;
    /* Bytes at `at`: more than 0, or -1 with errno. Not asked at or beyond content_size. */
    ssize_t (*read)(void *ctx, uint64_t at, void *p, size_t n);
    void *ctx;

    /* set by notice_prepare() */
    bool eight_bit, eight_bit_report;
    uint64_t copied;       /* bytes of the content that are returned */
    struct str message_id; /* with `threaded`: "<id>", or empty when it has none that is clean */
    char boundary[NOTICE_BOUNDARY_MAX];
};

/* NULL, or why the content could not be read. */
error notice_prepare(struct notice *n, struct arena *a);
/* The error is that of `put` or of reading. */
error notice_write(const struct notice *n, struct arena *a, error (*put)(void *ctx, struct str bytes), void *ctx);

/* `text` with control bytes gone and lines of at most NOTICE_LINE bytes where blanks allow it, later ones indented by
 * four blanks; `column` is where the first one begins. No line break at the end. */
void notice_fold(struct buf *b, struct str text, size_t column);
#endif
