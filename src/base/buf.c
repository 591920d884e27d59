#include "base/buf.h"

#include "base/die.h"
#include "base/format.h"
#include "base/utf8.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { PRINTF_GUESS = 63 /* bytes; with the NUL the least a buffer has */ };

/* Blocks of the sizes that content goes through, kept for the next buffer: the C library takes long over each, and
 * gives memory back to the system only to ask for it again. Those for whom memory is checked check each anew. */
enum { KEPT_SIZE_MIN = 2048, KEPT_CLASSES = 6 /* up to 64 KiB */, KEPT_EACH = 4 };
static _Thread_local struct {
    char *at[KEPT_EACH];
    unsigned n;
} kept[KEPT_CLASSES];

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KEEP_BLOCKS false
#else
#define KEEP_BLOCKS true
#endif

/* Of a size that is kept: which class. */
static bool kept_class(size_t room, unsigned *ret) {
    for (*ret = 0; *ret < KEPT_CLASSES; ++*ret)
        if (room == (size_t)KEPT_SIZE_MIN << *ret)
            return KEEP_BLOCKS;
    return false;
}

static char *block_new(size_t room) {
    unsigned c;
    if (kept_class(room, &c) && kept[c].n > 0)
        return kept[c].at[--kept[c].n];
    char *p = malloc(room);
    if (!p)
        die_no_memory(room);
    return p;
}

static void block_free(char *p, size_t room) {
    unsigned c;
    if (kept_class(room, &c) && kept[c].n < KEPT_EACH)
        kept[c].at[kept[c].n++] = p;
    else
        free(p);
}

void buf_free(struct buf *b) {
    if (b->p)
        block_free(b->p, b->room);
    *b = (struct buf){ 0 };
}

void buf_wipe(struct buf *b) {
    if (b->p)
        explicit_bzero(b->p, b->room);
    buf_free(b);
}

char *buf_reserve(struct buf *b, size_t n) {
    size_t need;
    if (__builtin_add_overflow(b->n, n, &need) || need > SIZE_MAX / 4)
        die_no_memory(n);
    need++; /* the NUL */
    if (need > b->room) {
        size_t room = b->room ? b->room : 64;
        while (room < need)
            room *= 2;
        if (room > (size_t)KEPT_SIZE_MIN << (KEPT_CLASSES - 1)) {
            b->p = realloc(b->p, room);
            if (!b->p)
                die_no_memory(room);
        } else {
            char *p = block_new(room);
            if (b->p) {
                memcpy(p, b->p, b->n);
                block_free(b->p, b->room);
            }
            b->p = p;
        }
        b->room = room;
    }
    return b->p + b->n;
}

void buf_add(struct buf *b, struct str s) {
    char *at = buf_reserve(b, s.n);
    if (s.n)
        memcpy(at, s.p, s.n);
    b->n += s.n;
    b->p[b->n] = 0;
}

void buf_byte(struct buf *b, char c) {
    *buf_reserve(b, 1) = c;
    b->p[++b->n] = 0;
}

void buf_vprintf(struct buf *b, const char *format, va_list ap) {
    va_list again;
    va_copy(again, ap);
    char *at = buf_reserve(b, PRINTF_GUESS);
    size_t room = b->room - b->n;
    int n = format_v(at, room, format, again); /* mostly there is room: formatted once, not measured first */
    va_end(again);
    if (n < 0)
        die("buf_printf: bad format or over-long result");
    if ((size_t)n >= room) {
        at = buf_reserve(b, (size_t)n);
        format_v(at, (size_t)n + 1, format, ap);
    }
    b->n += (size_t)n;
}

void buf_printf(struct buf *b, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    buf_vprintf(b, format, ap);
    va_end(ap);
}

void buf_consume(struct buf *b, size_t n) {
    if (n > b->n)
        n = b->n;
    if (n == 0)
        return;
    b->n -= n;
    memmove(b->p, b->p + n, b->n);
    b->p[b->n] = 0;
}

void buf_truncate(struct buf *b, size_t n) {
    if (n < b->n) {
        b->n = n;
        b->p[n] = 0;
    }
}

/* Bytes at the front of `s` that are printable ASCII: eight at a time, as most text is all of them. */
static size_t printable_length(struct str s) {
    const uint64_t ones = 0x0101010101010101u, tops = ones << 7;
    size_t i = 0;
    for (uint64_t eight; s.n - i >= sizeof eight; i += sizeof eight) {
        memcpy(&eight, s.p + i, sizeof eight);
        uint64_t low = (eight - ones * 0x20) & ~eight, high = (eight + ones) | eight;
        if ((low | high) & tops)
            break;
    }
    while (i < s.n && byte_is_print(s.p[i]))
        i++;
    return i;
}

void buf_printable(struct buf *b, struct str s, size_t max) {
    size_t i = 0, out = 0;
    while (i < s.n) {
        size_t run = printable_length(str_sub(s, i, max - out));
        if (run) {
            buf_add(b, str_sub(s, i, run));
            i += run, out += run;
            continue;
        }
        size_t len = utf8_length(str_from(s, i));
        if (len <= 1) {
            if (out + 1 > max)
                return;
            buf_byte(b, len == 1 && byte_is_print(s.p[i]) ? s.p[i] : '?');
            i++, out++;
        } else {
            if (out + len > max)
                return;
            buf_add(b, str_sub(s, i, len));
            i += len, out += len;
        }
    }
}

bool buf_read_fd(struct buf *b, int fd, size_t max) {
    size_t start = b->n;
    for (;;) {
        ssize_t got = read(fd, buf_reserve(b, 16384), 16384);
        if (got < 0 && errno == EINTR)
            continue;
        if (got >= 0)
            b->n += (size_t)got;
        bool over = b->n - start > max;
        if (got > 0 && !over)
            continue;
        b->p[b->n] = 0;
        if (got < 0 || over) {
            if (over)
                errno = EFBIG;
            buf_truncate(b, start);
            return false;
        }
        return true;
    }
}

bool buf_read_file(struct buf *b, const char *path, size_t max) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return false;
    bool good = buf_read_fd(b, fd, max);
    int saved = errno;
    close(fd);
    errno = saved;
    return good;
}
