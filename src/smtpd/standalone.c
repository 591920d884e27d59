#include "smtpd/standalone.h"

#include "base/die.h"
#include "queue/maildrop.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_MAX = 1000 /* bytes of postdrop's answer, which is one line */ };

struct submission {
    struct arena *arena;
    const struct conf *conf;
    struct buf out, content; /* records to send; content that is no record yet */
    pid_t pid;               /* postdrop; 0: not started */
    int to, from;
    bool broken; /* postdrop does not read any more: its answer says why */
};

/* Also the answer to questions that a session on standard input never asks. */
static const struct err no_postdrop = {
    .kind = ERR_TEMP, .dsn = STR_INIT(""), .text = STR_INIT("cannot run postdrop"), .detail = STR_INIT("")
};

/* --- postdrop --- */
static error start_postdrop(struct submission *m) {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) < 0)
        return err_errno(errno);
    if (pipe2(out, O_CLOEXEC) < 0) {
        close(in[0]);
        close(in[1]);
        return &no_postdrop;
    }
    char *path = arena_cstr(
        m->arena, arena_printf(m->arena, "%.*s/postdrop", STR_ARG(conf_str(m->conf, PARAM_command_directory))));
    char *argv[] = { path, arena_cstr(m->arena, STR("-r")), NULL };
    m->pid = fork();
    if (m->pid == 0) {
        if (dup2(in[0], STDIN_FILENO) >= 0 && dup2(out[1], STDOUT_FILENO) >= 0)
            execv(path, argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    m->to = in[1];
    m->from = out[0];
    if (m->pid > 0)
        return NULL;
    m->pid = 0;
    close(m->to);
    close(m->from);
    return &no_postdrop;
}

static void send_out(struct submission *m) {
    for (size_t at = 0; at < m->out.n && !m->broken;) {
        ssize_t n = write(m->to, m->out.p + at, m->out.n - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            m->broken = true;
        else
            at += (size_t)n;
    }
    buf_clear(&m->out);
}

static void flush_content(struct submission *m) {
    if (m->content.n)
        maildrop_put(&m->out, MAILDROP_CONTENT, buf_str(&m->content));
    buf_clear(&m->content);
    send_out(m);
}

/* postdrop's last word; it has ended then. */
static struct str answer(struct submission *m, int *ret_status) {
    char *text = arena_alloc(m->arena, ANSWER_MAX);
    size_t n = 0;
    close(m->to);
    for (;;) {
        ssize_t got = read(m->from, text + n, ANSWER_MAX - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(m->from);
    while (waitpid(m->pid, ret_status, 0) < 0 && errno == EINTR)
        ;
    m->pid = 0;
    return str_trim(str_n(text, n));
}

static void submission_free(struct submission *m) {
    buf_free(&m->out);
    buf_free(&m->content);
    arena_free(m->arena);
    free(m);
}

/* --- the backend --- */
static error local_submit_open(void *ctx, struct arena *a, unsigned flags, struct submission **ret,
                               struct queue_id *ret_id, struct submit_result *ret_refused) {
    (void)a, (void)flags;
    struct submission *m = calloc(1, sizeof *m);
    if (!m)
        die_no_memory(sizeof *m);
    m->arena = arena_new();
    m->conf = ctx;
    error e = start_postdrop(m);
    if (e) {
        submission_free(m);
        return e;
    }
    /* for the log and the header: the name in the queue is given by postdrop, when it has the whole message */
    queue_id_make(ret_id, sys->wall_us(), (uint64_t)getpid(), conf_bool(m->conf, PARAM_enable_long_queue_ids));
    *ret_refused = (struct submit_result){ .status = SUBMIT_OK, .dsn = STR(""), .text = STR("") };
    *ret = m;
    return NULL;
}

static error local_submit_envelope(struct submission *m, const struct envelope *e) {
    maildrop_put(&m->out, MAILDROP_SENDER, e->sender);
    if (e->flags & ENVELOPE_8BIT)
        maildrop_put_u8(&m->out, MAILDROP_FLAGS, MAILDROP_8BIT);
    return NULL;
}

static error local_submit_rcpt(struct submission *m, const struct rcpt *r) {
    maildrop_put_rcpt(&m->out, r->dsn_notify, r->address);
    return NULL;
}

/* Nobody has access tables for a user's own session. */
static error no_submit_action(struct submission *m, enum submit_action action, struct str value) {
    (void)m, (void)action, (void)value;
    return &no_postdrop;
}

static error local_submit_content(struct submission *m, struct str bytes) {
    while (bytes.n) {
        struct str piece = str_sub(bytes, 0, MAILDROP_CONTENT_MAX);
        bytes = str_from(bytes, piece.n);
        if (m->content.n + piece.n > MAILDROP_CONTENT_MAX)
            flush_content(m);
        buf_add(&m->content, piece);
    }
    return NULL;
}

static error local_submit_end(struct submission *m, struct arena *a, struct submit_result *ret) {
    flush_content(m);
    maildrop_put(&m->out, MAILDROP_END, STR(""));
    send_out(m);
    int status = 0;
    struct str said = answer(m, &status);
    *ret = (struct submit_result){ .status = SUBMIT_TEMP, .dsn = STR("4.3.0"), .text = STR("") };
    struct str id = str_from(said, 3);
    if (str_starts(said, STR("OK ")) && queue_id_valid(id) && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        ret->status = SUBMIT_OK;
        memcpy(ret->id.text, id.p, id.n);
    }
    ret->text = arena_str(a, ret->text);
    submission_free(m);
    return NULL;
}

/* Without END postdrop keeps nothing. */
static void local_submit_abort(struct submission *m) {
    int status;
    (void)answer(m, &status);
    submission_free(m);
}

static void no_client_name(void *ctx, struct arena *a, const struct endpoint *client, struct dns_client *ret) {
    (void)ctx, (void)a, (void)client;
    *ret = (struct dns_client){ .name = STR("unknown"), .reverse_name = STR("unknown") };
}

static error no_check_address(void *ctx, struct arena *a, const struct route_question *q, struct route_check *ret) {
    (void)ctx, (void)a, (void)q, (void)ret;
    return &no_postdrop;
}

void standalone_backend(const struct conf *c, struct backend *ret) {
    union {
        const struct conf *in;
        void *out;
    } ctx = { .in = c };
    *ret = (struct backend){ .ctx = ctx.out,
                             .client_name = no_client_name,
                             .check_address = no_check_address,
                             .submit_open = local_submit_open,
                             .submit_envelope = local_submit_envelope,
                             .submit_rcpt = local_submit_rcpt,
                             .submit_action = no_submit_action,
                             .submit_content = local_submit_content,
                             .submit_end = local_submit_end,
                             .submit_abort = local_submit_abort };
}
