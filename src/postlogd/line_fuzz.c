#include "postlogd/held.h"
#include "postlogd/line.h"
#include "service/log_datagram.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void one_line(struct str text, int64_t made_us, struct held *held) {
    struct buf line = { 0 };
    postlogd_line(text, &line);
    struct str rest = postlogd_strip(buf_str(&line));
    /* one line, and a part of it */
    if (line.n > POSTLOGD_LINE_MAX || str_index(buf_str(&line), '\n') >= 0 || rest.n > line.n)
        abort();
    held_add(held, buf_str(&line), made_us, 1000000);
    buf_free(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str datagram = str_n((const char *)data, size), line;
    struct held held = { 0 };
    struct unpack u;
    bool urgent;
    one_line(datagram, 0, &held);
    if (log_datagram_open(datagram, &u, &urgent)) {
        int64_t made_us;
        while (log_datagram_next(&u, &made_us, &line)) {
            if (line.n && (line.p < datagram.p || line.p + line.n > datagram.p + datagram.n))
                abort();
            one_line(line, made_us, &held);
        }
    }
    /* as many lines come out as went in, at two times or at one */
    size_t lines = held.count, ends = 0;
    struct buf out = { 0 };
    held_take(&held, 1000, &out);
    held_take(&held, INT64_MAX, &out);
    for (size_t i = 0; i < out.n; i++)
        ends += out.p[i] == '\n';
    if (ends != lines || held.count)
        abort();
    buf_free(&out);
    held_free(&held);
    return 0;
}
