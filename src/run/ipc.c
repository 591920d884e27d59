#include "run/ipc.h"

#include "base/die.h"
#include "run/loop.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum {
    READ_SIZE = 64 * 1024,
    SEND_SOON_SIZE = 64 * 1024, /* more than this gathered: send what goes, without waiting */
    SCM_FDS_MAX = 253,          /* the kernel's limit in one message: room for fewer would lose some silently */
};

struct out_fd {
    size_t at; /* where its frame begins in `out` */
    int fd;
    bool ours; /* duplicated: close it once sent */
    bool sent;
};

struct ipc {
    int fd;
    bool drained; /* a read would find nothing: wait first */
    bool blocked; /* a write would not go: wait first */
    error read_error, write_error;

    struct buf out;
    size_t out_at;     /* sent already */
    size_t last_frame; /* where the last frame begins; only looked at when it is unsent */
    bool last_has_fd;
    struct out_fd *out_fds; /* in order; those of frames not sent whole */
    size_t out_fd_count, out_fd_room;

    struct buf in;
    size_t in_at;
    int in_fds[IPC_FDS_MAX];
    size_t in_fd_count;
    const struct ipc_msg *last_msg; /* compared, never followed */
    int last_fd;
};

static const struct err err_malformed = { .kind = ERR_SYNTAX, .text = STR_INIT("malformed frame") };
static const struct err err_cut = { .kind = ERR_SYNTAX,
                                    .text = STR_INIT("connection closed in the middle of a frame") };
static const struct err err_no_fd = { .kind = ERR_SYNTAX, .text = STR_INIT("frame without its descriptor") };
static const struct err err_many_fds = { .kind = ERR_SYNTAX, .text = STR_INIT("too many descriptors") };

struct ipc *ipc_new(int fd) {
    struct ipc *ipc = calloc(1, sizeof *ipc);
    if (!ipc)
        die_no_memory(sizeof *ipc);
    ipc->fd = fd;
    ipc->last_fd = -1;
    ipc->drained = true; /* mostly there is nothing yet */
    wait_keep(fd);
    return ipc;
}

error ipc_connect(struct str path, int64_t deadline, struct ipc **ret) {
    struct endpoint at;
    struct io *io;
    if (!endpoint_unix(path, &at))
        return err_errno(ENAMETOOLONG);
    error e = io_connect(&at, NULL, deadline, &io);
    if (e)
        return e;
    int fd = fcntl(io_fd(io), F_DUPFD_CLOEXEC, 0); /* an ipc has a descriptor of its own */
    int why = errno;
    io_close(io);
    if (fd < 0)
        return err_errno(why);
    *ret = ipc_new(fd);
    return NULL;
}

int ipc_fd(const struct ipc *ipc) {
    return ipc->fd;
}

void ipc_msg_drop(struct ipc_msg *m) {
    if (m->fd >= 0)
        sys->close(m->fd);
    m->fd = -1;
}

static void out_drop(struct ipc *ipc) {
    for (size_t i = 0; i < ipc->out_fd_count; i++)
        if (ipc->out_fds[i].ours && !ipc->out_fds[i].sent)
            sys->close(ipc->out_fds[i].fd);
    ipc->out_fd_count = 0;
    free(ipc->out_fds);
    ipc->out_fds = NULL;
    ipc->out_fd_room = 0;
    buf_free(&ipc->out);
    ipc->out_at = 0;
}

static void in_drop(struct ipc *ipc) {
    for (size_t i = 0; i < ipc->in_fd_count; i++)
        sys->close(ipc->in_fds[i]);
    ipc->in_fd_count = 0;
    buf_free(&ipc->in);
    ipc->in_at = 0;
}

int ipc_release(struct ipc *ipc) {
    int fd = ipc->fd;
    wait_forget(fd);
    out_drop(ipc);
    in_drop(ipc);
    free(ipc);
    return fd;
}

void ipc_close(struct ipc *ipc) {
    if (ipc)
        sys->close(ipc_release(ipc));
}

struct io *ipc_into_io(struct ipc *ipc) {
    struct io *io = io_new(ipc->fd);
    io_preload(io, str_from(buf_str(&ipc->in), ipc->in_at), str_from(buf_str(&ipc->out), ipc->out_at));
    out_drop(ipc);
    in_drop(ipc);
    free(ipc);
    return io;
}

/* --- sending --- */

static void out_fail(struct ipc *ipc, error e) {
    ipc->write_error = e;
    out_drop(ipc);
}

/* How much of `out` may go in one call, and which descriptors with it. A frame must not go before its descriptor, and
 * not too many descriptors before their frames. */
static size_t send_plan(const struct ipc *ipc, int fds[IPC_FDS_AHEAD], size_t *ret_count, size_t *ret_first) {
    size_t end = ipc->out.n, ahead = 0;
    *ret_count = 0;
    *ret_first = ipc->out_fd_count;
    for (size_t i = 0; i < ipc->out_fd_count; i++) {
        const struct out_fd *f = &ipc->out_fds[i];
        if (f->sent) {
            ahead++;
            continue;
        }
        if (ahead + *ret_count == IPC_FDS_AHEAD) {
            end = f->at;
            break;
        }
        if (*ret_count == 0)
            *ret_first = i;
        fds[(*ret_count)++] = f->fd;
    }
    return end - ipc->out_at;
}

/* `n` bytes have gone out. */
static void out_sent(struct ipc *ipc, size_t n) {
    ipc->out_at += n;
    size_t gone = 0;
    while (gone < ipc->out_fd_count && ipc->out_fds[gone].sent && ipc->out_fds[gone].at < ipc->out_at)
        gone++;
    ipc->out_fd_count -= gone;
    if (gone)
        memmove(ipc->out_fds, ipc->out_fds + gone, ipc->out_fd_count * sizeof *ipc->out_fds);
    if (ipc->out_at == ipc->out.n) {
        out_drop(ipc);
    } else if (ipc->out_at > SEND_SOON_SIZE && ipc->out_at > ipc->out.n / 2) {
        /* a sender that never quite empties it must not make it grow for ever */
        for (size_t i = 0; i < ipc->out_fd_count; i++)
            ipc->out_fds[i].at -= ipc->out_at;
        /* one sent already may never be appended to: any place outside will do */
        ipc->last_frame = ipc->last_frame < ipc->out_at ? SIZE_MAX : ipc->last_frame - ipc->out_at;
        buf_consume(&ipc->out, ipc->out_at);
        ipc->out_at = 0;
    }
}

/* One sendmsg(). False: it would have to wait, or failed. */
static bool send_some(struct ipc *ipc) {
    static union {
        struct cmsghdr header;
        char space[CMSG_SPACE(IPC_FDS_AHEAD * sizeof(int))];
    } control;
    int fds[IPC_FDS_AHEAD];
    size_t count, first;
    size_t size = send_plan(ipc, fds, &count, &first);
    struct iovec iov = { .iov_base = ipc->out.p + ipc->out_at, .iov_len = size };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (count > 0) {
        memset(&control, 0, sizeof control);
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    ssize_t n;
    do
        n = sys->sendmsg(ipc->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            ipc->blocked = true;
        else
            out_fail(ipc, err_errno(errno));
        return false;
    }
    ipc->blocked = (size_t)n < size;
    for (size_t i = first; i < first + count; i++) {
        struct out_fd *f = &ipc->out_fds[i];
        f->sent = true;
        if (f->ours)
            sys->close(f->fd);
    }
    out_sent(ipc, (size_t)n);
    return true;
}

static void send_what_goes(struct ipc *ipc) {
    while (ipc->out.n && !ipc->blocked && send_some(ipc))
        ;
}

static void out_fd_add(struct ipc *ipc, size_t at, int fd) {
    if (ipc->out_fd_count == ipc->out_fd_room) {
        size_t room = ipc->out_fd_room ? ipc->out_fd_room * 2 : 4;
        struct out_fd *fds = realloc(ipc->out_fds, room * sizeof *fds);
        if (!fds)
            die_no_memory(room * sizeof *fds);
        ipc->out_fds = fds;
        ipc->out_fd_room = room;
    }
    ipc->out_fds[ipc->out_fd_count++] = (struct out_fd){ .at = at, .fd = fd };
}

/* The descriptor is the caller's again when we return: send it now, or keep a duplicate. */
static void out_fd_settle(struct ipc *ipc) {
    send_what_goes(ipc);
    if (ipc->out_fd_count == 0)
        return;
    struct out_fd *f = &ipc->out_fds[ipc->out_fd_count - 1];
    if (f->sent)
        return;
    f->fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
    f->ours = f->fd >= 0;
    if (f->fd < 0)
        out_fail(ipc, err_errno(errno));
}

/* What stands in front of `n` bytes of payload. False: nothing is to be sent. */
static bool frame_begin(struct ipc *ipc, uint8_t type, size_t n, bool has_fd) {
    if (ipc->write_error)
        return false;
    if (n > IPC_FRAME_MAX) {
        out_fail(ipc, &err_limit);
        return false;
    }
    ipc->last_frame = ipc->out.n;
    ipc->last_has_fd = has_fd;
    pack_u32(&ipc->out, (uint32_t)n);
    pack_u8(&ipc->out, type);
    pack_u8(&ipc->out, has_fd);
    return true;
}

void ipc_send_numbered(struct ipc *ipc, uint8_t type, uint32_t number, struct str rest) {
    if (!frame_begin(ipc, type, sizeof number + rest.n, false))
        return;
    pack_u32(&ipc->out, number);
    buf_add(&ipc->out, rest);
    if (ipc_unsent(ipc) > SEND_SOON_SIZE)
        send_what_goes(ipc);
}

void ipc_send(struct ipc *ipc, uint8_t type, struct str payload, int fd) {
    if (!frame_begin(ipc, type, payload.n, fd >= 0))
        return;
    buf_add(&ipc->out, payload);
    if (fd >= 0) {
        out_fd_add(ipc, ipc->last_frame, fd);
        out_fd_settle(ipc);
    } else if (ipc_unsent(ipc) > SEND_SOON_SIZE) {
        send_what_goes(ipc);
    }
}

void ipc_append(struct ipc *ipc, uint8_t type, struct str bytes, size_t frame_max) {
    if (ipc->write_error)
        return;
    struct str last = str_from(buf_str(&ipc->out), ipc->last_frame);
    if (ipc->last_frame < ipc->out_at || last.n < IPC_HEADER_SIZE || ipc->last_has_fd) {
        ipc_send(ipc, type, bytes, -1);
        return;
    }
    struct unpack u = unpack_from(last);
    size_t size = unpack_u32(&u);
    if (unpack_u8(&u) != type || size + bytes.n > frame_max || size + bytes.n > IPC_FRAME_MAX) {
        ipc_send(ipc, type, bytes, -1);
        return;
    }
    buf_add(&ipc->out, bytes);
    struct buf head = { 0 };
    pack_u32(&head, (uint32_t)(size + bytes.n));
    memcpy(ipc->out.p + ipc->last_frame, head.p, head.n);
    buf_free(&head);
    if (ipc_unsent(ipc) > SEND_SOON_SIZE)
        send_what_goes(ipc);
}

size_t ipc_unsent(const struct ipc *ipc) {
    return ipc->out.n - ipc->out_at;
}

size_t ipc_unsent_fds(const struct ipc *ipc) {
    size_t n = 0;
    for (size_t i = 0; i < ipc->out_fd_count; i++)
        n += ipc->out_fds[i].ours && !ipc->out_fds[i].sent;
    return n;
}

error ipc_flush(struct ipc *ipc, int64_t deadline) {
    while (!ipc->write_error && ipc->out.n) {
        if (!ipc->blocked && send_some(ipc))
            loop_charge(LOOP_COST_CALL);
        if (ipc->blocked && ipc->out.n) {
            error e = loop_wait_fd(ipc->fd, EPOLLOUT, deadline);
            ipc->blocked = false;
            if (e)
                out_fail(ipc, e);
        }
    }
    return ipc->write_error;
}

/* --- receiving --- */

static void fds_received(struct ipc *ipc, struct msghdr *msg) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
            if (ipc->in_fd_count < IPC_FDS_MAX) {
                ipc->in_fds[ipc->in_fd_count++] = fd;
            } else {
                sys->close(fd);
                ipc->read_error = &err_many_fds;
            }
        }
    }
    if (msg->msg_flags & MSG_CTRUNC) /* there was room for all the kernel takes: the process is out of descriptors */
        ipc->read_error = err_errno(EMFILE);
}

static void emptied(struct ipc *ipc) {
    ipc->drained = true;
    loop_fd_emptied(ipc->fd);
}

/* One recvmsg(). False: it would have to wait, or read_error is set. */
static bool receive_some(struct ipc *ipc) {
    static char scratch[READ_SIZE]; /* nothing waits while these are in use */
    static union {
        struct cmsghdr header;
        char space[CMSG_SPACE(SCM_FDS_MAX * sizeof(int))];
    } control;
    if (ipc->read_error)
        return false;
    struct iovec iov = { .iov_base = scratch, .iov_len = sizeof scratch };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    ssize_t n;
    do
        n = sys->recvmsg(ipc->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        emptied(ipc);
        return false;
    }
    if (n < 0 && errno != ECONNRESET) {
        ipc->read_error = err_errno(errno);
        return false;
    }
    if (n <= 0) { /* a reset is a peer that went without reading all we sent */
        ipc->read_error = ipc->in.n > ipc->in_at ? &err_cut : &err_eof;
        return false;
    }
    fds_received(ipc, &msg);
    if (ipc->in_at > 0) {
        buf_consume(&ipc->in, ipc->in_at);
        ipc->in_at = 0;
    }
    buf_add(&ipc->in, str_n(scratch, (size_t)n));
    /* a read also ends behind bytes that carry descriptors: only a short one without is the end of what there is */
    if ((size_t)n < sizeof scratch && msg.msg_controllen == 0)
        emptied(ipc);
    else
        ipc->drained = false;
    return ipc->read_error == NULL;
}

/* A whole frame at the front of the buffer? Sets read_error when it can never become one. */
static bool frame_there(struct ipc *ipc, struct str *ret_payload, uint8_t *ret_type, bool *ret_has_fd) {
    struct str there = str_from(buf_str(&ipc->in), ipc->in_at);
    if (there.n < IPC_HEADER_SIZE)
        return false;
    struct unpack u = unpack_from(there);
    uint32_t size = unpack_u32(&u);
    *ret_type = unpack_u8(&u);
    uint8_t has_fd = unpack_u8(&u);
    if (size > IPC_FRAME_MAX || has_fd > 1) {
        ipc->read_error = &err_malformed;
        return false;
    }
    if (u.rest.n < size)
        return false;
    *ret_has_fd = has_fd;
    *ret_payload = str_sub(u.rest, 0, size);
    return true;
}

static void in_release(struct ipc *ipc) {
    if (ipc->in.p && ipc->in_at == ipc->in.n) {
        buf_free(&ipc->in);
        ipc->in_at = 0;
    }
}

error ipc_recv(struct ipc *ipc, int64_t deadline, struct ipc_msg *ret) {
    if (ipc->last_fd >= 0 && ret == ipc->last_msg && ret->fd == ipc->last_fd)
        sys->close(ret->fd);
    ipc->last_fd = -1;
    ipc->last_msg = NULL;
    *ret = (struct ipc_msg){ .payload = STR(""), .fd = -1 };
    in_release(ipc);
    loop_charge(LOOP_COST_LINE);
    struct str payload;
    uint8_t type;
    bool has_fd;
    while (!frame_there(ipc, &payload, &type, &has_fd)) {
        error e = loop_may_wait();
        if (e)
            return e;
        if (ipc->read_error)
            return ipc->read_error;
        if (ipc->write_error == &err_limit)
            return &err_limit; /* the question was never sent: no answer will come */
        if (!ipc->drained) {
            if (receive_some(ipc))
                loop_charge(LOOP_COST_CALL);
            continue;
        }
        send_what_goes(ipc);
        e = loop_wait_fd(ipc->fd, EPOLLIN | (ipc->out.n ? EPOLLOUT : 0), deadline);
        if (e)
            return e;
        ipc->drained = ipc->blocked = false;
    }
    if (has_fd && ipc->in_fd_count == 0)
        return ipc->read_error = &err_no_fd;
    ret->type = type;
    ret->payload = payload;
    if (has_fd) {
        ret->fd = ipc->in_fds[0];
        ipc->in_fd_count--;
        memmove(ipc->in_fds, ipc->in_fds + 1, ipc->in_fd_count * sizeof(int));
        ipc->last_fd = ret->fd;
        ipc->last_msg = ret;
    }
    ipc->in_at += IPC_HEADER_SIZE + payload.n;
    return NULL;
}

bool ipc_quiet(const struct ipc *ipc) {
    return ipc->in_at == ipc->in.n && ipc->drained && !ipc->read_error && loop_fd_quiet(ipc->fd);
}

bool ipc_pending(struct ipc *ipc) {
    struct str payload;
    uint8_t type;
    bool has_fd;
    in_release(ipc);
    while (!frame_there(ipc, &payload, &type, &has_fd)) {
        if (ipc->read_error)
            return true;
        if (ipc->drained && loop_fd_quiet(ipc->fd))
            return false;
        if (!receive_some(ipc) && !ipc->read_error)
            return false;
    }
    return true;
}
