#include "proto/flush.h"

#include "base/utf8.h"
#include "mail/address.h"
#include <idn2.h>

bool flush_site_normal(struct str site, struct arena *a, struct str *ret) {
    if (site.n == 0 || site.n > FLUSH_SITE_MAX)
        return false;
    if (str_index(site, 0) >= 0)
        return false;
    char *ascii = NULL;
    if (!str_is_ascii(site)) {
        if (idn2_to_ascii_8z(arena_cstr(a, site), &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
            return false;
        site = arena_str(a, str_c(ascii));
        idn2_free(ascii);
    }
    if (!hostname_valid(site) && !address_domain_is_literal(site))
        return false;
    *ret = arena_lower(a, site);
    return true;
}

void flush_hello(struct ipc *ipc) {
    ipc_send(ipc, FLUSH_MSG_HELLO, STR(""), -1);
}

void flush_add(struct ipc *ipc, struct str site, uint32_t count, struct str ids) {
    struct buf b = { 0 };
    pack_str(&b, site);
    pack_u32(&b, count);
    buf_add(&b, ids);
    ipc_send(ipc, FLUSH_MSG_ADD, buf_str(&b), -1);
    buf_free(&b);
}

error flush_send_site(struct ipc *ipc, struct str site, int64_t deadline, enum flush_status *ret) {
    struct buf b = { 0 };
    flush_hello(ipc);
    pack_str(&b, site);
    ipc_send(ipc, FLUSH_MSG_SEND_SITE, buf_str(&b), -1);
    buf_free(&b);
    struct ipc_msg m = { .fd = -1 };
    error e = ipc_recv(ipc, deadline, &m);
    if (e)
        return e;
    static const struct err malformed = { .kind = ERR_SYNTAX, .text = STR_INIT("malformed answer") };
    struct unpack u = unpack_from(m.payload);
    uint8_t status = unpack_u8(&u);
    if (m.type != FLUSH_MSG_STATUS || !unpack_done(&u) || status > FLUSH_DENIED)
        e = &malformed;
    else
        *ret = (enum flush_status)status;
    ipc_msg_drop(&m);
    return e;
}

bool flush_next_id(struct flush_request *r, struct queue_id *ret) {
    if (r->count == 0)
        return false;
    r->count--;
    return queue_id_unpack(&r->ids, ret);
}

static bool ids_good(struct flush_request r) {
    struct queue_id id;
    for (uint32_t n = r.count; n > 0; n--)
        if (!flush_next_id(&r, &id))
            return false;
    return unpack_done(&r.ids);
}

bool flush_unpack(const struct ipc_msg *m, struct flush_request *ret) {
    struct flush_request r = { .type = (enum flush_msg)m->type, .ids = unpack_from(m->payload), .site = STR("") };
    switch (m->type) {
    case FLUSH_MSG_HELLO:
        break;
    case FLUSH_MSG_ADD:
        r.site = unpack_str(&r.ids);
        r.count = unpack_u32(&r.ids);
        if (r.count > FLUSH_ADD_MAX)
            return false;
        break;
    case FLUSH_MSG_SEND_SITE:
        r.site = unpack_str(&r.ids);
        break;
    default:
        return false;
    }
    if (!ids_good(r))
        return false;
    *ret = r;
    return true;
}

void flush_answer(struct ipc *ipc, enum flush_status status) {
    char byte = (char)status;
    ipc_send(ipc, FLUSH_MSG_STATUS, str_n(&byte, 1), -1);
}
