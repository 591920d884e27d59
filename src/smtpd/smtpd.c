/* smtpd.c - smtpd(8): mail comes in by SMTP. Confined: no files, and of the network only what the name service needs.
 */
#include "base/log.h"
#include "mail/date.h"
#include "service/service.h"
#include "smtpd/backend.h"
#include "smtpd/clients.h"
#include "smtpd/policy.h"
#include "smtpd/session.h"
#include "smtpd/standalone.h"
#include "smtpd/starttls.h"

static struct {
    struct settings *settings, *stressed; /* stressed: NULL where `-o stress=` settles it */
    struct backend backend;
    struct clients clients;
} smtpd;

/* The servers that main.cf names. */
static error declare(struct service_ctx *ctx, const struct settings *set) {
    error e = set->proxy.on ? dial_declare(ctx, &set->proxy.target) : NULL;
    for (size_t i = 0; i < set->policies.n && !e; i++)
        e = dial_declare(ctx, &set->policies.at[i]->target);
    return e ? e : milter_configs_declare(ctx, &set->milters);
}

/* What sessions run with that begin while there are as many as there may be (STRESS_README). */
static error load_stressed(struct service_ctx *ctx, struct arena *err_arena) {
    struct conf *stressed;
    for (size_t i = 0; i < ctx->override_count; i++)
        if (str_eq(ctx->overrides[i].name, STR("stress")))
            return NULL;
    error e = service_stressed_conf(ctx, err_arena, &stressed);
    if (!e)
        e = settings_load_stressed(smtpd.settings, stressed, err_arena, &smtpd.stressed);
    return e ? e : declare(ctx, smtpd.stressed);
}

static error smtpd_init(struct service_ctx *ctx, struct arena *err_arena) {
    error e = settings_load(ctx->conf, ctx->name, err_arena, &smtpd.settings);
    if (e)
        return e;
    (void)date_rfc5322(err_arena, 0); /* reads the time zone while there are files */
    if (ctx->standalone) {
        starttls_off(&smtpd.settings->tls);
        standalone_backend(ctx->conf, &smtpd.backend);
        return NULL;
    }
    starttls_open(&smtpd.settings->tls, ctx->conf, ctx->name);
    e = declare(ctx, smtpd.settings);
    if (!e)
        e = load_stressed(ctx, err_arena);
    return e ? e : backend_open(ctx, err_arena, &smtpd.backend);
}

static const char *smtpd_outdated(struct service_ctx *ctx) {
    (void)ctx;
    return tls_files_changed();
}

static void smtpd_session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer,
                          const struct endpoint *local) {
    struct session s;
    bool stress = smtpd.stressed && sys->mono_us() < ctx->stress_until;
    session_init(&s, stress ? smtpd.stressed : smtpd.settings, &smtpd.backend, io, &ctx->draining);
    s.clients = &smtpd.clients;
    struct session_client client = { 0 };
    if (peer && !ctx->standalone)
        client.address = *peer;
    if (local && !ctx->standalone)
        client.local = *local;
    session_run(&s, &client);
    session_free(&s);
}

int main(int argc, char **argv) {
    static const struct service service = {
        .program = "smtpd",
        .confine = CONFINE_NO_FILES,
        .empty_chroot = true,
        .init = smtpd_init,
        .session = smtpd_session,
        .outdated = smtpd_outdated,
    };
    /* a user's own session, with nothing but the user's rights; postdrop must be able to raise them */
    static const struct service standalone = {
        .program = "smtpd", .confine = CONFINE_EXEC, .init = smtpd_init, .session = smtpd_session
    };
    bool on_standard_input = false;
    for (int i = 1; i < argc; i++)
        on_standard_input = on_standard_input || strcmp(argv[i], "-S") == 0;
    return service_main(argc, argv, on_standard_input ? &standalone : &service);
}
