#include "queue/maildrop.h"

#include "mail/address.h"
#include "mail/dsn.h"
#include "run/sys.h"

#include <errno.h>

enum {
    HEAD = 5, /* type and length */
    READ_SIZE = 8192,

    ENVID_MAX = 1000, /* RFC 3461, 4.4: 100 characters of xtext; the world is more generous */
    RET_ALL = DSN_RET_FULL | DSN_RET_HDRS,
    NOTIFY_ALL = DSN_NOTIFY_NEVER | DSN_NOTIFY_SUCCESS | DSN_NOTIFY_FAILURE | DSN_NOTIFY_DELAY,
    FLAGS_ALL = MAILDROP_8BIT | MAILDROP_SMTPUTF8 | MAILDROP_GATEWAY | MAILDROP_VERIFY | MAILDROP_TRACE | MAILDROP_VERP,
};

static const struct err malformed = {
    .kind = ERR_SYNTAX, .dsn = STR_INIT(""), .text = STR_INIT("malformed input"), .detail = STR_INIT("")
};

void maildrop_put(struct buf *b, enum maildrop_type type, struct str bytes) {
    pack_u8(b, (uint8_t)type);
    pack_str(b, bytes);
}

void maildrop_put_u8(struct buf *b, enum maildrop_type type, uint8_t value) {
    maildrop_put(b, type, (struct str){ (const char *)&value, 1 });
}

void maildrop_put_flags(struct buf *b, uint8_t flags, struct str delimiters) {
    pack_u8(b, MAILDROP_FLAGS);
    pack_u32(b, (uint32_t)(delimiters.n + 1));
    pack_u8(b, flags);
    buf_add(b, delimiters);
}

void maildrop_put_rcpt(struct buf *b, unsigned notify, struct str address) {
    pack_u8(b, MAILDROP_RCPT);
    pack_u32(b, (uint32_t)(address.n + 1));
    pack_u8(b, (uint8_t)notify);
    buf_add(b, address);
}

void maildrop_feed(struct maildrop_reader *r, struct str bytes) {
    if (r->bad)
        return;
    if (r->at == r->in.n) {
        buf_clear(&r->in);
        r->at = 0;
    } else if (r->at > MAILDROP_RECORD_MAX) {
        buf_consume(&r->in, r->at);
        r->at = 0;
    }
    buf_add(&r->in, bytes);
}

static bool one_line(struct str s) {
    return str_index_any(s, STR("\0\r\n")) < 0;
}

static bool is_printable(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is_print(s.p[i]))
            return false;
    return true;
}

static bool byte_of(struct str *s, unsigned all, uint8_t *ret) {
    if (s->n == 0)
        return false;
    *ret = (uint8_t)s->p[0];
    *s = str_from(*s, 1);
    return !(*ret & ~all);
}

/* The content of a record, and its place among the others. Its type is a known one, and END was not before it. */
static bool check_record(struct maildrop_reader *r, struct maildrop_record *m) {
    unsigned bit = 1U << m->type;
    bool first = !(r->seen & bit), begun = r->seen & (1U << MAILDROP_SENDER);
    bool head = !(r->seen & (1U << MAILDROP_RCPT)) && !r->content;
    r->seen |= bit;
    if (begun == (m->type == MAILDROP_SENDER))
        return false;
    switch (m->type) {
    case MAILDROP_SENDER:
        return m->bytes.n <= ADDRESS_MAX && one_line(m->bytes);
    case MAILDROP_FULL_NAME: /* control bytes in it are cleanup's to remove */
        return first && head && m->bytes.n <= MAILDROP_FULL_NAME_MAX;
    case MAILDROP_ENVID:
        return first && head && m->bytes.n <= ENVID_MAX && one_line(m->bytes);
    case MAILDROP_RET:
        return first && head && byte_of(&m->bytes, RET_ALL, &m->value) && m->bytes.n == 0;
    case MAILDROP_FLAGS:
        return first && head && byte_of(&m->bytes, FLAGS_ALL, &m->value) &&
               m->bytes.n == (m->value & MAILDROP_VERP ? (size_t)VERP_DELIMITERS : 0) && is_printable(m->bytes);
    case MAILDROP_RCPT:
        r->rcpt_after = r->content;
        return byte_of(&m->bytes, NOTIFY_ALL, &m->value) && m->bytes.n <= ADDRESS_MAX && one_line(m->bytes);
    case MAILDROP_CONTENT:
        r->content = true;
        return !r->rcpt_after && m->bytes.n <= MAILDROP_CONTENT_MAX;
    case MAILDROP_END:
        r->ended = true;
        return m->bytes.n == 0 && (r->seen & (1U << MAILDROP_RCPT));
    }
    return false;
}

enum maildrop_state maildrop_next(struct maildrop_reader *r, struct maildrop_record *ret) {
    struct str there = str_from(buf_str(&r->in), r->at);
    if (r->bad || (r->ended && there.n > 0)) {
        r->bad = true;
        return MAILDROP_BAD;
    }
    if (there.n < HEAD)
        return MAILDROP_MORE;
    struct unpack u = unpack_from(there);
    *ret = (struct maildrop_record){ .type = (enum maildrop_type)unpack_u8(&u) };
    uint32_t n = unpack_u32(&u);
    if (n > MAILDROP_RECORD_MAX || ret->type > MAILDROP_END || ret->type < MAILDROP_SENDER) {
        r->bad = true;
        return MAILDROP_BAD;
    }
    if (u.rest.n < n)
        return MAILDROP_MORE;
    ret->bytes = str_sub(u.rest, 0, n);
    r->at += HEAD + n;
    if (check_record(r, ret))
        return MAILDROP_RECORD;
    r->bad = true;
    return MAILDROP_BAD;
}

bool maildrop_eof(const struct maildrop_reader *r) {
    return !r->bad && r->ended && r->at == r->in.n;
}

void maildrop_reader_free(struct maildrop_reader *r) {
    buf_free(&r->in);
    *r = (struct maildrop_reader){ 0 };
}

error maildrop_read(struct maildrop_reader *r, int fd, struct maildrop_record *ret) {
    bool end = false; /* END was found; is there anything behind it? */
    struct maildrop_record record;
    for (;;) {
        enum maildrop_state state = maildrop_next(r, &record);
        if (state == MAILDROP_BAD)
            return &malformed;
        if (state == MAILDROP_RECORD && record.type != MAILDROP_END) {
            *ret = record;
            return NULL;
        }
        end = end || state == MAILDROP_RECORD;
        char bytes[READ_SIZE];
        ssize_t n;
        do
            n = sys->read(fd, bytes, sizeof bytes);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return err_errno(errno);
        if (n == 0) {
            if (!end || !maildrop_eof(r))
                return &malformed;
            *ret = (struct maildrop_record){ .type = MAILDROP_END, .bytes = STR("") };
            return NULL;
        }
        maildrop_feed(r, (struct str){ bytes, (size_t)n });
    }
}
