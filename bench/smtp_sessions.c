/* smtp_sessions - many SMTP sessions, each a new connection that runs through one script, or stays: one thread, epoll.
 *
 * The script is the command line: what to send, one line after the other, each after the reply to the one before.
 * "STARTTLS" is followed by the handshake, "MESSAGE" stands for a content of some lines and its final dot; lines with "|"
 * between them go out together, as PIPELINING (RFC 2920) allows. With -i the
 * connections stay after the script until standard input ends; with -q they never say anything. Results are name=value
 * words on lines of standard output; times are CLOCK_MONOTONIC in seconds, as in smtp_load. */
#include "peer.h"
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    REPLY_MAX = 4096, /* longest line of a reply */
    SOURCES = 200,    /* addresses of 127.1.0.0/16 that connections come from, each with ports of its own */
    OUT_MAX = 4096,   /* bytes of a step */
    MOST_LOSSES = 1000,
};

enum state { STATE_OPENING, STATE_REPLY, STATE_HANDSHAKE, STATE_HELD, STATE_OVER };

struct session {
    int fd;
    enum state state;
    SSL *tls;
    int step;   /* lines of the script that were sent; 0: the greeting is awaited */
    int awaits; /* replies to the newest of them */
    int64_t began_us;
    bool ended; /* the server has closed its end */
    size_t used, out_used;
    char in[REPLY_MAX], out[OUT_MAX];
};

static struct {
    const char *address;
    char **script;
    int steps;
    long sessions, total;
    bool hold, silent, resume;
} opt = { .sessions = 1, .total = 1 };

static struct {
    int epoll;
    struct session *sessions;
    bool encrypts; /* the script has STARTTLS */
    SSL_CTX *tls;
    SSL_SESSION **ticket; /* the newest of a session's place; used again when the server sends no other */
    long begun, over, held, lost, refused, resumed, handshakes;
    uint32_t *banner_us;
    long banners;
    int64_t start_us, end_us;
} run;

static const char message[] = "From: Bench <bench@near.example>\r\nTo: user@far.example\r\nSubject: a session of its own\r\n"
                              "Date: Thu, 19 Nov 2026 10:00:00 +0000\r\nMessage-Id: <session@load.example>\r\n\r\n"
                              "The couriers ride by day and by night.\r\n.\r\n";

/* What a step of a session sends goes out in one write: the last flight of a handshake with the first command behind it. */
static bool send_held(struct session *s) {
    const size_t n = s->out_used;
    s->out_used = 0;
    return n == 0 || send(s->fd, s->out, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static int hold_back(BIO *bio, const char *p, int n) {
    struct session *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (n > OUT_MAX || (s->out_used + (size_t)n > OUT_MAX && !send_held(s)))
        return -1;
    memcpy(s->out + s->out_used, p, (size_t)n);
    s->out_used += (size_t)n;
    return n;
}

static int take(BIO *bio, char *p, int n) {
    struct session *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (!send_held(s))
        return -1;
    const ssize_t got = recv(s->fd, p, (size_t)n, 0);
    if (got < 0 && errno == EAGAIN)
        BIO_set_retry_read(bio);
    return (int)got;
}

static long control(BIO *bio, int command, long number, void *p) {
    (void)bio, (void)number, (void)p;
    return command == BIO_CTRL_FLUSH;
}

static BIO *session_bio(struct session *s) {
    static BIO_METHOD *method;
    if (!method) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "session");
        if (!method)
            errx(1, "no TLS session");
        BIO_meth_set_write(method, hold_back);
        BIO_meth_set_read(method, take);
        BIO_meth_set_ctrl(method, control);
    }
    BIO *bio = BIO_new(method);
    if (!bio)
        errx(1, "no TLS session");
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    return bio;
}

static void watch(struct session *s, int operation, uint32_t events) {
    struct epoll_event e = { .events = events, .data.ptr = s };
    if (epoll_ctl(run.epoll, operation, s->fd, &e))
        err(1, "epoll_ctl");
}

static void open_session(struct session *s) {
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        err(1, "socket");
    if (run.encrypts) /* elsewhere nothing is said before the last thing was answered */
        peer_no_delay(s->fd);
    const int on = 1;
    setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in from = { .sin_family = AF_INET };
    from.sin_addr.s_addr = htonl(0x7f010001u + (uint32_t)(run.begun % SOURCES));
    if (bind(s->fd, (void *)&from, sizeof from))
        err(1, "bind");
    run.begun++;
    s->state = STATE_OPENING;
    s->step = 0;
    s->awaits = 1;
    s->used = s->out_used = 0;
    s->ended = false;
    s->tls = NULL;
    s->began_us = peer_now_us();
    if (!peer_connect_socket(s->fd, opt.address))
        err(1, "connect to %s", opt.address);
    watch(s, EPOLL_CTL_ADD, opt.silent ? EPOLLOUT : EPOLLIN | EPOLLRDHUP);
}

/* The session's place is free for the next connection, if there is one to make. */
static void close_session(struct session *s, bool lost) {
    if (s->state == STATE_HELD)
        run.held--;
    if (s->tls) {
        if (s->ended) /* nobody is there to take it; without a goodbye the ticket would not be used again */
            SSL_set_shutdown(s->tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        else if (!lost && SSL_shutdown(s->tls) >= 0)
            send_held(s);
        SSL_free(s->tls);
        s->tls = NULL;
        ERR_clear_error();
    }
    close(s->fd);
    s->fd = -1;
    s->state = STATE_OVER;
    if (lost && ++run.lost > MOST_LOSSES)
        errx(1, "%d connections to %s were lost", MOST_LOSSES, opt.address);
    run.over++;
    run.end_us = peer_now_us();
    if (run.begun < opt.total)
        open_session(opt.hold || opt.silent ? &run.sessions[run.begun] : s);
}

static void hold_session(struct session *s) {
    s->state = STATE_HELD;
    run.held++;
    if (run.begun < opt.total) /* -s of them are opened at a time: backlogs are short */
        open_session(&run.sessions[run.begun]);
}

/* A silent connection is there, or could not be made. */
static void connected(struct session *s) {
    int failure = 0;
    socklen_t n = sizeof failure;
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &failure, &n) || failure) {
        close_session(s, true);
        return;
    }
    watch(s, EPOLL_CTL_MOD, EPOLLIN);
    hold_session(s);
}

/* Lines here are short and answered one by one: what the socket does not take at once is a lost connection. */
static bool send_all(struct session *s, const char *text, size_t n) {
    if (s->tls)
        return SSL_write(s->tls, text, (int)n) == (int)n && send_held(s);
    return send(s->fd, text, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool next_line(struct session *s) {
    const char *text = opt.script[s->step++];
    s->awaits = 1;
    if (!strcmp(text, "MESSAGE"))
        return send_all(s, message, sizeof message - 1);
    char out[1000];
    size_t n = 0;
    for (; *text && n < sizeof out - 4; text++)
        if (*text == '|') {
            s->awaits++;
            out[n++] = '\r';
            out[n++] = '\n';
        } else
            out[n++] = *text;
    out[n++] = '\r';
    out[n++] = '\n';
    return !*text && send_all(s, out, n);
}

static bool handshake(struct session *s) {
    const int done = SSL_do_handshake(s->tls);
    if (done == 1) {
        run.handshakes++;
        run.resumed += SSL_session_reused(s->tls);
        s->state = STATE_REPLY;
        return next_line(s);
    }
    return SSL_get_error(s->tls, done) == SSL_ERROR_WANT_READ && send_held(s);
}

static bool begin_tls(struct session *s) {
    s->tls = SSL_new(run.tls);
    if (!s->tls)
        errx(1, "no TLS session");
    BIO *bio = session_bio(s);
    SSL_set_bio(s->tls, bio, bio);
    SSL_set_read_ahead(s->tls, 1);
    SSL_set_connect_state(s->tls);
    SSL_SESSION **ticket = &run.ticket[s - run.sessions];
    SSL_set_ex_data(s->tls, 0, (void *)ticket);
    if (opt.resume && *ticket)
        SSL_set_session(s->tls, *ticket);
    s->state = STATE_HANDSHAKE;
    s->used = 0;
    return handshake(s);
}

static int keep_ticket(SSL *tls, SSL_SESSION *session) {
    SSL_SESSION **ticket = SSL_get_ex_data(tls, 0);
    SSL_SESSION_free(*ticket);
    *ticket = session;
    return 1;
}

/* One whole reply. False: the session is over or lost, as *lost says. */
static bool reply(struct session *s, char first, bool *lost) {
    if (s->step == 0) {
        run.banner_us[run.banners++] = (uint32_t)(peer_now_us() - s->began_us);
        s->state = STATE_REPLY;
    }
    if (first == '4' || first == '5')
        run.refused++;
    *lost = true;
    if (--s->awaits > 0)
        return true;
    if (s->step > 0 && !strcmp(opt.script[s->step - 1], "STARTTLS"))
        return first == '2' && begin_tls(s);
    if (s->step < opt.steps)
        return next_line(s);
    *lost = false;
    if (opt.hold)
        hold_session(s);
    return opt.hold;
}

static ssize_t receive(struct session *s) {
    char *at = s->in + s->used;
    const size_t room = sizeof s->in - s->used;
    if (!s->tls)
        return recv(s->fd, at, room, 0);
    const int n = SSL_read(s->tls, at, (int)room);
    if (n > 0)
        return n;
    const int why = SSL_get_error(s->tls, n);
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
    return -1;
}

static void ready(struct session *s) {
    bool lost = true;
    if (s->state == STATE_HANDSHAKE) {
        if (!handshake(s))
            close_session(s, true);
        return;
    }
    for (;;) {
        const ssize_t n = receive(s);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            break;
        s->used += (size_t)n;
        char *at = s->in, *end = s->in + s->used;
        for (char *lf; (lf = memchr(at, '\n', (size_t)(end - at))); at = lf + 1)
            if (lf - at >= 4 && at[3] != '-' && !reply(s, at[0], &lost)) {
                close_session(s, lost);
                return;
            }
        if (s->state == STATE_HANDSHAKE)
            return;
        s->used = (size_t)(end - at);
        memmove(s->in, at, s->used);
        if (s->used == sizeof s->in)
            break;
        if (!s->tls)
            return;
    }
    close_session(s, lost);
}

static int compare(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_results(const char *event) {
    qsort(run.banner_us, (size_t)run.banners, sizeof *run.banner_us, compare);
    const long middle = (run.banners - 1) / 2;
    const double banner = run.banners ? run.banner_us[middle] / 1000.0 : 0;
    const double seconds = (double)(run.end_us - run.start_us) / 1e6;
    printf("sessions event=%s over=%ld held=%ld lost=%ld refused=%ld handshakes=%ld resumed=%ld banner50=%.3f "
           "start=%.6f end=%.6f rate=%.1f cpu=%.3f\n",
           event, run.over, run.held, run.lost, run.refused, run.handshakes, run.resumed, banner,
           (double)run.start_us / 1e6, (double)run.end_us / 1e6,
           seconds > 0 ? (double)run.over / seconds : 0, peer_cpu_seconds());
    fflush(stdout);
}

static void make_tls(long places) {
    run.tls = SSL_CTX_new(TLS_client_method());
    run.ticket = calloc((size_t)places, sizeof *run.ticket);
    if (!run.tls || !run.ticket)
        errx(1, "no TLS");
    SSL_CTX_set_mode(run.tls, SSL_MODE_RELEASE_BUFFERS);
    if (opt.resume) {
        SSL_CTX_set_session_cache_mode(run.tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(run.tls, keep_ticket);
    }
}

static void loop(void) {
    struct epoll_event events[256];
    bool told = false, input = true;
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL };
    if ((opt.hold || opt.silent) && epoll_ctl(run.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &e))
        err(1, "standard input is to be a pipe");
    while (input && run.over < opt.total) {
        const int n = epoll_wait(run.epoll, events, 256, -1);
        if (n < 0 && errno != EINTR)
            err(1, "epoll_wait");
        for (int i = 0; i < n; i++) {
            struct session *s = events[i].data.ptr;
            char unread[256];
            if (!s)
                input = read(STDIN_FILENO, unread, sizeof unread) > 0;
            else if (s->fd >= 0 && opt.silent && s->state == STATE_OPENING)
                connected(s);
            else if (s->fd >= 0 && (opt.silent || s->state == STATE_HELD)) {
                const ssize_t got = recv(s->fd, s->in, sizeof s->in, 0);
                if (got == 0 || (got < 0 && errno != EAGAIN))
                    close_session(s, true);
            } else if (s->fd >= 0) {
                s->ended = events[i].events & EPOLLRDHUP;
                ready(s);
            }
        }
        if (!told && run.held + run.over == opt.total) {
            told = true;
            print_results("held");
        }
    }
    print_results("end");
}

static void usage(void) {
    puts("usage: smtp_sessions [-s AT A TIME] [-n SESSIONS] [-i | -q] [-r] ADDRESS:PORT [LINE ...]\n"
         "  -i  keep the connections after the script until standard input ends; -s: how many are opened at once\n"
         "  -q  connect, say nothing, keep the connections\n"
         "  -r  resume TLS sessions");
}

int main(int argc, char **argv) {
    for (int c; (c = getopt(argc, argv, "s:n:iqrh")) != -1;)
        switch (c) {
        case 's': opt.sessions = peer_number(optarg, "sessions at a time", 1, 100000); break;
        case 'n': opt.total = peer_number(optarg, "sessions", 1, 10000000); break;
        case 'i': opt.hold = true; break;
        case 'q': opt.silent = true; break;
        case 'r': opt.resume = true; break;
        case 'h': usage(); return 0;
        default: usage(); return 2;
        }
    if (optind >= argc) {
        usage();
        return 2;
    }
    opt.address = argv[optind];
    opt.script = argv + optind + 1;
    opt.steps = argc - optind - 1;
    if (opt.sessions > opt.total)
        opt.sessions = opt.total;
    const long places = opt.hold || opt.silent ? opt.total : opt.sessions;
    for (int i = 0; i < opt.steps; i++)
        run.encrypts = run.encrypts || !strcmp(opt.script[i], "STARTTLS");
    signal(SIGPIPE, SIG_IGN);
    peer_many_files();
    if (run.encrypts)
        make_tls(places);
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    run.sessions = calloc((size_t)places, sizeof *run.sessions);
    run.banner_us = calloc((size_t)opt.total, sizeof *run.banner_us);
    if (run.epoll < 0 || !run.sessions || !run.banner_us)
        err(1, "start");
    run.start_us = peer_now_us();
    for (long i = 0; i < opt.sessions; i++)
        open_session(&run.sessions[i]);
    loop();
    return run.lost ? 3 : 0;
}
