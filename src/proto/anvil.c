#include "proto/anvil.h"

#include "base/die.h"
#include "proto/mux.h"
#include <stdlib.h>

enum {
    NOTES_MAX = 4096, /* bytes of notes that wait for company */
    NOTE_SECONDS = 10,
};

static const struct err malformed = { .kind = ERR_SYNTAX,
                                      .dsn = STR_INIT(""),
                                      .text = STR_INIT("malformed message on an anvil connection"),
                                      .detail = STR_INIT("") };

struct call { /* on the stack of who asks */
    uint32_t number;
    struct mux_waiter waiter;
    bool answered;
    struct anvil_answer answer;
};

struct anvil_link {
    struct mux mux;
    struct call *calls[ANVIL_QUESTIONS_MAX];
    size_t under_way, count;
    uint32_t next;
    struct cond turn; /* under_way has gone down */
};

static error take_answer(void *ctx, const struct ipc_msg *f) {
    struct anvil_link *l = ctx;
    struct unpack u = unpack_from(f->payload);
    uint32_t number = unpack_u32(&u);
    struct anvil_answer a = { .count = unpack_u32(&u) };
    a.rate = unpack_u32(&u);
    if (f->type != ANVIL_MSG_ANSWER || !unpack_done(&u))
        return &malformed;
    struct call *c = l->calls[number % ANVIL_QUESTIONS_MAX];
    if (!c || c->number != number) /* who has stopped waiting */
        return NULL;
    c->answer = a;
    c->answered = true;
    mux_wake(&c->waiter);
    return NULL;
}

struct anvil_link *anvil_link_new(struct ipc *ipc) {
    struct anvil_link *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    l->mux = (struct mux){ .ipc = ipc, .take = take_answer, .ctx = l };
    return l;
}

void anvil_link_close(struct anvil_link *l) {
    if (!l)
        return;
    if (l->count > 0)
        die("anvil_link_close: %zu questions are under way", l->count);
    mux_close(&l->mux);
    free(l);
}

bool anvil_link_usable(const struct anvil_link *l) {
    return !l->mux.broken;
}

size_t anvil_link_count(const struct anvil_link *l) {
    return l->count;
}

static void say(struct anvil_link *l, enum anvil_msg type, uint32_t number, enum anvil_event event, struct str ident) {
    struct buf b = { 0 };
    pack_u32(&b, number);
    pack_u8(&b, (uint8_t)event);
    pack_str(&b, ident);
    ipc_send(l->mux.ipc, (uint8_t)type, buf_str(&b), -1);
    buf_free(&b);
}

static bool is_answered(const void *c) {
    return ((const struct call *)c)->answered;
}

static error ask(struct anvil_link *l, struct call *c, enum anvil_event event, struct str ident, int64_t deadline) {
    error e = l->mux.broken;
    while (!e && l->under_way == ANVIL_QUESTIONS_MAX) {
        e = cond_wait(&l->turn, deadline);
        if (!e)
            e = l->mux.broken;
    }
    if (e)
        return e;
    while (l->calls[l->next % ANVIL_QUESTIONS_MAX])
        l->next++;
    c->number = l->next++;
    struct call **place = &l->calls[c->number % ANVIL_QUESTIONS_MAX];
    *place = c;
    l->under_way++;
    say(l, ANVIL_MSG_ASK, c->number, event, ident);
    e = mux_flush(&l->mux, deadline);
    if (!e)
        e = mux_wait(&l->mux, &c->waiter, is_answered, c, deadline);
    *place = NULL;
    l->under_way--;
    cond_signal(&l->turn);
    return e;
}

error anvil_ask(struct anvil_link *l, enum anvil_event event, struct str ident, int64_t deadline,
                struct anvil_answer *ret) {
    struct call c = { 0 };
    l->count++;
    error e = ask(l, &c, event, ident, deadline);
    l->count--;
    if (l->mux.broken)
        cond_broadcast(&l->turn);
    if (!e)
        *ret = c.answer;
    return e;
}

void anvil_note(struct anvil_link *l, enum anvil_event event, struct str ident) {
    if (l->mux.broken)
        return;
    say(l, ANVIL_MSG_NOTE, 0, event, ident);
    l->count++;
    if (ipc_unsent(l->mux.ipc) >= NOTES_MAX)
        (void)mux_flush(&l->mux, deadline_in(NOTE_SECONDS)); /* a failure breaks the link */
    l->count--;
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
