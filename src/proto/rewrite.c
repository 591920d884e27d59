#include "proto/rewrite.h"

#include "mail/address.h"

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

/* Send what is in `b`, free it, wait for the reply. */
static error ask(struct ipc *ipc, uint8_t type, struct buf *b, int64_t deadline, struct unpack *ret) {
    ipc_send(ipc, type, buf_str(b), -1);
    buf_free(b);
    struct ipc_msg m;
    error e = ipc_recv(ipc, deadline, &m);
    if (e)
        return e;
    ipc_msg_drop(&m); /* an answer has no descriptor */
    *ret = unpack_from(m.payload);
    return m.type == REWRITE_MSG_REPLY ? NULL : &malformed;
}

error rewrite_address(struct ipc *ipc, struct arena *a, struct str address, struct str origin, int64_t deadline,
                      struct str *ret) {
    struct buf b = { 0 };
    pack_str(&b, address);
    pack_str(&b, origin);
    struct unpack u;
    error e = ask(ipc, REWRITE_MSG_REWRITE, &b, deadline, &u);
    if (e)
        return e;
    struct str got = unpack_str(&u);
    if (!unpack_done(&u))
        return &malformed;
    *ret = arena_str(a, got);
    return NULL;
}

error rewrite_resolve(struct ipc *ipc, struct arena *a, struct str sender, struct str recipient, int64_t deadline,
                      struct route *ret, error *ret_route_error) {
    struct buf b = { 0 };
    pack_str(&b, sender);
    pack_str(&b, recipient);
    struct unpack u;
    error e = ask(ipc, REWRITE_MSG_RESOLVE, &b, deadline, &u);
    if (e)
        return e;
    error refused;
    if (!unpack_err(&u, a, &refused))
        return &malformed;
    uint8_t class = unpack_u8(&u), routed = unpack_u8(&u);
    struct str transport = unpack_str(&u), nexthop = unpack_str(&u), complete = unpack_str(&u);
    if (!unpack_done(&u) || routed > 1 || (!refused && (class < CLASS_LOCAL || class > CLASS_DEFAULT)))
        return &malformed;
    *ret_route_error = refused;
    if (!refused)
        *ret = (struct route){ .class = (enum address_class) class,
                               .transport = arena_str(a, transport),
                               .nexthop = arena_str(a, nexthop),
                               .recipient = arena_str(a, complete),
                               .routed = routed };
    return NULL;
}

error rewrite_validate(struct ipc *ipc, struct arena *a, bool is_sender, struct str address, int64_t deadline,
                       error *ret_refusal) {
    struct buf b = { 0 };
    pack_u8(&b, is_sender ? 's' : 'r');
    pack_str(&b, address);
    struct unpack u;
    error e = ask(ipc, REWRITE_MSG_VALIDATE, &b, deadline, &u);
    if (e)
        return e;
    return unpack_err(&u, a, ret_refusal) && unpack_done(&u) ? NULL : &malformed;
}

error rewrite_serve(struct ipc *ipc, struct router *r, struct arena *a, const struct ipc_msg *m) {
    struct unpack u = unpack_from(m->payload);
    struct buf b = { 0 };
    switch (m->type) {
    case REWRITE_MSG_REWRITE: {
        struct str address = unpack_str(&u), origin = unpack_str(&u);
        if (!unpack_done(&u) || address.n > ADDRESS_MAX || origin.n > ADDRESS_MAX)
            return &malformed;
        pack_str(&b, route_rewrite(r, a, address, origin));
        break;
    }
    case REWRITE_MSG_RESOLVE: {
        struct str sender = unpack_str(&u), recipient = unpack_str(&u);
        if (!unpack_done(&u) || sender.n > ADDRESS_MAX || recipient.n > ADDRESS_MAX)
            return &malformed;
        struct route route = { .transport = STR(""), .nexthop = STR(""), .recipient = STR("") };
        error refused = route_resolve(r, a, sender, recipient, &route);
        pack_err(&b, refused);
        pack_u8(&b, (uint8_t)route.class);
        pack_u8(&b, route.routed);
        pack_str(&b, route.transport);
        pack_str(&b, route.nexthop);
        pack_str(&b, route.recipient);
        break;
    }
    case REWRITE_MSG_VALIDATE: {
        uint8_t who = unpack_u8(&u);
        struct str address = unpack_str(&u);
        if (!unpack_done(&u) || address.n > ADDRESS_MAX || (who != 's' && who != 'r'))
            return &malformed;
        pack_err(&b, who == 's' ? route_validate_sender(r, a, address) : route_validate_recipient(r, a, address));
        break;
    }
    default:
        return &malformed;
    }
    ipc_send(ipc, REWRITE_MSG_REPLY, buf_str(&b), -1);
    buf_free(&b);
    return NULL;
}
