#include "smtpd/backend.h"

#include "base/die.h"
#include "base/log.h"
#include "proto/rewrite.h"
#include "service/dial.h"
#include "smtpd/answers.h"
#include "smtpd/login_server.h"
#include "tls/tickets.h"
#include <stdlib.h>

struct daemons {
    struct arena *arena;
    struct service_ctx *ctx;
    struct str rewrite;                           /* endpoint */
    struct rewrite_link *asking;                  /* to it; NULL: none */
    struct str cleanup;                           /* endpoint */
    struct submit_link *links[CLEANUP_LINKS_MAX]; /* to it; NULL: none */
    struct cond connected;
    bool connecting; /* to either: one of those who need it does it, the others wait */
    struct dns *dns;
    enum dns_family family;  /* inet_protocols */
    struct str verify;       /* endpoint */
    struct ipc *verify_link; /* NULL: none */
    bool verifying;          /* somebody asks over it */
    struct cond verified;
    struct str flush;         /* endpoint */
    struct anvil_link *anvil; /* NULL: none */
    bool anvil_connecting;
    int64_t anvil_retry;  /* not before */
    struct str tlsmgr;    /* endpoint */
    int64_t keys_refresh; /* seconds since the epoch: ask it again; 0: never asked */
    struct cond keys_asked;
    bool keys_asking;
    struct answers answers;
    bool sender_matters; /* to what is asked about recipients */
    int64_t timeout;     /* seconds */
};

/* --- connections --- */

/* True: somebody else has just tried to connect, look again. */
static bool connect_turn(struct daemons *d, int64_t deadline, error *ret_error) {
    *ret_error = NULL;
    if (!d->connecting)
        return false;
    *ret_error = cond_wait(&d->connected, deadline);
    return true;
}

static error connect_to(struct daemons *d, struct str endpoint, int64_t deadline, struct ipc **ret) {
    d->connecting = true;
    error e = service_connect(d->ctx, endpoint, deadline, ret);
    d->connecting = false;
    cond_broadcast(&d->connected);
    return e;
}

/* --- trivial-rewrite --- */
static error rewrite_take(struct daemons *d, int64_t deadline, struct rewrite_link **ret, bool *ret_used_before) {
    error e = NULL;
    while (!e) {
        *ret = d->asking;
        *ret_used_before = true;
        if (*ret && rewrite_link_usable(*ret))
            return NULL;
        if (connect_turn(d, deadline, &e))
            continue;
        struct ipc *ipc;
        e = connect_to(d, d->rewrite, deadline, &ipc);
        if (!e) {
            *ret = d->asking = rewrite_link_new(ipc); /* the last who asks over the old one closes it */
            *ret_used_before = false;
            return NULL;
        }
    }
    return e;
}

static void rewrite_release(struct daemons *d, struct rewrite_link *l) {
    if (rewrite_link_usable(l) || rewrite_link_count(l) > 0)
        return;
    if (d->asking == l)
        d->asking = NULL;
    rewrite_link_close(l);
}

/* Ask over the kept connection; if that one has died meanwhile, over a new one. */
static error ask(struct daemons *d, struct arena *a, const struct route_question *q, struct route_check *ret) {
    int64_t deadline = deadline_in(d->timeout);
    for (;;) {
        struct rewrite_link *l;
        bool used_before;
        error e = rewrite_take(d, deadline, &l, &used_before);
        if (e)
            return e;
        e = rewrite_check(l, a, q, deadline, ret);
        rewrite_release(d, l);
        if (!e || !used_before || e->kind == ERR_CANCELLED || e->kind == ERR_TIMEOUT)
            return e;
    }
}

static error real_resolve(void *ctx, struct arena *a, struct str address, struct route *ret, error *ret_route_error) {
    struct daemons *d = ctx;
    int64_t deadline = deadline_in(d->timeout);
    for (;;) {
        struct rewrite_link *l;
        bool used_before;
        error e = rewrite_take(d, deadline, &l, &used_before);
        if (e)
            return e;
        e = rewrite_resolve(l, a, STR(""), address, deadline, ret, ret_route_error);
        rewrite_release(d, l);
        if (!e || !used_before || e->kind == ERR_CANCELLED || e->kind == ERR_TIMEOUT)
            return e;
    }
}

static error real_check_address(void *ctx, struct arena *a, const struct route_question *asked,
                                struct route_check *ret) {
    struct daemons *d = ctx;
    struct route_question q = *asked;
    q.service = d->ctx->name;
    if (!d->sender_matters)
        q.sender = STR("");
    if (answers_get(&d->answers, &q, a, ret))
        return NULL;
    error e = ask(d, a, &q, ret);
    if (!e)
        answers_put(&d->answers, &q, ret);
    return e;
}

static void real_client_name(void *ctx, struct arena *a, const struct endpoint *client, struct dns_client *ret) {
    struct daemons *d = ctx;
    dns_client_name(d->dns, a, client, deadline_in(NAME_LOOKUP_TIME), ret);
}

static void real_dns_query(void *ctx, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
    const struct daemons *d = ctx;
    dns_query(d->dns, a, name, type, deadline_in(NAME_LOOKUP_TIME), ret);
}

static void real_dns_addresses(void *ctx, struct arena *a, struct str host, struct dns_answer *ret) {
    const struct daemons *d = ctx;
    dns_addresses(d->dns, a, host, d->family, true, deadline_in(NAME_LOOKUP_TIME), ret);
}

/* --- cleanup --- */
struct submission {
    struct daemons *d;
    struct submit *m;
};

static int64_t cleanup_deadline(const struct daemons *d) {
    return deadline_in(d->timeout);
}

/* A connection that is of no more use goes with its last message. */
static void links_sweep(struct daemons *d) {
    for (size_t i = 0; i < CLEANUP_LINKS_MAX; i++)
        if (d->links[i] && !submit_link_usable(d->links[i]) && submit_link_count(d->links[i]) == 0) {
            submit_link_close(d->links[i]);
            d->links[i] = NULL;
        }
}

static struct submit_link *link_find(struct daemons *d, struct submit_link ***ret_free) {
    *ret_free = NULL;
    links_sweep(d);
    for (size_t i = 0; i < CLEANUP_LINKS_MAX; i++) {
        if (d->links[i] && submit_link_usable(d->links[i]))
            return d->links[i];
        if (!d->links[i] && !*ret_free)
            *ret_free = &d->links[i];
    }
    return NULL;
}

/* One for all sessions, as long as it has room; only one of them makes it, the others wait. */
static error link_take(struct daemons *d, int64_t deadline, struct submit_link **ret, bool *ret_used_before) {
    error e = NULL;
    while (!e) {
        struct submit_link **place;
        *ret = link_find(d, &place);
        *ret_used_before = true;
        if (*ret)
            return NULL;
        if (!place) /* full of connections that are full or about to end */
            return &err_limit;
        if (connect_turn(d, deadline, &e))
            continue;
        struct ipc *ipc;
        e = connect_to(d, d->cleanup, deadline, &ipc);
        if (!e) {
            *ret = *place = submit_link_new(ipc);
            *ret_used_before = false;
            return NULL;
        }
    }
    return e;
}

static error real_submit_open(void *ctx, struct arena *a, unsigned flags, struct submission **ret,
                              struct queue_id *ret_id, struct submit_result *ret_refused) {
    struct daemons *d = ctx;
    struct submit_link *link = NULL;
    struct submit *m = NULL;
    bool used_before = true;
    error e = &err_eof;
    *ret = NULL;
    /* a connection that has died, or whose cleanup is about to end, is replaced without anybody noticing */
    for (int i = 0; i <= CLEANUP_LINKS_MAX && e && used_before && e->kind != ERR_CANCELLED && e->kind != ERR_TIMEOUT;
         i++) {
        int64_t deadline = cleanup_deadline(d);
        e = link_take(d, deadline, &link, &used_before);
        if (e)
            return e;
        e = submit_open(link, flags, deadline, a, &m, ret_id, ret_refused);
    }
    if (e || ret_refused->status != SUBMIT_OK)
        return e;
    *ret = calloc(1, sizeof **ret);
    if (!*ret)
        die_no_memory(sizeof **ret);
    **ret = (struct submission){ d, m };
    return NULL;
}

static error real_submit_envelope(struct submission *m, const struct envelope *e) {
    return submit_envelope(m->m, e, cleanup_deadline(m->d));
}

static error real_submit_rcpt(struct submission *m, const struct rcpt *r) {
    return submit_rcpt(m->m, r, cleanup_deadline(m->d));
}

static error real_submit_action(struct submission *m, enum submit_action action, struct str value) {
    return submit_action(m->m, action, value, cleanup_deadline(m->d));
}

static error real_submit_milters(struct submission *m, struct str packed, const int *fds, size_t n) {
    return submit_milters(m->m, packed, fds, n, cleanup_deadline(m->d));
}

static error real_submit_content(struct submission *m, struct str bytes) {
    return submit_content(m->m, bytes, cleanup_deadline(m->d));
}

static error real_submit_end(struct submission *m, struct arena *a, struct submit_result *ret) {
    error e = submit_end(m->m, cleanup_deadline(m->d), a, ret);
    free(m);
    return e;
}

static void real_submit_abort(struct submission *m) {
    submit_cancel(m->m);
    free(m);
}

/* One connection for all sessions, which ask one after the other: answers come from a cache. One that has died while it
 * lay idle is replaced. */
static error real_verify(void *ctx, struct arena *a, struct str address, struct verify_answer *ret) {
    struct daemons *d = ctx;
    int64_t deadline = deadline_in(d->timeout);
    error e = NULL;
    while (!e && d->verifying)
        e = cond_wait(&d->verified, deadline);
    if (e)
        return e;
    d->verifying = true;
    for (bool used = true; used;) {
        used = d->verify_link != NULL;
        if (!used && (e = service_connect(d->ctx, d->verify, deadline, &d->verify_link)))
            break;
        e = verify_query(d->verify_link, address, deadline, a, ret);
        if (!e)
            break;
        ipc_close(d->verify_link);
        d->verify_link = NULL;
        used = used && e->kind != ERR_CANCELLED && e->kind != ERR_TIMEOUT;
    }
    d->verifying = false;
    cond_signal(&d->verified);
    return e;
}

static error real_dial(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret) {
    const struct daemons *d = ctx;
    return dial(d->ctx, d->dns, t, deadline, ret);
}

static error real_scratch_file(void *ctx, int64_t deadline, int *ret_fd) {
    const struct daemons *d = ctx;
    return service_scratch_file(d->ctx, deadline, ret_fd);
}

/* --- flush: asked too rarely to keep a connection --- */
static error real_flush_site(void *ctx, struct str site, enum flush_status *ret) {
    const struct daemons *d = ctx;
    int64_t deadline = deadline_in(d->timeout);
    struct ipc *ipc;
    error e = service_connect(d->ctx, d->flush, deadline, &ipc);
    if (e)
        return e;
    e = flush_send_site(ipc, site, deadline, ret);
    ipc_close(ipc);
    return e;
}

/* --- anvil --- */
enum { ANVIL_PAUSE = 60 /* seconds between attempts, where nobody needs an answer */ };

/* A link of use; NULL: there is none. One that has broken goes with the last who asks over it. */
static struct anvil_link *anvil_usable(struct daemons *d) {
    if (d->anvil && !anvil_link_usable(d->anvil) && anvil_link_count(d->anvil) == 0) {
        anvil_link_close(d->anvil);
        d->anvil = NULL;
    }
    return d->anvil && anvil_link_usable(d->anvil) ? d->anvil : NULL;
}

static error anvil_connect(struct daemons *d, int64_t deadline) {
    struct ipc *ipc;
    d->anvil_connecting = true;
    error e = connect_to(d, STR("private/anvil"), deadline, &ipc);
    d->anvil_connecting = false;
    if (e)
        return e;
    if (d->anvil && anvil_link_count(d->anvil) > 0) { /* the broken one still has somebody */
        ipc_close(ipc);
        return &err_eof;
    }
    anvil_link_close(d->anvil);
    d->anvil = anvil_link_new(ipc);
    return NULL;
}

static void anvil_connect_later(void *arg) {
    struct daemons *d = arg;
    (void)anvil_connect(d, deadline_in(d->timeout));
    group_leave(&d->ctx->work);
}

/* Who only notes something does not wait for the connection: the note is lost. */
static void anvil_note_or_connect(struct daemons *d, enum anvil_event event, struct str ident) {
    struct anvil_link *l = anvil_usable(d);
    if (l) {
        anvil_note(l, event, ident);
    } else if (event == ANVIL_CONNECT && !d->anvil_connecting && !d->connecting && sys->mono_us() >= d->anvil_retry &&
               !d->ctx->draining) {
        d->anvil_retry = deadline_in(ANVIL_PAUSE);
        group_enter(&d->ctx->work);
        coro_spawn(anvil_connect_later, d, "anvil");
    }
}

static error real_anvil(void *ctx, enum anvil_event event, struct str ident, int64_t deadline,
                        struct anvil_answer *ret) {
    struct daemons *d = ctx;
    if (!ret) {
        anvil_note_or_connect(d, event, ident);
        return NULL;
    }
    for (;;) {
        struct anvil_link *l = anvil_usable(d);
        error e = NULL;
        bool used_before = l != NULL;
        if (!l && connect_turn(d, deadline, &e)) {
            if (e)
                return e;
            continue;
        }
        if (!l)
            e = anvil_connect(d, deadline);
        if (!e)
            e = anvil_ask(d->anvil, event, ident, deadline, ret);
        if (!e || !used_before || e->kind == ERR_CANCELLED || e->kind == ERR_TIMEOUT)
            return e;
    }
}

/* --- smtpd_dns_reply_filter --- */
static enum dns_verdict filter_record(void *ctx, struct str record) {
    struct maps *filter = ctx;
    struct arena *a = arena_new();
    struct str found, table;
    enum dns_verdict v = DNS_KEEP;
    switch (maps_get(filter, record, a, &found, &table)) {
    case TABLE_NOT_FOUND:
        break;
    case TABLE_ERROR:
        log_warn("smtpd_dns_reply_filter lookup error for \"%.*s\"", STR_ARG(record));
        v = DNS_FAIL;
        break;
    case TABLE_FOUND:
        v = DNS_DROP;
        log_info("ignoring DNS RR: %.*s", STR_ARG(record));
        if (str_starts_icase(found, STR("IGNORE")))
            break;
        log_warn("smtpd_dns_reply_filter: table %.*s: unknown action \"%.*s\": there is only IGNORE", STR_ARG(table),
                 STR_ARG(found));
        v = DNS_FAIL;
        break;
    }
    arena_free(a);
    return v;
}

/* --- all of them --- */
/* --- tlsmgr --- */

/* The session that finds the keys old fetches new ones; others go on with what there is, and wait where there is
 * nothing yet. Without tlsmgr there are no tickets, and no session is held up for long. */
static void real_ticket_keys(void *ctx, struct tls_server *server) {
    struct daemons *d = ctx;
    int64_t deadline = deadline_in(TICKET_KEYS_TIME);
    bool first = d->keys_refresh == 0;
    while (first && d->keys_asking && !cond_wait(&d->keys_asked, deadline))
        ;
    int64_t now = sys->wall_us() / US_PER_S;
    if (d->keys_asking || now < d->keys_refresh)
        return;
    d->keys_asking = true;
    struct tls_ticket_keys keys;
    struct ipc *ipc = NULL;
    error e = service_connect(d->ctx, d->tlsmgr, deadline, &ipc);
    if (!e)
        e = ticket_keys_ask(ipc, deadline, &keys);
    if (e)
        log_warn("problem talking to service %.*s: %.*s -- no TLS session tickets", STR_ARG(d->tlsmgr),
                 STR_ARG(e->text));
    else
        tls_server_set_keys(server, &keys);
    d->keys_refresh = e ? now + TICKET_KEYS_PAUSE : ticket_keys_refresh(&keys, now);
    ticket_keys_wipe(&keys);
    ipc_close(ipc);
    d->keys_asking = false;
    cond_broadcast(&d->keys_asked);
}

error backend_open(struct service_ctx *ctx, struct arena *err_arena, struct backend *ret) {
    static struct daemons d;
    const struct conf *c = ctx->conf;
    d = (struct daemons){ .sender_matters = route_depends_on_sender(c), .timeout = conf_time(c, PARAM_ipc_timeout) };
    d.arena = arena_new();
    d.ctx = ctx;
    d.cleanup = arena_printf(d.arena, "public/%.*s", STR_ARG(conf_str(c, PARAM_cleanup_service_name)));
    d.rewrite = arena_printf(d.arena, "private/%.*s", STR_ARG(conf_str(c, PARAM_rewrite_service_name)));
    d.verify = arena_cat(d.arena, STR("private/"), conf_str(c, PARAM_address_verify_service_name));
    d.flush = arena_cat(d.arena, STR("public/"), conf_str(c, PARAM_flush_service_name));
    d.tlsmgr = arena_cat(d.arena, STR("private/"), conf_str(c, PARAM_tlsmgr_service_name));
    struct str protocols = conf_str(c, PARAM_inet_protocols);
    d.family = str_eq_icase(protocols, STR("ipv4"))   ? DNS_FAMILY_IPV4
               : str_eq_icase(protocols, STR("ipv6")) ? DNS_FAMILY_IPV6
                                                      : DNS_FAMILY_ANY;
    struct dns_options options = { .servers = conf_str(c, PARAM_dns_resolvers),
                                   .idna2003 = conf_bool(c, PARAM_enable_idna2003_compatibility) };
    struct str filter = conf_str(c, PARAM_smtpd_dns_reply_filter);
    if (filter.n) {
        options.filter = filter_record;
        options.filter_ctx = maps_open(c, filter, 0);
    }
    error e = dns_open(&options, err_arena, &d.dns);
    if (e)
        return e;
    struct sasl_server *sasl = NULL;
    e = login_server_open(ctx, d.dns, d.arena, err_arena, &sasl);
    if (e)
        return e;
    *ret = (struct backend){ .ctx = &d,
                             .client_name = real_client_name,
                             .dns_query = real_dns_query,
                             .dns_addresses = real_dns_addresses,
                             .check_address = real_check_address,
                             .submit_open = real_submit_open,
                             .submit_envelope = real_submit_envelope,
                             .submit_rcpt = real_submit_rcpt,
                             .submit_action = real_submit_action,
                             .submit_milters = real_submit_milters,
                             .submit_content = real_submit_content,
                             .resolve = real_resolve,
                             .submit_end = real_submit_end,
                             .submit_abort = real_submit_abort,
                             .verify = real_verify,
                             .dial = real_dial,
                             .scratch_file = real_scratch_file,
                             .anvil = real_anvil,
                             .ticket_keys = real_ticket_keys,
                             .flush_site = real_flush_site,
                             .sasl = sasl };
    return NULL;
}
