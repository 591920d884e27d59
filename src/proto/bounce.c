#include "proto/bounce.h"

#include <errno.h>

enum {
    FAILURE_PACKED_MIN = 64,              /* fewer bytes than any packed failure takes */
    REQUEST_SOFT_MAX = IPC_FRAME_MAX / 2, /* a request is closed once it is this large: one failure more still fits */
};

static error send_one(struct ipc *ipc, const struct bounce_request *r, const struct spool_failure *rcpts, size_t count,
                      size_t *ret_sent, int64_t deadline, enum bounce_status *ret, struct queue_id *ret_notice) {
    struct buf head = { 0 }, list = { 0 };
    pack_u8(&head, (uint8_t)r->kind);
    pack_str(&head, queue_id_str(&r->id));
    content_pack(&head, &r->content);
    envelope_pack(&head, &r->env);
    size_t n = 0;
    while (n < count && head.n + list.n < REQUEST_SOFT_MAX)
        spool_failure_pack(&list, &rcpts[n++]);
    pack_u32(&head, (uint32_t)n);
    buf_add(&head, buf_str(&list));
    ipc_send(ipc, BOUNCE_MSG_REQUEST, buf_str(&head), r->content.fd);
    buf_free(&head);
    buf_free(&list);
    *ret_sent = n;

    struct ipc_msg m;
    error e = ipc_flush(ipc, deadline);
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
    do {
        size_t sent = 0;
        enum bounce_status status = BOUNCE_TEMP;
        struct queue_id notice = { 0 };
        error e = send_one(ipc, r, r->rcpts + at, r->rcpt_count - at, &sent, deadline, &status, &notice);
        if (e)
            return e;
        if (at == 0) {
            *ret = status;
            *ret_notice = notice;
        }
        if (status == BOUNCE_TEMP) {
            *ret = BOUNCE_TEMP;
            return NULL;
        }
        at += sent;
    } while (at < r->rcpt_count);
    return NULL;
}

bool bounce_unpack_request(struct ipc_msg *m, struct arena *a, struct bounce_request *ret) {
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
    size_t count = unpack_u32(&u);
    if (u.bad || count > u.rest.n / FAILURE_PACKED_MIN)
        return false;
    struct spool_failure *rcpts = arena_array(a, count, sizeof *rcpts);
    for (size_t i = 0; i < count; i++)
        spool_failure_unpack(&u, &rcpts[i]);
    if (!unpack_done(&u))
        return false;
    r.rcpts = rcpts;
    r.rcpt_count = count;
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
