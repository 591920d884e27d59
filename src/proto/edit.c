#include "proto/edit.h"

#include <errno.h>

enum { ID_MIN = 5 /* a length and a byte */ };

static const struct err later = { .kind = ERR_TEMP, .text = STR_INIT("the queue manager is not in office yet") };
static const struct err forbidden = { .kind = ERR_PERM, .text = STR_INIT("not allowed to change the queue") };

error edit_open(struct str path, int64_t deadline, struct ipc **ret) {
    struct ipc *ipc = NULL;
    struct ipc_msg m = { .fd = -1 };
    error e = ipc_connect(path, deadline, &ipc);
    if (e)
        return e;
    ipc_send(ipc, EDIT_MSG_OPEN, STR(""), -1);
    if (!(e = ipc_flush(ipc, deadline)) && !(e = ipc_recv(ipc, deadline, &m))) {
        struct unpack u = unpack_from(m.payload);
        uint8_t w = unpack_u8(&u);
        if (m.type != EDIT_MSG_OPENED || !unpack_done(&u))
            e = err_errno(EPROTO);
        else if (w != EDIT_WELCOME)
            e = w == EDIT_FORBIDDEN ? &forbidden : &later;
    }
    ipc_msg_drop(&m);
    if (e) {
        ipc_close(ipc);
        return e;
    }
    *ret = ipc;
    return NULL;
}

error edit_ask(struct ipc *ipc, const struct edit_request *r, int64_t deadline, enum queue_edited *ret) {
    struct buf b = { 0 };
    struct ipc_msg m = { .fd = -1 };
    pack_u8(&b, (uint8_t)r->what);
    pack_u32(&b, r->states);
    pack_u32(&b, (uint32_t)r->count);
    for (size_t i = 0; i < r->count; i++)
        pack_str(&b, queue_id_str(&r->ids[i]));
    ipc_send(ipc, EDIT_MSG_EDIT, buf_str(&b), -1);
    buf_free(&b);
    error e = ipc_flush(ipc, deadline);
    if (!e)
        e = ipc_recv(ipc, deadline, &m);
    if (!e && (m.type != EDIT_MSG_EDITED || m.payload.n != r->count))
        e = err_errno(EPROTO);
    for (size_t i = 0; i < r->count && !e; i++) {
        uint8_t result = (uint8_t)m.payload.p[i];
        if (result > QUEUE_FAILED)
            e = err_errno(EPROTO);
        else
            ret[i] = (enum queue_edited)result;
    }
    ipc_msg_drop(&m);
    return e;
}

void edit_welcome(struct ipc *ipc, enum edit_welcome w) {
    struct buf b = { 0 };
    pack_u8(&b, (uint8_t)w);
    ipc_send(ipc, EDIT_MSG_OPENED, buf_str(&b), -1);
    buf_free(&b);
}

bool edit_unpack(const struct ipc_msg *m, struct arena *a, struct edit_request *ret) {
    struct unpack u = unpack_from(m->payload);
    uint8_t what = unpack_u8(&u);
    unsigned states = unpack_u32(&u);
    size_t count = unpack_u32(&u);
    if (m->type != EDIT_MSG_EDIT || u.bad || what < QUEUE_DELETE || what > QUEUE_EXPIRE ||
        (states & ~QUEUE_STATES_ALL) || count > EDIT_IDS_MAX || count > u.rest.n / ID_MIN)
        return false;
    struct queue_id *ids = arena_array(a, count, sizeof *ids);
    for (size_t i = 0; i < count; i++)
        if (!queue_id_unpack(&u, &ids[i]))
            return false;
    if (!unpack_done(&u))
        return false;
    *ret = (struct edit_request){ (enum queue_edit)what, states, ids, count };
    return true;
}

void edit_answer(struct ipc *ipc, const enum queue_edited *results, size_t count) {
    struct buf b = { 0 };
    for (size_t i = 0; i < count; i++)
        pack_u8(&b, (uint8_t)results[i]);
    ipc_send(ipc, EDIT_MSG_EDITED, buf_str(&b), -1);
    buf_free(&b);
}
