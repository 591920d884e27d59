#include "smtp/kept.h"

#include "base/log.h"

static bool is_busy(struct kept *k, const struct client_config *c, struct str nexthop, bool more_coming) {
    uint64_t hash = str_hash(nexthop); /* two that fall together only keep a session too long, or not long enough */
    size_t slot = hash % BUSY_SLOTS;
    if (more_coming) {
        k->busy[slot].hash = hash;
        k->busy[slot].until = deadline_in(c->cache_time_limit);
    }
    return more_coming || (k->busy[slot].hash == hash && sys->mono_us() < k->busy[slot].until);
}

bool kept_wanted(struct kept *k, const struct client_config *c, struct str nexthop, const struct destination *d,
                 bool more_coming) {
    if (c->cache_on_demand && is_busy(k, c, nexthop, more_coming))
        return true;
    return c->cache_destinations && match_find(c->cache_destinations, d->host, STR("")) == MATCH_YES;
}

bool kept_worn_out(const struct session *s) {
    const struct client_config *c = s->config;
    return s->broken || io_pending(s->io, false) > 0 ||
           (c->reuse_count_limit > 0 && s->uses > (uint64_t)c->reuse_count_limit) ||
           sys->mono_us() - s->connected_us >= c->reuse_time_limit * US_PER_S;
}

static void unlink_session(struct kept *k, struct session *s) {
    *(s->older ? &s->older->newer : &k->oldest) = s->newer;
    *(s->newer ? &s->newer->older : &k->newest) = s->older;
    s->older = s->newer = NULL;
    k->count--;
}

static void quit_run(void *arg) {
    struct session *s = arg;
    struct kept *k = s->kept;
    session_close(s);
    group_leave(k->work);
}

/* In a coroutine of its own: a slow server must not hold up the others. */
static void end_session(struct kept *k, struct session *s) {
    unlink_session(k, s);
    group_enter(k->work);
    if (coro_spawn(quit_run, s, "quit"))
        return;
    session_drop(s);
    group_leave(k->work);
}

/* All are kept for the same time, so the oldest one's comes first. */
static void watch_run(void *arg) {
    struct kept *k = arg;
    while (k->oldest) {
        if (k->draining || k->oldest->quit_us <= sys->mono_us())
            end_session(k, k->oldest);
        else if (cond_wait(&k->wake, k->oldest->quit_us) == &err_cancelled)
            break;
    }
    k->watched = false;
    group_leave(k->work);
}

void kept_add(struct kept *k, struct session *s, struct str nexthop) {
    const struct client_config *c = s->config;
    if (k->count == KEPT_MAX)
        end_session(k, k->oldest);
    s->kept = k;
    s->scratch = NULL;
    s->errand = (struct errand){ .id = "NOQUEUE" };
    buf_clear(&s->nexthop);
    buf_add(&s->nexthop, nexthop);
    s->quit_us = deadline_in(c->cache_time_limit);
    s->older = k->newest;
    *(k->newest ? &k->newest->newer : &k->oldest) = s;
    k->newest = s;
    k->count++;
    reply_free(&s->reader);
    if (!k->watched) {
        group_enter(k->work);
        k->watched = coro_spawn(watch_run, k, "kept sessions") != NULL;
        if (!k->watched) { /* nobody would ever end it */
            group_leave(k->work);
            end_session(k, s);
        }
    }
}

struct session *kept_take(struct kept *k, struct str nexthop) {
    for (struct session *s = k->newest; s; s = s->older)
        if (str_eq(buf_str(&s->nexthop), nexthop)) {
            unlink_session(k, s);
            return s;
        }
    return NULL;
}

struct session *kept_take_at(struct kept *k, const struct endpoint *address, struct str tls_key) {
    for (struct session *s = k->newest; s; s = s->older)
        if (session_address_is(&s->address, address) && str_eq(s->tls_key, tls_key)) {
            unlink_session(k, s);
            return s;
        }
    return NULL;
}

void kept_drain(struct kept *k) {
    k->draining = true;
    cond_broadcast(&k->wake);
}
