#include "smtpd/content.h"

static void put(struct content *c, struct str bytes) {
    buf_add(c->out, bytes);
    c->line += bytes.n;
}

static void put_crs(struct content *c) {
    for (; c->crs; c->crs--)
        put(c, STR("\r"));
}

/* An LF has come. */
static void end_line(struct content *c) {
    bool bare = c->crs == 0;
    bool lone_dot = c->state == CONTENT_DOT;
    c->bare_newline = c->bare_newline || bare;
    if (lone_dot && (c->lenient || (!bare && !c->after_bare))) {
        c->ended = true;
    } else if (!lone_dot) {
        buf_byte(c->out, '\n');
        c->size += c->line + 2;
        c->line = 0;
    }
    c->after_bare = bare;
    c->crs = 0;
    c->state = CONTENT_LINE;
}

/* A CR: of a run of them only the last can belong to the line's end, unless lenient. */
static void take_cr(struct content *c) {
    if (!c->lenient && c->crs) {
        put_crs(c);
        c->state = CONTENT_INSIDE;
    }
    c->crs++;
    if (c->state == CONTENT_LINE)
        c->state = CONTENT_INSIDE;
}

/* Whole lines that have nothing special about them, as nearly all do. Returns how many bytes they are. */
static size_t plain_lines(struct content *c, struct str bytes) {
    struct buf *out = c->out;
    const char *from = bytes.p, *end = bytes.p + bytes.n;
    char *begin = buf_reserve(out, bytes.n), *to = begin;
    while (from < end && (*from != '.' || c->chunk)) {
        const char *cr = memchr(from, '\r', (size_t)(end - from));
        if (!cr || cr + 1 == end || cr[1] != '\n' || memchr(from, '\n', (size_t)(cr - from)))
            break;
        size_t n = (size_t)(cr - from);
        memcpy(to, from, n);
        to += n;
        *to++ = '\n';
        from = cr + 2;
    }
    size_t used = (size_t)(from - bytes.p);
    if (used == 0)
        return 0;
    out->n += (size_t)(to - begin);
    out->p[out->n] = 0;
    c->size += used;
    c->after_bare = false;
    return used;
}

/* Up to the next CR or LF. */
static size_t inside(struct content *c, struct str bytes) {
    put_crs(c);
    c->state = CONTENT_INSIDE;
    const char *lf = memchr(bytes.p, '\n', bytes.n);
    size_t n = lf ? (size_t)(lf - bytes.p) : bytes.n;
    const char *cr = memchr(bytes.p, '\r', n);
    n = cr ? (size_t)(cr - bytes.p) : n;
    put(c, str_sub(bytes, 0, n));
    return n;
}

size_t content_feed(struct content *c, struct str bytes) {
    size_t i = 0;
    while (i < bytes.n && !c->ended) {
        char byte = bytes.p[i];
        if (byte == '\n') {
            i++;
            end_line(c);
        } else if (byte == '\r') {
            i++;
            take_cr(c);
        } else if (c->state == CONTENT_LINE && byte == '.' && !c->chunk) {
            i++;
            c->state = CONTENT_DOT;
        } else {
            size_t n = c->state == CONTENT_LINE ? plain_lines(c, str_from(bytes, i)) : 0;
            i += n ? n : inside(c, str_from(bytes, i));
        }
    }
    return i;
}

void content_finish(struct content *c) {
    put_crs(c);
    if (c->state == CONTENT_INSIDE) {
        buf_byte(c->out, '\n');
        c->size += c->line + 2;
        c->line = 0;
    }
    c->state = CONTENT_LINE;
}
