#include "pickup/pickup.h"
#include "pickup/requeued.h"

#include "base/log.h"
#include "mail/address.h"
#include "mail/date.h"
#include "proto/submit.h"
#include "queue/maildrop.h"
#include "queue/queue_id.h"
#include "run/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum {
    ABANDONED_SECONDS = 24 * 3600, /* a file that is still not whole after so long has lost its writer */
    ROUNDS_MAX = 1000,             /* of one scan: files that come meanwhile are taken, but not for ever */
};

error pickup_open(struct pickup *p, const struct conf *c, struct arena *err_arena) {
    *p = (struct pickup){ .c = c, .maildrop_fd = -1, .corrupt_fd = -1 };
    bool no_unknown_checks; /* of no interest: local mail is always taken */
    error e = receive_flags(c, err_arena, &p->submit_flags, &no_unknown_checks);
    if (e)
        return e;
    p->submit_flags |= SUBMIT_BOUNCE | receive_detect_utf8(c, STR("sendmail"));
    p->maildrop_fd = open("maildrop", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->maildrop_fd < 0)
        return err_make(err_arena, ERR_SYS, "open directory maildrop: %s", strerror(errno));
    p->corrupt_fd = open("corrupt", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->corrupt_fd < 0 && errno != ENOENT)
        return err_make(err_arena, ERR_SYS, "open directory corrupt: %s", strerror(errno));
    return NULL;
}

void pickup_close(struct pickup *p) {
    submit_link_close(p->cleanup);
    if (p->maildrop_fd >= 0)
        close(p->maildrop_fd);
    if (p->corrupt_fd >= 0)
        close(p->corrupt_fd);
}

struct drop { /* one file */
    const char *name;
    int fd;
    uid_t uid;
    int64_t when_us;
    size_t rcpts;
    struct requeued *requeued; /* a message of the queue, not a submission; NULL: a submission */
};

/* Out of the way but not away. */
static void set_aside(struct pickup *p, const struct drop *d, const char *why) {
    log_warn("maildrop/%s: uid=%ld: %s -- saved in the corrupt queue", d->name, (long)d->uid, why);
    if (p->corrupt_fd < 0 || sys->renameat(p->maildrop_fd, d->name, p->corrupt_fd, d->name) < 0)
        log_warn("rename maildrop/%s to corrupt: %s", d->name, strerror(p->corrupt_fd < 0 ? ENOENT : errno));
}

/* Is it what postdrop writes, from the first record to the last? */
static error check(struct drop *d) {
    struct maildrop_reader r = { 0 };
    struct maildrop_record m;
    error e;
    while (!(e = maildrop_read(&r, d->fd, &m)) && m.type != MAILDROP_END)
        d->rcpts += m.type == MAILDROP_RCPT;
    maildrop_reader_free(&r);
    return e;
}

error pickup_send_received(struct pickup *p, uid_t uid, int64_t when_us, const struct sending *out) {
    struct arena *a = arena_new();
    struct str date = date_rfc5322(a, when_us / US_PER_S), host = conf_str(p->c, PARAM_myhostname);
    struct str header = arena_printf(a, "Received: by %.*s (%.*s, from userid %ld)\n\tid %s; %.*s\n", STR_ARG(host),
                                     STR_ARG(conf_str(p->c, PARAM_mail_name)), (long)uid, out->id.text, STR_ARG(date));
    error e = submit_content(out->to, header, out->deadline);
    arena_free(a);
    return e;
}

/* The envelope is everything before the first RCPT or CONTENT record: sent when one of those comes. */
struct head {
    struct envelope env;
    struct str full_name;
    bool sent;
};
static error send_head(struct head *h, const struct sending *out) {
    if (h->sent)
        return NULL;
    h->sent = true;
    error e = submit_envelope(out->to, &h->env, out->deadline);
    if (!e && h->full_name.n > 0)
        e = submit_full_name(out->to, h->full_name, out->deadline);
    return e;
}

static unsigned envelope_flags_of(uint8_t flags) {
    return (flags & MAILDROP_8BIT ? (unsigned)ENVELOPE_8BIT : 0) |
           (flags & MAILDROP_SMTPUTF8 ? (unsigned)ENVELOPE_SMTPUTF8 : 0) |
           (flags & MAILDROP_VERIFY ? (unsigned)ENVELOPE_VERIFY : 0) |
           (flags & MAILDROP_TRACE ? (unsigned)ENVELOPE_TRACE : 0);
}

/* The second reading. The file is read again from its start and nobody but its owner can have changed it meanwhile;
 * what is wrong now breaks off the submission. */
static error send_records(struct pickup *p, const struct drop *d, const struct sending *out) {
    struct arena *a = arena_new();
    struct maildrop_reader r = { 0 };
    struct maildrop_record m;
    struct head h = { .env = { .arrival_us = d->when_us, .content_filter = conf_str(p->c, PARAM_content_filter) } };
    bool content = false;
    error e;
    while (!(e = maildrop_read(&r, d->fd, &m)) && m.type != MAILDROP_END) {
        switch (m.type) {
        case MAILDROP_SENDER:
            h.env.sender = arena_str(a, m.bytes);
            log_info("%s: uid=%ld from=<%.*s>", out->id.text, (long)d->uid, STR_ARG(address_logged(a, m.bytes)));
            break;
        case MAILDROP_FULL_NAME:
            h.full_name = arena_str(a, m.bytes);
            break;
        case MAILDROP_ENVID:
            h.env.dsn_envid = arena_str(a, m.bytes);
            break;
        case MAILDROP_RET:
            h.env.dsn_ret = m.value;
            break;
        case MAILDROP_FLAGS:
            h.env.flags |= envelope_flags_of(m.value);
            verp_delimiters_parse(m.bytes, conf_str(p->c, PARAM_verp_delimiter_filter), h.env.verp_delimiters);
            break;
        case MAILDROP_RCPT:
            e = send_head(&h, out);
            if (!e)
                e = submit_rcpt(out->to, &(struct rcpt){ .address = m.bytes, .orig = m.bytes, .dsn_notify = m.value },
                                out->deadline);
            break;
        case MAILDROP_CONTENT:
            e = send_head(&h, out);
            if (!e && !content)
                e = pickup_send_received(p, d->uid, d->when_us, out);
            content = true;
            if (!e)
                e = submit_content(out->to, m.bytes, out->deadline);
            break;
        case MAILDROP_END:
            break;
        }
        if (e)
            break;
    }
    if (!e && !content)
        e = pickup_send_received(p, d->uid, d->when_us, out);
    maildrop_reader_free(&r);
    arena_free(a);
    return e;
}

/* The headers of mail from a gateway (sendmail -G) are not ours to complete: that is said before the envelope. */
static error find_gateway(const struct drop *d, bool *ret) {
    struct maildrop_reader r = { 0 };
    struct maildrop_record m;
    error e;
    *ret = false;
    while (!(e = maildrop_read(&r, d->fd, &m)) && m.type < MAILDROP_RCPT)
        if (m.type == MAILDROP_FLAGS)
            *ret = m.value & MAILDROP_GATEWAY;
    maildrop_reader_free(&r);
    return e;
}

static bool rewind_drop(const struct drop *d) {
    return lseek(d->fd, 0, SEEK_SET) == 0;
}

/* The error is the connection's. Texts of the result live in `a`. */
static error submit(struct pickup *p, struct drop *d, struct arena *a, struct submit_result *ret) {
    if (d->requeued)
        return requeued_submit(p, d->requeued, a, ret);
    struct sending out = { .deadline = deadline_in(conf_time(p->c, PARAM_ipc_timeout)) };
    bool gateway = false;
    unsigned flags = p->submit_flags;
    error e = rewind_drop(d) ? find_gateway(d, &gateway) : err_errno(errno);
    if (e)
        return e;
    if (!rewind_drop(d))
        return err_errno(errno);
    e = submit_open(p->cleanup, gateway ? flags : flags | SUBMIT_LOCAL_HEADERS, out.deadline, a, &out.to, &out.id, ret);
    if (e || ret->status != SUBMIT_OK)
        return e;
    e = send_records(p, d, &out);
    if (!e)
        return submit_end(out.to, out.deadline, a, ret);
    submit_cancel(out.to);
    return e;
}

enum outcome { OUTCOME_TAKEN, OUTCOME_LATER, OUTCOME_STOP /* no use to try the others now */ };

static void drop_connection(struct pickup *p) {
    submit_link_close(p->cleanup);
    p->cleanup = NULL;
}

static error link_up(struct pickup *p) {
    struct ipc *ipc;
    error e = p->connect(p->ctx, &ipc);
    if (!e)
        p->cleanup = submit_link_new(ipc);
    return e;
}

static enum outcome deliver(struct pickup *p, struct drop *d, struct arena *a) {
    struct submit_result r = { 0 };
    for (int attempt = 0;; attempt++) {
        bool fresh = !p->cleanup;
        error e = p->cleanup ? NULL : link_up(p);
        if (e) {
            if (e != &err_cancelled)
                log_warn("connect to cleanup: %.*s", STR_ARG(e->text));
            return OUTCOME_STOP;
        }
        e = submit(p, d, a, &r);
        if (!e)
            break;
        drop_connection(p);
        /* a kept connection may have ended with the cleanup process behind it: once more with a new one */
        if (!fresh && attempt == 0 && e != &err_cancelled)
            continue;
        if (e != &err_cancelled)
            log_warn("maildrop/%s: message not accepted: %.*s -- trying again later", d->name, STR_ARG(e->text));
        return OUTCOME_STOP;
    }
    switch (r.status) {
    case SUBMIT_OK:
        if (sys->unlinkat(p->maildrop_fd, d->name, 0) < 0)
            log_warn("remove maildrop/%s: %s", d->name, strerror(errno));
        return OUTCOME_TAKEN;
    case SUBMIT_BAD:
        drop_connection(p);
        set_aside(p, d, "refused by cleanup");
        return OUTCOME_TAKEN;
    case SUBMIT_NO_SPACE:
        log_warn("maildrop/%s: message not accepted: %.*s", d->name, STR_ARG(r.text));
        return OUTCOME_STOP;
    default:
        log_warn("maildrop/%s: message not accepted: %.*s", d->name, STR_ARG(r.text));
        return OUTCOME_LATER;
    }
}

static enum outcome take_requeued(struct pickup *p, struct drop *d, struct arena *a, error damage) {
    if (damage) {
        set_aside(p, d, damage->text.p);
        return OUTCOME_TAKEN;
    }
    if (d->requeued->left > 0)
        return deliver(p, d, a);
    log_info("maildrop/%s: requeued, and all recipients are done: removed", d->name);
    return sys->unlinkat(p->maildrop_fd, d->name, 0) < 0 ? OUTCOME_LATER : OUTCOME_TAKEN;
}

static enum outcome take_whole(struct pickup *p, struct drop *d, const struct stat *st) {
    struct arena *a = arena_new();
    struct requeued r;
    bool is = false;
    enum outcome outcome = OUTCOME_LATER;
    error e = requeued_open(d->fd, d->name, st, a, &is, &r);
    if (is && (!e || e->kind == ERR_SYNTAX)) {
        d->requeued = &r;
        outcome = take_requeued(p, d, a, e);
        d->requeued = NULL;
    } else {
        if (!e)
            e = check(d);
        if (!e)
            outcome = deliver(p, d, a);
        else if (e->kind == ERR_SYNTAX)
            set_aside(p, d, "malformed file");
        else
            log_warn("read maildrop/%s: %.*s", d->name, STR_ARG(e->text));
    }
    arena_free(a);
    return outcome;
}

static enum outcome take(struct pickup *p, const char *name) {
    struct drop d = { .name = name };
    struct stat st;
    d.fd = sys->openat(p->maildrop_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (d.fd < 0) {
        if (errno != ENOENT && sys->fstatat(p->maildrop_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            (st.st_mode & S_IXUSR))
            log_warn("open maildrop/%s: %s", name, strerror(errno));
        return OUTCOME_LATER;
    }
    enum outcome outcome = OUTCOME_LATER;
    if (fstat(d.fd, &st) < 0) {
        log_warn("stat maildrop/%s: %s", name, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        log_warn("maildrop/%s: not a regular file", name);
    } else if (!(st.st_mode & S_IXUSR)) {
        if (sys->wall_us() / US_PER_S - st.st_mtime > ABANDONED_SECONDS) {
            log_info("maildrop/%s: abandoned by its writer, removed", name);
            sys->unlinkat(p->maildrop_fd, name, 0);
        }
    } else {
        d.uid = st.st_uid;
        d.when_us = (int64_t)st.st_mtime * US_PER_S + st.st_mtim.tv_nsec / 1000;
        outcome = take_whole(p, &d, &st);
    }
    sys->close(d.fd);
    return outcome;
}

/* The names there are now, as one text with a NUL after each: the directory is not read while files come and go. */
static bool list(struct pickup *p, struct buf *names) {
    int fd = openat(p->maildrop_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        log_warn("open directory maildrop: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    for (struct dirent *e; (e = readdir(d));)
        if (queue_id_valid(str_c(e->d_name)))
            buf_add(names, (struct str){ e->d_name, strlen(e->d_name) + 1 });
    closedir(d);
    return true;
}

bool pickup_scan(struct pickup *p) {
    bool progress = true, stop = false;
    for (int round = 0; progress && !stop && round < ROUNDS_MAX && !coro_cancelled(); round++) {
        struct buf names = { 0 };
        progress = false;
        if (!list(p, &names)) {
            buf_free(&names);
            return true;
        }
        for (size_t at = 0; at < names.n && !stop; at += strlen(names.p + at) + 1) {
            enum outcome o = take(p, names.p + at);
            progress = progress || o == OUTCOME_TAKEN;
            stop = o == OUTCOME_STOP || coro_cancelled();
        }
        buf_free(&names);
    }
    return !stop;
}
