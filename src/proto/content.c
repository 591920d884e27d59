#include "proto/content.h"

#include <errno.h>

enum content_form { CONTENT_FILE = 1, CONTENT_BYTES };

error content_read(const struct spool_content *c, uint64_t at, char *room, size_t room_size, struct str *ret) {
    *ret = STR("");
    if (at >= c->size)
        return NULL;
    if (c->fd < 0) {
        *ret = str_from(c->bytes, (size_t)at);
        return NULL;
    }
    uint64_t left = c->size - at;
    for (;;) {
        ssize_t n = sys->pread(c->fd, room, left < room_size ? (size_t)left : room_size, (off_t)(c->offset + at));
        if (n > 0) {
            *ret = str_n(room, (size_t)n);
            return NULL;
        }
        if (n == 0)
            return err_errno(EIO);
        if (errno != EINTR)
            return err_errno(errno);
    }
}

void content_release(struct spool_content *c) {
    if (c->fd >= 0)
        sys->close(c->fd);
    c->fd = -1;
}

void content_pack(struct buf *b, const struct spool_content *c) {
    pack_u8(b, c->fd >= 0 ? CONTENT_FILE : CONTENT_BYTES);
    if (c->fd >= 0) {
        pack_u64(b, c->offset);
        pack_u64(b, c->size);
    } else {
        pack_str(b, c->bytes);
    }
}

bool content_unpack(struct unpack *u, const struct ipc_msg *m, struct spool_content *ret) {
    struct spool_content c = { .fd = m->fd };
    unsigned form = unpack_u8(u);
    if (form == CONTENT_FILE) {
        c.offset = unpack_u64(u);
        c.size = unpack_u64(u);
        if (m->fd < 0 || c.offset > INT64_MAX || c.size > INT64_MAX - c.offset)
            return false;
    } else if (form == CONTENT_BYTES) {
        c.bytes = unpack_str(u);
        c.size = c.bytes.n;
        if (m->fd >= 0 || c.size > DELIVERY_INLINE_MAX)
            return false;
    } else {
        return false;
    }
    *ret = c;
    return !u->bad;
}
