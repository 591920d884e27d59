/* submit_fuzz.c - whatever a peer sends on a submission connection. The first byte says which end we are: cleanup
 * (even) or a client with two messages (odd). What must hold: it ends, and nothing is held after it. */
#include "proto/submit.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct submit_server server;
static struct ipc *ours;
static struct submit_link *link_;
static struct arena *arena;
static volatile unsigned sink;

static void touch(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        sink += (unsigned char)s.p[i];
}

/* Whoever writes END is answered, others are heard to their end. */
static void take(void *ctx, struct submit_in *in) {
    (void)ctx;
    struct submit_record r;
    while (!submit_in_next(in, &r)) {
        touch(r.payload);
        if (r.type == SUBMIT_MSG_OPEN)
            submit_in_opened(in, &(struct queue_id){ "ABC" });
        if (r.type == SUBMIT_MSG_END) {
            submit_in_result(in, &(struct submit_result){ .status = SUBMIT_TEMP });
            return;
        }
    }
}

static void serve(void *arg) {
    (void)arg;
    submit_serve(&server, ours);
    if (server.held || server.conns)
        abort();
    ipc_close(ours);
}

static void submit_one(void *arg) {
    (void)arg;
    struct submit *m;
    struct queue_id id;
    struct submit_result r;
    int64_t deadline = deadline_in(60);
    if (submit_open(link_, 0, deadline, arena, &m, &id, &r) || r.status != SUBMIT_OK)
        return;
    if (!queue_id_valid(queue_id_str(&id)))
        abort();
    submit_content(m, STR("A: b\n\nc\n"), deadline);
    if (!submit_end(m, deadline, arena, &r)) {
        touch(r.dsn);
        touch(r.text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int pair[2];
    if (size < 1 || size > 64 * 1024 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return 0;
    bool client = data[0] & 1;
    if (loop_init() || write(pair[1], data + 1, size - 1) != (ssize_t)size - 1)
        abort();
    shutdown(pair[1], SHUT_WR);
    arena = arena_new();
    ours = ipc_new(pair[0]);
    server = (struct submit_server){ .message = take, .held_max = 4096 };
    if (client) {
        link_ = submit_link_new(ours);
        coro_spawn(submit_one, NULL, "one");
        coro_spawn(submit_one, NULL, "two");
    } else {
        coro_spawn(serve, NULL, "serve");
    }
    if (loop_run())
        abort();
    if (client)
        submit_link_close(link_);
    close(pair[1]);
    loop_free();
    arena_free(arena);
    return 0;
}
