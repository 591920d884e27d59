/* bdat.c - BDAT: content in chunks of a size that is said before (RFC 3030). */
#include "smtpd/command.h"

#include "smtpd/data.h"
#include "smtpd/log.h"
#include "smtpd/milter.h"
#include "smtpd/proxy.h"
#include "smtpd/reply.h"
#include "smtpd/restriction.h"

enum {
    SKIP_MAX = 64 * 1024 * 1024, /* bytes of refused chunks that one session may make us read and throw away */
};

struct bdat {
    struct stream x;
};

/* --- arguments --- */
struct chunk {
    uint64_t size;
    bool last;
};

/* BDAT size [LAST] */
static bool chunk_parse(struct str args, struct chunk *ret) {
    struct str size = STR(""), last = STR(""), more;
    (void)str_word(&args, STR_SPACE, &size);
    ret->last = str_word(&args, STR_SPACE, &last);
    if (ret->last && (!str_eq_icase(last, STR("LAST")) || str_word(&args, STR_SPACE, &more)))
        return false;
    return str_to_u64(size, INT64_MAX, &ret->size);
}

/* --- refusing --- */

/* Its bytes come whether we want them or not; a reply in the middle would not be heard. False: too much of it, too
 * slow, or gone. */
static bool skip(struct session *s, uint64_t size) {
    if (size > SKIP_MAX - s->bdat_skipped) {
        s->hang_up = true;
        return false;
    }
    s->bdat_skipped += size;
    int64_t deadline = session_deadline(s); /* for all of it: there is no message that could need more */
    while (size > 0) {
        struct str bytes;
        error e = io_some(s->io, size < IO_READ_BULK_SIZE ? (size_t)size : IO_READ_BULK_SIZE, deadline, &bytes);
        if (e) {
            session_broken(s, e);
            return false;
        }
        size -= bytes.n;
    }
    return true;
}

/* The transaction is over; what the client has sent ahead of our reply is thrown away until its LAST. */
static void failed(struct session *s, const struct chunk *c) {
    tx_end(s);
    s->bdat = c->last ? BDAT_NONE : BDAT_FAILED;
}

/* --- content --- */
static bool receive_chunk(struct session *s, struct stream *x, uint64_t size) {
    int64_t deadline = session_deadline(s);
    while (size > 0) {
        struct str bytes;
        error e = io_some(s->io, size < IO_READ_BULK_SIZE ? (size_t)size : IO_READ_BULK_SIZE, deadline, &bytes);
        if (e) {
            session_broken(s, e);
            return false;
        }
        size -= bytes.n;
        deadline = stream_deadline(s, deadline, bytes.n);
        content_feed(&x->content, bytes);
        stream_came(x);
    }
    return true;
}

static bool too_large(const struct session *s, uint64_t size) {
    uint64_t limit = s->set->message_size, received = s->tx->received;
    return limit && (received > limit || size > limit - received);
}

/* A chunk for a transaction that is there. `*ret_received`: its bytes have been read. False: refused. */
static bool take_chunk(struct session *s, const struct chunk *c, bool *ret_received) {
    struct tx *tx = s->tx;
    error e = NULL;
    if (c->size == 0 && !c->last) {
        log_null_bdat(s);
        return reply_error(s, ERROR_NONE, "551 5.7.1 Null BDAT request");
    }
    if (s->bdat == BDAT_NONE && (e = check_data(s)))
        return reply_refusal(s, e);
    if (s->end != END_OPEN || (s->bdat == BDAT_NONE && !milter_data(s)))
        return false;
    if (too_large(s, c->size)) {
        log_bdat_too_large(s);
        return reply_error(s, ERROR_POLICY, "552 5.3.4 Chunk exceeds message size limit");
    }
    if (!tx->bdat) {
        if (tx->proxy && !proxy_data(s))
            return false;
        tx->bdat = ARENA_NEW(tx->arena, struct bdat);
        stream_begin(&tx->bdat->x, s);
        tx->bdat->x.content.chunk = true;
        s->bdat = BDAT_TAKING;
    }
    struct stream *x = &tx->bdat->x;
    *ret_received = true;
    if (!receive_chunk(s, x, c->size) || stream_refuses_bare_newline(x))
        return false;
    if (c->last) {
        content_finish(&x->content);
        stream_came(x);
        return stream_end(x);
    }
    if (x->fate != FINE)
        return stream_fate_reply(x);
    return reply_ok(s, "250 2.0.0 Ok: %llu bytes", (unsigned long long)c->size);
}

void bdat_free(struct bdat *b) {
    if (b)
        stream_free(&b->x);
}

bool command_bdat(struct session *s, struct str args) {
    struct chunk c;
    if (ehlo_keyword_off(s, STR("CHUNKING"))) /* who does not know the size of what follows must not go on */
        return reply_fail(s, "521 5.5.1 Error: command not implemented");
    if (!chunk_parse(args, &c)) {
        log_bdat_syntax(s, args);
        return reply_fail(s, "521 5.5.4 Syntax: BDAT count [LAST]");
    }
    if (s->bdat == BDAT_FAILED) {
        if (skip(s, c.size) || s->hang_up)
            reply_error(s, ERROR_NONE, "551 5.0.0 Discarded %llu bytes after earlier error",
                        (unsigned long long)c.size);
        failed(s, &c);
        return false;
    }
    bool received = false;
    if (data_may_begin(s) && take_chunk(s, &c, &received))
        return true;
    if (s->end != END_OPEN) /* what is logged of the end is about this message */
        return false;
    if (s->tx || s->bdat == BDAT_NONE) /* else it ended with LAST */
        failed(s, &c);
    if (!received)
        (void)skip(s, c.size);
    return false;
}
