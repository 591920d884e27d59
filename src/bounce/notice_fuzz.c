/* notice_fuzz.c - strangers' words in a notice: the parts stay the parts, and no line begins with what they chose.
 * Input: lines, "key value", become the fields; what follows an empty line is the message. */
#include "bounce/notice.h"

#include <stdlib.h>

static struct str content;
static ssize_t read_it(void *ctx, uint64_t at, void *p, size_t n) {
    (void)ctx;
    size_t left = content.n - (size_t)at;
    n = n < left ? n : left;
    memcpy(p, content.p + at, n);
    return (ssize_t)n;
}
static error put(void *ctx, struct str s) {
    buf_add(ctx, s);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct unpack u = { str_n((const char *)data, size), false };
    unsigned choice = unpack_u8(&u);
    /* one length byte before each field; the rest is the message */
    struct str fields[10];
    for (size_t i = 0; i < 10; i++) {
        size_t n = unpack_u8(&u);
        fields[i] = str_sub(u.rest, 0, n);
        u.rest = str_from(u.rest, fields[i].n);
    }
    content = u.rest;
    struct envelope env = { .sender = fields[0], .dsn_envid = fields[1], .flags = choice & 4 ? ENVELOPE_SMTPUTF8 : 0 };
    struct spool_failure f = { .address = fields[2],
                               .orig = fields[3],
                               .dsn_orcpt = fields[4],
                               .status = fields[5],
                               .action = fields[6],
                               .reason = fields[7],
                               .diagnostic = fields[8],
                               .remote_mta = fields[9] };
    struct bounce_templates templates;
    bounce_templates_builtin(&templates);
    struct notice n = {
        .template = &templates.at[TEMPLATE_FAILURE],
        .text = templates.at[TEMPLATE_FAILURE].text,
        .kind = (enum bounce_kind)(1 + choice % 3),
        .full = choice & 8,
        .postmaster = choice & 16,
        .id = STR("ABC"),
        .own_id = STR("DEF"),
        .to = fields[0],
        .host = STR("mx.example"),
        .origin = STR("example"),
        .mail_name = STR("Angarium"),
        .env = &env,
        .rcpts = &f,
        .rcpt_count = 1,
        .now = 1000000000,
        .lifetime = 86400,
        .content_size = content.n,
        .read = read_it,
    };
    struct arena *a = arena_new();
    struct buf out = { 0 };
    if (notice_prepare(&n, a) || notice_write(&n, a, put, &out))
        abort();
    struct str rest = buf_str(&out), line;
    size_t boundaries = 0, lines = 0;
    size_t text = out.n - (size_t)n.copied;
    while (str_next(&rest, STR("\n"), &line)) {
        if (str_starts(line, STR("--")) && str_starts(str_from(line, 2), str_c(n.boundary)))
            boundaries++;
        /* our own text: printable lines */
        if ((size_t)(line.p - out.p) < text - 60)
            for (size_t i = 0; i < line.n && boundaries < 3; i++)
                if (line.p[i] == 0 || line.p[i] == '\r' || line.p[i] == 0x1b)
                    abort();
        lines++;
    }
    if (boundaries != 4 || lines < 20)
        abort();
    buf_free(&out);
    arena_free(a);
    return 0;
}
