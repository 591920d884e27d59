/* What a login server says, in whatever pieces: the connection is used or given up, every login ends. */
#include "sasl/dovecot.h"

#include "run/loop.h"
#include "test/fake_sys.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct str said;

static void speak(void *arg) {
    struct io *io = arg;
    struct str line;
    /* the first line of the input answers the connection, each that follows one line of the client */
    struct str rest = said, piece;
    while (str_next(&rest, STR("\x1e"), &piece)) {
        io_write(io, piece);
        if (io_flush(io, deadline_in(1)))
            break;
        if (io_line(io, 64 * 1024, deadline_in(1), &line))
            break;
    }
    io_close(io);
}

static error dial(void *ctx, int64_t deadline, struct io **ret) {
    (void)ctx, (void)deadline;
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
        abort();
    *ret = io_new(fds[0]);
    coro_spawn(speak, io_new(fds[1]), "server");
    return NULL;
}

static void log_in(void *arg) {
    struct sasl_server *s = arg;
    struct sasl_peer peer = { .service = STR("smtp"), .address = STR("192.0.2.1") };
    struct sasl_policy any = { 0 };
    struct arena *a = arena_new();
    struct sasl_mechanism *m;
    size_t n;
    struct str empty = STR("");
    if (!s->ops->mechanisms(s, &peer, &any, deadline_in(20), a, &m, &n))
        for (size_t i = 0; i < n; i++)
            if (m[i].name.n == 0 || m[i].name.n > SASL_MECHANISM_NAME_MAX)
                abort();
    for (int i = 0; i < 3; i++) {
        struct sasl_answer answer;
        struct sasl_exchange *x =
            s->ops->begin(s, &peer, &any, STR("PLAIN"), i ? &empty : NULL, deadline_in(20), a, &answer);
        if ((x != NULL) != (answer.outcome == LOGIN_MORE))
            abort();
        for (int k = 0; answer.outcome == LOGIN_MORE; k++) {
            if (k == 4) {
                s->ops->cancel(x);
                break;
            }
            if (!sasl_base64_valid(answer.challenge))
                abort();
            s->ops->respond(x, STR("AAAA"), deadline_in(20), a, &answer);
        }
        if (answer.outcome == LOGIN_OK && (answer.username.n == 0 || answer.username.n > SASL_USERNAME_MAX + 3))
            abort();
    }
    arena_free(a);
    dovecot_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 64 * 1024)
        return 0;
    said = str_n((const char *)data, size);
    fake_sys_install();
    if (loop_init())
        abort();
    coro_spawn(log_in, dovecot_new(dial, NULL), "login");
    if (loop_run())
        abort();
    loop_free();
    fake_sys_remove();
    return 0;
}
