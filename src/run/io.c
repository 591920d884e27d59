#include "run/io.h"

#include "base/die.h"
#include "run/loop.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>

struct io {
    const struct io_transport *transport; /* NULL: plain reads and writes on fd */
    void *ctx;
    int fd;
    /* A short read from a plain descriptor has emptied it: the next one may wait at once. */
    bool drained;
    bool bulk; /* the last read filled what was asked for */
    bool eof;
    bool secret; /* buffers are overwritten before they are freed */
    error read_error, write_error;
    int64_t write_deadline;

    char *in; /* in[in_at..in_end) is unread; NULL when there is none */
    size_t in_at, in_end, in_room;
    struct buf out;
    size_t out_at; /* sent already */
};

static const struct err err_buffered = { .kind = ERR_SYNTAX,
                                         .text = STR_INIT("data received before the change of protocol") };

/* Reads go here first, so that a session that waits holds no buffer; nothing waits while it is in use. Only where much
 * comes they go to their place at once. */
static char scratch[IO_READ_BULK_SIZE];

/* A large buffer that was let go of, for who needs one next. */
enum { SPARE_MIN = 1024, SPARE_MAX = 64 * 1024 };
static struct {
    char *p;
    size_t room;
} spare;

struct io *io_new_transport(const struct io_transport *t, void *ctx, int fd) {
    struct io *io = calloc(1, sizeof *io);
    if (!io)
        die_no_memory(sizeof *io);
    io->transport = t;
    io->ctx = ctx;
    io->fd = fd;
    io->write_deadline = DEADLINE_NEVER;
    io->drained = !t; /* most connections begin with nothing to read */
    if (fd >= 0)
        wait_keep(fd);
    return io;
}

struct io *io_new_nonblocking(int fd) {
    return io_new_transport(NULL, NULL, fd);
}

struct io *io_new(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    return io_new_nonblocking(fd);
}

static void in_free(struct io *io) {
    if (io->secret && io->in)
        explicit_bzero(io->in, io->in_room);
    if (io->in_room >= SPARE_MIN && io->in_room <= SPARE_MAX && !spare.p) {
        spare.p = io->in;
        spare.room = io->in_room;
    } else {
        free(io->in);
    }
    io->in = NULL;
    io->in_at = io->in_end = io->in_room = 0;
}

/* The results of the last call are no longer needed: an empty buffer can go. */
static void in_release(struct io *io) {
    if (io->in && io->in_at == io->in_end)
        in_free(io);
}

static void out_drop(struct io *io) {
    if (io->secret)
        buf_wipe(&io->out);
    else
        buf_free(&io->out);
    io->out_at = 0;
}

void io_close(struct io *io) {
    if (!io)
        return;
    if (io->fd >= 0)
        wait_forget(io->fd);
    if (io->transport)
        io->transport->close(io->ctx);
    else
        sys->close(io->fd);
    in_free(io);
    out_drop(io);
    free(io);
}

void io_secret(struct io *io, bool on) {
    io->secret = io->secret || on;
    if (on) { /* what is buffered may have come through here */
        explicit_bzero(scratch, sizeof scratch);
        return;
    }
    in_release(io); /* still under the old rule */
    if (io->in)
        explicit_bzero(io->in, io->in_at);
    io->secret = false;
}

int io_fd(const struct io *io) {
    return io->fd;
}

void io_set_write_deadline(struct io *io, int64_t deadline) {
    io->write_deadline = deadline;
}

error io_switch(struct io *io, const struct io_transport *t, void *ctx) {
    if (io->in_at < io->in_end)
        return &err_buffered;
    error e = io_flush(io, io->write_deadline);
    if (e)
        return e;
    io->transport = t;
    io->ctx = ctx;
    io->drained = io->bulk = false;
    return NULL;
}

static error io_wait(struct io *io, uint32_t events, int64_t deadline) {
    if (io->fd < 0) /* a transport that says it never waits has to wait: nothing would ever wake it */
        return err_errno(EAGAIN);
    return loop_wait_fd(io->fd, events, deadline);
}

/* --- writing --- */

static ssize_t transport_write(struct io *io, struct iovec *iov, int count, uint32_t *ret_wait) {
    *ret_wait = EPOLLOUT;
    ssize_t n;
    do {
        if (io->transport)
            n = io->transport->write(io->ctx, iov[0].iov_base, iov[0].iov_len, ret_wait);
        else
            n = sys->writev(io->fd, iov, count);
    } while (n < 0 && errno == EINTR);
    return n;
}

static void out_sent(struct io *io, size_t n) {
    io->out_at += n;
    if (io->out_at == io->out.n)
        out_drop(io);
}

/* One write of what is buffered and then of `*more`. False: no more will go now; `*ret_wait` says what to wait for, or
 * it is 0 and write_error is set. Never waits, so that what two coroutines do here cannot interleave. */
static bool write_some(struct io *io, struct str *more, uint32_t *ret_wait) {
    struct iovec iov[2];
    int count = 0;
    size_t buffered = io->out.n - io->out_at;
    if (buffered)
        iov[count++] = (struct iovec){ io->out.p + io->out_at, buffered };
    if (more->n)
        iov[count++] = (struct iovec){ (void *)(uintptr_t)more->p, more->n };
    ssize_t n = transport_write(io, iov, count, ret_wait);
    if (n < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return false;
        io->write_error = err_errno(errno);
        *ret_wait = 0;
        return false;
    }
    size_t from_buffer = (size_t)n < buffered ? (size_t)n : buffered;
    if (from_buffer)
        out_sent(io, from_buffer);
    *more = str_from(*more, (size_t)n - from_buffer);
    /* a plain descriptor that took less than all is full: no need to hear EAGAIN */
    return io->transport || !(io->out.n || more->n);
}

static void write_all(struct io *io, struct str more, int64_t deadline) {
    while (!io->write_error && (io->out.n || more.n)) {
        uint32_t wait;
        if (write_some(io, &more, &wait)) {
            loop_charge(LOOP_COST_CALL);
            continue;
        }
        if (wait && !io->write_error)
            io->write_error = io_wait(io, wait, deadline);
    }
    if (io->write_error)
        out_drop(io);
}

void io_write(struct io *io, struct str s) {
    if (io->write_error || s.n == 0)
        return;
    if (io->out.n - io->out_at + s.n > IO_WRITE_SIZE)
        write_all(io, s, io->write_deadline);
    else
        buf_add(&io->out, s);
}

void io_printf(struct io *io, const char *format, ...) {
    if (io->write_error)
        return;
    va_list ap;
    va_start(ap, format);
    buf_vprintf(&io->out, format, ap);
    va_end(ap);
    if (io->out.n - io->out_at > IO_WRITE_SIZE)
        write_all(io, STR(""), io->write_deadline);
}

error io_flush(struct io *io, int64_t deadline) {
    if (io->out.n)
        write_all(io, STR(""), deadline);
    return io->write_error;
}

error io_flush_last(struct io *io, int64_t deadline) {
    int on = 1;
    if (io->out.n) /* not a TCP socket: it is sent as ever */
        setsockopt(io->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
    return io_flush(io, deadline);
}

/* --- reading --- */

static ssize_t transport_read(struct io *io, void *p, size_t n, uint32_t *ret_wait) {
    *ret_wait = EPOLLIN;
    ssize_t got;
    do {
        if (io->transport)
            got = io->transport->read(io->ctx, p, n, ret_wait);
        else
            got = sys->read(io->fd, p, n);
    } while (got < 0 && errno == EINTR);
    return got;
}

static void in_consume(struct io *io, size_t n) {
    io->in_at += n;
}

/* Room for `n` bytes behind what is unread. */
static char *in_reserve(struct io *io, size_t n) {
    if (io->in_at > 0) {
        memmove(io->in, io->in + io->in_at, io->in_end - io->in_at);
        io->in_end -= io->in_at;
        io->in_at = 0;
    }
    size_t need = io->in_end + n;
    if (need > io->in_room) {
        /* exactly what came, for most reads are whole; doubling once a line comes in pieces */
        size_t room = io->in ? io->in_room * 2 : 0;
        if (room < need)
            room = need;
        if (!io->in && need >= SPARE_MIN && need <= spare.room) {
            io->in = spare.p;
            io->in_room = spare.room;
            spare.p = NULL;
            spare.room = 0;
            return io->in;
        }
        if (room >= SPARE_MIN && room < IO_READ_SIZE)
            room = IO_READ_SIZE; /* will do for the next one, too */
        char *in = io->secret ? malloc(room) : realloc(io->in, room);
        if (!in)
            die_no_memory(room);
        if (io->secret && io->in) {
            memcpy(in, io->in, io->in_end);
            explicit_bzero(io->in, io->in_room);
            free(io->in);
        }
        io->in = in;
        io->in_room = room;
    }
    return io->in + io->in_end;
}

static void in_add(struct io *io, const char *p, size_t n) {
    memcpy(in_reserve(io, n), p, n);
    io->in_end += n;
}

void io_preload(struct io *io, struct str in, struct str out) {
    if (in.n)
        in_add(io, in.p, in.n);
    if (out.n)
        buf_add(&io->out, out);
}

/* One read into the buffer. NULL when there is more now; `*ret_wait` is set when it would have to wait (and the result
 * is not to be looked at). */
static error read_some(struct io *io, uint32_t *ret_wait) {
    *ret_wait = 0;
    if (io->read_error)
        return io->read_error;
    if (io->eof)
        return &err_eof;
    size_t want = io->bulk ? IO_READ_BULK_SIZE : IO_READ_SIZE;
    uint32_t wait;
    char *to = io->bulk ? in_reserve(io, want) : scratch;
    ssize_t got = transport_read(io, to, want, &wait);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        *ret_wait = wait;
        in_release(io);
        return NULL;
    }
    if (got < 0)
        return io->read_error = err_errno(errno);
    if (got == 0) {
        io->eof = true;
        return &err_eof;
    }
    io->bulk = (size_t)got == want;
    io->drained = !io->transport && !io->bulk;
    if (io->drained)
        loop_fd_emptied(io->fd);
    if (to == scratch) {
        in_add(io, scratch, (size_t)got);
        if (io->secret)
            explicit_bzero(scratch, (size_t)got);
    } else {
        io->in_end += (size_t)got;
    }
    return NULL;
}

/* What goes out without waiting. 0, or what to wait for to send the rest. */
static uint32_t write_what_goes(struct io *io) {
    struct str none = STR("");
    uint32_t wait = 0;
    while (!io->write_error && io->out.n && write_some(io, &none, &wait))
        ;
    if (io->write_error)
        out_drop(io);
    return io->out.n ? wait : 0;
}

/* More input, waiting if needed. Output goes out meanwhile, as far as the peer takes it: a peer that reads only when it
 * has said all it wants to say is not locked up. */
static error in_fill(struct io *io, int64_t deadline) {
    error e = loop_may_wait();
    if (e)
        return e;
    loop_charge(LOOP_COST_CALL);
    for (;;) {
        uint32_t wait = EPOLLIN;
        if (!io->drained) {
            e = read_some(io, &wait);
            if (e || !wait)
                return e;
        }
        /* a failure to write is kept for io_flush(): what the peer has sent can still be read */
        uint32_t wait_out = write_what_goes(io);
        bool write_first = wait_out && io->write_deadline < deadline;
        e = io_wait(io, wait | wait_out, write_first ? io->write_deadline : deadline);
        if (e && e->kind == ERR_TIMEOUT && write_first) {
            io->write_error = e;
            out_drop(io);
        }
        if (e)
            return e;
        io->drained = false;
    }
}

error io_line(struct io *io, size_t limit, int64_t deadline, struct str *ret_line) {
    *ret_line = STR("");
    in_release(io);
    loop_charge(LOOP_COST_LINE);
    size_t looked = 0; /* of what is buffered */
    for (;;) {
        size_t there = io->in_end - io->in_at;
        size_t end = there < limit ? there : limit;
        const char *lf = io->in && looked < end ? memchr(io->in + io->in_at + looked, '\n', end - looked) : NULL;
        if (lf) {
            *ret_line = str_n(io->in + io->in_at, (size_t)(lf - io->in) + 1 - io->in_at);
            in_consume(io, ret_line->n);
            return NULL;
        }
        looked = end;
        error e = there >= limit ? &err_limit : in_fill(io, deadline);
        if (e == &err_limit || e == &err_eof) {
            *ret_line = str_n(io->in ? io->in + io->in_at : NULL, end);
            in_consume(io, end);
        }
        if (e)
            return e;
    }
}

error io_some(struct io *io, size_t max, int64_t deadline, struct str *ret) {
    *ret = STR("");
    in_release(io);
    if (io->in_at == io->in_end) {
        error e = in_fill(io, deadline);
        if (e)
            return e;
    } else {
        loop_charge(LOOP_COST_LINE);
    }
    *ret = str_sub(io_peek(io), 0, max);
    in_consume(io, ret->n);
    return NULL;
}

error io_full(struct io *io, void *p, size_t n, int64_t deadline) {
    char *to = p;
    while (n > 0) {
        struct str some;
        error e = io_some(io, n, deadline, &some);
        if (e)
            return e;
        memcpy(to, some.p, some.n);
        to += some.n;
        n -= some.n;
    }
    in_release(io);
    return NULL;
}

struct str io_peek(struct io *io) {
    return str_n(io->in ? io->in + io->in_at : NULL, io->in_end - io->in_at);
}

size_t io_pending(struct io *io, bool look) {
    if (look && io->in_at == io->in_end && !(io->drained && loop_fd_quiet(io->fd))) {
        uint32_t wait;
        in_release(io);
        read_some(io, &wait);
    }
    return io->in_end - io->in_at;
}
