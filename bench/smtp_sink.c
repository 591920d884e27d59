/* smtp_sink - takes mail and throws it away, for benchmarks: one thread, epoll, no memory per message.
 *
 * It knows just enough SMTP for a relay that behaves: commands may be pipelined (RFC 2920), SIZE, 8BITMIME and DSN are
 * announced, and a terminator is found wherever the reads cut it. Counts go to standard output as one line of
 * name=value; `last` is the time (CLOCK_MONOTONIC, seconds) at which the last expected message was complete. */
#include "peer.h"
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    TAIL = 4,         /* bytes of a terminator that may lie before the present read */
    IN_SIZE = 65536,  /* read at once */
    OUT_SIZE = 16384, /* replies to one burst; when full, reading waits */
    REPLY_MAX = 256,  /* longest reply */
    MAX_FILES = 20000,
};

enum stage { STAGE_NONE, STAGE_MAIL, STAGE_RCPT, STAGE_DATA, STAGE_DOT };

struct session {
    int fd;
    bool content;    /* between 354 and the final dot */
    bool mail;       /* MAIL was accepted */
    bool quit;       /* close when `out` is written */
    bool want_write; /* registered for EPOLLOUT alone */
    long recipients; /* accepted since MAIL */
    size_t in_used;  /* behind the tail */
    size_t out_used, out_sent;
    char in[TAIL + IN_SIZE]; /* while in content the first TAIL bytes are the last ones seen */
    char out[OUT_SIZE];
};

static struct {
    int epoll;
    int listener;
    struct session *sessions[MAX_FILES]; /* by descriptor */
    long connections;
    long messages, recipients, rejected;
    long long bytes;
    long expect, expect_recipients; /* 0: nothing is waited for */
    int64_t first_us, last_us;
    double cpu_before;
    enum stage reject_stage;
    const char *reject_code;
} sink;

static void report(const char *event) {
    printf("sink event=%s messages=%ld recipients=%ld bytes=%lld rejected=%ld connections=%ld first=%.6f last=%.6f "
           "cpu=%.3f\n",
           event, sink.messages, sink.recipients, sink.bytes, sink.rejected, sink.connections,
           (double)sink.first_us / 1e6, (double)sink.last_us / 1e6, peer_cpu_seconds() - sink.cpu_before);
    fflush(stdout);
}

static void reset(long expect, long expect_recipients) {
    sink.messages = sink.recipients = sink.rejected = sink.connections = 0;
    sink.bytes = 0;
    sink.expect = expect;
    sink.expect_recipients = expect_recipients;
    sink.first_us = sink.last_us = 0;
    sink.cpu_before = peer_cpu_seconds();
}

/* "rcpt=450": every command of that kind is answered so. "none": all is accepted. */
static void set_reject(const char *text) {
    static const struct {
        const char *name;
        enum stage stage;
    } stages[] = { { "mail=", STAGE_MAIL }, { "rcpt=", STAGE_RCPT }, { "data=", STAGE_DATA }, { "dot=", STAGE_DOT } };
    static char code[4];
    if (!strcmp(text, "none")) {
        sink.reject_stage = STAGE_NONE;
        return;
    }
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        size_t n = strlen(stages[i].name);
        if (!strncmp(text, stages[i].name, n) && (text[n] == '4' || text[n] == '5') && strlen(text + n) == 3) {
            memcpy(code, text + n, sizeof code);
            sink.reject_stage = stages[i].stage;
            sink.reject_code = code;
            return;
        }
    }
    errx(2, "-x %s: want mail=, rcpt=, data= or dot= with a code of three digits from 4xx or 5xx, or none", text);
}

static void session_end(struct session *s) {
    sink.sessions[s->fd] = NULL;
    close(s->fd);
    free(s);
}

static bool has_room(const struct session *s) {
    return OUT_SIZE - s->out_used >= REPLY_MAX;
}

static void reply(struct session *s, const char *text, size_t n) {
    memcpy(s->out + s->out_used, text, n);
    s->out_used += n;
}

#define REPLY(s, text) reply(s, text, sizeof(text) - 1)

static bool rejects(struct session *s, enum stage stage) {
    if (sink.reject_stage != stage)
        return false;
    char line[REPLY_MAX];
    int n = snprintf(line, sizeof line, "%s %c.0.0 The benchmark's sink says no\r\n", sink.reject_code,
                     sink.reject_code[0]);
    reply(s, line, (size_t)n);
    sink.rejected++;
    return true;
}

static void message_done(struct session *s) {
    s->content = false;
    s->mail = false;
    if (rejects(s, STAGE_DOT))
        return;
    REPLY(s, "250 2.0.0 Ok: dropped\r\n");
    sink.messages++;
    sink.recipients += s->recipients;
    sink.last_us = peer_now_us();
    if (sink.messages == 1)
        sink.first_us = sink.last_us;
    bool full = sink.expect_recipients > 0 && sink.recipients >= sink.expect_recipients;
    if (full)
        sink.expect_recipients = 0;
    if (full || sink.messages == sink.expect)
        report("expected");
}

static bool is_verb(const char *line, size_t n, const char *verb) {
    return n >= 4 && !strncasecmp(line, verb, 4);
}

static void command(struct session *s, const char *line, size_t n) {
    if (is_verb(line, n, "RCPT")) {
        if (!s->mail)
            REPLY(s, "503 5.5.1 need MAIL\r\n");
        else if (!rejects(s, STAGE_RCPT)) {
            s->recipients++;
            REPLY(s, "250 2.1.5 Ok\r\n");
        }
    } else if (is_verb(line, n, "MAIL")) {
        s->recipients = 0;
        s->mail = !rejects(s, STAGE_MAIL);
        if (s->mail)
            REPLY(s, "250 2.1.0 Ok\r\n");
    } else if (is_verb(line, n, "DATA")) {
        if (!s->mail)
            REPLY(s, "503 5.5.1 need MAIL\r\n");
        else if (s->recipients == 0)
            REPLY(s, "554 5.5.1 no valid recipients\r\n");
        else if (!rejects(s, STAGE_DATA)) {
            REPLY(s, "354 go on\r\n");
            s->content = true;
        }
    } else if (is_verb(line, n, "EHLO"))
        REPLY(s, "250-sink.example\r\n250-PIPELINING\r\n250-SIZE\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n"
                 "250 DSN\r\n");
    else if (is_verb(line, n, "HELO"))
        REPLY(s, "250 sink.example\r\n");
    else if (is_verb(line, n, "RSET")) {
        s->mail = false;
        REPLY(s, "250 2.0.0 Ok\r\n");
    } else if (is_verb(line, n, "NOOP"))
        REPLY(s, "250 2.0.0 Ok\r\n");
    else if (is_verb(line, n, "QUIT")) {
        REPLY(s, "221 2.0.0 Bye\r\n");
        s->quit = true;
    } else
        REPLY(s, "502 5.5.2 not known here\r\n");
}

/* The end of the terminator CRLF "." CRLF in [from, end), NULL when it is not there. Dots are rare, line ends are not:
 * it looks for the dot. */
static char *find_end_of_content(char *from, const char *end) {
    for (char *dot = from; (dot = memchr(dot, '.', (size_t)(end - dot))); dot++)
        if (dot - from >= 2 && end - dot >= 3 && dot[-1] == '\n' && dot[-2] == '\r' && dot[1] == '\r' && dot[2] == '\n')
            return dot + 3;
    return NULL;
}

/* Takes what can be taken of `in`. False: the peer sends no lines. */
static bool consume(struct session *s) {
    char *at = s->in + TAIL, *end = at + s->in_used;
    while (at < end && has_room(s) && !s->quit) {
        if (s->content) {
            char *done = find_end_of_content(at - TAIL, end);
            char *stop = done ? done : end;
            sink.bytes += stop - at;
            if (!done) {
                memmove(s->in, end - TAIL, TAIL); /* at - TAIL is never before `in`: there are TAIL bytes at least */
                s->in_used = 0;
                return true;
            }
            at = done;
            message_done(s);
        } else {
            char *lf = memchr(at, '\n', (size_t)(end - at));
            if (!lf)
                break;
            command(s, at, (size_t)(lf - at));
            at = lf + 1; /* "." may be the first line of the content: the CRLF before it is that of DATA */
        }
    }
    s->in_used = (size_t)(end - at);
    memmove(s->in, at - TAIL, TAIL + s->in_used);
    return s->in_used < IN_SIZE || !has_room(s);
}

/* False: the session is over. */
static bool flush(struct session *s) {
    while (s->out_sent < s->out_used) {
        ssize_t n = send(s->fd, s->out + s->out_sent, s->out_used - s->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return false;
        if (n < 0)
            break;
        s->out_sent += (size_t)n;
    }
    bool left = s->out_sent < s->out_used;
    if (!left)
        s->out_sent = s->out_used = 0;
    if (left != s->want_write) {
        struct epoll_event e = { .events = left ? EPOLLOUT : EPOLLIN, .data.fd = s->fd };
        epoll_ctl(sink.epoll, EPOLL_CTL_MOD, s->fd, &e);
        s->want_write = left;
    }
    return left || !s->quit;
}

/* Answers and takes further what was read, until there is nothing to take or the peer has to read first. */
static void advance(struct session *s) {
    for (;;) {
        if (!flush(s)) {
            session_end(s);
            return;
        }
        size_t before = s->in_used;
        if (s->want_write || before == 0)
            return;
        if (!consume(s)) {
            session_end(s);
            return;
        }
        if (s->in_used == before)
            return;
    }
}

static void session_ready(struct session *s) {
    if (!s->want_write) {
        ssize_t n = recv(s->fd, s->in + TAIL + s->in_used, IN_SIZE - s->in_used, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            session_end(s);
            return;
        }
        s->in_used += (size_t)n;
    }
    advance(s);
}

static void watch(int fd) {
    struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };
    if (epoll_ctl(sink.epoll, EPOLL_CTL_ADD, fd, &e))
        err(1, "epoll_ctl");
}

static void accept_all(void) {
    for (;;) {
        int fd = accept4(sink.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
                return;
            err(1, "accept");
        }
        struct session *s = fd < MAX_FILES ? calloc(1, sizeof *s) : NULL;
        if (!s) {
            close(fd);
            continue;
        }
        sink.sessions[fd] = s;
        sink.connections++;
        s->fd = fd;
        peer_no_delay(fd);
        watch(fd);
        REPLY(s, "220 sink.example ESMTP\r\n");
        advance(s);
    }
}

/* A line of standard input: what the script that drives the sink wants. */
static void control_line(char *line) {
    if (!strncmp(line, "expect ", 7)) {
        reset(peer_number(line + 7, "expect", 0, 1000000000), 0);
        report("ready");
    } else if (!strncmp(line, "recipients ", 11)) {
        reset(0, peer_number(line + 11, "recipients", 1, 1000000000));
        report("ready");
    } else if (!strncmp(line, "reject ", 7)) {
        set_reject(line + 7);
        report("ready");
    } else if (!strcmp(line, "report"))
        report("asked");
    else
        warnx("\"%s\" is none of: expect N, recipients N, reject WHAT, report", line);
}

/* False: standard input was closed. */
static bool control(void) {
    static char line[256];
    static size_t used;
    ssize_t n = read(STDIN_FILENO, line + used, sizeof line - 1 - used);
    if (n <= 0)
        return false;
    used += (size_t)n;
    line[used] = '\0';
    char *at = line;
    for (char *lf; (lf = strchr(at, '\n')); at = lf + 1) {
        *lf = '\0';
        control_line(at);
    }
    used = strlen(at);
    if (used == sizeof line - 1)
        errx(2, "a line of standard input is longer than %zu bytes", sizeof line - 1);
    memmove(line, at, used);
    return true;
}

static void usage(void) {
    fputs("usage: smtp_sink [-i] [-n MESSAGES] [-x WHAT=CODE] ADDRESS:PORT\n"
          "  -n  print a line when so many messages have come\n"
          "  -x  answer mail, rcpt, data or dot with this code: -x rcpt=450\n"
          "  -i  take orders from standard input, end with it:\n"
          "      expect N (messages; counts from zero), recipients N (the same),\n"
          "      reject WHAT=CODE, reject none, report\n"
          "SIGINT and SIGTERM end it with the last counts.\n",
          stderr);
    exit(2);
}

int main(int argc, char **argv) {
    bool interactive = false;
    for (int c; (c = getopt(argc, argv, "in:x:")) != -1;)
        switch (c) {
        case 'i':
            interactive = true;
            break;
        case 'n':
            sink.expect = peer_number(optarg, "-n", 0, 1000000000);
            break;
        case 'x':
            set_reject(optarg);
            break;
        default:
            usage();
        }
    if (optind + 1 != argc)
        usage();
    peer_many_files();
    sink.listener = peer_listen(argv[optind]);
    sink.epoll = epoll_create1(EPOLL_CLOEXEC);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    int signals = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
    if (sink.epoll < 0 || signals < 0)
        err(1, "epoll_create1, signalfd");
    watch(sink.listener);
    watch(signals);
    if (interactive)
        watch(STDIN_FILENO);
    report("listening");
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(sink.epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == sink.listener)
                accept_all();
            else if (fd == signals || (fd == STDIN_FILENO && !control())) {
                report("end");
                return 0;
            } else if (fd != STDIN_FILENO)
                session_ready(sink.sessions[fd]);
        }
    }
}
