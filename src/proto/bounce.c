#include "proto/bounce.h"

#include <errno.h>

enum {
    FAILURE_PACKED_MIN = 64,            /* fewer bytes than any packed failure takes */
    FRAME_SOFT_MAX = IPC_FRAME_MAX / 2, /* a frame is closed once it is this large: one failure more still fits */
};

/* A count and as many failures as go into a frame; `*at` is moved on. */
static void pack_some(struct buf *b, const struct bounce_request *r, size_t *at) {
    struct buf list = { 0 };
    size_t n = 0;
    while (*at < r->rcpt_count && b->n + list.n < FRAME_SOFT_MAX) {
        spool_failure_pack(&list, &r->rcpts[(*at)++]);
        n++;
    }
    pack_u32(b, (uint32_t)n);
    buf_add(b, buf_str(&list));
    buf_free(&list);
}

/* All but the last frame, each on its way before the next is made. The failures of the last one are in `last`. */
static error send_ahead(struct ipc *ipc, const struct bounce_request *r, size_t *at, int64_t deadline,
                        struct buf *last) {
    size_t bytes = 0;
    for (;;) {
        buf_clear(last);
        pack_some(last, r, at);
        bytes += last->n;
        if (*at == r->rcpt_count || bytes + IPC_FRAME_MAX > BOUNCE_BYTES_MAX)
            return NULL;
        ipc_send(ipc, BOUNCE_MSG_MORE, buf_str(last), -1);
        error e = ipc_flush(ipc, deadline);
        if (e)
            return e;
    }
}

static error send_one(struct ipc *ipc, const struct bounce_request *r, size_t *at, int64_t deadline,
                      enum bounce_status *ret, struct queue_id *ret_notice) {
    struct buf head = { 0 }, last = { 0 };
    error e = send_ahead(ipc, r, at, deadline, &last);
    pack_u8(&head, (uint8_t)r->kind);
    pack_str(&head, queue_id_str(&r->id));
    content_pack(&head, &r->content);
    envelope_pack(&head, &r->env);
    buf_add(&head, buf_str(&last));
    if (!e) {
        ipc_send(ipc, BOUNCE_MSG_REQUEST, buf_str(&head), r->content.fd);
        e = ipc_flush(ipc, deadline);
    }
    buf_free(&head);
    buf_free(&last);

    struct ipc_msg m;
    if (!e)
        e = ipc_recv(ipc, deadline, &m);
    if (e)
        return e;
    ipc_msg_drop(&m); /* an answer has no descriptor */
    struct unpack u = unpack_from(m.payload);
    unsigned status = unpack_u8(&u);
    struct str id = unpack_str(&u);
    if (m.type != BOUNCE_MSG_RESULT || !unpack_done(&u) || status > BOUNCE_NOTHING ||
        (id.n && !queue_id_from(id, ret_notice)))
        return err_errno(EPROTO);
    if (!id.n)
        *ret_notice = (struct queue_id){ 0 };
    *ret = (enum bounce_status)status;
    return NULL;
}

error bounce_send(struct ipc *ipc, const struct bounce_request *r, int64_t deadline, enum bounce_status *ret,
                  struct queue_id *ret_notice) {
    size_t at = 0;
    for (bool first = true; first || at < r->rcpt_count; first = false) {
        enum bounce_status status = BOUNCE_TEMP;
        struct queue_id notice = { 0 };
        error e = send_one(ipc, r, &at, deadline, &status, &notice);
        if (e)
            return e;
        if (first) {
            *ret = status;
            *ret_notice = notice;
        }
        if (status == BOUNCE_TEMP) {
            *ret = BOUNCE_TEMP;
            return NULL;
        }
    }
    return NULL;
}

static bool unpack_some(struct unpack *u, struct arena *a, struct bounce_ahead *list) {
    size_t count = unpack_u32(u);
    if (u->bad || count > u->rest.n / FAILURE_PACKED_MIN)
        return false;
    for (size_t i = 0; i < count; i++)
        spool_failure_unpack(u, vec_add(a, &list->rcpts));
    return unpack_done(u);
}

bool bounce_unpack_more(const struct ipc_msg *m, struct arena *a, struct bounce_ahead *ahead) {
    ahead->bytes += m->payload.n;
    if (m->type != BOUNCE_MSG_MORE || ahead->bytes > BOUNCE_BYTES_MAX)
        return false;
    struct unpack u = unpack_from(arena_str(a, m->payload));
    return unpack_some(&u, a, ahead);
}

bool bounce_unpack_request(struct ipc_msg *m, struct arena *a, const struct bounce_ahead *ahead,
                           struct bounce_request *ret) {
    if (m->type != BOUNCE_MSG_REQUEST)
        return false;
    struct unpack u = unpack_from(m->payload);
    struct bounce_request r = { 0 };
    unsigned kind = unpack_u8(&u);
    if (kind < BOUNCE_FAILED || kind > BOUNCE_SUCCESS || !queue_id_unpack(&u, &r.id))
        return false;
    r.kind = (enum bounce_kind)kind;
    if (!content_unpack(&u, m, &r.content))
        return false;
    envelope_unpack(&u, &r.env);
    struct bounce_ahead all = *ahead;
    if (!unpack_some(&u, a, &all))
        return false;
    r.rcpts = all.rcpts.at;
    r.rcpt_count = all.rcpts.n;
    m->fd = -1;
    *ret = r;
    return true;
}

void bounce_reply(struct ipc *ipc, enum bounce_status status, const struct queue_id *notice_or_null) {
    struct buf b = { 0 };
    pack_u8(&b, (uint8_t)status);
    pack_str(&b, notice_or_null ? queue_id_str(notice_or_null) : STR(""));
    ipc_send(ipc, BOUNCE_MSG_RESULT, buf_str(&b), -1);
    buf_free(&b);
}
