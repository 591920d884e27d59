#include "queue/queue_edit.h"

#include "queue/spool_file.h"
#include "queue/spool_private.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define MAILDROP "maildrop"

unsigned queue_edit_states(enum queue_edit what) {
    switch (what) {
    case QUEUE_HOLD:
        return QUEUE_STATES_ALL & ~queue_states(SPOOL_HOLD);
    case QUEUE_RELEASE:
        return queue_states(SPOOL_HOLD);
    default:
        return QUEUE_STATES_ALL;
    }
}

/* --- requeue --- */

/* Recipients that failed for good are done, and only the bounce log knows that nobody has told the sender. With the log
 * gone they must be tried again: their marks are taken back first. */
static error unmark_untold(struct spool *s, const struct queue_id *id, enum spool_state state) {
    struct arena *a = arena_new();
    struct spool_failure *f;
    size_t count;
    struct spool_head h;
    char bytes[SPOOL_HEAD_SIZE];
    struct stat st;
    int fd = -1;
    error e = spool_log_read(s, id, SPOOL_LOG_BOUNCE, a, &f, &count);
    if (e || count == 0)
        goto out;
    fd = spool_openat(s, state, id, O_RDWR, 0);
    if (fd < 0 || sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0 || !spool_pread_all(fd, bytes, sizeof bytes, 0)) {
        e = err_errno(errno);
        goto out;
    }
    if (!spool_head_unpack(str_n(bytes, sizeof bytes), (uint64_t)st.st_size, &h)) {
        e = err_errno(EBADMSG);
        goto out;
    }
    static const char todo = SPOOL_MARK_TODO;
    for (size_t i = 0; i < count && !e; i++)
        if (f[i].rcpt_index < h.rcpt_count)
            e = spool_pwrite_all(fd, str_n(&todo, 1), spool_marks_at(&h) + f[i].rcpt_index);
out:
    if (fd >= 0)
        sys->close(fd);
    arena_free(a);
    return e;
}

error spool_requeue(struct spool *s, const struct queue_id *id, enum spool_state state) {
    char old[SPOOL_PATH_MAX], new[SPOOL_PATH_MAX];
    spool_path(s, state, id, old);
    snprintf(new, sizeof new, MAILDROP "/%s", id->text);
    struct stat st;
    if (sys->fstatat(s->fd, new, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return err_errno(EEXIST);
    if (errno != ENOENT)
        return err_errno(errno);
    error e = unmark_untold(s, id, state);
    if (e || (e = spool_log_clear(s, id, SPOOL_LOG_BOUNCE)) || (e = spool_log_clear(s, id, SPOOL_LOG_DEFER)) ||
        (e = spool_log_clear(s, id, SPOOL_LOG_TRACE)))
        return e;
    return sys->renameat(s->fd, old, s->fd, new) < 0 ? err_errno(errno) : NULL;
}

/* --- all --- */

/* Not under the hands of whoever writes or delivers it. */
static error is_free(struct spool *s, const struct queue_id *id, enum spool_state state) {
    struct spool_content c;
    error e = spool_content_open(s, id, state, &c);
    if (!e)
        spool_content_close(&c);
    return e;
}

/* A message on its way is first put among the deferred, due now: whatever happens next, it is tried again. */
static error settle_down(struct spool *s, const struct queue_id *id, enum spool_state *inout_state) {
    if (*inout_state != SPOOL_INCOMING && *inout_state != SPOOL_ACTIVE)
        return NULL;
    error e = spool_set_next_try(s, id, *inout_state, sys->wall_us());
    if (!e && !(e = spool_move(s, id, *inout_state, SPOOL_DEFERRED)))
        *inout_state = SPOOL_DEFERRED;
    return e;
}

static error edit(struct spool *s, const struct queue_id *id, enum queue_edit what, enum spool_state state) {
    error e = NULL;
    switch (what) {
    case QUEUE_DELETE:
        return spool_remove(s, id, state);
    case QUEUE_HOLD:
        return state == SPOOL_HOLD ? err_errno(ENOENT) : spool_move(s, id, state, SPOOL_HOLD);
    case QUEUE_RELEASE:
        return state == SPOOL_HOLD ? spool_move(s, id, SPOOL_HOLD, SPOOL_DEFERRED) : err_errno(ENOENT);
    case QUEUE_REQUEUE:
        e = settle_down(s, id, &state);
        return e ? e : spool_requeue(s, id, state);
    case QUEUE_EXPIRE:
        e = spool_mark_expired(s, id, state);
        if (e && e->sys == ENOENT && !(e = settle_down(s, id, &state)))
            e = spool_mark_expired(s, id, state);
        return e;
    }
    return err_errno(EINVAL);
}

enum queue_edited queue_edit_in(struct spool *s, const struct queue_id *id, enum queue_edit what,
                                enum spool_state state, error *ret_error) {
    error e = edit(s, id, what, state);
    *ret_error = NULL;
    if (!e)
        return QUEUE_EDITED;
    /* gone meanwhile, or marked already */
    if (e->sys == ENOENT || (what == QUEUE_EXPIRE && e->sys == EEXIST))
        return QUEUE_NOTHING;
    if (e->sys == EAGAIN)
        return QUEUE_BUSY;
    *ret_error = e;
    return QUEUE_FAILED;
}

enum queue_edited queue_edit(struct spool *s, const struct queue_id *id, enum queue_edit what, unsigned states,
                             error *ret_error) {
    enum spool_state state;
    *ret_error = NULL;
    if (!spool_find(s, id, &state) || !(states & queue_edit_states(what) & queue_states(state)))
        return QUEUE_NOTHING;
    /* What is damaged cannot be locked in the ordinary way and is nobody's: it may be taken away. */
    error e = is_free(s, id, state);
    if (e && (e->sys == EWOULDBLOCK || e->sys == EAGAIN))
        return QUEUE_BUSY;
    if (e && e->sys == ENOENT)
        return QUEUE_NOTHING;
    return queue_edit_in(s, id, what, state, ret_error);
}
