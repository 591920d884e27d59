#include "cmd/trigger.h"

#include "run/io.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static error send_fifo(const char *path, struct str request) {
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return err_errno(errno);
    ssize_t n = write(fd, request.p, request.n);
    error e = n == (ssize_t)request.n ? NULL : err_errno(n < 0 ? errno : EIO);
    close(fd);
    return e;
}

static error send_socket(const char *path, struct str request, int64_t send_seconds, int64_t drain_seconds) {
    struct endpoint at;
    struct io *io;
    if (!endpoint_unix(str_c(path), &at))
        return err_errno(ENAMETOOLONG);
    error e = io_connect(&at, NULL, deadline_in(send_seconds), &io);
    if (e)
        return e;
    struct str rest;
    io_write(io, request);
    if (!(e = io_flush(io, deadline_in(send_seconds)))) {
        shutdown(io_fd(io), SHUT_WR);
        io_some(io, 1, deadline_in(drain_seconds), &rest); /* the end of the stream: it has been read */
    }
    io_close(io);
    return e;
}

error trigger_send(const struct conf *c, struct str class, struct str service, struct str request) {
    struct buf path = { 0 };
    struct stat st;
    buf_printf(&path, "%.*s/%.*s/%.*s", STR_ARG(conf_str(c, PARAM_queue_directory)), STR_ARG(class), STR_ARG(service));
    error e = NULL;
    if (stat(path.p, &st) < 0)
        e = err_errno(errno);
    else if (S_ISFIFO(st.st_mode))
        e = send_fifo(path.p, request);
    else
        e = send_socket(path.p, request, conf_time(c, PARAM_trigger_timeout),
                        conf_time(c, PARAM_application_event_drain_time));
    buf_free(&path);
    return e;
}
