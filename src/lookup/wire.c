#include "lookup/wire.h"

#include "run/sys.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_SIZE = 4096, HOST_MAX = 256, PORT_MAX = 64 };

static const struct err no_such_host = {
    .kind = ERR_TEMP, .dsn = STR_INIT(""), .text = STR_INIT("host or service not found"), .detail = STR_INIT("")
};

static error wait_for(int fd, short events, int64_t deadline) {
    for (;;) {
        int64_t left = deadline - sys->mono_us();
        if (left <= 0)
            return &err_timeout;
        struct pollfd p = { .fd = fd, .events = events };
        int64_t ms = left / 1000 + 1;
        int n = poll(&p, 1, ms > 60000 ? 60000 : (int)ms);
        if (n > 0)
            return NULL;
        if (n < 0 && errno != EINTR)
            return err_errno(errno);
    }
}

static error connect_to(const struct sockaddr *addr, socklen_t len, int64_t deadline, int *ret) {
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(errno);
    error e = NULL;
    if (connect(fd, addr, len) < 0) {
        int why = errno;
        socklen_t size = sizeof why;
        if (why != EINPROGRESS)
            e = err_errno(why);
        else if (!(e = wait_for(fd, POLLOUT, deadline)) && getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &size) == 0 &&
                 why != 0)
            e = err_errno(why);
    }
    if (e)
        close(fd);
    else
        *ret = fd;
    return e;
}

error wire_connect(struct wire *w, struct str host, struct str port, int64_t deadline) {
    char name[HOST_MAX], service[PORT_MAX];
    if (host.n >= sizeof name || port.n >= sizeof service)
        return &no_such_host;
    snprintf(name, sizeof name, "%.*s", STR_ARG(host));
    snprintf(service, sizeof service, "%.*s", STR_ARG(port));
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST }, *list;
    int failed = getaddrinfo(name, service, &hints, &list);
    if (failed == EAI_NONAME) {
        hints.ai_flags = 0;
        failed = getaddrinfo(name, service, &hints, &list);
    }
    if (failed)
        return &no_such_host;
    error e = &no_such_host;
    for (struct addrinfo *a = list; a && e; a = a->ai_next)
        e = connect_to(a->ai_addr, a->ai_addrlen, deadline, &w->fd);
    freeaddrinfo(list);
    return e;
}

error wire_connect_unix(struct wire *w, struct str path, int64_t deadline) {
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    if (path.n == 0 || path.n >= sizeof at.sun_path)
        return err_errno(ENAMETOOLONG);
    memcpy(at.sun_path, path.p, path.n);
    return connect_to((const struct sockaddr *)&at, sizeof at, deadline, &w->fd);
}

void wire_close(struct wire *w) {
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    buf_free(&w->in);
}

bool wire_is_open(const struct wire *w) {
    return w->fd >= 0;
}

bool wire_is_stale(const struct wire *w) {
    struct pollfd p = { .fd = w->fd, .events = POLLIN };
    return w->in.n > 0 || poll(&p, 1, 0) != 0;
}

error wire_write(struct wire *w, struct str bytes, int64_t deadline) {
    while (bytes.n > 0) {
        ssize_t n = send(w->fd, bytes.p, bytes.n, MSG_NOSIGNAL);
        if (n >= 0) {
            bytes = str_from(bytes, (size_t)n);
        } else if (errno == EAGAIN) {
            error e = wait_for(w->fd, POLLOUT, deadline);
            if (e)
                return e;
        } else if (errno != EINTR) {
            return err_errno(errno);
        }
    }
    return NULL;
}

error wire_read(struct wire *w, size_t most, int64_t deadline) {
    if (w->in.n >= most)
        return &err_limit;
    size_t room = most - w->in.n < READ_SIZE ? most - w->in.n : READ_SIZE;
    for (;;) {
        char *at = buf_reserve(&w->in, room);
        ssize_t n = recv(w->fd, at, room, 0);
        if (n > 0) {
            w->in.n += (size_t)n;
            return NULL;
        }
        if (n == 0)
            return &err_eof;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return err_errno(errno);
        error e = wait_for(w->fd, POLLIN, deadline);
        if (e)
            return e;
    }
}
