/* proxymap(8): the look-up process. Asks tables for the other daemons: those named as proxy:, and those whose clients
 * can block. It alone has these clients, and the passwords of the databases. */
#include "base/log.h"
#include "lookup/source.h"
#include "proto/login.h"
#include "proto/lookup.h"
#include "proxymap/allow.h"
#include "proxymap/cyrus.h"
#include "proxymap/shelf.h"
#include "service/service.h"
#include <signal.h>

enum { REPLY_SECONDS = 100 /* for a client to take its answer */ };

struct daemon {
    struct service_ctx *ctx;
    struct allow *allow;
    struct shelf *shelf;
    bool writes; /* proxywrite */
};

static struct daemon daemon_;

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    struct daemon *d = &daemon_;
    const struct table_type *const *types;
    size_t n = lookup_types(&types);
    struct master_cf services = { 0 };
    table_register(types, n);
    if (!ctx->standalone) {
        struct str path = arena_cat(err_arena, conf_directory(ctx->conf), STR("/master.cf"));
        error e = master_cf_load(path, ctx->conf, err_arena, &services);
        if (e)
            return e;
    }
    source_preload(ctx->conf, &services);
    cyrus_open(ctx->conf, &services);
    d->ctx = ctx;
    d->allow = allow_new(ctx->conf, &services);
    d->shelf = shelf_new(ctx->conf);
    d->writes = str_eq(ctx->name, conf_str(ctx->conf, PARAM_proxywrite_service_name));
    ctx->state = d;
    return NULL;
}

/* For a command, which starts this program for itself with its own rights, everything is allowed. */
static bool allowed(const struct daemon *d, const struct table_question *q) {
    if (d->ctx->standalone)
        return true;
    return (d->writes || !(q->flags & TABLE_WRITE)) && allow_question(d->allow, q);
}

static enum table_result answer(struct daemon *d, const struct table_question *q, struct arena *a, struct str *key,
                                struct str *value, struct str *why) {
    if (allowed(d, q))
        return shelf_ask(d->shelf, q, deadline_in(LOOKUP_SECONDS), a, key, value, why);
    bool writes = q->flags & TABLE_WRITE;
    log_warn("request for unauthorized table: \"%s%.*s\"", q->proxied ? "proxy:" : "", STR_ARG(q->spec));
    if (q->proxied)
        log_warn("to approve this table for %s access, list proxy:%.*s in %s:%s", writes ? "read-write" : "read-only",
                 STR_ARG(q->spec), "main.cf", writes ? "proxy_write_maps" : "proxy_read_maps");
    *key = *value = STR("");
    *why = arena_printf(a, "%.*s: unauthorized table", STR_ARG(q->spec));
    return TABLE_ERROR;
}

/* A configuration file has changed and only root may read it: master starts us anew, and we read it before we give root
 * up. */
static void restart_if_needed(struct service_ctx *ctx) {
    if (ctx->standalone || ctx->draining || !source_needs_restart())
        return;
    log_info("a table's configuration has changed -- restarting");
    raise(SIGTERM);
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)peer;
    (void)local;
    if (cyrus_wanted(io)) {
        cyrus_session(io);
        return;
    }
    struct ipc *ipc = service_ipc(io);
    struct arena *a = arena_new();
    struct ipc_msg m = { .fd = -1 };
    while (!ipc_recv(ipc, DEADLINE_NEVER, &m)) {
        struct table_question q;
        struct str key, value, why;
        if (m.type == LOGIN_BEGIN) {
            cyrus_client_session(ipc, &m);
            break;
        }
        error e = lookup_read(&m, &q);
        if (e) {
            log_warn("%.*s", STR_ARG(e->text));
            break;
        }
        enum table_result r = answer(ctx->state, &q, a, &key, &value, &why);
        if (lookup_answer(ipc, deadline_in(REPLY_SECONDS), r, key, value, why))
            break;
        arena_reset(a);
        restart_if_needed(ctx);
    }
    ipc_msg_drop(&m);
    arena_free(a);
}

int main(int argc, char **argv) {
    static const struct service s = {
        .program = "proxymap",
        .confine = CONFINE_WRITE_FILES, /* proxywrite has caches */
        .no_chroot = true,              /* the tables are outside */
        .own_rights = true,
        .opens_tables = true,
        .multi_client = true,
        .resident = true,      /* keeps connections */
        .drain_cancels = true, /* clients ask again */
        .init = init,
        .session = session,
    };
    return service_main(argc, argv, &s);
}
