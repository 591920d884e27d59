#include "proto/lookup.h"

enum { ASK_MAX = LOOKUP_SPEC_MAX + LOOKUP_KEY_MAX + LOOKUP_VALUE_MAX };

static const struct err too_long = {
    .kind = ERR_LIMIT, .dsn = STR_INIT(""), .text = STR_INIT("key or value is too long"), .detail = STR_INIT("")
};
static const struct err bad_answer = {
    .kind = ERR_SYNTAX, .dsn = STR_INIT(""), .text = STR_INIT("malformed answer"), .detail = STR_INIT("")
};
static const struct err bad_question = {
    .kind = ERR_PERM, .dsn = STR_INIT(""), .text = STR_INIT("malformed question"), .detail = STR_INIT("")
};

static bool question_fits(const struct table_question *q) {
    return q->spec.n <= LOOKUP_SPEC_MAX && q->key.n <= LOOKUP_KEY_MAX && q->value.n <= LOOKUP_VALUE_MAX;
}

error lookup_ask(struct ipc *ipc, const struct table_question *q, int64_t deadline, struct arena *a,
                 enum table_result *ret, struct str *ret_key, struct str *ret_value, struct str *ret_why) {
    if (!question_fits(q))
        return &too_long;
    struct buf b = { 0 };
    pack_u8(&b, (uint8_t)q->what);
    pack_u8(&b, q->proxied);
    pack_u32(&b, q->flags);
    pack_str(&b, q->spec);
    pack_str(&b, q->key);
    pack_str(&b, q->value);
    ipc_send(ipc, LOOKUP_ASK, buf_str(&b), -1);
    buf_free(&b);
    struct ipc_msg m = { .fd = -1 };
    error e = ipc_recv(ipc, deadline, &m);
    if (e)
        return e;
    struct unpack u = unpack_from(m.payload);
    uint8_t result = unpack_u8(&u);
    struct str key = unpack_str(&u), value = unpack_str(&u), why = unpack_str(&u);
    if (m.type != LOOKUP_ANSWER || m.fd >= 0 || !unpack_done(&u) || result > TABLE_ERROR) {
        ipc_msg_drop(&m);
        return &bad_answer;
    }
    *ret = (enum table_result)result;
    *ret_key = arena_str(a, key);
    *ret_value = arena_str(a, value);
    *ret_why = arena_str(a, why);
    return NULL;
}

error lookup_read(const struct ipc_msg *m, struct table_question *ret) {
    if (m->type != LOOKUP_ASK || m->fd >= 0 || m->payload.n > ASK_MAX + 64)
        return &bad_question;
    struct unpack u = unpack_from(m->payload);
    uint8_t what = unpack_u8(&u), proxied = unpack_u8(&u);
    struct table_question q = { .proxied = proxied, .flags = unpack_u32(&u) };
    q.spec = unpack_str(&u);
    q.key = unpack_str(&u);
    q.value = unpack_str(&u);
    if (!unpack_done(&u) || what < TABLE_ASK_GET || what > TABLE_ASK_NEXT || proxied > 1 ||
        q.flags & ~(unsigned)TABLE_ASKED_FLAGS || !question_fits(&q))
        return &bad_question;
    q.what = (enum table_ask)what;
    *ret = q;
    return NULL;
}

error lookup_answer(struct ipc *ipc, int64_t deadline, enum table_result result, struct str key, struct str value,
                    struct str why) {
    struct buf b = { 0 };
    if (key.n > LOOKUP_KEY_MAX || value.n > LOOKUP_VALUE_MAX) {
        result = TABLE_ERROR;
        key = value = STR("");
        why = STR("the value is too long");
    }
    pack_u8(&b, (uint8_t)result);
    pack_str(&b, key);
    pack_str(&b, value);
    pack_str(&b, str_sub(why, 0, LOOKUP_SPEC_MAX));
    ipc_send(ipc, LOOKUP_ANSWER, buf_str(&b), -1);
    buf_free(&b);
    return ipc_flush(ipc, deadline);
}
