/* The form of a message: cut into pieces anywhere it must come out as in one piece. */
#include "pipe/form.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    struct pipe_attributes attributes = { .flags = (unsigned)data[0] << 3 | (data[0] & 1u),
                                          .eol = data[1] & 1 ? STR("\r\n") : STR("\n") };
    struct str in = str_n((const char *)data + 2, size - 2);
    struct pipe_form one = pipe_form_start(&attributes), many = one;
    struct buf a = { 0 }, b = { 0 };
    pipe_form_add(&one, &a, in);
    pipe_form_end(&one, &a);
    for (size_t at = 0, step = 1 + data[1] % 7; at < in.n; at += step)
        pipe_form_add(&many, &b, str_sub(in, at, step));
    pipe_form_end(&many, &b);
    if (!str_eq(buf_str(&a), buf_str(&b)))
        __builtin_trap();
    buf_free(&a);
    buf_free(&b);
    return 0;
}
