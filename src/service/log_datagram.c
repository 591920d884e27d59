#include "service/log_datagram.h"

void log_datagram_begin(struct buf *b) {
    pack_u8(b, LOG_DATAGRAM_MARK);
    pack_u8(b, 0);
}

void log_datagram_line(struct buf *b, int64_t made_us, struct str line) {
    pack_i64(b, made_us);
    pack_str(b, line);
}

void log_datagram_set_urgent(struct buf *b) {
    b->p[1] = 1;
}

bool log_datagram_open(struct str datagram, struct unpack *ret, bool *ret_urgent) {
    if (datagram.n < LOG_DATAGRAM_HEAD || datagram.p[0] != LOG_DATAGRAM_MARK)
        return false;
    *ret = unpack_from(str_from(datagram, 1));
    *ret_urgent = unpack_u8(ret) != 0;
    return true;
}

bool log_datagram_next(struct unpack *u, int64_t *ret_made_us, struct str *ret_line) {
    if (u->rest.n == 0)
        return false;
    *ret_made_us = unpack_i64(u);
    *ret_line = unpack_str(u);
    return !u->bad;
}
