#include "base/die.h"
#include "base/log.h"
#include "master/master.h"
#include "run/io.h"
#include <stdlib.h>
#include <unistd.h>

struct svc *service_at(struct str endpoint) {
    for (struct svc *s = master.services; s; s = s->next)
        if (!s->gone && s->endpoint.n && str_eq(s->endpoint, endpoint))
            return s;
    return NULL;
}

/* master_service_disable: "inet", "name/type", "!pattern"; the first match decides. */
static bool disabled(const struct conf *c, const struct master_entry *e) {
    struct str list = conf_str(c, PARAM_master_service_disable), word, type = service_type_name(e->type);
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        bool not = false;
        while (str_starts(word, STR("!"))) {
            not = !not ;
            word = str_from(word, 1);
        }
        ptrdiff_t slash = str_rindex(word, '/');
        bool match = slash < 0 ? str_eq(word, type)
                               : str_eq(str_sub(word, 0, (size_t)slash), e->name) &&
                                     str_eq(str_from(word, (size_t)slash + 1), type);
        if (match)
            return !not ;
    }
    return false;
}

static bool same_service(const struct master_entry *a, const struct master_entry *b) {
    return a->type == b->type && str_eq(a->name, b->name);
}

static struct svc *find(const struct master_entry *e) {
    for (struct svc *s = master.services; s; s = s->next)
        if (!s->gone && same_service(&s->entry, e))
            return s;
    return NULL;
}

/* --- one entry --- */
static struct master_entry copy_entry(const struct master_entry *e, struct arena *a) {
    struct master_entry copy = *e;
    copy.name = arena_str(a, e->name);
    copy.command = arena_str(a, e->command);
    struct conf_override *o = arena_array(a, e->override_count + 1, sizeof *o);
    for (size_t i = 0; i < e->override_count; i++)
        o[i] = (struct conf_override){ arena_str(a, e->overrides[i].name), arena_str(a, e->overrides[i].value) };
    /* The sockets are where they are: workers must not look for the queue elsewhere. */
    if (!str_eq(master.queue_directory, conf_str(master.conf, PARAM_queue_directory)))
        o[copy.override_count++] = (struct conf_override){ STR("queue_directory"), master.queue_directory };
    copy.overrides = o;
    struct str *args = arena_array(a, e->arg_count, sizeof *args);
    for (size_t i = 0; i < e->arg_count; i++)
        args[i] = arena_str(a, e->args[i]);
    copy.args = args;
    return copy;
}

static void close_socket(struct svc_socket *s) {
    if (s->watcher)
        coro_cancel(s->watcher); /* frees itself; the descriptor is closed under it only after this */
    s->watcher = NULL;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static void close_sockets(struct svc *svc) {
    for (size_t i = 0; i < svc->socket_count; i++)
        close_socket(&svc->sockets[i]);
    svc->socket_count = 0;
}

static void adopt(struct svc_socket *to, const struct svc_socket *from) {
    to->fd = from->fd;
    to->at = from->at;
}

/* The sockets `svc` is to have by its new entry; those it has already are kept, also for clients that wait in them. */
static error open_sockets(struct svc *svc, struct str endpoint, const struct conf *c, struct arena *err_arena) {
    struct endpoint *want = NULL;
    size_t n = 1;
    error e = NULL;
    if (svc->entry.type == SERVICE_INET && (e = listen_addresses(c, &svc->entry, svc->arena, &want, &n)))
        return e;
    struct svc_socket *sockets = calloc(n, sizeof *sockets);
    if (!sockets)
        die_no_memory(n * sizeof *sockets);
    bool moved = svc->entry.type != SERVICE_INET && svc->endpoint.n && !str_eq(svc->endpoint, endpoint);
    size_t got = 0;
    for (size_t i = 0; i < n; i++) {
        struct svc_socket *s = &sockets[got];
        *s = (struct svc_socket){ .svc = svc, .fd = -1 };
        if (want)
            s->at = want[i];
        for (size_t o = 0; o < svc->socket_count && !moved; o++) {
            struct svc_socket *old = &svc->sockets[o];
            if (old->fd < 0 ||
                (want && (old->at.len != want[i].len || memcmp(&old->at.u, &want[i].u, want[i].len) != 0)))
                continue;
            if (old->watcher)
                coro_cancel(old->watcher);
            old->watcher = NULL;
            adopt(s, old);
            old->fd = -1;
            break;
        }
        error failed = NULL;
        if (s->fd < 0)
            failed = want ? listen_inet(&want[i], err_arena, &s->fd)
                          : listen_local(svc->entry.type, endpoint, err_arena, &s->fd);
        if (failed && !e)
            e = failed;
        if (s->fd >= 0)
            got++;
    }
    for (size_t o = 0; o < svc->socket_count; o++)
        close_socket(&svc->sockets[o]);
    if (moved)
        unlisten_local(svc->endpoint);
    free(svc->sockets);
    svc->sockets = sockets;
    svc->socket_count = got;
    return e;
}

static error load_entry(const struct conf *c, const struct master_entry *e, struct arena *err_arena) {
    struct svc *svc = find(e);
    if (!svc) {
        svc = calloc(1, sizeof *svc);
        if (!svc)
            die_no_memory(sizeof *svc);
        struct svc **last = &master.services;
        while (*last)
            last = &(*last)->next;
        *last = svc;
    } else if (svc->seen) {
        log_warn("duplicate master.cf entry for service \"%.*s\" (%.*s) -- using the last entry", STR_ARG(e->name),
                 STR_ARG(service_type_name(e->type)));
    }
    struct arena *old = svc->arena;
    svc->arena = arena_new();
    svc->entry = copy_entry(e, svc->arena);
    svc->seen = true;
    svc->not_before = 0; /* the administrator has mended it, we hope */
    svc->backoff_us = 0;
    svc->path =
        arena_printf(svc->arena, "%.*s/%.*s", STR_ARG(conf_str(c, PARAM_daemon_directory)), STR_ARG(e->command));
    int64_t limit = e->type == SERVICE_INET || e->type == SERVICE_PASS ? conf_int(c, PARAM_service_worker_limit) : 1;
    if (e->maxproc && limit > e->maxproc)
        limit = e->maxproc;
    svc->worker_limit = (uint32_t)limit;
    struct str endpoint = STR("");
    if (e->type != SERVICE_INET)
        endpoint = arena_printf(svc->arena, "%s/%.*s", e->is_private ? "private" : "public", STR_ARG(svc->entry.name));
    error failed = open_sockets(svc, endpoint, c, err_arena);
    svc->endpoint = endpoint;
    arena_free(old);
    if (failed)
        return err_make(err_arena, failed->kind, "%.*s/master.cf: line %zu: %.*s", STR_ARG(conf_directory(c)), e->line,
                        STR_ARG(failed->text));
    return NULL;
}

static void end_service(struct svc *svc) {
    close_sockets(svc);
    svc->gone = true;
    if (svc->waker)
        coro_cancel(svc->waker);
    if (svc->starter)
        coro_cancel(svc->starter);
    cond_broadcast(&svc->changed);
}

static void remove_service(struct svc *svc) {
    if (svc->socket_count && svc->endpoint.n)
        unlisten_local(svc->endpoint);
    end_service(svc);
}
void services_close_ports(void) {
    for (struct svc *svc = master.services; svc; svc = svc->next)
        if (svc->entry.type == SERVICE_INET)
            close_sockets(svc);
}

void services_end(void) {
    for (struct svc *svc = master.services, *next; svc; svc = next) {
        next = svc->next;
        end_service(svc); /* the socket files stay, as Postfix leaves them */
        service_free_if_gone(svc);
    }
}

error services_load(const struct conf *c, bool first, struct arena *err_arena) {
    struct arena *a = arena_new();
    struct master_cf cf;
    struct str path = arena_printf(a, "%.*s/master.cf", STR_ARG(conf_directory(c)));
    error e = master_cf_load(path, c, a, &cf);
    if (e) { /* Postfix's master ends here, also at a reload; mail is better served by the set that works */
        e = err_make(err_arena, e->kind, "%.*s", STR_ARG(e->text));
        arena_free(a);
        return e;
    }
    for (struct svc *s = master.services; s; s = s->next)
        s->seen = false;
    for (size_t i = 0; i < cf.count && !(e && first); i++) {
        if (disabled(c, &cf.entries[i]))
            continue;
        error failed = load_entry(c, &cf.entries[i], err_arena);
        if (failed && !first)
            log_error("%.*s", STR_ARG(failed->text));
        if (failed && !e)
            e = failed;
    }
    arena_free(a);
    for (struct svc *s = master.services, *next; s; s = next) {
        next = s->next;
        if (s->seen || s->gone)
            continue;
        remove_service(s);
        service_free_if_gone(s);
    }
    return first ? e : NULL;
}

void service_free_if_gone(struct svc *svc) {
    /* waker and starter have been cancelled, and come here when they have seen it */
    if (!svc->gone || svc->workers + svc->old_workers || svc->waker || svc->starter)
        return;
    for (struct svc **at = &master.services; *at; at = &(*at)->next)
        if (*at == svc) {
            *at = svc->next;
            break;
        }
    arena_free(svc->arena);
    free(svc->sockets);
    explicit_bzero(svc->kept, sizeof svc->kept);
    free(svc);
}

/* --- on demand --- */

static void watch_main(void *arg) {
    struct svc_socket *s = arg;
    struct svc *svc = s->svc;
    int fd = s->fd;
    for (;;) {
        while (!may_start(svc)) {
            int64_t until = svc->not_before ? svc->not_before : DEADLINE_NEVER;
            error e = cond_wait(&svc->changed, until);
            if (coro_cancelled() || (e && e != &err_timeout))
                return;
        }
        error e = wait_readable(fd, DEADLINE_NEVER);
        if (coro_cancelled()) /* the service may be gone: nothing of it may be touched */
            return;
        if (e) {
            if (e != &err_cancelled)
                log_warn("service %.*s: %.*s", STR_ARG(svc->entry.name), STR_ARG(e->text));
            return;
        }
        if (may_start(svc))
            workers_start(svc);
    }
}

/* NULL: none, or one that has not read what it has been sent before. */
static struct worker *worker_for_wake(const struct svc *svc) {
    struct worker *w = worker_of(svc);
    return w && !control_is_jammed(w->control) ? w : NULL;
}

static void start_main(void *arg) {
    struct svc *svc = arg;
    while (!svc->gone && !worker_for_wake(svc)) {
        if (worker_of(svc)) { /* its answers are not taken: it is busy, or about to end */
            if (wait_until(deadline_in_us(CONNECT_RETRY_US)))
                break;
            continue;
        }
        if (may_start(svc)) {
            workers_start(svc);
            continue;
        }
        error e = cond_wait(&svc->changed, svc->not_before ? svc->not_before : DEADLINE_NEVER);
        if (e && e != &err_timeout)
            break;
    }
    svc->starter = NULL;
    if (svc->pending_n && worker_for_wake(svc)) {
        struct str bytes = str_n(svc->pending, svc->pending_n);
        svc->pending_n = 0;
        service_wake(svc, bytes);
    }
    service_free_if_gone(svc);
}

void service_wake(struct svc *svc, struct str request) {
    if (!worker_of(svc) && may_start(svc) && !svc->starter)
        workers_start(svc);
    struct worker *w = worker_for_wake(svc);
    if (w) {
        struct buf b = { 0 };
        pack_str(&b, request);
        control_send(w->control, CONTROL_WAKEUP, buf_str(&b), -1);
        buf_free(&b);
        return;
    }
    /* Later. The same byte twice says no more than once. */
    for (size_t i = 0; i < request.n && svc->pending_n < sizeof svc->pending; i++)
        if (str_index(str_n(svc->pending, svc->pending_n), request.p[i]) < 0)
            svc->pending[svc->pending_n++] = request.p[i];
    if (!svc->starter && !master.ending)
        svc->starter = coro_spawn(start_main, svc, "starter");
}

static void waker_main(void *arg) {
    struct svc *svc = arg;
    error e = NULL;
    while (!e && !svc->gone && !master.stopping) {
        if (!svc->entry.wakeup_if_used || svc->used)
            service_wake(svc, STR("W"));
        e = wait_until(deadline_in(svc->entry.wakeup));
    }
    if (svc->waker == coro_self())
        svc->waker = NULL;
    service_free_if_gone(svc);
}

void services_watch(void) {
    for (struct svc *svc = master.services; svc; svc = svc->next) {
        if (svc->gone)
            continue;
        for (size_t i = 0; i < svc->socket_count; i++)
            if (!svc->sockets[i].watcher)
                svc->sockets[i].watcher = coro_spawn(watch_main, &svc->sockets[i], "watch");
        if (svc->waker)
            coro_cancel(svc->waker);
        svc->waker = svc->entry.wakeup ? coro_spawn(waker_main, svc, "waker") : NULL;
    }
}
