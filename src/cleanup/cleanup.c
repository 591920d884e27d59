#include "cleanup/cleanup.h"

#include "base/log.h"
#include "cleanup/message.h"

#include <errno.h>

struct cleanup_session { /* lives on its coroutine's stack */
    struct cleanup_session *next, **back;
    struct coro *coro;
};

enum { REPLY_SECONDS = 100 /* for the client to take a reply */ };

error cleanup_open(struct cleanup *s, const struct conf *c, struct arena *err_arena) {
    *s = (struct cleanup){ .c = c, .rules = content_rules(c) };
    struct spool_options options = spool_options_from(c, SPOOL_WRITER);
    error e = spool_open(&options, err_arena, &s->spool);
    if (e)
        return e;
    s->router = router_new(c);
    s->sender_bcc = maps_open(c, conf_str(c, PARAM_sender_bcc_maps), TABLE_FOLD | TABLE_NO_REGSUB);
    s->recipient_bcc = maps_open(c, conf_str(c, PARAM_recipient_bcc_maps), TABLE_FOLD | TABLE_NO_REGSUB);
    return NULL;
}

void cleanup_close(struct cleanup *s) {
    maps_close(s->sender_bcc);
    maps_close(s->recipient_bcc);
    router_free(s->router);
    spool_close(s->spool);
}

void cleanup_drain(struct cleanup *s) {
    s->draining = true;
    for (struct cleanup_session *i = s->idle; i; i = i->next)
        coro_cancel(i->coro);
}

static error wait_for_open(struct cleanup *s, struct ipc *ipc, struct ipc_msg *m) {
    struct cleanup_session me = { .next = s->idle, .back = &s->idle, .coro = coro_self() };
    s->idle = &me;
    if (me.next)
        me.next->back = &me.next;
    error e = ipc_recv(ipc, DEADLINE_NEVER, m);
    *me.back = me.next;
    if (me.next)
        me.next->back = me.back;
    return e;
}

/* The frames of one message up to END. False: there will be no result, the connection is of no more use. */
static bool receive(struct message *m, struct ipc *ipc) {
    for (;;) {
        struct ipc_msg msg;
        error e = ipc_recv(ipc, DEADLINE_NEVER, &msg);
        if (e) {
            log_info("%s: removed (canceled)", m->id.text);
            return false;
        }
        bool good = false, done = false;
        switch (msg.type) {
        case SUBMIT_MSG_ENVELOPE:
            good = message_envelope(m, msg.payload);
            break;
        case SUBMIT_MSG_FULL_NAME:
            good = message_full_name(m, msg.payload);
            break;
        case SUBMIT_MSG_RCPT:
            good = message_rcpt(m, msg.payload);
            break;
        case SUBMIT_MSG_CONTENT:
            good = message_content(m, msg.payload);
            break;
        case SUBMIT_MSG_END:
            good = done = m->has_envelope && msg.payload.n == 0;
            break;
        }
        ipc_msg_drop(&msg);
        if (!good) {
            log_warn("%s: unexpected or malformed request of type %u", m->id.text, msg.type);
            struct submit_result bad = {
                .status = SUBMIT_BAD, .id = m->id, .dsn = STR("4.3.0"), .text = STR("Error: internal protocol error")
            };
            submit_reply_result(ipc, &bad);
            ipc_flush(ipc, deadline_in(REPLY_SECONDS));
            return false;
        }
        if (done)
            return true;
    }
}

static void refuse_open(struct ipc *ipc, error e) {
    bool full = e->kind == ERR_SYS && (e->sys == ENOSPC || e->sys == EDQUOT);
    log_warn("create queue file: %.*s", STR_ARG(e->text));
    struct submit_result r = { .status = SUBMIT_TEMP,
                               .dsn = STR("4.3.0"),
                               .text = STR("Error: queue file write error") };
    if (full)
        r = (struct submit_result){ .status = SUBMIT_NO_SPACE,
                                    .dsn = STR("4.3.1"),
                                    .text = STR("Insufficient system storage") };
    submit_reply_result(ipc, &r);
}

/* One message. False: the connection is over. */
static bool serve_message(struct cleanup *s, struct ipc *ipc, unsigned flags) {
    struct message m = { .s = s, .flags = flags, .status = SUBMIT_OK, .full_name = STR("") };
    error e = spool_create(s->spool, &m.file);
    if (e) {
        refuse_open(ipc, e);
        return ipc_flush(ipc, deadline_in(REPLY_SECONDS)) == NULL;
    }
    m.id = *spool_new_id(m.file);
    m.arena = arena_new();
    submit_reply_opened(ipc, &m.id);
    bool whole = receive(&m, ipc);
    if (whole) {
        struct submit_result result;
        message_end(&m, &result);
        submit_reply_result(ipc, &result);
        whole = ipc_flush(ipc, deadline_in(REPLY_SECONDS)) == NULL;
        if (result.status == SUBMIT_OK && !(m.env.flags & ENVELOPE_HOLD) && s->queued)
            s->queued(s->ctx, &m.id);
    }
    if (m.file)
        spool_abort(m.file);
    if (m.content_begun)
        content_free(&m.content);
    arena_free(m.arena);
    return whole;
}

void cleanup_serve(struct cleanup *s, struct ipc *ipc) {
    while (!s->draining) {
        struct ipc_msg m;
        if (wait_for_open(s, ipc, &m))
            return;
        struct unpack u = unpack_from(m.payload);
        unsigned flags = unpack_u32(&u);
        bool good = m.type == SUBMIT_MSG_OPEN && unpack_done(&u);
        ipc_msg_drop(&m);
        if (!good) {
            log_warn("unexpected request of type %u instead of a new message", m.type);
            return;
        }
        if (!serve_message(s, ipc, flags))
            return;
    }
}
