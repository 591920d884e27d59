/* The header and body machine: the same output whatever the pieces, no Bcc: in it, every line ended. */
#include "cleanup/content.h"
#include "mail/address.h"

#include <stdlib.h>

enum { LINE_LIMIT = 12 };

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

static bool keep_header(void *ctx, struct arena *a, enum mime_class class, struct str *text, struct str *ret_before) {
    (void)ctx, (void)a, (void)class, (void)ret_before;
    if (text->n == 0 || text->p[text->n - 1] == '\n')
        abort();
    return true;
}

static bool keep_line(void *ctx, struct arena *a, size_t offset, struct str *text, struct str *ret_before) {
    (void)ctx, (void)a, (void)offset, (void)ret_before;
    if (text->n > LINE_LIMIT || str_index(*text, '\n') >= 0)
        abort();
    return true;
}

static void see_error(void *ctx, enum mime_error e, struct str about) {
    (void)ctx;
    if (about.n == 0 || mime_error_text(e).n == 0)
        abort();
}

static const struct content_inspector inspector = { .parts = true,
                                                    .nesting_limit = 2,
                                                    .boundary_limit = 20,
                                                    .line_limit = LINE_LIMIT,
                                                    .header = keep_header,
                                                    .body = keep_line,
                                                    .error = see_error };

/* Blanks do not count: those before the colon of a part's header go. */
static bool same_but_blanks(struct str a, struct str b) {
    size_t i = 0, k = 0;
    for (;; i++, k++) {
        while (i < a.n && byte_is_space(a.p[i]))
            i++;
        while (k < b.n && byte_is_space(b.p[k]))
            k++;
        if (i == a.n || k == b.n)
            return i == a.n && k == b.n;
        if (a.p[i] != b.p[k])
            return false;
    }
}

static void run(const struct content_rules *rules, bool local, bool inspected, struct str in, size_t step,
                struct got *g) {
    struct content_message m = { .add_missing = local,
                                 .rewrite = local,
                                 .inspector = inspected ? &inspector : NULL,
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
                                   .address_tokens = how & 16 ? 5 : 10240,
                                   .drop_headers = STR("bcc"),
                                   .drop_ids = UINT64_C(1) << HEADER_BCC,
                                   .undisclosed = STR("To: nobody:;"),
                                   .host = STR("mx.example") };
    if (how & 4)
        rules.strip = byte_set_parse(STR("\\0x"));
    if (how & 8)
        rules.reject = byte_set_parse(STR("\\1"));
    struct got whole = { 0 }, pieces = { 0 }, seen = { 0 }, seen_pieces = { 0 };
    run(&rules, how & 16, false, in, 0, &whole);
    run(&rules, how & 16, false, in, 1 + how / 32, &pieces);
    run(&rules, how & 16, true, in, 0, &seen);
    run(&rules, how & 16, true, in, 1 + how / 32, &seen_pieces);
    struct str out = buf_str(&whole.out);
    if (!str_eq(out, buf_str(&pieces.out)) || !str_eq(buf_str(&whole.ids), buf_str(&pieces.ids)))
        abort();
    if (!str_eq(buf_str(&seen.out), buf_str(&seen_pieces.out)))
        abort();
    if (!(how & 2) && !same_but_blanks(out, buf_str(&seen.out))) /* looking at it changes nothing */
        abort();
    if (str_starts_icase(out, STR("bcc:")) || (out.n > 0 && out.p[out.n - 1] != '\n'))
        abort();
    if ((how & 1) && str_index(out, '\r') >= 0)
        abort();
    buf_free(&whole.out);
    buf_free(&whole.ids);
    buf_free(&pieces.out);
    buf_free(&pieces.ids);
    buf_free(&seen.out);
    buf_free(&seen.ids);
    buf_free(&seen_pieces.out);
    buf_free(&seen_pieces.ids);
    return 0;
}
