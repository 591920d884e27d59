#include "smtpd/content.h"

static void put_crs(struct content *c) {
    for (; c->crs; c->crs--)
        c->put(c->ctx, STR("\r"));
}

/* An LF has come. */
static void end_line(struct content *c) {
    bool bare = c->crs == 0;
    bool lone_dot = c->state == CONTENT_DOT;
    c->bare_newline = c->bare_newline || bare;
    if (lone_dot && (c->lenient || (!bare && !c->after_bare)))
        c->ended = true;
    else if (!lone_dot)
        c->put(c->ctx, STR("\n"));
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

size_t content_feed(struct content *c, struct str bytes) {
    size_t i = 0;
    while (i < bytes.n && !c->ended) {
        char byte = bytes.p[i];
        if (byte == '\n') {
            i++;
            end_line(c);
            continue;
        }
        if (byte == '\r') {
            i++;
            take_cr(c);
            continue;
        }
        if (c->state == CONTENT_LINE && byte == '.') {
            i++;
            c->state = CONTENT_DOT;
            continue;
        }
        put_crs(c);
        c->state = CONTENT_INSIDE;
        struct str rest = str_from(bytes, i);
        const char *lf = memchr(rest.p, '\n', rest.n);
        size_t n = lf ? (size_t)(lf - rest.p) : rest.n;
        const char *cr = memchr(rest.p, '\r', n);
        n = cr ? (size_t)(cr - rest.p) : n;
        c->put(c->ctx, str_sub(rest, 0, n));
        i += n;
    }
    return i;
}
