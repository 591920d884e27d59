#include "proto/verify.h"

#include "mail/address.h"

static const struct err malformed = { .kind = ERR_SYNTAX, .text = STR_INIT("malformed message of the verify service") };

/* --- conversations --- */
static bool unpack_answer(struct unpack *u, struct verify_answer *ret) {
    uint8_t status = unpack_u8(u);
    ret->text = str_sub(unpack_str(u), 0, VERIFY_TEXT_MAX);
    ret->status = (enum verify_status)status;
    return unpack_done(u) && status <= VERIFY_TODO;
}

static error converse(struct ipc *ipc, enum verify_msg type, struct buf *b, int64_t deadline, struct arena *a,
                      struct verify_answer *ret) {
    ipc_send(ipc, (uint8_t)type, buf_str(b), -1);
    buf_free(b);
    struct ipc_msg m = { .fd = -1 };
    error e = ipc_recv(ipc, deadline, &m);
    if (e)
        return e;
    struct unpack u = unpack_from(m.payload);
    struct verify_answer got;
    if (m.type != VERIFY_MSG_ANSWER || !unpack_answer(&u, &got))
        e = &malformed;
    else if (ret)
        *ret = (struct verify_answer){ got.status, arena_str(a, got.text) };
    ipc_msg_drop(&m);
    return e;
}

error verify_query(struct ipc *ipc, struct str address, int64_t deadline, struct arena *a, struct verify_answer *ret) {
    struct buf b = { 0 };
    pack_str(&b, address);
    return converse(ipc, VERIFY_MSG_QUERY, &b, deadline, a, ret);
}

static void pack_answer(struct buf *b, const struct verify_answer *is) {
    pack_u8(b, (uint8_t)is->status);
    pack_str(b, str_sub(is->text, 0, VERIFY_TEXT_MAX));
}

error verify_update(struct ipc *ipc, struct str address, const struct verify_answer *is, int64_t deadline) {
    struct buf b = { 0 };
    pack_str(&b, address);
    pack_answer(&b, is);
    return converse(ipc, VERIFY_MSG_UPDATE, &b, deadline, NULL, NULL);
}

bool verify_unpack(const struct ipc_msg *m, struct verify_request *ret) {
    struct unpack u = unpack_from(m->payload);
    *ret = (struct verify_request){ .type = (enum verify_msg)m->type, .address = unpack_str(&u) };
    if (ret->address.n == 0 || ret->address.n > ADDRESS_MAX)
        return false;
    if (m->type == VERIFY_MSG_UPDATE)
        return unpack_answer(&u, &ret->is);
    return m->type == VERIFY_MSG_QUERY && unpack_done(&u);
}

void verify_answer(struct ipc *ipc, const struct verify_answer *answer) {
    struct buf b = { 0 };
    pack_answer(&b, answer);
    ipc_send(ipc, VERIFY_MSG_ANSWER, buf_str(&b), -1);
    buf_free(&b);
}
