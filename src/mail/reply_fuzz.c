/* Fuzz: SMTP replies, one line after the other. */
#include "base/die.h"
#include "mail/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str in = str_n((const char *)data, size), line;
    struct reply_reader r = { 0 };
    struct reply reply;
    while (str_next(&in, STR("\n"), &line)) {
        enum reply_state s = reply_line(&r, line, &reply);
        if (s == REPLY_MORE)
            continue;
        if (s == REPLY_DONE &&
            (reply.code < 200 || reply.code > 599 || reply.text.n > REPLY_BYTES_MAX || str_index(reply.text, 0) >= 0))
            die("bad reply accepted");
        reply_reset(&r);
    }
    reply_free(&r);
    return 0;
}
