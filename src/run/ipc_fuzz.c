/* Any bytes as a stream of frames, in pieces of any size, with any number of descriptors: what is received is what a
 * second, simpler reader finds in the bytes, and no descriptor stays open.
 *
 * First byte: how many descriptors come with the first bytes. Second: the size of the pieces. The rest is the stream.
 */
#include "run/ipc.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FDS_MAX = IPC_FDS_MAX + 16, STREAM_MAX = 32 * 1024 };

static void require(bool good) {
    if (!good)
        abort();
}

static void send_piece(int fd, struct str piece, size_t fd_count, int passed) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control = { 0 };
    struct iovec iov = { (void *)(uintptr_t)piece.p, piece.n };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (fd_count) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        for (size_t i = 0; i < fd_count; i++)
            memcpy(CMSG_DATA(c) + i * sizeof(int), &passed, sizeof passed);
    }
    require(sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)piece.n);
}

/* The next frame at the front of `*s`. False: none, and `*ret_kind` is the error that must come. */
static bool next_frame(struct str *s, size_t *fds, struct str *ret_payload, uint8_t *ret_type, bool *ret_fd,
                       enum err_kind *ret_kind) {
    *ret_kind = s->n ? ERR_SYNTAX : ERR_EOF;
    if (s->n < IPC_HEADER_SIZE)
        return false;
    const uint8_t *p = (const uint8_t *)s->p;
    size_t n = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    if (n > s->n - IPC_HEADER_SIZE || p[5] > 1 || (p[5] == 1 && *fds == 0))
        return false;
    *ret_type = p[4];
    *ret_fd = p[5];
    *fds -= p[5];
    *ret_payload = str_sub(*s, IPC_HEADER_SIZE, n);
    *s = str_from(*s, IPC_HEADER_SIZE + n);
    return true;
}

static void receive_all(struct ipc *ipc, struct str stream, size_t fds) {
    bool too_many = fds > IPC_FDS_MAX;
    struct ipc_msg m = { .fd = -1 };
    for (;;) {
        struct str payload;
        uint8_t type;
        bool has_fd;
        enum err_kind kind;
        bool there = next_frame(&stream, &fds, &payload, &type, &has_fd, &kind);
        error e = ipc_recv(ipc, DEADLINE_NEVER, &m);
        if (e) {
            require(m.fd == -1 && m.payload.n == 0);
            require(too_many ? e->kind == ERR_SYNTAX || !there : !there && e->kind == kind);
            require(ipc_recv(ipc, DEADLINE_NEVER, &m) == e || too_many); /* these stay */
            return;
        }
        require(there && m.type == type && str_eq(m.payload, payload) && (m.fd >= 0) == has_fd);
        if (has_fd && type & 1) { /* taken by some, left by others */
            close(m.fd);
            m.fd = -1;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3 || size > STREAM_MAX)
        return 0;
    struct str stream = str_n((const char *)data + 2, size - 2);
    size_t fds = data[0] % FDS_MAX, piece = data[1] ? (size_t)data[1] * data[1] : size;
    int ends[2], held[2];
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0 && pipe2(held, O_CLOEXEC | O_NONBLOCK) == 0);
    if (size / piece > 64) /* each piece costs a buffer in the kernel: more would not fit the socket */
        piece = size / 64;
    for (size_t at = 0; at < stream.n; at += piece)
        send_piece(ends[0], str_sub(stream, at, piece), at ? 0 : fds, held[1]);
    close(ends[0]);
    struct ipc *ipc = ipc_new(ends[1]);
    receive_all(ipc, stream, fds);
    ipc_close(ipc);
    /* the pipe is at its end when nobody has a copy of what was passed */
    char byte;
    close(held[1]);
    require(read(held[0], &byte, 1) == 0);
    close(held[0]);
    return 0;
}
