#include "base/json.h"

#include "base/utf8.h"

void buf_json(struct buf *out, struct str s) {
    buf_byte(out, '"');
    for (size_t i = 0; i < s.n;) {
        size_t len = utf8_length(str_from(s, i));
        char c = s.p[i];
        if (len > 1) {
            buf_add(out, str_sub(s, i, len));
        } else if (c == '"' || c == '\\') {
            buf_byte(out, '\\');
            buf_byte(out, c);
        } else if (c == '\n') {
            buf_add(out, STR("\\n"));
        } else if (c == '\t') {
            buf_add(out, STR("\\t"));
        } else if (c == '\r') {
            buf_add(out, STR("\\r"));
        } else if (len == 1 && (unsigned char)c < 0x20) {
            buf_printf(out, "\\u%04X", (unsigned)(unsigned char)c);
        } else if (len == 1) {
            buf_byte(out, c);
        } else {
            buf_byte(out, '?');
        }
        i += len ? len : 1;
    }
    buf_byte(out, '"');
}
