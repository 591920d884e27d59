/* A message with more recipients than should be in memory: read a part at a time. */
#include "queue/spool_private.h"

#include "base/die.h"
#include "queue/crc32c.h"
#include "queue/spool_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum {
    CHUNK = 16 * 1024,
    FRONT_MAX = 1024 * 1024, /* bytes of an envelope without its recipients, and of one recipient */
};

static const struct err err_damaged = { .kind = ERR_SYNTAX, .text = STR_INIT("damaged queue file") };

/* Bytes of the envelope from `at` on, up to `room`. False with errno. */
static bool envelope_bytes(int fd, const struct spool_head *h, uint64_t at, char *p, size_t room, size_t *ret) {
    uint64_t left = h->envelope_size - at;
    *ret = left < room ? (size_t)left : room;
    return spool_pread_all(fd, p, *ret, h->envelope_at + at);
}

static error check_envelope(int fd, const struct spool_head *h, char *chunk) {
    uint32_t crc = 0;
    size_t n;
    for (uint64_t at = 0; at < h->envelope_size; at += n) {
        if (!envelope_bytes(fd, h, at, chunk, CHUNK, &n))
            return err_errno(errno);
        crc = crc32c(crc, str_n(chunk, n));
    }
    return crc == h->envelope_crc ? NULL : &err_damaged;
}

static error unpack_front(int fd, const struct spool_head *h, struct arena *a, struct envelope *ret, uint64_t *ret_at) {
    for (size_t room = CHUNK; room <= FRONT_MAX; room *= 4) {
        char *p = arena_alloc(a, room);
        size_t n;
        if (!envelope_bytes(fd, h, 0, p, room, &n))
            return err_errno(errno);
        struct unpack u = unpack_from(str_n(p, n));
        struct envelope e = { 0 };
        envelope_unpack(&u, &e);
        if (u.bad)
            continue;
        *ret = e;
        *ret_at = n - u.rest.n;
        return NULL;
    }
    return &err_damaged;
}

static error count_todo(int fd, const struct spool_head *h, struct envelope *env, size_t *ret, char *chunk) {
    size_t n, todo = 0;
    for (uint64_t at = 0; at < h->rcpt_count; at += n) {
        uint64_t left = h->rcpt_count - at;
        n = left < CHUNK ? (size_t)left : CHUNK;
        if (!spool_pread_all(fd, chunk, n, spool_marks_at(h) + at))
            return err_errno(errno);
        for (size_t i = 0; i < n; i++)
            todo += chunk[i] != SPOOL_MARK_DONE;
    }
    char last[SPOOL_FLAGS];
    if (!spool_pread_all(fd, last, sizeof last, spool_marks_at(h) + h->rcpt_count))
        return err_errno(errno);
    env->flags |= spool_flags(str_n(last, sizeof last));
    *ret = todo;
    return NULL;
}

error spool_front_unpack(int fd, const struct spool_head *h, struct arena *a, struct envelope *ret,
                         struct spool_rest *ret_rest) {
    char *chunk = arena_alloc(a, CHUNK);
    error e = check_envelope(fd, h, chunk);
    *ret_rest = (struct spool_rest){ 0 };
    if (!e)
        e = unpack_front(fd, h, a, ret, &ret_rest->at);
    if (!e)
        e = count_todo(fd, h, ret, &ret_rest->todo, chunk);
    if (e)
        return e;
    ret->size = h->content_size;
    ret->rcpts = NULL;
    ret->rcpt_count = h->rcpt_count;
    return NULL;
}

struct reading {
    int fd;
    struct spool_head head;
    struct spool_rest *rest;
    size_t max, count;
    struct arena *arena;
    struct rcpt *rcpts;
    uint32_t *index;
};

/* False with errno. */
static bool is_done(const struct reading *r, char *marks, uint32_t *marks_at, bool *ret) {
    uint32_t i = r->rest->index;
    if (i < *marks_at || i - *marks_at >= CHUNK) {
        size_t left = (size_t)(r->head.rcpt_count - i);
        if (!spool_pread_all(r->fd, marks, left < CHUNK ? left : CHUNK, spool_marks_at(&r->head) + i))
            return false;
        *marks_at = i;
    }
    *ret = marks[i - *marks_at] == SPOOL_MARK_DONE;
    return true;
}

/* The recipients in `bytes`. The number read, or -1 with errno. */
static int take_rcpts(struct reading *r, struct str bytes, char *marks, uint32_t *marks_at) {
    struct unpack u = unpack_from(bytes);
    int n = 0;
    while (r->count < r->max && r->rest->todo > 0 && r->rest->index < r->head.rcpt_count) {
        struct rcpt one;
        bool done;
        size_t before = u.rest.n;
        rcpt_unpack(&u, &one);
        if (u.bad)
            break;
        if (!is_done(r, marks, marks_at, &done))
            return -1;
        if (!done) {
            one.address = arena_str(r->arena, one.address);
            one.orig = one.orig.n ? arena_str(r->arena, one.orig) : STR("");
            one.dsn_orcpt = one.dsn_orcpt.n ? arena_str(r->arena, one.dsn_orcpt) : STR("");
            one.state = RCPT_TODO;
            r->rcpts[r->count] = one;
            r->index[r->count++] = r->rest->index;
            r->rest->todo--;
        }
        r->rest->at += before - u.rest.n;
        r->rest->index++;
        n++;
    }
    return n;
}

static error read_rest(struct reading *r) {
    size_t room = CHUNK;
    char *chunk = malloc(room), *marks = malloc(CHUNK);
    uint32_t marks_at = UINT32_MAX;
    if (!chunk || !marks)
        die_no_memory(CHUNK);
    error e = NULL;
    while (!e && r->count < r->max && r->rest->todo > 0) {
        size_t n;
        if (r->rest->index >= r->head.rcpt_count) {
            r->rest->todo = 0; /* marks of some came since they were counted */
            break;
        }
        int got = -1;
        if (envelope_bytes(r->fd, &r->head, r->rest->at, chunk, room, &n))
            got = take_rcpts(r, str_n(chunk, n), marks, &marks_at);
        if (got < 0) {
            e = err_errno(errno);
        } else if (got == 0) { /* not one whole recipient */
            char *grown = room < FRONT_MAX ? realloc(chunk, room *= 4) : NULL;
            if (grown)
                chunk = grown;
            else
                e = &err_damaged;
        }
    }
    free(chunk);
    free(marks);
    return e;
}

error spool_rcpts_next(struct spool *s, const struct queue_id *id, enum spool_state state,
                       struct spool_rest *inout_rest, size_t max, struct arena *a, struct rcpt **ret,
                       uint32_t **ret_index, size_t *ret_count) {
    struct reading r = { .rest = inout_rest, .max = max < inout_rest->todo ? max : inout_rest->todo, .arena = a };
    r.fd = spool_openat(s, state, id, O_RDONLY, 0);
    if (r.fd < 0)
        return err_errno(errno);
    r.rcpts = arena_array(a, r.max, sizeof *r.rcpts);
    r.index = arena_array(a, r.max, sizeof *r.index);
    error e = spool_read_head(r.fd, &r.head);
    if (!e)
        e = read_rest(&r);
    sys->close(r.fd);
    *ret = r.rcpts;
    *ret_index = r.index;
    *ret_count = r.count;
    return e;
}
