#include "cmd/lookup_child.h"

#include "proto/lookup.h"
#include "run/io.h"
#include "run/worker.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_SECONDS = LOOKUP_SECONDS + 5 };

static const struct conf *conf;
static struct ipc *child, *running[2]; /* of our own; of the mail system: proxymap, proxywrite */

static error start_child(struct ipc **ret) {
    struct arena *a = arena_new();
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_errno(errno);
    char *path = arena_cstr(a, arena_cat(a, conf_str(conf, PARAM_daemon_directory), STR("/proxymap")));
    struct str directory = arena_cat(a, STR("MAIL_CONFIG="), conf_directory(conf));
    char *argv[] = { "proxymap", "-S", "-n", "proxymap", "-t", "unix", NULL };
    char *envp[] = { arena_cstr(a, directory), "PATH=/usr/bin:/bin", NULL };
    struct worker_start w = { .path = path,
                              .argv = argv,
                              .envp = envp,
                              .control_fd = -1,
                              .stdin_fd = pair[1],
                              .stdout_fd = pair[1],
                              .stderr_fd = STDERR_FILENO };
    pid_t pid;
    error e = worker_start(&w, &pid);
    close(pair[1]);
    if (e)
        close(pair[0]);
    else
        *ret = ipc_new(pair[0]);
    arena_free(a);
    return e;
}

static error connect_running(struct str service, struct ipc **ret) {
    struct buf path = { 0 };
    buf_printf(&path, "%.*s/private/%.*s", STR_ARG(conf_str(conf, PARAM_queue_directory)), STR_ARG(service));
    error e = ipc_connect(buf_str(&path), deadline_in(ANSWER_SECONDS), ret);
    buf_free(&path);
    return e;
}

static enum table_result ask(void *ctx, const struct table_question *q, struct arena *a, struct str *ret_key,
                             struct str *ret_value, struct str *ret_why) {
    (void)ctx;
    bool writes = q->flags & TABLE_WRITE;
    struct str service = conf_str(conf, writes ? PARAM_proxywrite_service_name : PARAM_proxymap_service_name);
    struct ipc **to = q->proxied ? &running[writes] : &child;
    enum table_result result = TABLE_ERROR;
    error e = *to ? NULL : q->proxied ? connect_running(service, to) : start_child(to);
    if (!e)
        e = lookup_ask(*to, q, deadline_in(ANSWER_SECONDS), a, &result, ret_key, ret_value, ret_why);
    if (!e)
        return result;
    if (*to)
        ipc_close(*to);
    *to = NULL;
    *ret_why = q->proxied ? arena_printf(a, "%.*s service of the mail system: %.*s", STR_ARG(service), STR_ARG(e->text))
                          : arena_printf(a, "look-up process: %.*s", STR_ARG(e->text));
    return TABLE_ERROR;
}

void lookup_child_use(const struct conf *c) {
    static const struct table_remote remote = { .ask = ask };
    conf = c;
    table_set_remote(&remote);
}

void lookup_child_end(void) {
    table_set_remote(NULL);
    ipc_close(child);
    child = NULL;
    for (size_t i = 0; i < sizeof running / sizeof *running; i++) {
        ipc_close(running[i]);
        running[i] = NULL;
    }
}
