#include "run/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

bool endpoint_ip(struct str address, uint16_t port, struct endpoint *ret) {
    char text[INET6_ADDRSTRLEN];
    if (address.n == 0 || address.n >= sizeof text || memchr(address.p, 0, address.n))
        return false;
    memcpy(text, address.p, address.n);
    text[address.n] = 0;
    struct endpoint e = { 0 };
    if (inet_pton(AF_INET, text, &e.u.in.sin_addr) == 1) {
        e.u.in.sin_family = AF_INET;
        e.u.in.sin_port = htons(port);
        e.len = sizeof e.u.in;
    } else if (inet_pton(AF_INET6, text, &e.u.in6.sin6_addr) == 1) {
        e.u.in6.sin6_family = AF_INET6;
        e.u.in6.sin6_port = htons(port);
        e.len = sizeof e.u.in6;
    } else {
        return false;
    }
    *ret = e;
    return true;
}

bool endpoint_unix(struct str path, struct endpoint *ret) {
    struct endpoint e = { .len = sizeof e.u.un, .u.un.sun_family = AF_UNIX };
    if (path.n == 0 || path.n >= sizeof e.u.un.sun_path || memchr(path.p, 0, path.n))
        return false;
    memcpy(e.u.un.sun_path, path.p, path.n);
    *ret = e;
    return true;
}

struct str endpoint_address(const struct endpoint *e, char out[INET6_ADDRSTRLEN]) {
    const char *text = NULL;
    if (e->u.sa.sa_family == AF_INET)
        text = inet_ntop(AF_INET, &e->u.in.sin_addr, out, INET6_ADDRSTRLEN);
    else if (e->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&e->u.in6.sin6_addr))
        text = inet_ntop(AF_INET, &e->u.in6.sin6_addr.s6_addr[12], out, INET6_ADDRSTRLEN);
    else if (e->u.sa.sa_family == AF_INET6)
        text = inet_ntop(AF_INET6, &e->u.in6.sin6_addr, out, INET6_ADDRSTRLEN);
    return str_c(text);
}

uint16_t endpoint_port(const struct endpoint *e) {
    if (e->u.sa.sa_family == AF_INET)
        return ntohs(e->u.in.sin_port);
    return e->u.sa.sa_family == AF_INET6 ? ntohs(e->u.in6.sin6_port) : 0;
}

bool endpoint_is_loopback(const struct endpoint *e) {
    struct in_addr v4 = e->u.in.sin_addr;
    if (e->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&e->u.in6.sin6_addr))
        memcpy(&v4, e->u.in6.sin6_addr.s6_addr + 12, sizeof v4);
    else if (e->u.sa.sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&e->u.in6.sin6_addr);
    return e->u.sa.sa_family != AF_UNIX && ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET;
}

bool endpoint_is_any(const struct endpoint *e) {
    if (e->u.sa.sa_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&e->u.in6.sin6_addr);
    return e->u.sa.sa_family == AF_INET && e->u.in.sin_addr.s_addr == htonl(INADDR_ANY);
}

/* Output is gathered here, so the kernel's waiting for more only costs time. */
static void no_delay(int fd, int family) {
    int one = 1;
    if (family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int window;

void socket_window(int bytes) {
    window = bytes;
}

/* Before connect() or listen(): then TCP knows it when it agrees on window scaling (RFC 7323, 2.2). */
static void set_window(int fd, int family) {
    if (window <= 0 || family == AF_UNIX)
        return;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &window, sizeof window);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
}

/* A unix socket whose backlog is full gives no event when there is room: look again after this. */
enum { UNIX_RETRY_US = 10 * 1000 };

static error connect_fd(int fd, const struct endpoint *to, int64_t deadline) {
    while (sys->connect(fd, &to->u.sa, to->len)) {
        if (errno == EAGAIN && to->u.sa.sa_family == AF_UNIX) {
            int64_t again = deadline_in_us(UNIX_RETRY_US);
            error e = again > deadline ? &err_timeout : wait_until(again);
            if (e)
                return e;
            continue;
        }
        if (errno == EISCONN)
            return NULL;
        if (errno != EINPROGRESS && errno != EALREADY && errno != EINTR)
            return err_errno(errno);
        error e = wait_writable(fd, deadline);
        if (e)
            return e;
        int failure = 0;
        socklen_t len = sizeof failure;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &len))
            return err_errno(errno);
        return failure ? err_errno(failure) : NULL;
    }
    return NULL;
}

error io_connect(const struct endpoint *to, const struct endpoint *from, int64_t deadline, struct io **ret) {
    *ret = NULL;
    int fd = sys->socket(to->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(errno);
    error e = NULL;
    set_window(fd, to->u.sa.sa_family);
    if (from) {
        int one = 1;
        /* the port is chosen at connect time, so that thousands of connections may share one source address */
        if (from->u.sa.sa_family != AF_UNIX && endpoint_port(from) == 0)
            setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, &from->u.sa, from->len))
            e = err_errno(errno);
    }
    wait_keep(fd);
    if (!e)
        e = connect_fd(fd, to, deadline);
    if (e) {
        wait_forget(fd);
        sys->close(fd);
        return e;
    }
    no_delay(fd, to->u.sa.sa_family);
    *ret = io_new(fd);
    return NULL;
}

/* Connections skipped in a row before we believe that it is the listening socket after all. */
enum { ACCEPT_SKIP_MAX = 100 };

/* Errors of the connection that was to be taken, not of the listening socket (accept(2), "Error handling"). */
static bool accept_skips(int errnum) {
    switch (errnum) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EPERM: /* a firewall said no */
        return true;
    default:
        return false;
    }
}

error io_accept(int listen_fd, int64_t deadline, struct endpoint *ret_peer, int *ret_fd) {
    *ret_fd = -1;
    *ret_peer = (struct endpoint){ 0 };
    error e = loop_may_wait();
    if (e)
        return e;
    for (int skipped = 0;;) {
        struct endpoint peer = { .len = sizeof peer.u };
        int fd = sys->accept4(listen_fd, &peer.u.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            if (peer.len > sizeof peer.u)
                peer.len = sizeof peer.u;
            no_delay(fd, peer.u.sa.sa_family);
            *ret_peer = peer;
            *ret_fd = fd;
            loop_charge(LOOP_COST_CALL);
            return NULL;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            e = wait_readable(listen_fd, deadline);
            if (e)
                return e;
        } else if (accept_skips(errno) && skipped++ < ACCEPT_SKIP_MAX) {
            loop_charge(LOOP_COST_CALL);
        } else {
            return err_errno(errno);
        }
    }
}

static error listen_fd_set_up(int fd, const struct endpoint *at, int backlog, mode_t mode) {
    int one = 1;
    const char *path = NULL;
    if (at->u.sa.sa_family == AF_UNIX) {
        path = at->u.un.sun_path;
        struct stat st;
        if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && unlink(path))
            return err_errno(errno);
        /* the mode the new file begins with (less the umask): never wider than asked for, not even for a moment */
        if (fchmod(fd, mode))
            return err_errno(errno);
    } else {
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one))
            return err_errno(errno);
        /* 0.0.0.0 and :: are two sockets, whatever the system's default */
        if (at->u.sa.sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one))
            return err_errno(errno);
    }
    if (bind(fd, &at->u.sa, at->len))
        return err_errno(errno);
    if ((path && chmod(path, mode)) || listen(fd, backlog))
        return err_errno(errno);
    return NULL;
}

error listen_on(const struct endpoint *at, int backlog, mode_t mode, int *ret_fd) {
    *ret_fd = -1;
    int fd = sys->socket(at->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(errno);
    set_window(fd, at->u.sa.sa_family);
    error e = listen_fd_set_up(fd, at, backlog, mode);
    if (e) {
        sys->close(fd);
        return e;
    }
    *ret_fd = fd;
    return NULL;
}
