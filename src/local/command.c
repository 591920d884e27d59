#include "deliver/child.h"
#include "deliver/environment.h"
#include "deliver/mailbox.h"
#include "deliver/pipe_command.h"
#include "local/local.h"
#include "mail/dsn.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

enum { WORDS_MAX = 200, SHOWN_OUTPUT = 4096 /* bytes of a command's output in a report */ };

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

/* --- in the child --- */
struct job {
    const char *program;
    char **argv, **envp;
    uint64_t file_limit; /* bytes; 0: none */
    const char *directory;
    struct str head; /* with the From_ line */
    const struct spool_content *content;
};

static _Noreturn void start(const struct job *j, int in_fd, int out_fd) {
    if (dup2(in_fd, STDIN_FILENO) < 0 || dup2(out_fd, STDOUT_FILENO) < 0 || dup2(out_fd, STDERR_FILENO) < 0)
        _exit(EX_OSERR);
    close_range(STDERR_FILENO + 1, ~0U, 0);
    if (chdir(j->directory) != 0) {
        dprintf(STDERR_FILENO, "local: fatal: cannot change directory to %s: %s\n", j->directory, strerror(errno));
        _exit(EX_TEMPFAIL);
    }
    signal(SIGPIPE, SIG_DFL);
    if (j->file_limit) {
        const struct rlimit limit = { (rlim_t)j->file_limit, (rlim_t)j->file_limit };
        setrlimit(RLIMIT_FSIZE, &limit);
        signal(SIGXFSZ, SIG_IGN); /* it gets EFBIG */
    }
    execvpe(j->program, j->argv, j->envp);
    dprintf(STDERR_FILENO, "local: fatal: execvp %s: %s\n", j->program, strerror(errno));
    _exit(EX_TEMPFAIL);
}

/* A command may end without having read everything: that is its business. */
static bool feed(int fd, struct str s) {
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            s = str_from(s, (size_t)n);
    }
    return true;
}

static int run_command(void *arg, int out_fd) {
    const struct job *j = arg;
    int ends[2];
    if (pipe(ends) != 0)
        return EX_TEMPFAIL;
    pid_t pid = fork();
    if (pid < 0)
        return EX_TEMPFAIL;
    if (pid == 0) {
        close(ends[1]);
        start(j, ends[0], out_fd);
    }
    close(ends[0]);
    close(out_fd); /* so that the parent sees the end when the command closes its own */
    bool good = feed(ends[1], j->head), unread = false;
    char room[8192];
    struct str piece;
    for (uint64_t done = 0; good && done < j->content->size; done += piece.n) {
        if (content_read(j->content, done, room, sizeof(room), &piece)) {
            unread = true;
            break;
        }
        good = feed(ends[1], piece);
    }
    if (unread) /* it must not take half a message for a whole one */
        kill(pid, SIGKILL);
    close(ends[1]);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return EX_TEMPFAIL;
    if (unread)
        return EX_TEMPFAIL;
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
        return EX_TEMPFAIL;
    }
    return WEXITSTATUS(status);
}

/* --- in the parent --- */
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

static char **arguments(struct delivery *d, const struct command *c, const char **ret_program) {
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
    *ret_program = n || shell_set ? argv.at[0] : "/bin/sh";
    *vec_add(d->arena, &argv) = NULL;
    return argv.at;
}

/* What the command wrote, on one line: white space becomes blanks, other control bytes '_'. */
static struct str one_line(struct arena *a, struct str output) {
    struct buf b = { 0 };
    buf_printable(&b, output, SHOWN_OUTPUT); /* byte for byte */
    for (size_t i = 0; i < b.n; i++)
        if (b.p[i] == '?' && output.p[i] != '?')
            b.p[i] = byte_is_space(output.p[i]) ? ' ' : '_';
    struct str s = arena_str(a, buf_str(&b));
    buf_free(&b);
    return s;
}

static void report(struct delivery *d, struct str address, const struct command *c, const struct child_result *result) {
    struct arena *a = d->arena;
    struct str output = one_line(a, result->output);
    struct str said = output.n ? arena_printf(a, ". Command output: %.*s", STR_ARG(output)) : STR("");
    if (result->timed_out) {
        delivery_result_diagnostic(
            d, address, STR("5.3.0"),
            arena_printf(a, "Command time limit exceeded: \"%.*s\"%.*s", STR_ARG(c->text), STR_ARG(said)), output);
        return;
    }
    if (!result->signal && result->status == 0) {
        delivery_result(d, address, STR("2.0.0"), arena_printf(a, "delivered to command: %.*s", STR_ARG(c->text)));
        return;
    }
    if (!result->signal && result->status == CHILD_EXIT_RIGHTS) {
        delivery_result(d, address, STR("4.3.0"), arena_printf(a, "cannot act as user id %ld", (long)c->rights.uid));
        return;
    }
    struct str dsn, text;
    dsn_split(output, STR(""), &dsn, &text);
    if (!result->signal && dsn.n) { /* the command knows better than its exit status */
        if (dsn.p[0] == '2')
            dsn = STR("5.0.0");
        delivery_result_diagnostic(d, address, dsn, text, text);
        return;
    }
    if (result->signal) {
        delivery_result_diagnostic(d, address, STR("4.3.0"),
                                   arena_printf(a, "Command died with signal %d: \"%.*s\"%.*s", result->signal,
                                                STR_ARG(c->text), STR_ARG(said)),
                                   output);
        return;
    }
    if (pipe_command_status(result->status, &dsn, &text)) {
        delivery_result_diagnostic(d, address, dsn, arena_printf(a, "%.*s%.*s", STR_ARG(text), STR_ARG(said)), output);
        return;
    }
    delivery_result_diagnostic(
        d, address, STR("5.3.0"),
        arena_printf(a, "Command died with status %d: \"%.*s\"%.*s", result->status, STR_ARG(c->text), STR_ARG(said)),
        output);
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
    struct job job = {
        .file_limit = (uint64_t)conf_int(r->ctx->conf, PARAM_mailbox_size_limit),
        .envp = command_environment(d, c),
        .directory = arena_cstr(d->arena, directory),
        .head = arena_cat(d->arena, from, c->head),
        .content = &r->req.content,
    };
    job.argv = arguments(d, c, &job.program);
    struct child child = {
        .uid = c->rights.uid,
        .gid = c->rights.gid,
        .keep_fd = r->req.content.fd,
        .deadline = deadline_in(conf_time(r->ctx->conf, PARAM_command_time_limit)),
        .run = run_command,
        .arg = &job,
    };
    struct child_result result;
    error e = child_run(&child, d->arena, &result);
    if (e)
        delivery_result(d, address, STR("4.3.0"),
                        arena_printf(d->arena, "cannot start the command: %.*s", STR_ARG(e->text)));
    else
        report(d, address, c, &result);
}
