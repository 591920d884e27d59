/* agent_fake.h - for unit tests of delivery agents: plays qmgr for one request over a socket pair and keeps what the
 * agent answered and logged. Test only; include after test/test.h. */
#ifndef ANGARIUM_DELIVER_AGENT_FAKE_H
#define ANGARIUM_DELIVER_AGENT_FAKE_H

#include "base/log.h"
#include "deliver/agent.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* The content goes in the request itself, not in a file. A row of a table of tests that has it so: */
static bool fake_in_frame;
#define FAKE_IN_FRAME(test)                                                                                            \
    { #test " (content in the frame)", test, fake_frame_on, fake_frame_off, NULL }
static inline int fake_frame_on(void **state) {
    (void)state;
    fake_in_frame = true;
    return 0;
}
static inline int fake_frame_off(void **state) {
    (void)state;
    fake_in_frame = false;
    return 0;
}

enum { FAKE_RCPTS = 8, FAKE_TIME = 60 };

struct fake_qmgr {
    struct arena *arena;
    struct service_ctx ctx;
    struct delivery_request req; /* its content is made from `content` */
    struct rcpt rcpts[FAKE_RCPTS];
    struct str content;
    void (*deliver)(struct agent_request *r);
    /* the answers; copied to the arena */
    struct delivery_result results[FAKE_RCPTS];
    size_t result_count;
    struct delivery_done done;
    error failed;
    bool leave;                          /* after the first answer */
    void (*before)(struct fake_qmgr *f); /* runs when there is a loop: more actors */
    struct buf log;                      /* each line with its LF */
    struct ipc *ends[2];
};

static inline void fake_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    struct fake_qmgr *f = ctx;
    (void)tag;
    (void)level;
    buf_add(&f->log, text);
    buf_byte(&f->log, '\n');
}

static inline struct conf *fake_conf(struct arena *a, const struct conf_override *overrides, size_t n) {
    struct conf *c = NULL;
    struct conf_source source = { .config_directory = STR("/nonexistent/angarium"),
                                  .overrides = overrides,
                                  .override_count = n,
                                  .process_name = STR("test"),
                                  .service_name = STR("test"),
                                  .missing_is_empty = true };
    error e = conf_load(&source, a, &c);
    if (e)
        print_error("conf: %.*s\n", STR_ARG(e->text));
    assert_null(e);
    return c;
}

static inline void fake_start(struct fake_qmgr *f, struct str service, void (*deliver)(struct agent_request *r),
                              const struct conf_override *overrides, size_t n) {
    *f = (struct fake_qmgr){ .arena = arena_new(), .deliver = deliver };
    f->ctx.conf = fake_conf(f->arena, overrides, n);
    f->ctx.name = service;
    f->ctx.mail_uid = getuid();
    f->ctx.mail_gid = getgid();
    int64_t now = sys->wall_us();
    f->req = (struct delivery_request){ .transport = service, .nexthop = STR("here.example") };
    memcpy(f->req.id.text, "ABC123", 7);
    f->req.env.arrival_us = f->req.active_us = f->req.sent_us = now;
    f->req.env.sender = STR("sender@there.example");
    f->req.env.rcpts = f->rcpts;
    f->content = STR("Subject: test\n\nhello\n");
}

static inline void fake_rcpt(struct fake_qmgr *f, struct str address, struct str orig) {
    f->rcpts[f->req.env.rcpt_count++] = (struct rcpt){ .address = address, .orig = orig };
}

static inline void fake_agent_side(void *arg) {
    struct fake_qmgr *f = arg;
    agent_serve(&f->ctx, f->ends[1], f->deliver);
}

static inline void fake_qmgr_side(void *arg) {
    struct fake_qmgr *f = arg;
    delivery_send_request(f->ends[0], &f->req);
    for (;;) {
        struct ipc_msg m;
        if ((f->failed = ipc_recv(f->ends[0], deadline_in(FAKE_TIME), &m)))
            break;
        struct delivery_result r;
        if (m.type == DELIVERY_MSG_DONE) {
            if (!delivery_unpack_done(&m, &f->done))
                f->failed = &err_limit;
            f->done.reason = arena_str(f->arena, f->done.reason);
            f->done.dsn = arena_str(f->arena, f->done.dsn);
            break;
        }
        if (!delivery_unpack_result(&m, &r) || f->result_count == FAKE_RCPTS) {
            f->failed = &err_limit;
            break;
        }
        r.address = arena_str(f->arena, r.address);
        r.dsn = arena_str(f->arena, r.dsn);
        r.reason = arena_str(f->arena, r.reason);
        r.diagnostic = arena_str(f->arena, r.diagnostic);
        f->results[f->result_count++] = r;
        if (f->leave)
            break;
    }
    ipc_close(f->ends[0]);
    f->ends[0] = NULL;
}

/* Send the request, collect until DONE. */
static inline void fake_run(struct fake_qmgr *f) {
    uint32_t index[FAKE_RCPTS];
    for (size_t i = 0; i < FAKE_RCPTS; i++)
        index[i] = (uint32_t)(100 + i);
    f->req.rcpt_index = index;
    f->req.content = (struct spool_content){ .fd = -1, .size = f->content.n };
    if (fake_in_frame) {
        f->req.content.bytes = f->content;
    } else {
        f->req.content.fd = memfd_create("content", MFD_CLOEXEC);
        f->req.content.offset = 5;
        assert_true(f->req.content.fd >= 0);
        assert_int_equal(pwrite(f->req.content.fd, f->content.p, f->content.n, 5), (ssize_t)f->content.n);
    }
    f->req.env.size = f->content.n;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    log_set_sink(fake_log, f);
    assert_null(loop_init());
    if (f->before)
        f->before(f);
    f->ends[0] = ipc_new(pair[0]);
    f->ends[1] = ipc_new(pair[1]);
    assert_non_null(coro_spawn(fake_agent_side, f, "agent"));
    assert_non_null(coro_spawn(fake_qmgr_side, f, "qmgr"));
    assert_null(loop_run());
    loop_free();
    ipc_close(f->ends[1]);
    content_release(&f->req.content);
    log_set_sink(NULL, NULL);
}

static inline void fake_end(struct fake_qmgr *f) {
    conf_free(f->ctx.conf);
    buf_free(&f->log);
    arena_free(f->arena);
}
#endif
