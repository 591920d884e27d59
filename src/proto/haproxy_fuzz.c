/* Any bytes as a PROXY header: parsed whole, and read from a connection that ends behind them, with the same result. */
#include "proto/haproxy.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > HAPROXY_MAX + 100)
        return 0;
    struct haproxy parsed, read_;
    char *copy = malloc(size + 1), seen[HAPROXY_MAX];
    if (!copy)
        return 0;
    if (size)
        memcpy(copy, data, size);
    const char *fault = haproxy_parse(str_n(copy, size), &parsed);
    if (!fault && parsed.proxied) {
        char text[INET6_ADDRSTRLEN];
        if (endpoint_address(&parsed.client, text).n == 0 || endpoint_address(&parsed.server, text).n == 0)
            abort();
        if (parsed.client.u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&parsed.client.u.in6.sin6_addr))
            abort();
    }
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
        abort();
    struct io *io = io_new(fds[0]);
    if (write(fds[1], data, size) != (ssize_t)size)
        abort();
    close(fds[1]);
    size_t n;
    const char *read_fault = haproxy_read(io, 0, &read_, seen, &n);
    if (n > HAPROXY_MAX || n > size)
        abort();
    /* whoever takes a whole header takes it from a connection, too */
    if (!fault && size <= HAPROXY_MAX && (read_fault || read_.proxied != parsed.proxied))
        abort();
    io_close(io);
    free(copy);
    return 0;
}
