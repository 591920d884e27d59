/* netstring_fuzz.c - a package of a message, a sender and recipients, as a stranger sends it; byte 0: bytes a read. */
#include "qmqpd/netstring.h"

#include "test/fake_sys.h"
#include <stdlib.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    const uint8_t *data;
    size_t size;
    int out, in;
};

static void send_all(void *arg) {
    struct run *r = arg;
    struct io *io = io_new(r->out);
    io_write(io, str_n((const char *)r->data, r->size));
    (void)io_flush(io, deadline_in(100));
    io_close(io);
}

static void read_all(void *arg) {
    struct run *r = arg;
    struct arena *a = arena_new();
    struct netstrings n = { .io = io_new(r->in), .deadline = deadline_in(100) };
    uint64_t left = 0;
    struct str some;
    error e = netstring_open(&n, 100000);
    if (!e)
        e = netstring_next(&n, 50000, &left);
    if (!e && left >= n.left) /* what is inside is shorter than what it is in */
        abort();
    while (!e && left > 0) {
        e = netstring_some(&n, left, &some);
        left -= e ? 0 : some.n;
    }
    if (!e)
        e = netstring_end(&n);
    while (!e && n.left > 0)
        e = netstring_whole(&n, a, 100, &some);
    if (!e)
        (void)netstring_close(&n);
    io_close(n.io);
    arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int pair[2];
    if (size < 1)
        return 0;
    fake_sys_install();
    fake_sys_read_max(data[0]);
    if (loop_init() || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        abort();
    struct run r = { data + 1, size - 1, pair[0], pair[1] };
    coro_spawn(send_all, &r, "sender");
    coro_spawn(read_all, &r, "reader");
    if (loop_run())
        abort();
    loop_free();
    fake_sys_remove();
    return 0;
}
