#include "deliver/mailbox.h"
#include "local/local.h"
#include <unistd.h>

static bool parse_words(struct str list, const char *const *names, size_t n, unsigned *ret) {
    struct str word;
    *ret = 0;
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        size_t i = 0;
        while (i < n && !str_eq(word, str_c(names[i])))
            i++;
        if (i == n)
            return false;
        *ret |= 1U << i;
    }
    return true;
}

error local_init(struct service_ctx *ctx, struct arena *err_arena) {
    static const char *const origins[] = { "alias", "forward", "include" };
    static const char *const delivered[] = { "command", "file", "forward" };
    const struct conf *c = ctx->conf;
    static struct local local; /* a process is one agent */
    struct local *l = &local;
    ctx->state = l;
    const struct {
        const char *name;
        struct str value;
        const char *const *words;
        unsigned *to;
    } lists[] = {
        { "allow_mail_to_commands", conf_str(c, PARAM_allow_mail_to_commands), origins, &l->commands },
        { "allow_mail_to_files", conf_str(c, PARAM_allow_mail_to_files), origins, &l->files },
        { "prepend_delivered_header", conf_str(c, PARAM_prepend_delivered_header), delivered, &l->delivered },
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        if (!parse_words(lists[i].value, lists[i].words, 3, lists[i].to))
            return err_make(err_arena, ERR_CONFIG, "bad value in parameter %s: %.*s", lists[i].name,
                            STR_ARG(lists[i].value));
    /* words for other programs are not ours to judge */
    struct str rest = conf_str(c, PARAM_propagate_unmatched_extensions), word;
    l->propagate = 0;
    while (str_word(&rest, STR_COMMA_SPACE, &word))
        for (size_t i = 0; i < 3; i++)
            if (str_eq(word, str_c(origins[i])))
                l->propagate |= 1U << i;
    if (!mailbox_locks_parse(conf_str(c, PARAM_mailbox_delivery_lock), &l->locks))
        return err_make(err_arena, ERR_CONFIG, "bad value in parameter mailbox_delivery_lock: %.*s",
                        STR_ARG(conf_str(c, PARAM_mailbox_delivery_lock)));
    if (geteuid() == 0) {
        struct str name = conf_str(c, PARAM_default_privs);
        bool failed;
        if (!account_find(err_arena, name, &l->default_privs, &failed))
            return err_make(err_arena, ERR_CONFIG, "default_privs: unknown user %.*s", STR_ARG(name));
        if (l->default_privs.uid == 0 || l->default_privs.uid == ctx->mail_uid)
            return err_make(err_arena, ERR_CONFIG, "default_privs: %.*s must be neither root nor the mail owner",
                            STR_ARG(name));
        /* its commands are no user's: they get no home and no shell */
        l->default_privs.home = l->default_privs.shell = STR("");
    } else {
        bool failed;
        if (!account_find_uid(err_arena, geteuid(), &l->default_privs, &failed))
            l->default_privs = (struct account){ .name = STR("nobody"), .home = STR("/"), .shell = STR("/bin/sh") };
        l->default_privs.uid = geteuid();
        l->default_privs.gid = getegid();
    }
    int64_t message = conf_int(c, PARAM_message_size_limit), mailbox = conf_int(c, PARAM_mailbox_size_limit);
    if (mailbox > 0 && (message <= 0 || message > mailbox))
        return err_make(err_arena, ERR_CONFIG,
                        "main.cf configuration error: mailbox_size_limit is smaller than message_size_limit");
    l->biff_port = biff_port();
    const struct {
        struct maps **to;
        enum param param;
    } tables[] = {
        { &l->mailbox_transports, PARAM_mailbox_transport_maps },
        { &l->fallback_transports, PARAM_fallback_transport_maps },
        { &l->mailbox_commands, PARAM_mailbox_command_maps },
    };
    for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++)
        *tables[i].to = maps_open(c, conf_str(c, tables[i].param), TABLE_FOLD | TABLE_NO_REGSUB);
    l->aliases = maps_open(c, conf_str(c, PARAM_alias_maps), TABLE_FOLD | TABLE_ALIASES | TABLE_NO_REGSUB);
    return NULL;
}

void local_end(struct service_ctx *ctx) {
    struct local *l = ctx->state;
    pass_end();
    maps_close(l->aliases);
    maps_close(l->mailbox_transports);
    maps_close(l->fallback_transports);
    maps_close(l->mailbox_commands);
    *l = (struct local){ 0 };
}
