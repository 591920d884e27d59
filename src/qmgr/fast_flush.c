/* What flush is told: which deferred mail is for a site of fast_flush_domains. */
#include "qmgr/qmgr.h"

#include "base/die.h"
#include "base/log.h"
#include "mail/address.h"
#include "proto/flush.h"
#include "table/match.h"
#include <stdlib.h>

enum {
    PENDING_MAX = 100 * 1000, /* ids that have not been told yet; more are left out */
    CONNECT_SECONDS = 100,
    WARN_SECONDS = 60,
    MESSAGE_SITES_MAX = 100, /* of one message; it is tried for any of them */
};

struct site { /* what is to be told of one */
    struct site *next;
    struct str name;
    uint32_t count;
    struct buf ids; /* packed */
};

struct fast_flush {
    struct qmgr *q;
    struct match *eligible; /* NULL: no domain is */
    struct str endpoint;
    struct arena *arena;
    struct map sites;
    struct site *first, **last;
    size_t pending;
    bool telling;
    struct ipc *ipc;
    int64_t warned_us; /* 0: never */
};

static struct fast_flush *fast_flush_zero(struct fast_flush *f) {
    f->first = NULL;
    f->last = &f->first;
    f->pending = 0;
    return f;
}

struct fast_flush *fast_flush_new(struct qmgr *q) {
    struct fast_flush *f = calloc(1, sizeof *f);
    if (!f)
        die_no_memory(sizeof *f);
    f->q = q;
    f->arena = arena_new();
    f->endpoint = arena_cat(f->arena, STR("public/"), conf_str(q->conf, PARAM_flush_service_name));
    struct str list = conf_str(q->conf, PARAM_fast_flush_domains), rest = list, word;
    if (str_word(&rest, STR_COMMA_SPACE, &word))
        f->eligible = match_open(q->conf, STR("fast_flush_domains"), list, MATCH_DOMAIN, TABLE_FOLD);
    return fast_flush_zero(f);
}

static void sites_free(struct site *list) {
    while (list) {
        struct site *s = list;
        list = s->next;
        buf_free(&s->ids);
        free((char *)(uintptr_t)s->name.p);
        free(s);
    }
}

void fast_flush_free(struct fast_flush *f) {
    sites_free(f->first);
    map_free(&f->sites);
    ipc_close(f->ipc);
    match_close(f->eligible);
    arena_free(f->arena);
    free(f);
}

static void warn(struct fast_flush *f, const char *what, struct str why) {
    int64_t now = sys->mono_us();
    if (f->warned_us && now - f->warned_us < WARN_SECONDS * US_PER_S)
        return;
    f->warned_us = now;
    log_warn("fast flush: %s: %.*s", what, STR_ARG(why));
}

/* --- telling --- */
static error tell(struct fast_flush *f, const struct site *list, int64_t deadline) {
    error e = NULL;
    if (!f->ipc) {
        if ((e = f->q->outside.connect(f->q->outside.ctx, f->endpoint, deadline, &f->ipc)))
            return e;
        flush_hello(f->ipc);
    }
    for (const struct site *s = list; s; s = s->next)
        flush_add(f->ipc, s->name, s->count, buf_str(&s->ids));
    if ((e = ipc_flush(f->ipc, deadline))) {
        ipc_close(f->ipc);
        f->ipc = NULL;
    }
    return e;
}

static void tell_main(void *arg) {
    struct fast_flush *f = arg;
    while (f->first) {
        struct site *list = f->first;
        map_free(&f->sites);
        fast_flush_zero(f);
        bool kept = f->ipc != NULL;
        error e = tell(f, list, deadline_in(CONNECT_SECONDS));
        if (e && kept) /* flush may have ended since */
            e = tell(f, list, deadline_in(CONNECT_SECONDS));
        if (e)
            warn(f, "connect to the flush service", e->text);
        sites_free(list);
    }
    f->telling = false;
    group_leave(f->q->work);
}

/* --- what is to be told --- */
static struct site *site_for(struct fast_flush *f, struct str name) {
    struct site *s = map_get(&f->sites, name);
    if (s && s->count < FLUSH_ADD_MAX)
        return s;
    s = calloc(1, sizeof *s);
    char *copy = malloc(name.n);
    if (!s || !copy)
        die_no_memory(sizeof *s);
    memcpy(copy, name.p, name.n);
    s->name = str_n(copy, name.n);
    *f->last = s;
    f->last = &s->next;
    map_remove(&f->sites, name); /* a full one: its name goes with it */
    map_put(&f->sites, s->name, s);
    return s;
}

static void add(struct fast_flush *f, struct str name, const struct queue_id *id) {
    if (f->pending >= PENDING_MAX) {
        warn(f, "the flush service is too slow", STR("messages are left out of its logs"));
        return;
    }
    struct site *s = site_for(f, name);
    pack_str(&s->ids, queue_id_str(id));
    s->count++;
    f->pending++;
}

static bool is_eligible(struct fast_flush *f, struct str domain) {
    enum match_result found = match_find(f->eligible, domain, STR(""));
    if (found == MATCH_ERROR)
        warn(f, "fast_flush_domains", match_error(f->eligible)->text);
    return found == MATCH_YES;
}

void fast_flush_rcpt(struct message *m, struct str address) {
    struct fast_flush *f = m->q->fast_flush;
    struct str domain = address_split(address).domain;
    if (!f->eligible || domain.n == 0 || domain.n > FLUSH_SITE_MAX || m->sites.n >= MESSAGE_SITES_MAX)
        return;
    for (size_t i = m->sites.n; i-- > 0;) /* mostly it is the last one */
        if (str_eq_icase(m->sites.at[i], domain))
            return;
    if (is_eligible(f, domain))
        *vec_add(m->arena, &m->sites) = arena_lower(m->arena, domain);
}

void fast_flush_add(const struct message *m) {
    struct fast_flush *f = m->q->fast_flush;
    for (size_t i = 0; i < m->sites.n; i++)
        add(f, m->sites.at[i], &m->id);
    if (!f->first || f->telling)
        return;
    f->telling = coro_spawn(tell_main, f, "fast flush") != NULL;
    if (f->telling)
        group_enter(f->q->work);
}
