#include "anvil/anvil.h"

#include "base/die.h"
#include "base/log.h"
#include "run/sys.h"
#include <stdlib.h>
#include <time.h>

struct anvil_client {
    uint32_t count;
    int64_t since; /* monotonic, microseconds: when the rates began */
    uint32_t rates[ANVIL_EVENTS];
    char ident[];
};
struct anvil_held { /* sessions of one client over one connection */
    uint32_t count;
    char ident[];
};

/* --- clients --- */
static struct anvil_client *client_find(struct anvil *a, struct str ident) {
    struct anvil_client *c = map_get(&a->clients, ident);
    if (c || a->clients.n >= ANVIL_CLIENTS_MAX)
        return c;
    c = calloc(1, sizeof *c + ident.n + 1);
    if (!c)
        die_no_memory(sizeof *c);
    memcpy(c->ident, ident.p, ident.n);
    c->since = sys->mono_us();
    map_put(&a->clients, str_n(c->ident, ident.n), c);
    if (a->clients.n > a->most_clients) {
        a->most_clients = (uint32_t)a->clients.n;
        a->most_clients_us = sys->wall_us();
    }
    return c;
}

static void freshen(const struct anvil *a, struct anvil_client *c) {
    int64_t now = sys->mono_us();
    if (now - c->since <= a->unit * US_PER_S)
        return;
    c->since = now;
    memset(c->rates, 0, sizeof c->rates);
}

static void peak(struct anvil_peak *p, uint32_t value, struct str ident) {
    if (value <= p->value)
        return;
    *p = (struct anvil_peak){ .value = value, .when_us = sys->wall_us() };
    memcpy(p->ident, ident.p, ident.n);
}

/* --- sessions of a connection --- */
static void hold(struct anvil_open *o, struct str ident) {
    struct anvil_held *h = map_get(&o->map, ident);
    if (!h) {
        h = calloc(1, sizeof *h + ident.n + 1);
        if (!h)
            die_no_memory(sizeof *h);
        memcpy(h->ident, ident.p, ident.n);
        map_put(&o->map, str_n(h->ident, ident.n), h);
    }
    h->count++;
}

static bool release(struct anvil_open *o, struct str ident) {
    struct anvil_held *h = map_get(&o->map, ident);
    if (!h)
        return false;
    if (--h->count == 0) {
        map_remove(&o->map, ident);
        free(h);
    }
    return true;
}

static void lower(struct anvil *a, struct str ident, uint32_t by) {
    struct anvil_client *c = map_get(&a->clients, ident);
    if (c)
        c->count -= c->count < by ? c->count : by;
}

void anvil_gone(struct anvil *a, struct anvil_open *o) {
    size_t at = 0;
    struct map_entry *e;
    while (map_next(&o->map, &at, &e)) {
        struct anvil_held *h = e->value;
        lower(a, e->key, h->count);
        free(h);
    }
    map_free(&o->map);
    *o = (struct anvil_open){ 0 };
}

/* --- events --- */
struct anvil_answer anvil_take(struct anvil *a, struct anvil_open *o, enum anvil_event event, struct str ident) {
    if (event == ANVIL_DISCONNECT) {
        if (release(o, ident))
            lower(a, ident, 1);
        return (struct anvil_answer){ 0 };
    }
    struct anvil_client *c = client_find(a, ident);
    if (!c)
        return (struct anvil_answer){ 0 };
    freshen(a, c);
    if (event == ANVIL_NEWTLS_STATUS)
        return (struct anvil_answer){ c->count, c->rates[ANVIL_NEWTLS] };
    c->rates[event]++;
    peak(&a->rates[event], c->rates[event], ident);
    if (event == ANVIL_CONNECT) {
        hold(o, ident);
        peak(&a->count, ++c->count, ident);
    }
    return (struct anvil_answer){ c->count, c->rates[event] };
}

void anvil_sweep(struct anvil *a) {
    size_t at = 0;
    struct map_entry *e;
    int64_t now = sys->mono_us();
    while (map_next(&a->clients, &at, &e)) {
        struct anvil_client *c = e->value;
        if (c->count > 0 || now - c->since <= a->unit * US_PER_S)
            continue;
        map_remove(&a->clients, e->key);
        free(c);
    }
}

void anvil_free(struct anvil *a) {
    size_t at = 0;
    struct map_entry *e;
    while (map_next(&a->clients, &at, &e))
        free(e->value);
    map_free(&a->clients);
}

/* --- statistics --- */
static void when(int64_t us, char text[32]) {
    time_t t = (time_t)(us / US_PER_S);
    struct tm tm;
    localtime_r(&t, &tm);
    strftime(text, 32, "%b %e %H:%M:%S", &tm);
}

void anvil_report(struct anvil *a) {
    static const struct {
        enum anvil_event event;
        const char *name;
    } rows[] = {
        { ANVIL_CONNECT, "connection" }, { ANVIL_MESSAGE, "message" }, { ANVIL_RECIPIENT, "recipient" },
        { ANVIL_NEWTLS, "newtls" },      { ANVIL_AUTH, "auth" },
    };
    char at[32];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct anvil_peak *p = &a->rates[rows[i].event];
        if (p->value == 0)
            continue;
        when(p->when_us, at);
        log_info("statistics: max %s rate %u/%llds for (%s) at %s", rows[i].name, p->value, (long long)a->unit,
                 p->ident, at);
        if (rows[i].event == ANVIL_CONNECT && a->count.value > 0) {
            when(a->count.when_us, at);
            log_info("statistics: max connection count %u for (%s) at %s", a->count.value, a->count.ident, at);
        }
    }
    if (a->most_clients > 0) {
        when(a->most_clients_us, at);
        log_info("statistics: max cache size %u at %s", a->most_clients, at);
    }
    memset(a->rates, 0, sizeof a->rates);
    a->count = (struct anvil_peak){ 0 };
    a->most_clients = 0;
}
