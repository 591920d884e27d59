#include "smtpd/login_server.h"

#include "build_config.h"
#include "sasl/dovecot.h"

struct target {
    struct service_ctx *ctx;
    struct dns *dns;
    struct dial_target at; /* Dovecot's */
    struct str proxymap;   /* endpoint; Cyrus */
};

static error dial_dovecot(void *ctx, int64_t deadline, struct io **ret) {
    struct target *t = ctx;
    return dial(t->ctx, t->dns, &t->at, deadline, ret);
}

static error open_dovecot(struct service_ctx *ctx, struct dns *dns, struct arena *a, struct arena *err_arena,
                          struct sasl_server **ret) {
    struct target *t = ARENA_NEW(a, struct target);
    *t = (struct target){ .ctx = ctx, .dns = dns };
    struct str path = conf_str(ctx->conf, PARAM_smtpd_sasl_path);
    if (!str_starts(path, STR("inet:")) && !str_starts(path, STR("unix:")))
        path = arena_cat(a, STR("unix:"), path);
    error e = dial_parse(a, path, &t->at);
    if (!e)
        e = dial_declare(ctx, &t->at);
    if (e)
        return err_make(err_arena, ERR_CONFIG, "smtpd_sasl_path: %.*s", STR_ARG(e->text));
    *ret = dovecot_new(dial_dovecot, t);
    return NULL;
}

#ifdef HAVE_CYRUS_SASL
/* The library is in the look-up process, which takes logins as a Dovecot server does. */
static error dial_cyrus(void *ctx, int64_t deadline, struct io **ret) {
    const struct target *t = ctx;
    struct ipc *ipc;
    error e = service_connect(t->ctx, t->proxymap, deadline, &ipc);
    if (!e)
        *ret = ipc_into_io(ipc);
    return e;
}

static error open_cyrus(struct service_ctx *ctx, struct dns *dns, struct arena *a, struct arena *err_arena,
                        struct sasl_server **ret) {
    (void)err_arena;
    struct target *t = ARENA_NEW(a, struct target);
    *t = (struct target){ .ctx = ctx, .dns = dns };
    t->proxymap = arena_cat(a, STR("private/"), conf_str(ctx->conf, PARAM_proxymap_service_name));
    *ret = dovecot_new(dial_cyrus, t);
    return NULL;
}
#endif

static const struct {
    struct str type; /* smtpd_sasl_type */
    error (*open)(struct service_ctx *ctx, struct dns *dns, struct arena *a, struct arena *err_arena,
                  struct sasl_server **ret);
} types[] = {
#ifdef HAVE_CYRUS_SASL
    { STR_INIT("cyrus"), open_cyrus },
#endif
    { STR_INIT("dovecot"), open_dovecot },
};

error login_server_open(struct service_ctx *ctx, struct dns *dns, struct arena *a, struct arena *err_arena,
                        struct sasl_server **ret) {
    *ret = NULL;
    if (!conf_bool(ctx->conf, PARAM_smtpd_sasl_auth_enable))
        return NULL;
    struct str type = conf_str(ctx->conf, PARAM_smtpd_sasl_type);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (str_eq(type, types[i].type))
            return types[i].open(ctx, dns, a, err_arena, ret);
    return err_make(err_arena, ERR_CONFIG,
                    "smtpd_sasl_type = %.*s: this build does not have it (`postconf -a` lists those it has)",
                    STR_ARG(type));
}
