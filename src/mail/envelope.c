#include "mail/envelope.h"

#include <limits.h>

/* The fields in the order of the structs; a reader of another version would see `bad`, so a new field goes to the end
 * together with a change of the queue file's version. */

void rcpt_pack(struct buf *b, const struct rcpt *r) {
    pack_str(b, r->address);
    pack_str(b, r->orig);
    pack_str(b, r->dsn_orcpt);
    pack_u32(b, r->dsn_notify);
    pack_u8(b, (uint8_t)r->state);
}

void rcpt_unpack(struct unpack *u, struct rcpt *ret) {
    ret->address = unpack_str(u);
    ret->orig = unpack_str(u);
    ret->dsn_orcpt = unpack_str(u);
    ret->dsn_notify = unpack_u32(u);
    ret->state = RCPT_TODO;
    uint8_t state = unpack_u8(u);
    if (state > RCPT_DONE)
        u->bad = true;
    else
        ret->state = (enum rcpt_state)state;
}

/* One list of the client's fields for both directions. */
enum { CLIENT_FIELDS = 10 };
#define CLIENT_EACH(X, c)                                                                                              \
    X((c)->name)                                                                                                       \
    X((c)->reverse_name)                                                                                               \
    X((c)->address)                                                                                                    \
    X((c)->port)                                                                                                       \
    X((c)->helo)                                                                                                       \
    X((c)->protocol)                                                                                                   \
    X((c)->ident)                                                                                                      \
    X((c)->sasl_method)                                                                                                \
    X((c)->sasl_username)                                                                                              \
    X((c)->sasl_sender)
_Static_assert(sizeof(struct client_info) == CLIENT_FIELDS * sizeof(struct str),
               "a new field belongs into CLIENT_EACH");

/* The flags take the lower half of their 32 bits, VERP's delimiters the upper one. */
static uint32_t pack_flags(const struct envelope *e) {
    return (e->flags & UINT16_MAX) | (uint32_t)(unsigned char)e->verp_delimiters[0] << 16 |
           (uint32_t)(unsigned char)e->verp_delimiters[1] << 24;
}

static void unpack_flags(struct unpack *u, struct envelope *ret) {
    uint32_t packed = unpack_u32(u), delimiters = packed >> 16;
    char first = (char)(delimiters & UCHAR_MAX), second = (char)(delimiters >> 8);
    ret->flags = packed & UINT16_MAX;
    ret->verp_delimiters[0] = first;
    ret->verp_delimiters[1] = second;
    if (delimiters && !(byte_is_print(first) && byte_is_print(second)))
        u->bad = true;
}

void envelope_pack(struct buf *b, const struct envelope *e) {
    pack_i64(b, e->arrival_us);
    pack_str(b, e->sender);
    pack_str(b, e->dsn_envid);
    pack_u32(b, e->dsn_ret);
    pack_u32(b, pack_flags(e));
    pack_u64(b, e->size);
#define PUT(field) pack_str(b, field);
    CLIENT_EACH(PUT, &e->client)
#undef PUT
    pack_str(b, e->content_filter);
}

void envelope_unpack(struct unpack *u, struct envelope *ret) {
    *ret = (struct envelope){ .arrival_us = unpack_i64(u) };
    ret->sender = unpack_str(u);
    ret->dsn_envid = unpack_str(u);
    ret->dsn_ret = unpack_u32(u);
    unpack_flags(u, ret);
    ret->size = unpack_u64(u);
#define GET(field) field = unpack_str(u);
    CLIENT_EACH(GET, &ret->client)
#undef GET
    ret->content_filter = unpack_str(u);
}
