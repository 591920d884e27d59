/* envelope.h - a message without its content: who sent it, to whom, and how it came in.
 *
 * All strings are in internal form (mail/address.h) and borrowed from the arena or input the envelope was made from.
 * envelope_pack() and envelope_unpack() are the one binary form, in messages between processes and in queue files. */
#ifndef ANGARIUM_MAIL_ENVELOPE_H
#define ANGARIUM_MAIL_ENVELOPE_H

#include "base/arena.h"
#include "base/pack.h"
#include "mail/verp.h"

enum rcpt_state { RCPT_TODO = 0, RCPT_DONE = 1 }; /* DONE: delivered, or returned to the sender */

struct rcpt {
    struct str address;   /* where it goes */
    struct str orig;      /* as first given, before rewriting and aliases: orig_to= and Original-Recipient */
    struct str dsn_orcpt; /* decoded "rfc822;..." (RFC 3461, 4.2), or empty */
    unsigned dsn_notify;  /* enum dsn_notify mask; 0: not asked */
    enum rcpt_state state;
};

/* How the message came in (smtpd's client, or local), for headers, logs, filters and policies. */
struct client_info {
    struct str name, reverse_name, address, port; /* "unknown" when there is no name; empty: local submission */
    struct str helo;
    struct str protocol; /* "ESMTP", "SMTP", or empty */
    struct str ident;    /* log name: queue id elsewhere, from XFORWARD */
    struct str sasl_method, sasl_username, sasl_sender;
};

enum envelope_flags {
    ENVELOPE_8BIT = 1,            /* BODY=8BITMIME */
    ENVELOPE_SMTPUTF8 = 2,        /* RFC 6531 */
    ENVELOPE_HOLD = 4,            /* into the hold queue */
    ENVELOPE_INTERNAL = 8,        /* made by ourselves (bounces, notices, probes): no filters, no bcc */
    ENVELOPE_VERIFY = 16,         /* sendmail -bv, address probes */
    ENVELOPE_WARNED = 64,         /* set by spool_load(): the sender has been told of the delay */
    ENVELOPE_EXPIRED = 128,       /* set by spool_load(): to be returned now, says the administrator (postsuper -e) */
    ENVELOPE_REQUIRETLS = 256,    /* RFC 8689 */
    ENVELOPE_TRACE = 512,         /* sendmail -v: the sender wants a report of the first attempt */
    ENVELOPE_TLS_OPTIONAL = 1024, /* TLS-Required: no (RFC 8689, 5) */
    ENVELOPE_7BIT = 2048,         /* BODY=7BIT; neither: the client has not said */
    ENVELOPE_REMOTE = 32,         /* came from a client that local_header_rewrite_clients does not match */
};

struct envelope {
    int64_t arrival_us;   /* wall clock, microseconds since the epoch */
    struct str sender;    /* empty: the null sender */
    struct str dsn_envid; /* decoded (RFC 3461, 4.4), or empty */
    unsigned dsn_ret;     /* enum dsn_ret, or 0 */
    unsigned flags;       /* enum envelope_flags */
    uint64_t size;        /* of the content as queued, bytes */
    struct client_info client;
    struct str content_filter;             /* transport:nexthop, or empty */
    char verp_delimiters[VERP_DELIMITERS]; /* mail/verp.h; both 0: the sender is the same for all recipients */
    struct rcpt *rcpts;
    size_t rcpt_count;
};

void rcpt_pack(struct buf *b, const struct rcpt *r);
void rcpt_unpack(struct unpack *u, struct rcpt *ret);
/* Everything but the recipients. */
void envelope_pack(struct buf *b, const struct envelope *e);
void envelope_unpack(struct unpack *u, struct envelope *ret);
#endif
