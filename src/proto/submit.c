#include "proto/submit.h"

enum {
    CONTENT_FRAME = 64 * 1024,  /* most content bytes in one frame: what cleanup has in memory of a message at a time */
    CONTENT_UNSENT = 32 * 1024, /* gathered before submit_content() sends */
    TEXT_MAX = 2000,            /* bytes of a reply text that are believed */
};

static const struct err malformed = { .kind = ERR_SYNTAX,
                                      .dsn = STR_INIT(""),
                                      .text = STR_INIT("malformed answer from the cleanup service"),
                                      .detail = STR_INIT("") };

int submit_status_code(enum submit_status s) {
    static const int codes[] = {
        [SUBMIT_OK] = 250,   [SUBMIT_TEMP] = 451,    [SUBMIT_NO_SPACE] = 452, [SUBMIT_TOO_LARGE] = 552,
        [SUBMIT_HOPS] = 554, [SUBMIT_CONTENT] = 550, [SUBMIT_NO_RCPT] = 550,  [SUBMIT_BAD] = 451,
    };
    return (unsigned)s < sizeof codes / sizeof codes[0] ? codes[s] : 451;
}

static bool unpack_id(struct unpack *u, bool may_be_empty, struct queue_id *ret) {
    struct str id = unpack_str(u);
    *ret = (struct queue_id){ 0 };
    if (u->bad || id.n >= QUEUE_ID_MAX)
        return false;
    if (id.n == 0)
        return may_be_empty;
    if (!queue_id_valid(id))
        return false;
    memcpy(ret->text, id.p, id.n);
    return true;
}

/* A text that goes into an SMTP reply: one line, nothing that could end it early. */
static bool text_valid(struct str s) {
    if (s.n > TEXT_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
            return false;
    return true;
}

static error unpack_result(const struct ipc_msg *m, struct submit_result *ret) {
    struct unpack u = unpack_from(m->payload);
    uint8_t status = unpack_u8(&u);
    struct submit_result r = { .status = (enum submit_status)status };
    if (status > SUBMIT_BAD || !unpack_id(&u, true, &r.id))
        return &malformed;
    r.size = unpack_u64(&u);
    r.dsn = unpack_str(&u);
    r.text = unpack_str(&u);
    if (!unpack_done(&u) || !text_valid(r.dsn) || !text_valid(r.text))
        return &malformed;
    *ret = r;
    return NULL;
}

error submit_open(struct ipc *ipc, unsigned flags, int64_t deadline, struct queue_id *ret_id,
                  struct submit_result *ret_refused) {
    struct buf b = { 0 };
    pack_u32(&b, flags);
    ipc_send(ipc, SUBMIT_MSG_OPEN, buf_str(&b), -1);
    buf_free(&b);

    struct ipc_msg m;
    error e = ipc_recv(ipc, deadline, &m);
    if (e)
        return e;
    ipc_msg_drop(&m); /* an answer has no descriptor */
    if (m.type == SUBMIT_MSG_OPENED) {
        struct unpack u = unpack_from(m.payload);
        if (!unpack_id(&u, false, ret_id) || !unpack_done(&u))
            return &malformed;
        *ret_refused = (struct submit_result){ .status = SUBMIT_OK, .dsn = STR(""), .text = STR("") };
        return NULL;
    }
    /* OK before there was a message would make the caller believe that nothing had been accepted */
    if (m.type != SUBMIT_MSG_RESULT)
        return &malformed;
    e = unpack_result(&m, ret_refused);
    return e ? e : ret_refused->status == SUBMIT_OK ? &malformed : NULL;
}

void submit_envelope(struct ipc *ipc, const struct envelope *env) {
    struct buf b = { 0 };
    envelope_pack(&b, env);
    ipc_send(ipc, SUBMIT_MSG_ENVELOPE, buf_str(&b), -1);
    buf_free(&b);
}

void submit_full_name(struct ipc *ipc, struct str name) {
    struct buf b = { 0 };
    pack_str(&b, name);
    ipc_send(ipc, SUBMIT_MSG_FULL_NAME, buf_str(&b), -1);
    buf_free(&b);
}

void submit_rcpt(struct ipc *ipc, const struct rcpt *r) {
    struct buf b = { 0 };
    rcpt_pack(&b, r);
    ipc_send(ipc, SUBMIT_MSG_RCPT, buf_str(&b), -1);
    buf_free(&b);
}

error submit_content(struct ipc *ipc, struct str bytes, int64_t deadline) {
    while (bytes.n > 0) {
        struct str piece = str_sub(bytes, 0, CONTENT_FRAME);
        bytes = str_from(bytes, piece.n);
        ipc_append(ipc, SUBMIT_MSG_CONTENT, piece, CONTENT_FRAME);
        /* nothing unsent after adding something: it was sent, or given up because the peer is gone; ipc_flush() knows
         */
        size_t unsent = ipc_unsent(ipc);
        if (unsent > 0 && unsent < CONTENT_UNSENT)
            continue;
        error e = ipc_flush(ipc, deadline);
        if (e)
            return e;
    }
    return NULL;
}

error submit_end(struct ipc *ipc, int64_t deadline, struct submit_result *ret) {
    ipc_send(ipc, SUBMIT_MSG_END, STR(""), -1);
    struct ipc_msg m;
    error e = ipc_recv(ipc, deadline, &m);
    if (e)
        return e;
    ipc_msg_drop(&m); /* an answer has no descriptor */
    if (m.type != SUBMIT_MSG_RESULT)
        return &malformed;
    e = unpack_result(&m, ret);
    if (e)
        return e;
    /* what has no name is not in the queue */
    return ret->status == SUBMIT_OK && !ret->id.text[0] ? &malformed : NULL;
}

void submit_reply_opened(struct ipc *ipc, const struct queue_id *id) {
    struct buf b = { 0 };
    pack_str(&b, queue_id_str(id));
    ipc_send(ipc, SUBMIT_MSG_OPENED, buf_str(&b), -1);
    buf_free(&b);
}

void submit_reply_result(struct ipc *ipc, const struct submit_result *r) {
    struct buf b = { 0 }, text = { 0 };
    buf_printable(&text, r->text, TEXT_MAX);
    pack_u8(&b, (uint8_t)r->status);
    pack_str(&b, queue_id_str(&r->id));
    pack_u64(&b, r->size);
    pack_str(&b, r->dsn);
    pack_str(&b, buf_str(&text));
    ipc_send(ipc, SUBMIT_MSG_RESULT, buf_str(&b), -1);
    buf_free(&b);
    buf_free(&text);
}
