#include "pickup/requeued.h"

#include "base/log.h"
#include "mail/address.h"
#include "run/coro.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    CHUNK = 64 * 1024,
    /* what says something of the message itself; the rest was about its old life */
    FLAGS_KEPT = ENVELOPE_8BIT | ENVELOPE_7BIT | ENVELOPE_SMTPUTF8 | ENVELOPE_INTERNAL | ENVELOPE_VERIFY |
                 ENVELOPE_TRACE | ENVELOPE_REMOTE | ENVELOPE_REQUIRETLS,
};

error requeued_open(int fd, const char *name, const struct stat *st, struct arena *a, bool *ret_is,
                    struct requeued *ret) {
    enum queue_file_kind kind;
    *ret_is = false;
    if (st->st_uid != geteuid())
        return NULL;
    error e = queue_file_kind(fd, &kind);
    if (e || kind != QUEUE_FILE_MESSAGE)
        return e;
    *ret_is = true;
    *ret = (struct requeued){ .name = name, .fd = fd, .uid = st->st_uid };
    if ((e = queue_file_read(fd, a, &ret->file)) || (e = queue_file_check_content(fd, &ret->file)))
        return e;
    for (size_t i = 0; i < ret->file.env.rcpt_count; i++)
        ret->left += ret->file.env.rcpts[i].state != RCPT_DONE;
    return NULL;
}

static error send_content(const struct requeued *r, const struct sending *out) {
    char *chunk = malloc(CHUNK);
    uint64_t left = r->file.head.content_size, at = r->file.content_at;
    error e = chunk ? NULL : err_errno(ENOMEM);
    while (left > 0 && !e) {
        ssize_t n = sys->pread(r->fd, chunk, left < CHUNK ? (size_t)left : CHUNK, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            e = err_errno(n < 0 ? errno : EIO);
            break;
        }
        e = submit_content(out->to, str_n(chunk, (size_t)n), out->deadline);
        left -= (uint64_t)n;
        at += (uint64_t)n;
    }
    free(chunk);
    return e;
}

static error send_all(struct pickup *p, const struct requeued *r, const struct sending *out) {
    struct envelope env = r->file.env;
    env.flags &= FLAGS_KEPT;
    env.content_filter = conf_str(p->c, PARAM_content_filter); /* that of today */
    if (env.client.ident.n == 0)
        env.client.ident = str_c(r->name);
    env.rcpts = NULL;
    env.rcpt_count = 0;
    error e = submit_envelope(out->to, &env, out->deadline);
    for (size_t i = 0; i < r->file.env.rcpt_count && !e; i++)
        if (r->file.env.rcpts[i].state != RCPT_DONE)
            e = submit_rcpt(out->to, &r->file.env.rcpts[i], out->deadline);
    if (!e)
        e = pickup_send_received(p, r->uid, sys->wall_us(), out);
    return e ? e : send_content(r, out);
}

error requeued_submit(struct pickup *p, struct requeued *r, struct arena *a, struct submit_result *ret) {
    struct sending out = { .deadline = deadline_in(conf_time(p->c, PARAM_ipc_timeout)) };
    const struct envelope *env = &r->file.env;
    unsigned flags = p->submit_flags;
    if (!(env->flags & ENVELOPE_REMOTE))
        flags |= SUBMIT_LOCAL_HEADERS;
    error e = submit_open(p->cleanup, flags, out.deadline, a, &out.to, &out.id, ret);
    if (e || ret->status != SUBMIT_OK)
        return e;
    log_info("%s: uid=%ld from=<%.*s> orig_id=%s", out.id.text, (long)r->uid, STR_ARG(address_logged(a, env->sender)),
             r->name);
    e = send_all(p, r, &out);
    if (!e)
        return submit_end(out.to, out.deadline, a, ret);
    submit_cancel(out.to);
    return e;
}
