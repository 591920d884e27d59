#include "flush/flush.h"

#include "base/die.h"
#include "base/log.h"
#include "proto/notice.h"
#include <errno.h>
#include <stdlib.h>

enum {
    CHUNK = 64 * 1024,          /* bytes of a log read at once */
    LOG_MAX = 64 * 1024 * 1024, /* bytes of a log that are looked at: five million ids */
    SEEN_MAX = 100 * 1000,      /* ids remembered, so that none is sent twice */
    UNSENT_MAX = 64 * 1024,     /* bytes to qmgr before we wait for it */
    BAD_LINES_MAX = 10,         /* reported of one log */
    FOREIGN_MAX = 100,          /* reported of the directory */
    WARN_SECONDS = 60,
    ANSWER_SECONDS = 100,
};

error flush_open(struct flush *f, const struct conf *c, struct arena *err_arena) {
    *f = (struct flush){ .conf = c, .logs = { .fd = -1 }, .names = arena_new() };
    f->eligible =
        match_open(c, STR("fast_flush_domains"), conf_str(c, PARAM_fast_flush_domains), MATCH_DOMAIN, TABLE_FOLD);
    return site_logs_open(&f->logs, err_arena);
}

void flush_close(struct flush *f) {
    site_logs_close(&f->logs);
    match_close(f->eligible);
    map_free(&f->sending);
    map_free(&f->foreign);
    arena_free(f->names);
}

/* --- reading a log out --- */
struct sending {
    struct flush *f;
    struct arena *arena; /* owns this, too */
    struct str site;
    bool retry; /* a refresh: the messages are tried, but as any other */
    int fd;
    bool again;
    struct ipc *qmgr;
};

/* Ids that this send has had already. Of a log with very many, some may come twice: qmgr does not mind. */
struct seen {
    struct map map;
    struct arena *arena;
};
static bool seen_before(struct seen *s, const struct queue_id *id) {
    if (map_get(&s->map, queue_id_str(id)))
        return true;
    if (s->map.n >= SEEN_MAX) {
        map_free(&s->map);
        arena_free(s->arena);
        *s = (struct seen){ .arena = arena_new() };
    }
    struct str key = arena_str(s->arena, queue_id_str(id));
    map_put(&s->map, key, s);
    return false;
}

static void say_bad(const struct sending *s, const struct id_lines *lines, unsigned count) {
    struct buf b = { 0 };
    if (count > BAD_LINES_MAX)
        return;
    buf_printable(&b, str_n(lines->line, lines->n), 30);
    log_warn("bad queue id \"%.*s...\" in fast flush logfile %.*s", STR_ARG(buf_str(&b)), STR_ARG(s->site));
    buf_free(&b);
}

static error hand_over(struct sending *s, struct id_lines *lines, struct seen *seen, unsigned *inout_bad) {
    struct queue_id id;
    enum id_line kind;
    while ((kind = id_lines_next(lines, &id)) != ID_LINE_MORE) {
        if (kind == ID_LINE_BAD) {
            say_bad(s, lines, ++*inout_bad);
        } else if (!seen_before(seen, &id)) {
            (s->retry ? notice_retry_id : notice_flush_id)(s->qmgr, &id);
            error e = ipc_unsent(s->qmgr) < UNSENT_MAX
                          ? NULL
                          : ipc_flush(s->qmgr, deadline_in(conf_time(s->f->conf, PARAM_ipc_timeout)));
            if (e)
                return e;
        }
    }
    return NULL;
}

/* The log to its end: then it is done with, whatever was in it. */
static error read_out(struct sending *s) {
    struct id_lines lines = { 0 };
    struct seen seen = { .arena = arena_new() };
    char *chunk = malloc(CHUNK);
    if (!chunk)
        die_no_memory(CHUNK);
    unsigned bad = 0;
    error e = NULL;
    uint64_t at = 0;
    for (ssize_t n = 1; !e && n > 0 && at < LOG_MAX; at += (uint64_t)n) {
        n = sys->pread(s->fd, chunk, CHUNK, (off_t)at);
        if (n < 0) {
            e = err_errno(errno);
            break;
        }
        id_lines_feed(&lines, n ? str_n(chunk, (size_t)n) : STR("\n"));
        e = hand_over(s, &lines, &seen, &bad);
        coro_yield();
    }
    if (!e)
        e = ipc_flush(s->qmgr, deadline_in(conf_time(s->f->conf, PARAM_ipc_timeout)));
    if (bad > BAD_LINES_MAX)
        log_warn("%u more bad queue ids in fast flush logfile %.*s", bad - BAD_LINES_MAX, STR_ARG(s->site));
    if (at >= LOG_MAX)
        log_warn("fast flush logfile %.*s is over %d bytes: the rest is left out", STR_ARG(s->site), LOG_MAX);
    free(chunk);
    map_free(&seen.map);
    arena_free(seen.arena);
    return e;
}

static void sending_run(struct sending *s) {
    error e = read_out(s);
    while (!e) {
        sys->close(s->fd);
        s->fd = -1;
        if ((e = site_log_sent(&s->f->logs, s->site)) || !s->again)
            break;
        if (!(e = site_log_take(&s->f->logs, s->site, &s->fd, &s->again)))
            e = read_out(s);
        else if (e->sys == ENOENT)
            return;
    }
    if (e) /* its ids stay in +SITE */
        log_warn("send mail for %.*s: %.*s", STR_ARG(s->site), STR_ARG(e->text));
}

static void sending_free(struct sending *s) {
    if (s->fd >= 0)
        sys->close(s->fd);
    ipc_close(s->qmgr);
    map_remove(&s->f->sending, s->site);
    arena_free(s->arena);
}

/* NULL without an error: there is nothing to send, or it is being sent. */
static error sending_begin(struct flush *f, struct str site, bool retry, struct sending **ret) {
    *ret = NULL;
    if (map_get(&f->sending, site))
        return NULL;
    struct arena *a = arena_new();
    struct sending *s = ARENA_NEW(a, struct sending);
    *s = (struct sending){ .f = f, .arena = a, .site = arena_str(a, site), .retry = retry, .fd = -1 };
    map_put(&f->sending, s->site, s);
    error e = site_log_take(&f->logs, s->site, &s->fd, &s->again);
    if (!e) {
        *ret = s;
        return NULL;
    }
    sending_free(s);
    if (e->sys == ENOENT)
        return NULL;
    log_warn("open fast flush logfile %.*s: %.*s", STR_ARG(site), STR_ARG(e->text));
    return e;
}

static bool sending_connect(struct sending *s) {
    error e = s->f->connect(s->f->ctx, &s->qmgr);
    if (e)
        log_warn("connect to the queue manager: %.*s", STR_ARG(e->text));
    return !e;
}

/* --- requests --- */
static enum flush_status may_flush(struct flush *f, struct str site, struct arena *a, struct str *ret) {
    if (!flush_site_normal(site, a, ret))
        return FLUSH_BAD;
    switch (match_find(f->eligible, site, STR(""))) {
    case MATCH_YES:
        return FLUSH_OK;
    case MATCH_NO:
        return FLUSH_DENIED;
    default:
        log_warn("fast_flush_domains: %.*s", STR_ARG(match_error(f->eligible)->text));
        return FLUSH_FAIL;
    }
}

static void send_main(void *arg) {
    struct sending *s = arg;
    struct group *work = s->f->work;
    sending_run(s);
    sending_free(s);
    group_leave(work);
}

enum flush_status flush_site(struct flush *f, struct str site) {
    struct arena *a = arena_new();
    struct str normal;
    struct sending *s = NULL;
    enum flush_status status = may_flush(f, site, a, &normal);
    if (status == FLUSH_OK && sending_begin(f, normal, false, &s))
        status = FLUSH_FAIL;
    arena_free(a);
    if (!s)
        return status;
    if (sending_connect(s) && coro_spawn(send_main, s, "send")) {
        group_enter(f->work);
        return FLUSH_OK;
    }
    sending_free(s);
    return FLUSH_FAIL;
}

static void warn_of_add(struct flush *f, struct str site, error e) {
    int64_t now = sys->mono_us();
    if (f->warned_us && now - f->warned_us < WARN_SECONDS * US_PER_S)
        return;
    f->warned_us = now;
    log_warn("write fast flush logfile %.*s: %.*s", STR_ARG(site), STR_ARG(e->text));
}

void flush_add_ids(struct flush *f, struct flush_request *r) {
    struct arena *a = arena_new();
    struct str site;
    if (may_flush(f, r->site, a, &site) == FLUSH_OK) {
        struct buf lines = { 0 };
        struct queue_id id;
        while (flush_next_id(r, &id))
            buf_printf(&lines, "%s\n", id.text);
        error e = site_log_add(&f->logs, site, buf_str(&lines));
        if (e) /* the mail is tried at its own time */
            warn_of_add(f, site, e);
        buf_free(&lines);
    }
    arena_free(a);
}

void flush_serve(struct flush *f, struct ipc *ipc) {
    struct ipc_msg m = { .fd = -1 };
    struct flush_request r;
    while (!ipc_recv(ipc, DEADLINE_NEVER, &m)) {
        if (!flush_unpack(&m, &r)) {
            log_warn("malformed request of type %u", m.type);
            break;
        }
        if (r.type == FLUSH_MSG_ADD) {
            flush_add_ids(f, &r);
        } else if (r.type == FLUSH_MSG_SEND_SITE) {
            flush_answer(ipc, flush_site(f, r.site));
            if (ipc_flush(ipc, deadline_in(ANSWER_SECONDS)))
                break;
        }
    }
    ipc_msg_drop(&m);
}

/* --- refresh --- */
static void say_foreign(struct flush *f, const char *name) {
    struct buf b = { 0 };
    if (f->foreign.n >= FOREIGN_MAX || map_get(&f->foreign, str_c(name)))
        return;
    map_put(&f->foreign, arena_str(f->names, str_c(name)), f);
    buf_printable(&b, str_c(name), 100);
    log_warn("flush/%.*s is no logfile of this service: left alone", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

/* However the clock was set: a time that lies as far ahead is as wrong as one long past. */
static bool is_past(int64_t then_s, int64_t limit_s) {
    int64_t age = sys->wall_us() / US_PER_S - then_s;
    return age >= limit_s || age <= -limit_s;
}

/* False: the queue manager is not there. */
static bool refresh_one(struct flush *f, const struct site_entry *e) {
    struct sending *s;
    if (!e->taken && e->size == 0) {
        if (is_past(e->write_s, conf_time(f->conf, PARAM_fast_flush_purge_time)))
            (void)site_log_remove(&f->logs, e->site);
        return true;
    }
    if (!f->all && !e->taken && !is_past(e->read_s, conf_time(f->conf, PARAM_fast_flush_refresh_time)))
        return true;
    if (sending_begin(f, e->site, true, &s) || !s)
        return true;
    bool there = sending_connect(s);
    if (there)
        sending_run(s);
    sending_free(s);
    return there;
}

static void refresh_once(struct flush *f) {
    DIR *d = site_logs_walk(&f->logs);
    if (!d) {
        log_warn("read directory flush: %s", strerror(errno));
        return;
    }
    struct site_entry e;
    struct arena *a = arena_new();
    bool there = true;
    while (there && !*f->draining && site_logs_next(&f->logs, d, a, &e)) {
        if (e.site.n)
            there = refresh_one(f, &e);
        else
            say_foreign(f, e.name);
        arena_reset(a);
        coro_yield();
    }
    arena_free(a);
    closedir(d);
}

static void refresh_main(void *arg) {
    struct flush *f = arg;
    while (f->again && !*f->draining) {
        f->all = f->again_all;
        f->again = f->again_all = false;
        refresh_once(f);
    }
    f->refreshing = false;
    group_leave(f->work);
}

void flush_refresh(struct flush *f, bool all) {
    f->again = true;
    f->again_all = f->again_all || all;
    if (f->refreshing || *f->draining)
        return;
    f->refreshing = coro_spawn(refresh_main, f, "refresh") != NULL;
    if (f->refreshing)
        group_enter(f->work);
}
