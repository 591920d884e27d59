/* An argument of master.cf with macros, and recipients: never more arguments than there may be. */
#include "pipe/macros.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str in = str_n((const char *)data, size), part;
    struct str args[4];
    struct rcpt rcpts[4] = { 0 };
    struct delivery_request r = { .nexthop = STR("Next.Hop") };
    struct pipe_attributes attributes = { .null_sender = STR("MAILER-DAEMON"), .argv = args };
    struct arena *a = arena_new();
    if (str_next(&in, STR("\n"), &part) && part.n)
        attributes.flags = (unsigned)(unsigned char)part.p[0] << 3;
    while (attributes.argc < 4 && str_next(&in, STR("\n"), &part) && part.n)
        args[attributes.argc++] = part;
    r.env.rcpts = rcpts;
    while (r.env.rcpt_count < 4 && str_next(&in, STR("\n"), &part))
        rcpts[r.env.rcpt_count++] = (struct rcpt){ .address = part, .orig = part };
    r.env.sender = in;
    char **argv;
    if (!pipe_arguments(a, &attributes, &r, (struct extension_rules){ STR("+-"), true }, &argv)) {
        size_t n = 0;
        while (argv[n])
            n++;
        if (n > attributes.argc * (r.env.rcpt_count ? r.env.rcpt_count : 1))
            __builtin_trap();
    }
    arena_free(a);
    return 0;
}
