/* The reader of local submissions: the same records whatever the pieces, and values that are what they promise. */
#include "mail/address.h"
#include "queue/maildrop.h"

#include <stdlib.h>

static size_t read_all(struct str in, size_t step, bool *ret_whole) {
    struct maildrop_reader r = { 0 };
    struct maildrop_record m;
    size_t records = 0;
    enum maildrop_state state = MAILDROP_MORE;
    while (in.n > 0 && state != MAILDROP_BAD) {
        struct str piece = str_sub(in, 0, step ? step : in.n);
        maildrop_feed(&r, piece);
        in = str_from(in, piece.n);
        while ((state = maildrop_next(&r, &m)) == MAILDROP_RECORD) {
            records++;
            bool address = m.type == MAILDROP_SENDER || m.type == MAILDROP_RCPT;
            if (address && (m.bytes.n > ADDRESS_MAX || str_index_any(m.bytes, STR("\0\r\n")) >= 0))
                abort();
            if (m.bytes.n > MAILDROP_RECORD_MAX)
                abort();
        }
    }
    *ret_whole = state != MAILDROP_BAD && maildrop_eof(&r);
    maildrop_reader_free(&r);
    return records;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str in = { (const char *)data, size };
    bool whole, pieces;
    size_t n = read_all(in, 0, &whole);
    if (n != read_all(in, 1, &pieces) || whole != pieces)
        abort();
    return 0;
}
