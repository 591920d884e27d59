/* smtp_companions - a policy server and a milter that have no objections: one thread, epoll, so that what is measured
 * is the mail server that asks them.
 *
 * The policy server says "action=DUNNO" to every request; the milter (protocol version 6) takes part in every step it
 * is offered and answers each with "continue". */
#include "peer.h"
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_SIZE = 128 * 1024, FDS_MAX = 65536 };

struct peer {
    int fd;
    bool listens, is_milter;
    size_t used;
    char in[];
};

static int epoll;
static struct peer *peers[FDS_MAX]; /* by descriptor */

static void add(int fd, bool listens, bool is_milter) {
    if (fd >= FDS_MAX)
        errx(1, "too many connections");
    struct peer *p = calloc(1, sizeof *p + (listens ? 0 : IN_SIZE));
    if (!p)
        err(1, "no memory");
    *p = (struct peer){ .fd = fd, .listens = listens, .is_milter = is_milter };
    peers[fd] = p;
    struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e))
        err(1, "epoll_ctl");
}

static bool answer(const struct peer *p, const void *bytes, size_t n) {
    return send(p->fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n;
}

/* How many bytes one request has, 0 when it is not whole yet. */
static size_t policy_request(const struct peer *p, size_t at) {
    const char *end = memmem(p->in + at, p->used - at, "\n\n", 2);
    return end ? (size_t)(end + 2 - (p->in + at)) : 0;
}

static size_t milter_request(const struct peer *p, size_t at) {
    uint32_t n;
    if (p->used - at < sizeof n)
        return 0;
    memcpy(&n, p->in + at, sizeof n);
    n = ntohl(n);
    return p->used - at >= sizeof n + n ? sizeof n + n : 0;
}

static bool milter_answer(const struct peer *p, char command) {
    static const char options[] = "\0\0\0\15O\0\0\0\6\0\0\0\0\0\0\0\0"; /* version 6, no actions, every step, answered */
    static const char go_on[] = "\0\0\0\1c";
    switch (command) {
    case 'O': return answer(p, options, sizeof options - 1);
    case 'A': case 'D': case 'K': return true; /* abort, macros, quit (a new connection): no answer */
    case 'Q': return false;
    default: return answer(p, go_on, sizeof go_on - 1);
    }
}

static bool serve(struct peer *p) {
    const ssize_t n = recv(p->fd, p->in + p->used, IN_SIZE - p->used, 0);
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    p->used += (size_t)n;
    size_t at = 0;
    for (size_t one; (one = p->is_milter ? milter_request(p, at) : policy_request(p, at)) > 0; at += one)
        if (p->is_milter ? one < 5 || !milter_answer(p, p->in[at + 4]) : !answer(p, "action=DUNNO\n\n", 14))
            return false;
    p->used -= at;
    memmove(p->in, p->in + at, p->used);
    return p->used < IN_SIZE;
}

int main(int argc, char **argv) {
    if (argc != 3)
        errx(2, "usage: smtp_companions POLICY-ADDRESS:PORT MILTER-ADDRESS:PORT");
    peer_many_files();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    add(peer_listen(argv[1]), true, false);
    add(peer_listen(argv[2]), true, true);
    struct epoll_event e = { .events = EPOLLIN, .data.fd = STDIN_FILENO };
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &e))
        err(1, "standard input is to be a pipe, whose end is the end");
    puts("companions event=listening");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        const int n = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            struct peer *p = peers[events[i].data.fd];
            if (!p)
                return 0;
            if (p->listens) {
                const int fd = accept4(p->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd >= 0) {
                    peer_no_delay(fd);
                    add(fd, false, p->is_milter);
                }
            } else if (!serve(p)) {
                peers[p->fd] = NULL;
                close(p->fd);
                free(p);
            }
        }
    }
}
