#include "postscreen/screen.h"

#include "base/die.h"
#include "base/log.h"
#include "mail/date.h"
#include "postscreen/engine.h"
#include "proto/haproxy.h"
#include <stdlib.h>

enum {
    STRESS_ENTER_PERCENT = 90, /* of postscreen_pre_queue_limit, */
    STRESS_LEAVE_PERCENT = 70,
    SEND_SECONDS = 10, /* for a last word */
    TEXT_MAX = 100,    /* bytes of a stranger's input that are logged */
};

/* --- what the other files need of a client --- */
struct str client_after(const struct client *c) {
    int64_t us = sys->mono_us() - c->since_us;
    return delay_format(c->arena, us, (int)conf_int(c->set->conf, PARAM_delay_logging_resolution_limit));
}

struct str client_text(const struct client *c, struct str bytes) {
    struct buf b = { 0 };
    for (size_t i = 0; i < bytes.n && b.n < TEXT_MAX; i++) {
        if (bytes.p[i] == '\r')
            buf_add(&b, STR("\\r"));
        else if (bytes.p[i] == '\n')
            buf_add(&b, STR("\\n"));
        else
            buf_printable(&b, str_sub(bytes, i, 1), 1);
    }
    struct str text = arena_str(c->arena, buf_str(&b));
    buf_free(&b);
    return text;
}

void client_drop(struct client *c, const char *format, ...) {
    struct buf b = { 0 };
    va_list ap;
    va_start(ap, format);
    buf_vprintf(&b, format, ap);
    va_end(ap);
    io_write(c->io, buf_str(&b));
    io_write(c->io, STR("\r\n"));
    (void)io_flush(c->io, deadline_in(SEND_SECONDS));
    buf_free(&b);
    c->gone = true;
}

void client_hung_up(struct client *c, const char *stage) {
    log_info("HANGUP after %.*s from %.*s in tests %s SMTP handshake", STR_ARG(client_after(c)), STR_ARG(c->name),
             stage);
    c->gone = true;
}

bool client_fails(struct client *c, enum test t, const char *refused, const char *dropped) {
    enum action action = c->set->tests[t].action;
    if (action == ACTION_IGNORE) {
        c->ignored |= 1U << t;
        return false;
    }
    c->failed |= 1U << t;
    c->passes.until[t] = 0;
    if (action == ACTION_DROP) {
        client_drop(c, "521 %s", dropped ? dropped : "5.5.1 Protocol error");
        return true;
    }
    if (c->refusal.n == 0)
        c->refusal = arena_printf(c->arena, "550 %s", refused ? refused : "5.5.1 Protocol error");
    return false;
}

void client_passes(struct client *c, enum test t, int64_t ttl) {
    int64_t until = sys->wall_us() / US_PER_S + ttl;
    if (until > c->passes.until[t])
        c->passes.until[t] = until;
    c->due &= ~(1U << t);
}

static struct str address_text(struct arena *a, const struct endpoint *e) {
    char text[INET6_ADDRSTRLEN];
    return arena_str(a, endpoint_address(e, text));
}

/* --- how many --- */
struct count {
    uint32_t n;
    char address[INET6_ADDRSTRLEN];
};

static uint32_t count_in(struct screen *s, struct str address) {
    struct count *k = map_get(&s->clients, address);
    if (!k) {
        if (!(k = calloc(1, sizeof *k)))
            die_no_memory(sizeof *k);
        memcpy(k->address, address.p, address.n);
        map_put(&s->clients, str_n(k->address, address.n), k);
    }
    return ++k->n;
}

static void count_out(struct screen *s, struct str address) {
    struct count *k = map_get(&s->clients, address);
    if (--k->n == 0)
        free(map_remove(&s->clients, address));
}

/* Times are short while most places are taken, until a good part is free again. */
static void watch_stress(struct screen *s) {
    uint64_t share = (uint64_t)s->checking * 100;
    if (!s->stress && share >= (uint64_t)s->set->pre_queue * STRESS_ENTER_PERCENT) {
        s->stress = true;
        log_info("entering STRESS mode with %u connections", s->checking);
    } else if (s->stress && share <= (uint64_t)s->set->pre_queue * STRESS_LEAVE_PERCENT) {
        s->stress = false;
        log_info("leaving STRESS mode with %u connections", s->checking);
    }
}

/* --- lists --- */
static enum access_kind table_says(const struct client *c, struct maps *maps) {
    struct str value;
    enum table_result r = ip_find(maps, c->address, c->arena, &value);
    if (r == TABLE_ERROR) {
        error e = maps_error(maps);
        log_warn("%.*s: postscreen_access_list: %.*s -- skipping the rest of the list", STR_ARG(c->name),
                 STR_ARG(e ? e->text : STR("table lookup problem")));
        return ACCESS_DUNNO;
    }
    if (r == TABLE_NOT_FOUND)
        return ACCESS_TABLE;
    if (str_eq_icase(value, STR("permit")))
        return ACCESS_PERMIT;
    if (str_eq_icase(value, STR("reject")))
        return ACCESS_REJECT;
    if (!str_eq_icase(value, STR("dunno")))
        log_warn("%.*s: postscreen_access_list: unknown result \"%.*s\"; specify permit, reject or dunno",
                 STR_ARG(c->name), STR_ARG(value));
    return ACCESS_DUNNO;
}

/* ACCESS_PERMIT, ACCESS_REJECT or ACCESS_DUNNO. */
static enum access_kind access_list(const struct client *c) {
    for (size_t i = 0; i < c->set->access_count; i++) {
        const struct access_item *item = &c->set->access[i];
        enum access_kind kind = item->kind;
        if (kind == ACCESS_MYNETWORKS) {
            if (match_find(c->set->mynetworks, STR(""), c->address) != MATCH_YES)
                continue;
            kind = ACCESS_PERMIT;
        }
        if (kind == ACCESS_TABLE && (kind = table_says(c, item->maps)) == ACCESS_TABLE)
            continue;
        return kind;
    }
    return ACCESS_DUNNO;
}

/* --- stages --- */
static void hand_over(struct client *c) {
    struct screen *s = c->screen;
    if (s->handing >= c->set->post_queue) {
        log_info("NOQUEUE: reject: CONNECT from %.*s: all server ports busy", STR_ARG(c->name));
        client_drop(c, "421 4.3.2 All server ports are busy");
        return;
    }
    s->handing++;
    error e = io_flush(c->io, deadline_in(SEND_SECONDS));
    if (!e && (e = s->hand_over(s->ctx, io_fd(c->io), c->proxied ? &c->peer : NULL, &c->local))) {
        log_warn("cannot hand %.*s over to %.*s: %.*s", STR_ARG(c->name), STR_ARG(c->set->smtpd_endpoint),
                 STR_ARG(e->text));
        client_drop(c, "421 4.3.2 All server ports are busy");
    }
    s->handing--;
    c->gone = true;
}

static bool find_due_tests(struct client *c) {
    int64_t now = sys->wall_us() / US_PER_S;
    for (int t = 0; t < TESTS; t++)
        if (c->set->tests[t].enabled && c->passes.until[t] <= now)
            c->due |= 1U << t;
    return c->due != 0;
}

static unsigned deep_tests(const struct client *c) {
    return c->due & ~(c->failed | c->ignored) & ~((1U << DEEP_TESTS_FIRST) - 1);
}

/* What it has shown so far counts, also when it does not come to an end. */
static void remember(struct client *c) {
    if (!c->vetoed && memcmp(&c->passes, &c->before, sizeof c->passes) != 0)
        cache_put(c->screen->cache, c->address, &c->passes);
}

static void test_client(struct client *c, bool denied) {
    c->vetoed = match_find(c->set->allowlist_interfaces, STR(""), address_text(c->arena, &c->local)) == MATCH_NO;
    cache_get(c->screen->cache, c->address, &c->passes);
    c->before = c->passes;
    bool due = find_due_tests(c);
    if (!due && !c->vetoed && !denied) {
        log_info("PASS OLD %.*s", STR_ARG(c->name));
        hand_over(c);
        return;
    }
    if (c->vetoed) {
        log_info(c->set->respectful ? "ALLOWLIST VETO %.*s" : "WHITELIST VETO %.*s", STR_ARG(c->name));
        if (c->refusal.n == 0)
            c->refusal = STR("450 4.3.2 Service currently unavailable");
    }
    early_tests(c);
    if (!c->gone && (c->refusal.n || deep_tests(c))) {
        engine_run(c);
    } else if (!c->gone) {
        if (!c->ignored || c->due == 0)
            log_info("PASS NEW %.*s", STR_ARG(c->name));
        remember(c);
        hand_over(c);
        return;
    }
    remember(c);
    log_info("DISCONNECT %.*s", STR_ARG(c->name));
}

static void admit(struct client *c, uint32_t connections) {
    const struct settings *set = c->set;
    log_info("CONNECT from %.*s to [%.*s]:%u", STR_ARG(c->name), STR_ARG(address_text(c->arena, &c->local)),
             endpoint_port(&c->local));
    if (set->client_connections && connections > set->client_connections) {
        log_info("NOQUEUE: reject: CONNECT from %.*s: too many connections", STR_ARG(c->name));
        client_drop(c, "421 4.7.0 Error: too many connections");
        return;
    }
    if (c->screen->checking > set->pre_queue) {
        log_info("NOQUEUE: reject: CONNECT from %.*s: all screening ports busy", STR_ARG(c->name));
        client_drop(c, "421 4.3.2 All screening ports are busy");
        return;
    }
    enum access_kind access = access_list(c);
    if (access == ACCESS_PERMIT) {
        log_info(set->respectful ? "ALLOWLISTED %.*s" : "WHITELISTED %.*s", STR_ARG(c->name));
        hand_over(c);
        return;
    }
    if (access == ACCESS_REJECT) {
        log_info(set->respectful ? "DENYLISTED %.*s" : "BLACKLISTED %.*s", STR_ARG(c->name));
        if (set->denylist_action == ACTION_DROP) {
            client_drop(c, "521 5.3.2 Service currently unavailable");
            log_info("DISCONNECT %.*s", STR_ARG(c->name));
            return;
        }
        if (set->denylist_action == ACTION_ENFORCE)
            c->refusal = STR("550 5.3.2 Service currently unavailable");
    }
    test_client(c, access == ACCESS_REJECT);
}

/* False: the connection did not begin as it should. */
static bool read_proxy_header(struct client *c) {
    char seen[HAPROXY_MAX];
    size_t n = 0;
    struct haproxy h;
    const char *fault = haproxy_read(c->io, deadline_in(c->set->proxy_timeout), &h, seen, &n);
    if (fault) {
        log_warn("haproxy read: %s: %.*s", fault, STR_ARG(client_text(c, str_n(seen, n))));
        client_drop(c, "421 4.3.2 No system resources");
        return false;
    }
    if (h.proxied) {
        c->proxied = true;
        c->peer = h.client;
        c->local = h.server;
    }
    return true;
}

void screen_client(struct screen *s, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    struct client c = { .screen = s,
                        .set = s->set,
                        .arena = arena_new(),
                        .io = io,
                        .peer = *peer,
                        .local = *local,
                        .since_us = sys->mono_us(),
                        .refusal = STR("") };
    s->checking++;
    watch_stress(s);
    c.pace = s->stress ? s->set->stressed : s->set->pace;
    io_set_write_deadline(io, deadline_in(c.pace.command_time));
    if (!s->set->proxied || read_proxy_header(&c)) {
        c.address = address_text(c.arena, &c.peer);
        c.name = arena_printf(c.arena, "[%.*s]:%u", STR_ARG(c.address), endpoint_port(&c.peer));
        admit(&c, count_in(s, c.address));
        count_out(s, c.address);
    }
    s->checking--;
    watch_stress(s);
    arena_free(c.arena);
}
