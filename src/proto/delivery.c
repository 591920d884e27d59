#include "proto/delivery.h"

enum {
    RCPT_PACKED_MIN = 21, /* bytes of a recipient with empty strings: bounds the counts a peer may claim */
    HEAD_USUAL = 500,     /* bytes of a request without content and recipients */
    RCPT_USUAL = 100,     /* and of a recipient */
};

void delivery_send_request(struct ipc *ipc, const struct delivery_request *r) {
    struct buf b = { 0 };
    buf_reserve(&b, HEAD_USUAL + r->content.bytes.n + r->env.rcpt_count * RCPT_USUAL); /* mostly all of it */
    pack_u32(&b, r->flags);
    pack_str(&b, queue_id_str(&r->id));
    pack_str(&b, r->transport);
    pack_str(&b, r->nexthop);
    pack_i64(&b, r->active_us);
    pack_i64(&b, r->sent_us);
    content_pack(&b, &r->content);
    envelope_pack(&b, &r->env);
    pack_u32(&b, (uint32_t)r->env.rcpt_count);
    for (size_t i = 0; i < r->env.rcpt_count; i++) {
        pack_u32(&b, r->rcpt_index[i]);
        rcpt_pack(&b, &r->env.rcpts[i]);
    }
    ipc_send(ipc, DELIVERY_MSG_REQUEST, buf_str(&b), r->content.fd);
    buf_free(&b);
}

bool delivery_unpack_request(struct ipc_msg *m, struct arena *a, struct delivery_request *ret) {
    if (m->type != DELIVERY_MSG_REQUEST)
        return false;
    struct unpack u = unpack_from(m->payload);
    struct delivery_request r = { 0 };
    r.flags = unpack_u32(&u);
    if (!queue_id_unpack(&u, &r.id))
        return false;
    r.transport = unpack_str(&u);
    r.nexthop = unpack_str(&u);
    r.active_us = unpack_i64(&u);
    r.sent_us = unpack_i64(&u);
    if (!content_unpack(&u, m, &r.content))
        return false;
    envelope_unpack(&u, &r.env);
    size_t count = unpack_u32(&u);
    if (u.bad || count == 0 || count > u.rest.n / RCPT_PACKED_MIN)
        return false;
    struct rcpt *rcpts = arena_array(a, count, sizeof *rcpts);
    uint32_t *index = arena_array(a, count, sizeof *index);
    for (size_t i = 0; i < count; i++) {
        index[i] = unpack_u32(&u);
        rcpt_unpack(&u, &rcpts[i]);
    }
    if (!unpack_done(&u))
        return false;
    r.env.rcpts = rcpts;
    r.env.rcpt_count = count;
    r.rcpt_index = index;
    m->fd = -1;
    *ret = r;
    return true;
}

void delivery_send_result(struct ipc *ipc, const struct delivery_result *r) {
    struct buf b = { 0 };
    pack_u32(&b, r->rcpt_index);
    pack_u8(&b, (uint8_t)r->status);
    pack_str(&b, r->address);
    pack_str(&b, r->dsn);
    pack_str(&b, r->action);
    pack_u8(&b, r->passed_on);
    pack_str(&b, r->reason);
    pack_str(&b, r->diagnostic_type);
    pack_str(&b, r->diagnostic);
    pack_str(&b, r->remote_type);
    pack_str(&b, r->remote_mta);
    ipc_send(ipc, DELIVERY_MSG_RESULT, buf_str(&b), -1);
    buf_free(&b);
}

bool delivery_unpack_result(const struct ipc_msg *m, struct delivery_result *ret) {
    if (m->type != DELIVERY_MSG_RESULT)
        return false;
    struct unpack u = unpack_from(m->payload);
    struct delivery_result r = { .rcpt_index = unpack_u32(&u) };
    unsigned status = unpack_u8(&u);
    r.address = unpack_str(&u);
    r.dsn = unpack_str(&u);
    r.action = unpack_str(&u);
    r.passed_on = unpack_u8(&u);
    r.reason = unpack_str(&u);
    r.diagnostic_type = unpack_str(&u);
    r.diagnostic = unpack_str(&u);
    r.remote_type = unpack_str(&u);
    r.remote_mta = unpack_str(&u);
    if (!unpack_done(&u) || status < DELIVERY_SENT || status > DELIVERY_BOUNCED)
        return false;
    r.status = (enum delivery_status)status;
    *ret = r;
    return true;
}

void delivery_send_done(struct ipc *ipc, const struct delivery_done *d) {
    struct buf b = { 0 };
    pack_u8(&b, d->destination_dead);
    pack_str(&b, d->reason);
    pack_str(&b, d->dsn);
    ipc_send(ipc, DELIVERY_MSG_DONE, buf_str(&b), -1);
    buf_free(&b);
}

bool delivery_unpack_done(const struct ipc_msg *m, struct delivery_done *ret) {
    if (m->type != DELIVERY_MSG_DONE)
        return false;
    struct unpack u = unpack_from(m->payload);
    unsigned dead = unpack_u8(&u);
    struct delivery_done d = { .destination_dead = dead != 0 };
    d.reason = unpack_str(&u);
    d.dsn = unpack_str(&u);
    if (!unpack_done(&u) || dead > 1)
        return false;
    *ret = d;
    return true;
}
