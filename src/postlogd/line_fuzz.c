#include "postlogd/line.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct buf line = { 0 };
    postlogd_line(str_n((const char *)data, size), &line);
    struct str rest = postlogd_strip(buf_str(&line));
    /* one line, and a part of it */
    if (line.n > POSTLOGD_LINE_MAX || str_index(buf_str(&line), '\n') >= 0 || rest.n > line.n)
        abort();
    buf_free(&line);
    return 0;
}
