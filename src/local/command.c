#include "deliver/environment.h"
#include "deliver/mailbox.h"
#include "deliver/pipe_command.h"
#include "local/local.h"

enum { WORDS_MAX = 200 };

/* --- which commands need a shell --- */
size_t command_words(struct arena *a, struct str text, struct str **ret) {
    static const char *const builtins[] = {
        ".",    ":",    "alias",  "bg",     "break",    "case",   "cd",    "command", "continue",
        "eval", "exec", "exit",   "export", "fc",       "fg",     "for",   "getopts", "hash",
        "if",   "jobs", "local",  "read",   "readonly", "return", "set",   "shift",   "times",
        "trap", "type", "ulimit", "umask",  "unalias",  "unset",  "until", "wait",    "while",
    };
    if (str_index_any(text, STR("!#$&*()[]{};'`\"\\|<>?~^%=\n")) >= 0)
        return 0;
    VEC(struct str) words = { 0 };
    struct str word;
    while (str_word(&text, STR(" \t"), &word)) {
        if (words.n == WORDS_MAX)
            return 0;
        *vec_add(a, &words) = word;
    }
    if (!words.n)
        return 0;
    for (size_t i = 0; i < sizeof(builtins) / sizeof(*builtins); i++)
        if (str_eq(words.at[0], str_c(builtins[i])))
            return 0;
    *ret = words.at;
    return words.n;
}

/* --- the message --- */
struct message {
    struct str head; /* with the From_ line */
    const struct spool_content *content;
};

/* pipe_command.h */
static bool write_message(void *arg, pipe_command_put *put, void *to) {
    const struct message *m = arg;
    char room[8192];
    struct str piece;
    bool good = put(to, m->head);
    for (uint64_t done = 0; good && done < m->content->size; done += piece.n) {
        if (content_read(m->content, done, room, sizeof(room), &piece))
            return false;
        good = put(to, piece);
    }
    return true;
}

/* --- the command --- */
static char **command_environment(struct delivery *d, const struct command *c) {
    const struct conf *conf = d->r->ctx->conf;
    struct environment e = { .arena = d->arena };
    struct str filter = conf_str(conf, PARAM_command_expansion_filter);
    const struct client_info *client = &d->r->req.env.client;
    const struct {
        const char *name;
        struct str value;
        bool always;
    } rows[] = {
        { "USER", c->user, true },
        { "LOGNAME", c->user, true },
        { "EXTENSION", c->extension, false },
        { "DOMAIN", c->domain, false },
        { "LOCAL", c->local, true },
        { "RECIPIENT", c->recipient, true },
        { "ORIGINAL_RECIPIENT", c->orig, false },
        { "SENDER", c->sender, true },
        { "CLIENT_ADDRESS", client->address, false },
        { "CLIENT_HELO", client->helo, false },
        { "CLIENT_HOSTNAME", client->name, false },
        { "CLIENT_PROTOCOL", client->protocol, false },
        { "SASL_METHOD", client->sasl_method, false },
        { "SASL_SENDER", client->sasl_sender, false },
        { "SASL_USERNAME", client->sasl_username, false },
    };
    environment_add(&e, "PATH", STR("/usr/bin:/bin"));
    if (c->home.n)
        environment_add(&e, "HOME", c->home);
    if (c->shell.n)
        environment_add(&e, "SHELL", c->shell);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        if (rows[i].always || rows[i].value.n)
            environment_add(&e, rows[i].name, local_filter(d->arena, rows[i].value, filter));
    environment_export(&e, conf_str(conf, PARAM_export_environment));
    return environment_end(&e);
}

static char **arguments(struct delivery *d, const struct command *c) {
    struct str shell = conf_str(d->r->ctx->conf, PARAM_local_command_shell), word, *words = NULL;
    VEC(char *) argv = { 0 };
    size_t n = 0;
    bool shell_set = shell.n > 0;
    if (shell_set) {
        while (str_word(&shell, STR_COMMA_SPACE, &word) && argv.n < WORDS_MAX)
            *vec_add(d->arena, &argv) = arena_cstr(d->arena, word);
        *vec_add(d->arena, &argv) = arena_cstr(d->arena, c->text);
    } else if ((n = command_words(d->arena, c->text, &words)) > 0) {
        for (size_t i = 0; i < n; i++)
            *vec_add(d->arena, &argv) = arena_cstr(d->arena, words[i]);
    } else {
        *vec_add(d->arena, &argv) = arena_cstr(d->arena, STR("sh"));
        *vec_add(d->arena, &argv) = arena_cstr(d->arena, STR("-c"));
        *vec_add(d->arena, &argv) = arena_cstr(d->arena, c->text);
    }
    *vec_add(d->arena, &argv) = NULL;
    return argv.at;
}

static void report(struct delivery *d, struct str address, const struct command *c, const struct child_result *result) {
    struct agent_status s = { .diagnostic = STR("") };
    struct str output;
    pipe_command_verdict(d->arena, result, c->text, &s, &output);
    if (s.dsn.p[0] == '2')
        delivery_result(d, address, s.dsn, arena_printf(d->arena, "delivered to command: %.*s", STR_ARG(c->text)));
    else
        delivery_result_diagnostic(d, address, s.dsn, s.reason, s.diagnostic);
}

void command_deliver(struct delivery *d, struct str address, const struct command *c) {
    struct agent_request *r = d->r;
    if (r->req.flags & DELIVERY_VERIFY) {
        delivery_result(d, address, STR("2.0.0"),
                        arena_printf(d->arena, "delivers to command: %.*s", STR_ARG(c->text)));
        return;
    }
    if (!local_can_act_as(&c->rights)) {
        delivery_result(d, address, STR("4.3.0"),
                        arena_printf(d->arena, "cannot act as user id %ld without root", (long)c->rights.uid));
        return;
    }
    struct str directory = c->directory.n ? c->directory : conf_str(r->ctx->conf, PARAM_queue_directory);
    struct str from = mailbox_from_line(d->arena, c->sender, sys->wall_us() / US_PER_S);
    struct message message = { arena_cat(d->arena, from, c->head), &r->req.content };
    const struct pipe_command command = {
        .argv = arguments(d, c),
        .envp = command_environment(d, c),
        .program = "local",
        .file_limit = (uint64_t)conf_int(r->ctx->conf, PARAM_mailbox_size_limit),
        .directory = arena_cstr(d->arena, directory),
        .uid = c->rights.uid,
        .gid = c->rights.gid,
        .deadline = deadline_in(conf_time(r->ctx->conf, PARAM_command_time_limit)),
        .message = write_message,
        .arg = &message,
        .size = r->req.content.size + message.head.n,
        .message_fd = r->req.content.fd,
    };
    struct child_result result;
    error e = pipe_command_run(&command, d->arena, &result);
    if (e)
        delivery_result(d, address, STR("4.3.0"),
                        arena_printf(d->arena, "cannot start the command: %.*s", STR_ARG(e->text)));
    else
        report(d, address, c, &result);
}
