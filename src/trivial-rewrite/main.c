/* trivial-rewrite(8): answers questions about addresses for daemons that have no tables of their own. */
#include "base/log.h"
#include "conf/master_cf.h"
#include "proto/rewrite.h"
#include "service/service.h"

/* smtpd -o local_recipient_maps= and its like: such a service asks about tables of its own, which are opened here,
 * where the files are. A master.cf that cannot be read says so elsewhere. */
static error service_lists(struct service_ctx *ctx, struct router *r, struct arena *err_arena) {
    struct arena *a = arena_new(); /* as long as the process, like the tables */
    struct master_cf cf;
    struct str path = arena_cat(a, conf_directory(ctx->conf), STR("/master.cf"));
    if (master_cf_load(path, ctx->conf, a, &cf))
        return NULL;
    for (size_t i = 0; i < cf.count; i++) {
        const struct master_entry *e = &cf.entries[i];
        VEC(struct conf_override) own = { 0 };
        for (size_t k = 0; k < e->override_count; k++)
            if (route_is_list_parameter(e->overrides[k].name))
                *vec_add(a, &own) = e->overrides[k];
        if (own.n == 0 || !str_eq(e->command, STR("smtpd")))
            continue;
        struct conf_source source = { .config_directory = conf_directory(ctx->conf),
                                      .overrides = own.at,
                                      .override_count = own.n,
                                      .process_name = ctx->program,
                                      .service_name = e->name };
        struct conf *c;
        error failed = conf_load(&source, err_arena, &c);
        if (failed)
            return failed;
        router_add_lists(r, e->name, router_new(c));
    }
    return NULL;
}

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    ctx->state = router_new(ctx->conf);
    return service_lists(ctx, ctx->state, err_arena);
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)peer;
    (void)local;
    error e = rewrite_serve(service_ipc(io), ctx->state);
    if (e)
        log_warn("%.*s", STR_ARG(e->text));
}

int main(int argc, char **argv) {
    static const struct service s = {
        .program = "trivial-rewrite",
        .confine = CONFINE_READ_FILES | CONFINE_NO_NETWORK,
        .no_chroot = true, /* /etc/passwd and the tables are outside */
        .multi_client = true,
        .drain_cancels = true, /* clients ask again */
        .init = init,
        .session = session,
    };
    return service_main(argc, argv, &s);
}
