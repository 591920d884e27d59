/* io.h - buffered byte streams for coroutines. Lengths in bytes, deadlines as in run/sys.h.
 *
 * An io owns its descriptor. Buffers exist only while they hold something, so that an idle session costs its stack
 * page and little else. Errors while writing are kept: every later write is ignored and io_flush() returns the first
 * one. Reading sends what was written before it waits and while it waits, so that a reply is never stuck behind a read;
 * the write deadline ends such a wait too, while there is something to send.
 *
 * One coroutine may read while another writes; two that read, or two that write, mix up their bytes. Nobody may be
 * inside when the io is closed: cancel and wait first. */
#ifndef ANGARIUM_RUN_IO_H
#define ANGARIUM_RUN_IO_H

#include "base/buf.h"
#include "run/coro.h"
#include <netinet/in.h>
#include <sys/un.h>

enum {
    IO_READ_SIZE = 8192,       /* asked for at a time, */
    IO_READ_BULK_SIZE = 32768, /* and when the last read filled that */
    IO_WRITE_SIZE = 16384      /* more than this buffered: write before returning */
};

struct io;

/* What is under the buffers: a socket, a TLS session, a test's script. Each function returns bytes moved, 0 for end of
 * stream (read), or -1 with errno set; EAGAIN makes the io wait for what `*ret_wait` says (EPOLLIN or EPOLLOUT). */
struct io_transport {
    ssize_t (*read)(void *ctx, void *p, size_t n, uint32_t *ret_wait);
    ssize_t (*write)(void *ctx, const void *p, size_t n, uint32_t *ret_wait);
    void (*close)(void *ctx); /* frees ctx, closes the descriptor */
};

struct io *io_new(int fd);             /* non-blocking is set here */
struct io *io_new_nonblocking(int fd); /* that it is known to be */
struct io *io_new_transport(const struct io_transport *t, void *ctx, int fd /* to wait on; -1: never waits */);
void io_close(struct io *io); /* unsent output is dropped: flush first. NULL is allowed. */
int io_fd(const struct io *io);
/* TLS and the like: replace the transport. Fails with ERR_SYNTAX when input is still buffered (bytes sent before the
 * switch must not be read after it); unsent output is flushed first, and a failure of that is returned. The old
 * transport's ctx and the descriptor go to the new one's owner, they are not closed. */
error io_switch(struct io *io, const struct io_transport *t, void *ctx);
/* From now on (or no longer) passwords come and go: what is read and written is overwritten in the buffers before they
 * are given back. A transport sees to its own. */
void io_secret(struct io *io, bool on);

/* --- reading: results are borrowed until the next call on the io --- */
/* A line with its LF (and CR). `limit` bytes without LF: &err_limit with those bytes consumed and given in *ret_line,
 * so that the caller can go on reading the rest of the line, or give up. ERR_EOF: *ret_line is what came after the last
 * LF, mostly empty. After any other error *ret_line is empty and what came so far stays for the next call. */
error io_line(struct io *io, size_t limit, int64_t deadline, struct str *ret_line);
/* 1 to `max` bytes, what there is. */
error io_some(struct io *io, size_t max, int64_t deadline, struct str *ret);
/* ERR_EOF when the stream ends before `n` bytes; the bytes up to there are in `p`. */
error io_full(struct io *io, void *p, size_t n, int64_t deadline);
/* Bytes that can be read without waiting for the peer: buffered, or already in the socket when `look` is true (as the
 * loop last saw it: what comes while a coroutine runs may not be counted). */
size_t io_pending(struct io *io, bool look);
struct str io_peek(struct io *io); /* what is buffered */

/* --- writing --- */
void io_write(struct io *io, struct str s);
void io_printf(struct io *io, const char *format, ...) __attribute__((format(printf, 2, 3)));
error io_flush(struct io *io, int64_t deadline);
/* The same, where io_close() follows at once and the peer has nothing more to say: what goes out last takes the end of
 * the stream along in one segment. The kernel keeps it back for at most 200 ms. */
error io_flush_last(struct io *io, int64_t deadline);
/* The deadline for writes that happen by themselves (buffer full, read after write). Default: DEADLINE_NEVER. */
void io_set_write_deadline(struct io *io, int64_t deadline);

/* --- addresses and connections --- */
struct endpoint { /* a socket address */
    socklen_t len;
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } u;
};
/* Numeric address ("127.0.0.1", "::1", no brackets) and port. False: not one. */
bool endpoint_ip(struct str address, uint16_t port, struct endpoint *ret);
bool endpoint_unix(struct str path, struct endpoint *ret); /* false: too long */
/* "127.0.0.1", "::1"; an IPv4-mapped IPv6 address is given as IPv4 (one normal form everywhere). Unix: "". */
struct str endpoint_address(const struct endpoint *e, char out[INET6_ADDRSTRLEN]);
bool endpoint_is_loopback(const struct endpoint *e); /* 127.0.0.0/8, ::1, also IPv4 in IPv6 */
bool endpoint_is_any(const struct endpoint *e);      /* 0.0.0.0, :: */
uint16_t endpoint_port(const struct endpoint *e);
error io_connect(const struct endpoint *to, const struct endpoint *from_or_null, int64_t deadline, struct io **ret);
/* The next connection of a listening descriptor: non-blocking, close-on-exec, TCP_NODELAY. Connections that were gone
 * before we took them are skipped. ERR_SYS with EMFILE, ENFILE, ENOBUFS or ENOMEM comes at once, the connection still
 * waits in the kernel: take no more until a descriptor has been closed or some time has passed. An accept loop calls
 * wait_keep(listen_fd) once. */
error io_accept(int listen_fd, int64_t deadline, struct endpoint *ret_peer, int *ret_fd);
/* A bound, listening, non-blocking descriptor. Unix sockets: an old one is removed first; `mode` is its permission. */
/* Bytes that sockets made from now on for TCP may have under way, either way (SO_SNDBUF, SO_RCVBUF); 0: as the system
 * has it. */
void socket_window(int bytes);
error listen_on(const struct endpoint *at, int backlog, mode_t mode, int *ret_fd);
#endif
