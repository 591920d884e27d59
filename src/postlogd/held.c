#include "postlogd/held.h"

#include "base/die.h"
#include <stdlib.h>

enum { KEEP_ROOM = 64 * 1024 }; /* an empty buffer larger than this is given back */

void held_add(struct held *h, struct str line, int64_t made_us, int64_t now_us) {
    if (made_us > now_us)
        made_us = now_us;
    if (h->count == h->room) {
        size_t room = h->room ? h->room * 2 : 64;
        struct held_line *lines = realloc(h->lines, room * sizeof *lines);
        if (!lines)
            die_no_memory(room * sizeof *lines);
        h->lines = lines;
        h->room = room;
    }
    h->lines[h->count++] = (struct held_line){ made_us, h->bytes.n, line.n };
    if (h->count == 1 || made_us < h->oldest_us)
        h->oldest_us = made_us;
    buf_add(&h->bytes, line);
}

bool held_is_full(const struct held *h) {
    return h->bytes.n > HELD_BYTES_MAX || h->count > HELD_LINES_MAX;
}

int64_t held_due(const struct held *h) {
    return h->count ? h->oldest_us + HELD_US : INT64_MAX;
}

/* Where they lie is the order they came in, which decides between equals. */
static int by_time(const void *a, const void *b) {
    const struct held_line *x = a, *y = b;
    if (x->made_us != y->made_us)
        return x->made_us < y->made_us ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* What stays moves to the front. */
static void keep_from(struct held *h, size_t first) {
    struct buf bytes = { 0 };
    for (size_t i = first; i < h->count; i++) {
        struct held_line *line = &h->lines[i];
        struct str text = str_sub(buf_str(&h->bytes), line->at, line->n);
        line->at = bytes.n;
        buf_add(&bytes, text);
        h->lines[i - first] = *line;
    }
    h->count -= first;
    if (h->count)
        h->oldest_us = h->lines[0].made_us;
    if (bytes.p || h->bytes.room > KEEP_ROOM) {
        buf_free(&h->bytes);
        h->bytes = bytes;
    } else {
        buf_clear(&h->bytes);
    }
}

void held_take(struct held *h, int64_t until_us, struct buf *out) {
    if (h->count == 0)
        return;
    qsort(h->lines, h->count, sizeof *h->lines, by_time);
    size_t n = 0;
    for (; n < h->count && h->lines[n].made_us <= until_us; n++) {
        buf_add(out, str_sub(buf_str(&h->bytes), h->lines[n].at, h->lines[n].n));
        buf_byte(out, '\n');
    }
    keep_from(h, n);
}

void held_free(struct held *h) {
    buf_free(&h->bytes);
    free(h->lines);
    *h = (struct held){ 0 };
}
