#include "proto/login.h"

#include "base/pack.h"

static const struct err bad_answer = {
    .kind = ERR_SYNTAX, .dsn = STR_INIT(""), .text = STR_INIT("malformed answer"), .detail = STR_INIT("")
};
static const struct err too_long = {
    .kind = ERR_LIMIT, .dsn = STR_INIT(""), .text = STR_INIT("the login is too long"), .detail = STR_INIT("")
};

static error ask(struct ipc *ipc, enum login_msg type, struct buf *payload, int64_t deadline, struct arena *a,
                 struct login_move *ret) {
    bool fits = payload->n <= LOGIN_PAYLOAD_MAX;
    if (fits)
        ipc_send(ipc, (uint8_t)type, buf_str(payload), -1);
    buf_wipe(payload);
    if (!fits)
        return &too_long;
    struct ipc_msg m = { .fd = -1 };
    error e = ipc_recv(ipc, deadline, &m);
    if (e)
        return e;
    struct unpack u = unpack_from(m.payload);
    uint8_t what = unpack_u8(&u), has = unpack_u8(&u);
    struct str fields[5];
    for (size_t i = 0; i < 5; i++)
        fields[i] = unpack_str(&u);
    if (m.type != LOGIN_MOVE || m.fd >= 0 || !unpack_done(&u) || what > LOGIN_MOVE_GIVE_UP || has > 1) {
        ipc_msg_drop(&m);
        return &bad_answer;
    }
    *ret = (struct login_move){ .what = (enum login_move_what)what, .has_response = has };
    struct str *to[] = { &ret->mechanism, &ret->response, &ret->why, &ret->log, &ret->available };
    for (size_t i = 0; i < 5; i++)
        *to[i] = arena_str(a, fields[i]);
    str_wipe(fields[1]);
    return NULL;
}

error login_begin_ask(struct ipc *ipc, const struct login_begin *b, int64_t deadline, struct arena *a,
                      struct login_move *ret) {
    struct buf p = { 0 };
    const struct str fields[] = { b->service,    b->host,     b->local,   b->remote,
                                  b->mechanisms, b->username, b->authzid, b->password };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        pack_str(&p, fields[i]);
    pack_u32(&p, b->forbidden);
    pack_u32(&p, b->required);
    return ask(ipc, LOGIN_BEGIN, &p, deadline, a, ret);
}

error login_step_ask(struct ipc *ipc, struct str challenge, int64_t deadline, struct arena *a, struct login_move *ret) {
    struct buf p = { 0 };
    pack_str(&p, challenge);
    return ask(ipc, LOGIN_STEP, &p, deadline, a, ret);
}

bool login_begin_read(const struct ipc_msg *m, struct login_begin *ret) {
    struct unpack u = unpack_from(m->payload);
    struct str *fields[] = { &ret->service,    &ret->host,     &ret->local,   &ret->remote,
                             &ret->mechanisms, &ret->username, &ret->authzid, &ret->password };
    if (m->type != LOGIN_BEGIN || m->fd >= 0 || m->payload.n > LOGIN_PAYLOAD_MAX)
        return false;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        *fields[i] = unpack_str(&u);
    ret->forbidden = unpack_u32(&u);
    ret->required = unpack_u32(&u);
    return unpack_done(&u);
}

bool login_step_read(const struct ipc_msg *m, struct str *ret_challenge) {
    struct unpack u = unpack_from(m->payload);
    *ret_challenge = unpack_str(&u);
    return m->type == LOGIN_STEP && m->fd < 0 && m->payload.n <= LOGIN_PAYLOAD_MAX && unpack_done(&u);
}

error login_move_answer(struct ipc *ipc, const struct login_move *m, int64_t deadline) {
    struct buf p = { 0 };
    pack_u8(&p, (uint8_t)m->what);
    pack_u8(&p, m->has_response);
    const struct str fields[] = { m->mechanism, m->response, m->why, m->log, m->available };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        pack_str(&p, fields[i]);
    ipc_send(ipc, LOGIN_MOVE, buf_str(&p), -1);
    buf_wipe(&p);
    return ipc_flush(ipc, deadline);
}
