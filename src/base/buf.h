/* buf.h - the one growing byte buffer. Owns its memory (malloc); `{0}` is an empty one, ready for use.
 * After each call the content is followed by a NUL byte that is not counted. Out of memory ends the process. */
#ifndef ANGARIUM_BASE_BUF_H
#define ANGARIUM_BASE_BUF_H

#include "base/str.h"
#include <stdarg.h>

struct buf {
    char *p;        /* NULL while nothing was ever put in */
    size_t n, room; /* bytes used, bytes allocated */
};

/* Borrowed until the next change. */
static inline struct str buf_str(const struct buf *b) {
    return b->p ? (struct str){ b->p, b->n } : STR("");
}
static inline void buf_clear(struct buf *b) {
    b->n = 0;
    if (b->p)
        b->p[0] = 0;
}
void buf_free(struct buf *b);
/* Overwrites the whole allocation before freeing it: for secrets. */
void buf_wipe(struct buf *b);

void buf_add(struct buf *b, struct str s);
void buf_byte(struct buf *b, char c);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *format, va_list ap) __attribute__((format(printf, 2, 0)));
/* Make room for `n` more bytes and return where they begin; add what was used to `b->n` yourself. */
char *buf_reserve(struct buf *b, size_t n);
/* Drop the first `n` bytes. */
void buf_consume(struct buf *b, size_t n);
void buf_truncate(struct buf *b, size_t n);

/* `s` made printable for logs and listings: control bytes become '?', bytes over 127 stay only as strict UTF-8
 * (RFC 3629), at most `max` bytes. */
void buf_printable(struct buf *b, struct str s, size_t max);

/* Read a whole file of at most `max` bytes; false with errno set (EFBIG when over). */
bool buf_read_file(struct buf *b, const char *path, size_t max);
/* The same from where `fd` stands; it stays open. */
bool buf_read_fd(struct buf *b, int fd, size_t max);
#endif
