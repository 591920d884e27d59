#include "proto/anvil.h"

#include "base/die.h"
#include "proto/questions.h"
#include <stdlib.h>

enum {
    NOTES_MAX = 4096, /* bytes of notes that wait for company */
    NOTE_SECONDS = 10,
};

static const struct err malformed = { .kind = ERR_SYNTAX,
                                      .dsn = STR_INIT(""),
                                      .text = STR_INIT("malformed message on an anvil connection"),
                                      .detail = STR_INIT("") };

struct call {
    struct pending_question q;
    struct anvil_answer answer;
};

struct anvil_link {
    struct questions q;
};

static bool take_answer(struct pending_question *q, struct unpack *u) {
    struct anvil_answer a = { .count = unpack_u32(u) };
    a.rate = unpack_u32(u);
    if (!unpack_done(u))
        return false;
    if (q)
        ((struct call *)q)->answer = a;
    return true;
}

struct anvil_link *anvil_link_new(struct ipc *ipc) {
    struct anvil_link *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    l->q = (struct questions){ .mux.ipc = ipc,
                               .max = ANVIL_QUESTIONS_MAX,
                               .answer_type = ANVIL_MSG_ANSWER,
                               .take = take_answer,
                               .malformed = &malformed };
    questions_init(&l->q);
    return l;
}

void anvil_link_close(struct anvil_link *l) {
    if (!l)
        return;
    questions_end(&l->q);
    free(l);
}

bool anvil_link_usable(const struct anvil_link *l) {
    return !l->q.mux.broken;
}

size_t anvil_link_count(const struct anvil_link *l) {
    return l->q.count;
}

static void pack_event(struct buf *b, enum anvil_event event, struct str ident) {
    pack_u8(b, (uint8_t)event);
    pack_str(b, ident);
}

error anvil_ask(struct anvil_link *l, enum anvil_event event, struct str ident, int64_t deadline,
                struct anvil_answer *ret) {
    struct call c = { 0 };
    struct buf b = { 0 };
    pack_event(&b, event, ident);
    error e = questions_ask(&l->q, &c.q, ANVIL_MSG_ASK, buf_str(&b), deadline);
    buf_free(&b);
    if (!e)
        *ret = c.answer;
    return e;
}

void anvil_note(struct anvil_link *l, enum anvil_event event, struct str ident) {
    if (l->q.mux.broken)
        return;
    struct buf b = { 0 };
    pack_u32(&b, 0); /* no answer is wanted */
    pack_event(&b, event, ident);
    ipc_send(l->q.mux.ipc, ANVIL_MSG_NOTE, buf_str(&b), -1);
    buf_free(&b);
    l->q.count++;
    if (ipc_unsent(l->q.mux.ipc) >= NOTES_MAX)
        (void)mux_flush(&l->q.mux, deadline_in(NOTE_SECONDS)); /* a failure breaks the link */
    l->q.count--;
}

/* --- anvil's end --- */
bool anvil_unpack(const struct ipc_msg *m, struct anvil_request *ret) {
    struct unpack u = unpack_from(m->payload);
    struct anvil_request r = { .wants_answer = m->type == ANVIL_MSG_ASK, .number = unpack_u32(&u) };
    uint8_t event = unpack_u8(&u);
    r.ident = unpack_str(&u);
    if ((m->type != ANVIL_MSG_ASK && m->type != ANVIL_MSG_NOTE) || !unpack_done(&u) || event == 0 ||
        event >= ANVIL_EVENTS || r.ident.n == 0 || r.ident.n > ANVIL_IDENT_MAX)
        return false;
    r.event = (enum anvil_event)event;
    *ret = r;
    return true;
}

void anvil_reply(struct ipc *ipc, uint32_t number, const struct anvil_answer *a) {
    struct buf b = { 0 };
    pack_u32(&b, number);
    pack_u32(&b, a->count);
    pack_u32(&b, a->rate);
    ipc_send(ipc, ANVIL_MSG_ANSWER, buf_str(&b), -1);
    buf_free(&b);
}
