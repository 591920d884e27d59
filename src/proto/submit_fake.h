/* submit_fake.h - for unit tests of those who submit mail: plays cleanup on a unix socket and keeps what it is told.
 * Test only; include after test/test.h. The client finds it with service_ctx.standalone set and the working directory
 * above "public/". */
#ifndef ANGARIUM_PROTO_SUBMIT_FAKE_H
#define ANGARIUM_PROTO_SUBMIT_FAKE_H

#include "proto/submit.h"
#include <unistd.h>

enum { FAKE_MESSAGES = 16, FAKE_MESSAGE_RCPTS = 16 };

struct fake_message {
    unsigned flags;
    struct envelope env;
    struct rcpt rcpts[FAKE_MESSAGE_RCPTS];
    size_t rcpt_count;
    struct buf content;
    bool committed;
};

struct fake_cleanup {
    struct arena *arena;
    struct fake_message messages[FAKE_MESSAGES];
    size_t count;
    enum submit_status open_status, end_status; /* what to answer */
    int listen_fd;
    struct coro *coro;
};

static inline void fake_cleanup_message(void *ctx, struct submit_in *in) {
    struct fake_cleanup *f = ctx;
    struct fake_message *msg = NULL;
    struct queue_id id = { "" };
    struct submit_record m;
    while (!submit_in_next(in, &m)) {
        struct unpack u = unpack_from(arena_str(f->arena, m.payload));
        switch (m.type) {
        case SUBMIT_MSG_OPEN:
            assert_true(f->count < FAKE_MESSAGES);
            msg = &f->messages[f->count++];
            msg->flags = unpack_u32(&u);
            snprintf(id.text, sizeof(id.text), "NEW%zu", f->count);
            if (f->open_status == SUBMIT_OK) {
                submit_in_opened(in, &id);
                break;
            }
            submit_in_result(in, &(struct submit_result){
                                     .status = f->open_status, .id = id, .dsn = STR("4.3.1"), .text = STR("no room") });
            return;
        case SUBMIT_MSG_ENVELOPE:
            envelope_unpack(&u, &msg->env);
            break;
        case SUBMIT_MSG_RCPT:
            assert_true(msg->rcpt_count < FAKE_MESSAGE_RCPTS);
            rcpt_unpack(&u, &msg->rcpts[msg->rcpt_count++]);
            break;
        case SUBMIT_MSG_CONTENT:
            buf_add(&msg->content, m.payload);
            break;
        case SUBMIT_MSG_END:
            msg->committed = f->end_status == SUBMIT_OK;
            submit_in_result(
                in, &(struct submit_result){ .status = f->end_status,
                                             .id = id,
                                             .dsn = f->end_status == SUBMIT_OK ? STR("2.0.0") : STR("5.0.0"),
                                             .text = f->end_status == SUBMIT_OK ? STR("queued") : STR("not taken") });
            return;
        default:
            fail_msg("unknown record %d", m.type);
        }
    }
}

static inline void fake_cleanup_accept(void *arg) {
    struct fake_cleanup *f = arg;
    struct endpoint peer;
    int fd;
    struct submit_server server = { .message = fake_cleanup_message, .ctx = f, .held_max = SIZE_MAX };
    while (!io_accept(f->listen_fd, DEADLINE_NEVER, &peer, &fd)) {
        struct ipc *ipc = ipc_new(fd);
        assert_null(submit_serve(&server, ipc)); /* one after the other will do */
        ipc_close(ipc);
    }
}

/* In the loop's process, before loop_run(); `path` below the working directory. */
static inline void fake_cleanup_start(struct fake_cleanup *f, struct arena *a, struct str path) {
    f->arena = a;
    struct endpoint at;
    assert_true(endpoint_unix(path, &at));
    assert_null(listen_on(&at, 10, 0600, &f->listen_fd));
    f->coro = coro_spawn(fake_cleanup_accept, f, "fake cleanup");
    assert_non_null(f->coro);
}

static inline void fake_cleanup_stop(struct fake_cleanup *f) {
    coro_cancel(f->coro);
}

static inline void fake_cleanup_free(struct fake_cleanup *f) {
    close(f->listen_fd);
    for (size_t i = 0; i < f->count; i++)
        buf_free(&f->messages[i].content);
}
#endif
