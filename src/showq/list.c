#include "showq/list.h"

#include "mail/address.h"
#include "queue/maildrop.h"
#include "run/coro.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAILDROP_RCPTS_MAX = 10000 /* shown of one submission */ };

/* What stands for the null sender, in both forms. */
#define NULL_SENDER STR("MAILER-DAEMON")

error showq_open(struct showq *q, const struct conf *c, struct arena *err_arena) {
    struct spool_options o = spool_options_from(c, SPOOL_LISTER);
    struct str dir = conf_str(c, PARAM_queue_directory);
    struct str path = arena_printf(err_arena, "%.*s/maildrop", STR_ARG(dir));
    *q = (struct showq){ .maildrop_fd = -1 };
    error e = spool_open(&o, err_arena, &q->spool);
    if (e)
        return e;
    /* its owner's and postdrop's; a queue without one has no submissions to show */
    q->peek = spool_peek_new(q->spool);
    q->maildrop_fd = sys->openat(AT_FDCWD, path.p, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    return NULL;
}

void showq_close(struct showq *q) {
    spool_peek_free(q->peek);
    spool_close(q->spool);
    if (q->maildrop_fd >= 0)
        sys->close(q->maildrop_fd);
}

static struct str shown_address(struct arena *a, struct str address) {
    return address.n ? address_quote(a, address) : NULL_SENDER;
}

/* --- maildrop --- */

static bool read_submission(int fd, struct arena *a, struct listing_entry *e) {
    struct maildrop_reader r = { 0 };
    struct maildrop_record rec;
    VEC(struct listing_rcpt) rcpts = { 0 };
    error err;
    e->sender = NULL_SENDER;
    while (!(err = maildrop_read(&r, fd, &rec)) && rec.type != MAILDROP_END) {
        if (rec.type == MAILDROP_SENDER)
            e->sender = shown_address(a, arena_str(a, rec.bytes));
        else if (rec.type == MAILDROP_CONTENT)
            e->size += rec.bytes.n;
        if (rec.type != MAILDROP_RCPT || rcpts.n >= MAILDROP_RCPTS_MAX)
            continue;
        struct listing_rcpt *to = vec_add(a, &rcpts);
        *to = (struct listing_rcpt){ .address = shown_address(a, arena_str(a, rec.bytes)) };
        to->orig = to->delay_reason = to->bounce_reason = STR("");
    }
    maildrop_reader_free(&r);
    e->rcpts = rcpts.at;
    e->rcpt_count = rcpts.n;
    return !err;
}

static bool submission_id(struct showq *q, const char *name, showq_sink *sink, void *ctx) {
    struct listing_entry e = { .queue_name = STR("maildrop"), .sender = STR("") };
    struct stat st;
    if (!queue_id_from(str_c(name), &e.id) || sys->fstatat(q->maildrop_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISREG(st.st_mode))
        return true;
    return sink(ctx, &e);
}

static bool submission(struct showq *q, const char *name, showq_sink *sink, void *ctx) {
    struct arena *a = arena_new();
    struct listing_entry e = { .queue_name = STR("maildrop") };
    struct stat st;
    bool more = true;
    int fd = -1;
    if (queue_id_from(str_c(name), &e.id))
        fd = sys->openat(q->maildrop_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
    if (fd >= 0 && sys->fstatat(fd, "", &st, AT_EMPTY_PATH) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IXUSR)) {
        e.arrival_s = st.st_mtim.tv_sec;
        if (read_submission(fd, a, &e))
            more = sink(ctx, &e);
    }
    if (fd >= 0)
        sys->close(fd);
    arena_free(a);
    return more;
}

typedef bool visit_submission(struct showq *q, const char *name, showq_sink *sink, void *ctx);

static bool walk_maildrop(struct showq *q, visit_submission *visit, showq_sink *sink, void *ctx) {
    if (q->maildrop_fd < 0)
        return true;
    int fd = sys->openat(q->maildrop_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    bool more = true;
    while (more && d && (entry = readdir(d))) {
        more = visit(q, entry->d_name, sink, ctx);
        if (coro_self())
            coro_yield();
    }
    if (d)
        closedir(d);
    else if (fd >= 0)
        sys->close(fd);
    return more;
}

/* --- the queues --- */

/* The last record of each recipient counts; there may be several. */
static void reasons(const struct spool_failure *f, size_t n, size_t count, struct str *ret) {
    for (size_t i = 0; f && i < n; i++)
        if (f[i].rcpt_index < count)
            ret[f[i].rcpt_index] = f[i].reason;
}

bool showq_read(const struct showq *q, struct spool_peek *peek, const struct spool_entry *se, struct arena *a,
                struct listing_entry *ret) {
    struct envelope env;
    struct spool_failure *f = NULL;
    size_t n = 0;
    if (spool_peek(peek, &se->id, se->state, a, &env, q->no_reasons ? NULL : &f, &n))
        return false;
    struct str *delay = arena_array(a, 2 * env.rcpt_count, sizeof *delay), *bounce = delay + env.rcpt_count;
    for (size_t i = 0; i < env.rcpt_count; i++)
        delay[i] = bounce[i] = STR("");
    reasons(f, n, env.rcpt_count, delay);
    if (q->bounces && !spool_log_read(q->spool, &se->id, SPOOL_LOG_BOUNCE, a, &f, &n))
        reasons(f, n, env.rcpt_count, bounce);
    struct listing_entry e = { .queue_name = spool_state_name(se->state),
                               .id = se->id,
                               .arrival_s = env.arrival_us / US_PER_S,
                               .size = env.size,
                               .forced_expire = env.flags & ENVELOPE_EXPIRED };
    e.sender = shown_address(a, env.sender);
    e.rcpts = arena_array(a, env.rcpt_count, sizeof *e.rcpts);
    for (size_t i = 0; i < env.rcpt_count; i++) {
        const struct rcpt *r = &env.rcpts[i];
        if (r->state == RCPT_DONE && !bounce[i].n) /* done, and its sender need not be told any more */
            continue;
        e.rcpts[e.rcpt_count++] = (struct listing_rcpt){
            .address = shown_address(a, r->address),
            .orig = r->orig.n ? address_quote(a, r->orig) : STR(""),
            .delay_reason = r->state == RCPT_DONE ? STR("") : delay[i],
            .bounce_reason = bounce[i],
        };
    }
    *ret = e;
    return true;
}

static bool message(struct showq *q, const struct spool_entry *se, showq_sink *sink, void *ctx) {
    struct arena *a = arena_new();
    struct listing_entry e;
    bool more = !showq_read(q, q->peek, se, a, &e) || sink(ctx, &e);
    arena_free(a);
    return more;
}

static bool message_id(struct showq *q, const struct spool_entry *se, showq_sink *sink, void *ctx) {
    (void)q;
    struct listing_entry e = { .queue_name = spool_state_name(se->state), .id = se->id, .sender = STR("") };
    return sink(ctx, &e);
}

typedef bool visit_message(struct showq *q, const struct spool_entry *se, showq_sink *sink, void *ctx);

static void walk(struct showq *q, unsigned queues, visit_submission *on_submission, visit_message *on_message,
                 showq_sink *sink, showq_packed_sink *packed, void *ctx) {
    static const enum spool_state order[] = { SPOOL_ACTIVE, SPOOL_INCOMING, SPOOL_DEFERRED, SPOOL_HOLD };
    q->bounces = spool_has_logs(q->spool, SPOOL_LOG_BOUNCE);
    if ((queues & SHOWQ_MAILDROP) && !walk_maildrop(q, on_submission, sink, ctx))
        return;
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        struct spool_scan scan = { 0 };
        struct spool_entry e;
        if (order[i] == SPOOL_DEFERRED && packed) {
            if (!showq_walk_batches(q, SPOOL_DEFERRED, sink, packed, ctx))
                return;
            continue;
        }
        while ((queues & queue_states(order[i])) && spool_scan_next(q->spool, &scan, order[i], &e)) {
            if (!on_message(q, &e, sink, ctx)) {
                spool_scan_end(q->spool, &scan);
                return;
            }
            if (coro_self())
                coro_yield();
        }
    }
}

void showq_walk(struct showq *q, unsigned queues, showq_sink *sink, void *ctx) {
    walk(q, queues, submission, message, sink, NULL, ctx);
}

void showq_walk_packed(struct showq *q, showq_sink *sink, showq_packed_sink *packed, void *ctx) {
    walk(q, SHOWQ_ALL, submission, message, sink, packed, ctx);
}

void showq_walk_ids(struct showq *q, unsigned queues, showq_sink *sink, void *ctx) {
    walk(q, queues, submission_id, message_id, sink, NULL, ctx);
}
