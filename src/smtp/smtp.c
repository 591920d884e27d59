/* smtp(8) and lmtp(8): the rows of both programs. */
#include "smtp/client.h"

static struct client client;

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    struct client_config config;
    error e = client_config_load(ctx, str_eq(ctx->program, STR("lmtp")), err_arena, &config);
    if (!e)
        client_init(&client, &config, &ctx->work);
    return e;
}

static void drain(struct service_ctx *ctx) {
    (void)ctx;
    kept_drain(&client.kept);
}

static void deliver(struct agent_request *r) {
    client_deliver(&client, r);
}

int main(int argc, char **argv) {
    const struct agent smtp = {
        .service = { .program = "smtp",
                     .confine = CONFINE_NO_FILES,
                     .empty_chroot = true,
                     .init = init,
                     .drain = drain },
        .deliver = deliver,
    };
    const struct agent lmtp = {
        /* LMTP servers often listen on a unix socket: it must be able to name one */
        .service = { .program = "lmtp", .confine = CONFINE_READ_FILES, .init = init, .drain = drain },
        .deliver = deliver,
    };
    const char *slash = strrchr(argv[0], '/');
    bool is_lmtp_name = strcmp(slash ? slash + 1 : argv[0], "lmtp") == 0;
    int status = agent_main(argc, argv, is_lmtp_name ? &lmtp : &smtp);
    client_end(&client);
    return status;
}
