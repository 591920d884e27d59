/* The header and body machine: the same output whatever the pieces, no Bcc: in it, every line ended. */
#include "cleanup/content.h"
#include "mail/address.h"

#include <stdlib.h>

struct got {
    struct buf out, ids;
};

static void take(void *ctx, struct str bytes) {
    buf_add(&((struct got *)ctx)->out, bytes);
}

static void take_id(void *ctx, bool resent, struct str value) {
    struct buf *b = &((struct got *)ctx)->ids;
    buf_byte(b, resent ? 'r' : 'm');
    buf_add(b, value);
}

static struct str complete(void *ctx, struct arena *a, struct str address, unsigned flags) {
    (void)ctx;
    (void)flags;
    return address_split(address).has_domain ? address : arena_cat(a, address, STR("@here.example"));
}

static void run(const struct content_rules *rules, bool local, struct str in, size_t step, struct got *g) {
    struct content_message m = { .add_missing = local,
                                 .rewrite = local,
                                 .queue_id = STR("Q"),
                                 .sender = STR("me@here.example"),
                                 .full_name = in,
                                 .now = 1795251600,
                                 .ctx = g,
                                 .write = take,
                                 .address = complete,
                                 .message_id = take_id };
    struct content c;
    content_begin(&c, rules, &m);
    while (in.n > 0) {
        struct str piece = str_sub(in, 0, step ? step : in.n);
        content_feed(&c, piece);
        in = str_from(in, piece.n);
    }
    content_end(&c);
    content_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return 0;
    uint8_t how = data[0];
    struct str in = { (const char *)data + 1, size - 1 };
    struct content_rules rules = { .replace_stray_cr = how & 1,
                                   .header_size_limit = how & 2 ? 40 : 102400,
                                   .drop_headers = STR("bcc"),
                                   .drop_ids = UINT64_C(1) << HEADER_BCC,
                                   .undisclosed = STR("To: nobody:;"),
                                   .host = STR("mx.example") };
    if (how & 4)
        rules.strip = byte_set_parse(STR("\\0x"));
    if (how & 8)
        rules.reject = byte_set_parse(STR("\\1"));
    struct got whole = { 0 }, pieces = { 0 };
    run(&rules, how & 16, in, 0, &whole);
    run(&rules, how & 16, in, 1 + how / 32, &pieces);
    struct str out = buf_str(&whole.out);
    if (!str_eq(out, buf_str(&pieces.out)) || !str_eq(buf_str(&whole.ids), buf_str(&pieces.ids)))
        abort();
    if (str_starts_icase(out, STR("bcc:")) || (out.n > 0 && out.p[out.n - 1] != '\n'))
        abort();
    if ((how & 1) && str_index(out, '\r') >= 0)
        abort();
    buf_free(&whole.out);
    buf_free(&whole.ids);
    buf_free(&pieces.out);
    buf_free(&pieces.ids);
    return 0;
}
