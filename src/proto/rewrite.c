#include "proto/rewrite.h"

#include "base/die.h"
#include "mail/address.h"
#include "proto/questions.h"
#include <errno.h>
#include <stdlib.h>

enum { REPLY_SECONDS = 100 /* for a client to take its answers */ };

static const struct err malformed = { .kind = ERR_SYNTAX,
                                      .dsn = STR_INIT(""),
                                      .text = STR_INIT("malformed message on a rewrite connection"),
                                      .detail = STR_INIT("") };

static void pack_err(struct buf *b, error e) {
    pack_u8(b, e ? 1 : 0);
    if (!e)
        return;
    pack_u8(b, (uint8_t)e->kind);
    pack_u32(b, e->code > 0 ? (uint32_t)e->code : 0);
    pack_str(b, e->dsn);
    pack_str(b, e->text);
    pack_str(b, e->detail);
}

/* Copied to `a`; NULL for none. False: malformed. */
static bool unpack_err(struct unpack *u, struct arena *a, error *ret) {
    *ret = NULL;
    uint8_t present = unpack_u8(u);
    if (present > 1)
        return false;
    if (!present)
        return !u->bad;
    uint8_t kind = unpack_u8(u);
    uint32_t code = unpack_u32(u);
    struct str dsn = unpack_str(u), text = unpack_str(u), detail = unpack_str(u);
    if (u->bad || kind < ERR_SYS || kind > ERR_PERM || code > 599)
        return false;
    struct err *e = ARENA_NEW(a, struct err);
    *e = (struct err){ .kind = (enum err_kind)kind,
                       .code = (int)code,
                       .dsn = arena_str(a, dsn),
                       .text = arena_str(a, text),
                       .detail = arena_str(a, detail) };
    *ret = e;
    return true;
}

/* --- the client --- */
struct call {
    struct pending_question q;
    struct str answer; /* in `a` */
    struct arena *a;
};

struct rewrite_link {
    struct questions q;
};

static bool take_reply(struct pending_question *q, struct unpack *u) {
    struct call *c = (struct call *)q;
    if (c)
        c->answer = arena_str(c->a, u->rest);
    return true;
}

struct rewrite_link *rewrite_link_new(struct ipc *ipc) {
    struct rewrite_link *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    l->q = (struct questions){ .mux.ipc = ipc,
                               .max = REWRITE_QUESTIONS_MAX,
                               .answer_type = REWRITE_MSG_REPLY,
                               .take = take_reply,
                               .malformed = &malformed };
    questions_init(&l->q);
    return l;
}

void rewrite_link_close(struct rewrite_link *l) {
    if (!l)
        return;
    questions_end(&l->q);
    free(l);
}

bool rewrite_link_usable(const struct rewrite_link *l) {
    return !l->q.mux.broken;
}

size_t rewrite_link_count(const struct rewrite_link *l) {
    return l->q.count;
}

/* Ask what is in `b`, free it. The answer lives in `a`. */
static error ask(struct rewrite_link *l, struct arena *a, uint8_t type, struct buf *b, int64_t deadline,
                 struct unpack *ret) {
    struct call c = { .a = a };
    error e = questions_ask(&l->q, &c.q, type, buf_str(b), deadline);
    buf_free(b);
    *ret = unpack_from(c.answer);
    return e;
}

/* An answer that makes no sense: who gives such is not asked again. */
static error senseless(struct rewrite_link *l) {
    mux_break(&l->q.mux, &malformed);
    return &malformed;
}

error rewrite_address(struct rewrite_link *l, struct arena *a, struct str address, struct str origin, int64_t deadline,
                      struct str *ret) {
    struct buf b = { 0 };
    pack_str(&b, address);
    pack_str(&b, origin);
    struct unpack u;
    error e = ask(l, a, REWRITE_MSG_REWRITE, &b, deadline, &u);
    if (e)
        return e;
    struct str got = unpack_str(&u);
    if (!unpack_done(&u))
        return senseless(l);
    *ret = arena_str(a, got);
    return NULL;
}

static bool class_valid(uint8_t class) {
    return class >= CLASS_LOCAL && class <= CLASS_DEFAULT;
}

error rewrite_resolve(struct rewrite_link *l, struct arena *a, struct str sender, struct str recipient,
                      int64_t deadline, struct route *ret, error *ret_route_error) {
    struct buf b = { 0 };
    pack_str(&b, sender);
    pack_str(&b, recipient);
    struct unpack u;
    error e = ask(l, a, REWRITE_MSG_RESOLVE, &b, deadline, &u);
    if (e)
        return e;
    error refused;
    if (!unpack_err(&u, a, &refused))
        return senseless(l);
    uint8_t class = unpack_u8(&u), routed = unpack_u8(&u);
    struct str transport = unpack_str(&u), nexthop = unpack_str(&u), complete = unpack_str(&u);
    if (!unpack_done(&u) || routed > 1 || (!refused && !class_valid(class)))
        return senseless(l);
    *ret_route_error = refused;
    if (!refused)
        *ret = (struct route){ .class = (enum address_class) class,
                               .transport = arena_str(a, transport),
                               .nexthop = arena_str(a, nexthop),
                               .recipient = arena_str(a, complete),
                               .routed = routed };
    return NULL;
}

error rewrite_check(struct rewrite_link *l, struct arena *a, const struct route_question *q, int64_t deadline,
                    struct route_check *ret) {
    struct buf b = { 0 };
    pack_u8(&b, q->is_sender ? 's' : 'r');
    pack_u8(&b, (uint8_t)q->want);
    pack_str(&b, q->service);
    pack_str(&b, q->sender);
    pack_str(&b, q->address);
    struct unpack u;
    error e = ask(l, a, REWRITE_MSG_CHECK, &b, deadline, &u);
    if (e)
        return e;
    struct route_check c = { 0 };
    if (!unpack_err(&u, a, &c.unroutable))
        return senseless(l);
    uint8_t class = unpack_u8(&u), routed = unpack_u8(&u);
    if (!unpack_err(&u, a, &c.unlisted) || !unpack_done(&u) || routed > 1 || !class_valid(class))
        return senseless(l);
    c.class = (enum address_class) class;
    c.routed = routed;
    *ret = c;
    return NULL;
}

/* --- trivial-rewrite's side --- */

/* False: malformed. */
static bool answer(struct router *r, struct arena *a, uint8_t type, struct str question, struct buf *ret) {
    struct unpack u = unpack_from(question);
    switch (type) {
    case REWRITE_MSG_REWRITE: {
        struct str address = unpack_str(&u), origin = unpack_str(&u);
        if (!unpack_done(&u) || address.n > ADDRESS_MAX || origin.n > ADDRESS_MAX)
            return false;
        pack_str(ret, route_rewrite(r, a, address, origin));
        break;
    }
    case REWRITE_MSG_RESOLVE: {
        struct str sender = unpack_str(&u), recipient = unpack_str(&u);
        if (!unpack_done(&u) || sender.n > ADDRESS_MAX || recipient.n > ADDRESS_MAX)
            return false;
        struct route route = { .transport = STR(""), .nexthop = STR(""), .recipient = STR("") };
        error refused = route_resolve(r, a, sender, recipient, &route);
        pack_err(ret, refused);
        pack_u8(ret, (uint8_t)route.class);
        pack_u8(ret, route.routed);
        pack_str(ret, route.transport);
        pack_str(ret, route.nexthop);
        pack_str(ret, route.recipient);
        break;
    }
    case REWRITE_MSG_CHECK: {
        uint8_t who = unpack_u8(&u), want = unpack_u8(&u);
        struct route_question q = { .is_sender = who == 's', .want = want };
        q.service = unpack_str(&u);
        q.sender = unpack_str(&u);
        q.address = unpack_str(&u);
        if (!unpack_done(&u) || q.address.n > ADDRESS_MAX || q.sender.n > ADDRESS_MAX || (who != 's' && who != 'r') ||
            want > (ROUTE_WANT_CLASS | ROUTE_WANT_LISTED))
            return false;
        struct route_check c;
        route_check(r, a, &q, &c);
        pack_err(ret, c.unroutable);
        pack_u8(ret, (uint8_t)c.class);
        pack_u8(ret, c.routed);
        pack_err(ret, c.unlisted);
        break;
    }
    default:
        return false;
    }
    return true;
}

struct conn {
    struct ipc *ipc;
    struct router *router;
    struct coro *reader;
    struct group running;
    struct cond room; /* fewer questions are under way */
    bool flushing;
    error failed; /* what ends it, found while answering */
};

struct question {
    struct conn *conn;
    uint8_t type;
    struct arena *arena;
    struct str bytes; /* the number, and what is asked */
};

static void end(struct conn *c, error e) {
    if (!c->failed)
        c->failed = e;
    coro_cancel(c->reader);
}

static void question_main(void *arg) {
    struct question *q = arg;
    struct conn *c = q->conn;
    struct buf b = { 0 };
    buf_add(&b, str_sub(q->bytes, 0, 4));
    if (!answer(c->router, q->arena, q->type, str_from(q->bytes, 4), &b)) {
        end(c, &malformed);
    } else if (!c->failed) {
        ipc_send(c->ipc, REWRITE_MSG_REPLY, buf_str(&b), -1);
        error e = c->flushing ? NULL : mux_flush_once(c->ipc, &c->flushing, deadline_in(REPLY_SECONDS));
        if (e)
            end(c, e);
    }
    buf_free(&b);
    arena_free(q->arena);
    group_leave(&c->running);
    cond_signal(&c->room);
}

static error take_question(struct conn *c, const struct ipc_msg *m) {
    if (m->payload.n < 4)
        return &malformed;
    while (c->running.running >= REWRITE_QUESTIONS_MAX) {
        error e = cond_wait(&c->room, DEADLINE_NEVER);
        if (e)
            return e;
    }
    struct arena *a = arena_new();
    struct question *q = ARENA_NEW(a, struct question);
    *q = (struct question){ c, m->type, a, arena_str(a, m->payload) };
    if (!coro_spawn(question_main, q, "question")) {
        arena_free(a);
        return err_errno(ENOMEM);
    }
    group_enter(&c->running);
    return NULL;
}

error rewrite_serve(struct ipc *ipc, struct router *r) {
    struct conn c = { .ipc = ipc, .router = r, .reader = coro_self() };
    struct ipc_msg m;
    error e = NULL;
    while (!e && !(e = ipc_recv(ipc, DEADLINE_NEVER, &m))) {
        ipc_msg_drop(&m); /* nobody sends descriptors here */
        e = take_question(&c, &m);
    }
    int shield = coro_shield(1); /* what is asked already gets its answer */
    group_wait(&c.running, DEADLINE_NEVER);
    coro_shield(shield);
    if (c.failed)
        e = c.failed;
    return e->kind == ERR_SYNTAX ? e : NULL;
}
