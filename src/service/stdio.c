/* One session with whoever is on standard input and output: a terminal, pipes, files, or inetd's socket. */
#include "service/internal.h"
#include <errno.h>
#include <poll.h>
#include <unistd.h>

static ssize_t stdio_read(void *ctx, void *p, size_t n, uint32_t *ret_wait) {
    (void)ctx;
    /* Not O_NONBLOCK: it would change the terminal for everybody who shares it. */
    struct pollfd ready = { .fd = STDIN_FILENO, .events = POLLIN };
    if (poll(&ready, 1, 0) == 0) {
        *ret_wait = EPOLLIN;
        errno = EAGAIN;
        return -1;
    }
    return read(STDIN_FILENO, p, n);
}
static ssize_t stdio_write(void *ctx, const void *p, size_t n, uint32_t *ret_wait) {
    (void)ctx;
    (void)ret_wait;
    return write(STDOUT_FILENO, p, n); /* there is no other session to hold up */
}
static void stdio_close(void *ctx) {
    (void)ctx;
    close(STDOUT_FILENO);
}

struct io *io_stdio(void) {
    static const struct io_transport transport = { stdio_read, stdio_write, stdio_close };
    return io_new_transport(&transport, NULL, STDIN_FILENO);
}
