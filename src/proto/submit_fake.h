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

static inline void fake_cleanup_session(struct fake_cleanup *f, struct ipc *ipc) {
    struct ipc_msg m = { .fd = -1 };
    struct fake_message *msg = NULL;
    while (!ipc_recv(ipc, deadline_in(60), &m)) {
        struct unpack u = unpack_from(arena_str(f->arena, m.payload));
        struct queue_id id;
        switch (m.type) {
        case SUBMIT_MSG_OPEN:
            assert_true(f->count < FAKE_MESSAGES);
            msg = &f->messages[f->count++];
            msg->flags = unpack_u32(&u);
            snprintf(id.text, sizeof(id.text), "NEW%zu", f->count);
            if (f->open_status == SUBMIT_OK) {
                submit_reply_opened(ipc, &id);
            } else {
                struct submit_result r = {
                    .status = f->open_status, .id = id, .dsn = STR("4.3.1"), .text = STR("no room")
                };
                submit_reply_result(ipc, &r);
            }
            break;
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
        case SUBMIT_MSG_END: {
            snprintf(id.text, sizeof(id.text), "NEW%zu", f->count);
            struct submit_result r = { .status = f->end_status,
                                       .id = id,
                                       .dsn = f->end_status == SUBMIT_OK ? STR("2.0.0") : STR("5.0.0"),
                                       .text = f->end_status == SUBMIT_OK ? STR("queued") : STR("not taken") };
            msg->committed = f->end_status == SUBMIT_OK;
            submit_reply_result(ipc, &r);
            break;
        }
        default:
            fail_msg("unknown message %d", m.type);
        }
        if (ipc_flush(ipc, deadline_in(60)))
            break;
    }
    ipc_msg_drop(&m);
}

static inline void fake_cleanup_accept(void *arg) {
    struct fake_cleanup *f = arg;
    struct endpoint peer;
    int fd;
    while (!io_accept(f->listen_fd, DEADLINE_NEVER, &peer, &fd)) {
        struct ipc *ipc = ipc_new(fd);
        fake_cleanup_session(f, ipc); /* one after the other will do */
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
