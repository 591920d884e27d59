/* Fuzz: messages. Each line is given back as part of a header, or as body, and nothing else is. Blanks do not count:
 * those before a header's colon go. */
#include "base/die.h"
#include "mail/mime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t bytes;

static size_t count(struct str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += !byte_is_space(s.p[i]);
    return n;
}

static void on_header(void *ctx, enum mime_class class, struct str header) {
    (void)ctx;
    if (header.n == 0 || class > MIME_NESTED)
        die("bad header");
    bytes += count(header);
}
static void on_body(void *ctx, struct str line, size_t offset, bool whole) {
    (void)ctx, (void)offset, (void)whole;
    if (str_index(line, '\n') >= 0)
        die("bad line");
    bytes += count(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mime_options o = { .parts = size && data[0] & 1,
                              .header_limit = SIZE_MAX / 2,
                              .nesting_limit = 4,
                              .boundary_limit = 70,
                              .header = on_header,
                              .body = on_body };
    struct str rest = str_from(str_n((const char *)data, size), 1), line;
    struct mime *m = mime_new(&o);
    size_t given = 0;
    bytes = 0;
    while (str_next(&rest, STR("\n"), &line)) {
        mime_line(m, line);
        given += count(line);
    }
    mime_end(m);
    mime_free(m);
    if (bytes != given)
        die("lines lost or made up");
    return 0;
}
