/* smtp_load - sends mail over many connections at once and measures how it is acknowledged: one thread, epoll, no
 * memory per message but two numbers of 4 bytes.
 *
 * It behaves as a busy relay does: a connection is used for many messages, and MAIL, RCPT and DATA go out in one piece
 * when the server announces PIPELINING (RFC 2920). Acknowledgement time is from the last byte of the final dot handed
 * to the kernel to the reply; transaction time is from MAIL to that reply. Results go to standard output, the last line
 * of them as name=value for scripts; `start` and `end` are CLOCK_MONOTONIC in seconds. */
#include "peer.h"
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    OUT_SIZE = 16384,  /* commands and headers not yet sent */
    COMMAND_MAX = 600, /* longest command; addresses are limited to 255 bytes */
    REPLY_MAX = 4096,  /* longest line of a reply */
    BODY_LINE = 72,    /* bytes of a line of text, with CRLF */
    BODY_BLOCK = BODY_LINE * 1024,
    MOST_LOSSES = 1000, /* connections lost in a row before it gives up */
    RETRY_US = 100000,
};

enum step {
    STEP_BANNER,
    STEP_EHLO,
    STEP_COMMANDS, /* MAIL, RCPT, DATA: `asked` of them sent, `answered` replied to */
    STEP_CONTENT,  /* after 354 until the dot is sent */
    STEP_DOT,
    STEP_RSET,
    STEP_QUIT,
    STEP_OVER, /* nothing left to send; closed */
};

struct session {
    int fd;
    enum step step;
    bool pipelining;
    bool want_write;
    bool dead; /* close and begin anew after this event */
    long on_connection;
    long message;                   /* number of the present one */
    long asked, answered, accepted; /* commands of the transaction; recipients accepted */
    long first_rcpt;                /* number of its first recipient */
    size_t body_left, dot_left;     /* of the content */
    int64_t began_us, dot_us, retry_us;
    size_t in_used, out_used, out_sent;
    char in[REPLY_MAX];
    char out[OUT_SIZE];
};

static struct {
    const char *address, *sender, *domain, *helo;
    long sessions, messages, recipients, per_connection, pool, size, timeout_s;
    bool pipelining;
} opt = { .sender = "bench@near.example",
          .domain = "far.example",
          .helo = "load.example",
          .sessions = 1,
          .messages = 100,
          .recipients = 1,
          .size = 4096,
          .timeout_s = 600,
          .pipelining = true };

static struct {
    int epoll;
    struct session *sessions;
    long begun;    /* messages handed to sessions */
    long returned; /* of them, given back by a lost connection: to be begun again */
    long over;     /* acknowledged or refused */
    long acknowledged, recipients;
    long refused_4xx, refused_5xx; /* replies, not messages */
    long failed;                   /* messages not acknowledged */
    long losses, losses_in_a_row, connections;
    long next_recipient;
    long waiting; /* sessions that connect again later */
    uint32_t *ack_us, *transaction_us;
    int64_t start_us, end_us;
    char body[BODY_BLOCK];
} load;

static void make_body(void) {
    static const char words[] = "the couriers ride by day and by night and hand on what they carry to the next ";
    for (size_t i = 0; i < sizeof load.body; i += BODY_LINE) {
        for (size_t j = 0; j < BODY_LINE - 2; j++)
            load.body[i + j] = words[(i / BODY_LINE * 7 + j) % (sizeof words - 1)];
        load.body[i] = (char)('A' + i / BODY_LINE % 26);
        load.body[i + BODY_LINE - 2] = '\r';
        load.body[i + BODY_LINE - 1] = '\n';
    }
}

static bool messages_left(void) {
    return load.begun < opt.messages || load.returned > 0;
}

static void put(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The caller has seen to it that there is room. */
static void put(struct session *s, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(s->out + s->out_used, OUT_SIZE - s->out_used, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= OUT_SIZE - s->out_used)
        errx(1, "a command of %d bytes does not fit", n);
    s->out_used += (size_t)n;
}

/* Commands of the present transaction: as many as fit, or one, when the server does not want more. */
static void put_commands(struct session *s) {
    const long all = 2 + opt.recipients;
    while (s->asked < all && OUT_SIZE - s->out_used >= COMMAND_MAX && (s->pipelining || s->asked == s->answered)) {
        if (s->asked == 0)
            put(s, "MAIL FROM:<%s>\r\n", opt.sender);
        else if (s->asked <= opt.recipients)
            put(s, "RCPT TO:<user%ld@%s>\r\n", (s->first_rcpt + s->asked - 1) % opt.pool, opt.domain);
        else
            put(s, "DATA\r\n");
        s->asked++;
    }
}

static void begin_next(struct session *s) {
    if (!messages_left() || (opt.per_connection && s->on_connection == opt.per_connection)) {
        put(s, "QUIT\r\n");
        s->step = STEP_QUIT;
        return;
    }
    if (load.returned > 0)
        load.returned--;
    else
        load.begun++;
    s->message = load.begun;
    s->on_connection++;
    s->step = STEP_COMMANDS;
    s->asked = s->answered = s->accepted = 0;
    s->first_rcpt = load.next_recipient;
    load.next_recipient = (load.next_recipient + opt.recipients) % opt.pool;
    s->began_us = peer_now_us();
    put_commands(s);
}

static void message_over(struct session *s, bool acknowledged) {
    int64_t now = peer_now_us();
    if (acknowledged) {
        load.ack_us[load.acknowledged] = (uint32_t)(now - s->dot_us);
        load.transaction_us[load.acknowledged] = (uint32_t)(now - s->began_us);
        load.acknowledged++;
        load.recipients += s->accepted;
        load.losses_in_a_row = 0;
    } else
        load.failed++;
    load.over++;
    load.end_us = now;
}

static void put_head(struct session *s) {
    size_t before = s->out_used;
    put(s,
        "Received: from client.example (client.example [192.0.2.7])\r\n\tby %s (Load) with ESMTP id %ld\r\n"
        "\tfor <user%ld@%s>; Thu, 19 Nov 2026 10:00:00 +0000\r\n"
        "Message-Id: <%ld.%lld@%s>\r\nDate: Thu, 19 Nov 2026 10:00:00 +0000\r\n"
        "From: Bench <%s>\r\nTo: user%ld@%s\r\nSubject: message %ld of %ld\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n",
        opt.helo, s->message, s->first_rcpt, opt.domain, s->message, (long long)load.start_us, opt.helo, opt.sender,
        s->first_rcpt, opt.domain, s->message, opt.messages);
    size_t head = s->out_used - before, size = (size_t)opt.size;
    s->body_left = size > head ? (size - head) / BODY_LINE * BODY_LINE : 0;
}

/* Header, whole lines of the body, the final dot, as far as the kernel takes them. False: the connection is lost. */
static bool send_content(struct session *s) {
    static char dot[] = ".\r\n";
    while (s->dot_left > 0) {
        /* A piece ends where the block ends, so that the body starts and ends with a whole line. */
        size_t head = s->out_used - s->out_sent;
        size_t body = s->body_left % BODY_BLOCK || s->body_left == 0 ? s->body_left % BODY_BLOCK : BODY_BLOCK;
        struct iovec parts[] = {
            { s->out + s->out_sent, head },
            { load.body + sizeof load.body - body, body },
            { dot + sizeof dot - 1 - s->dot_left, body == s->body_left ? s->dot_left : 0 },
        };
        ssize_t n = writev(s->fd, parts, 3);
        if (n < 0)
            return errno == EAGAIN;
        size_t sent = (size_t)n;
        head = head < sent ? head : sent;
        body = body < sent - head ? body : sent - head;
        s->out_sent += head;
        s->body_left -= body;
        s->dot_left -= sent - head - body;
    }
    s->out_used = s->out_sent = 0;
    s->step = STEP_DOT;
    s->dot_us = peer_now_us();
    return true;
}

/* Sends what there is to send. False: the connection is lost. */
static bool send_some(struct session *s) {
    if (s->step == STEP_CONTENT) {
        if (!send_content(s))
            return false;
    } else
        while (s->out_sent < s->out_used) {
            ssize_t n = send(s->fd, s->out + s->out_sent, s->out_used - s->out_sent, MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN)
                return false;
            if (n < 0)
                break;
            s->out_sent += (size_t)n;
            if (s->out_sent < s->out_used)
                continue;
            s->out_used = s->out_sent = 0;
            if (s->step == STEP_COMMANDS)
                put_commands(s);
        }
    bool more = s->step == STEP_CONTENT || s->out_used > 0;
    if (more != s->want_write) {
        struct epoll_event e = { .events = EPOLLIN | (more ? EPOLLOUT : 0), .data.ptr = s };
        epoll_ctl(load.epoll, EPOLL_CTL_MOD, s->fd, &e);
        s->want_write = more;
    }
    return true;
}

static void connect_session(struct session *s) {
    s->fd = peer_connect(opt.address);
    if (s->fd < 0)
        err(1, "connect to %s", opt.address);
    load.connections++;
    s->step = STEP_BANNER;
    s->on_connection = 0;
    s->pipelining = false;
    s->in_used = s->out_used = s->out_sent = s->body_left = s->dot_left = 0;
    s->want_write = false;
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = s };
    if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, s->fd, &e))
        err(1, "epoll_ctl");
}

static bool in_transaction(const struct session *s) {
    return s->step == STEP_COMMANDS || s->step == STEP_CONTENT || s->step == STEP_DOT;
}

/* The connection is over. What it was doing is done again by another one. */
static void disconnect(struct session *s) {
    close(s->fd);
    s->fd = -1;
    if (in_transaction(s)) {
        load.returned++;
        load.losses++;
        if (++load.losses_in_a_row > MOST_LOSSES)
            errx(1, "%d connections to %s were lost with no message acknowledged", MOST_LOSSES, opt.address);
    } else if (s->step != STEP_QUIT)
        load.losses++;
    s->retry_us = s->step == STEP_QUIT ? 0 : peer_now_us() + RETRY_US;
    s->step = STEP_OVER;
    load.waiting++;
}

static void count_refusal(int code) {
    if (code / 100 == 4)
        load.refused_4xx++;
    else
        load.refused_5xx++;
}

/* The last of the transaction's commands was answered, so every reply is in. */
static void commands_answered(struct session *s, int data_code) {
    if (data_code == 354) {
        s->step = STEP_CONTENT;
        s->dot_left = 3;
        put_head(s);
        return;
    }
    message_over(s, false);
    put(s, "RSET\r\n");
    s->step = STEP_RSET;
}

static void reply(struct session *s, int code, bool last) {
    if (!last)
        return;
    switch (s->step) {
    case STEP_BANNER:
        if (code != 220) {
            s->dead = true;
            return;
        }
        put(s, "EHLO %s\r\n", opt.helo);
        s->step = STEP_EHLO;
        return;
    case STEP_EHLO:
    case STEP_RSET:
        if (code != 250)
            s->dead = true;
        else
            begin_next(s);
        return;
    case STEP_COMMANDS:
        if (code == 421) {
            s->dead = true;
            return;
        }
        s->answered++;
        if (code != 250 && code != 354)
            count_refusal(code);
        else if (s->answered > 1 && code == 250)
            s->accepted++;
        if (s->answered == 2 + opt.recipients)
            commands_answered(s, code);
        else
            put_commands(s);
        return;
    case STEP_DOT:
        if (code != 250)
            count_refusal(code);
        message_over(s, code == 250);
        if (code == 421)
            s->dead = true;
        else
            begin_next(s);
        return;
    case STEP_CONTENT: /* an answer before the end can only be an end */
        s->dead = true;
        return;
    case STEP_QUIT:
    case STEP_OVER:
        return;
    }
}

static void line(struct session *s, const char *text, size_t n) {
    if (n < 4 || text[0] < '2' || text[0] > '5' || text[1] < '0' || text[1] > '9' || text[2] < '0' || text[2] > '9') {
        warnx("%s sends \"%.*s\", which is no reply", opt.address, (int)(n > 60 ? 60 : n), text);
        s->dead = true;
        return;
    }
    if (s->step == STEP_EHLO && opt.pipelining && n >= 14 && !memcmp(text + 4, "PIPELINING", 10))
        s->pipelining = true;
    reply(s, (text[0] - '0') * 100 + (text[1] - '0') * 10 + text[2] - '0', text[3] != '-');
}

static void session_ready(struct session *s, uint32_t events) {
    s->dead = false;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t n = recv(s->fd, s->in + s->in_used, sizeof s->in - s->in_used, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            disconnect(s);
            return;
        }
        s->in_used += n > 0 ? (size_t)n : 0;
        char *at = s->in, *end = s->in + s->in_used;
        for (char *lf; !s->dead && (lf = memchr(at, '\n', (size_t)(end - at))); at = lf + 1)
            line(s, at, (size_t)(lf - at));
        s->in_used = (size_t)(end - at);
        memmove(s->in, at, s->in_used);
        if (s->in_used == sizeof s->in)
            s->dead = true;
    }
    if (s->dead || !send_some(s))
        disconnect(s);
}

/* Connections that were lost or have had their share begin anew, as long as there is something for them to do.
 * Returns how long to wait for the next one, in milliseconds. */
static int reconnect(void) {
    if (load.waiting == 0 || !messages_left())
        return 1000;
    int64_t now = peer_now_us();
    for (long i = 0; i < opt.sessions; i++) {
        struct session *s = &load.sessions[i];
        if (s->fd < 0 && s->retry_us <= now) {
            load.waiting--;
            connect_session(s);
        }
    }
    return load.waiting > 0 ? RETRY_US / 1000 / 4 : 1000;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Milliseconds below which `share` of the acknowledged messages lie. */
static double quantile(const uint32_t *sorted, double share) {
    return load.acknowledged ? sorted[(long)((double)(load.acknowledged - 1) * share)] / 1000.0 : 0;
}

static void print_results(void) {
    double seconds = (double)(load.end_us - load.start_us) / 1e6, cpu = peer_cpu_seconds();
    double rate = seconds > 0 ? (double)load.acknowledged / seconds : 0;
    qsort(load.ack_us, (size_t)load.acknowledged, sizeof *load.ack_us, compare);
    qsort(load.transaction_us, (size_t)load.acknowledged, sizeof *load.transaction_us, compare);
    printf("%ld messages, %ld recipients acknowledged in %.2f s: %.0f messages/s, %.0f recipients/s\n",
           load.acknowledged, load.recipients, seconds, rate, seconds > 0 ? (double)load.recipients / seconds : 0);
    printf("acknowledgement: median %.2f ms, 99th percentile %.2f ms\n", quantile(load.ack_us, 0.5),
           quantile(load.ack_us, 0.99));
    printf("transaction: median %.2f ms, 99th percentile %.2f ms\n", quantile(load.transaction_us, 0.5),
           quantile(load.transaction_us, 0.99));
    printf("not acknowledged: %ld messages; replies 4xx %ld, 5xx %ld; connections %ld, lost %ld\n", load.failed,
           load.refused_4xx, load.refused_5xx, load.connections, load.losses);
    printf("CPU of the load tool: %.2f s, %.1f us a message\n", cpu, load.over ? cpu * 1e6 / (double)load.over : 0);
    printf("load messages=%ld recipients=%ld failed=%ld replies4=%ld replies5=%ld connections=%ld lost=%ld start=%.6f "
           "end=%.6f rate=%.1f ack50=%.3f ack99=%.3f transaction50=%.3f transaction99=%.3f cpu=%.3f\n",
           load.acknowledged, load.recipients, load.failed, load.refused_4xx, load.refused_5xx, load.connections,
           load.losses, (double)load.start_us / 1e6, (double)load.end_us / 1e6, rate, quantile(load.ack_us, 0.5),
           quantile(load.ack_us, 0.99), quantile(load.transaction_us, 0.5), quantile(load.transaction_us, 0.99), cpu);
}

static void usage(void) {
    fputs("usage: smtp_load [options] ADDRESS:PORT\n"
          "  -s SESSIONS    connections at a time (1)\n"
          "  -m MESSAGES    messages in all (100)\n"
          "  -l BYTES       size of a message with its header (4096)\n"
          "  -r RECIPIENTS  recipients of a message (1)\n"
          "  -c MESSAGES    messages of a connection; 0: no limit (0)\n"
          "  -a ADDRESSES   different recipients: user0@... and so on (1000)\n"
          "  -f SENDER      sender (bench@near.example)\n"
          "  -t DOMAIN      domain of the recipients (far.example)\n"
          "  -P             wait for each reply even if the server allows pipelining\n"
          "  -T SECONDS     give up then (600)\n"
          "Exit status 0: every message was acknowledged with 250; 3: some were not; 1: it gave up.\n",
          stderr);
    exit(2);
}

static void options(int argc, char **argv) {
    for (int c; (c = getopt(argc, argv, "s:m:l:r:c:a:f:t:PT:")) != -1;)
        switch (c) {
        case 's':
            opt.sessions = peer_number(optarg, "-s", 1, 20000);
            break;
        case 'm':
            opt.messages = peer_number(optarg, "-m", 1, 10000000);
            break;
        case 'l':
            opt.size = peer_number(optarg, "-l", 0, 1000000000);
            break;
        case 'r':
            opt.recipients = peer_number(optarg, "-r", 1, 1000000);
            break;
        case 'c':
            opt.per_connection = peer_number(optarg, "-c", 0, 1000000000);
            break;
        case 'a':
            opt.pool = peer_number(optarg, "-a", 1, 1000000000);
            break;
        case 'f':
        case 't':
            if (strlen(optarg) > 255)
                errx(2, "-%c: longer than 255 bytes", c);
            *(c == 'f' ? &opt.sender : &opt.domain) = optarg;
            break;
        case 'P':
            opt.pipelining = false;
            break;
        case 'T':
            opt.timeout_s = peer_number(optarg, "-T", 1, 1000000);
            break;
        default:
            usage();
        }
    if (optind + 1 != argc)
        usage();
    opt.address = argv[optind];
    if (opt.pool == 0)
        opt.pool = opt.recipients > 1000 ? opt.recipients : 1000;
    if (opt.pool < opt.recipients)
        errx(2, "-a %ld: a message of %ld recipients needs at least as many addresses", opt.pool, opt.recipients);
    if (opt.sessions > opt.messages)
        opt.sessions = opt.messages;
}

static void *allocate(long n, size_t size) {
    void *p = calloc((size_t)n, size);
    if (!p)
        err(1, "memory");
    return p;
}

int main(int argc, char **argv) {
    options(argc, argv);
    signal(SIGPIPE, SIG_IGN); /* writev has no MSG_NOSIGNAL */
    peer_many_files();
    make_body();
    load.sessions = allocate(opt.sessions, sizeof *load.sessions);
    load.ack_us = allocate(opt.messages, sizeof *load.ack_us);
    load.transaction_us = allocate(opt.messages, sizeof *load.transaction_us);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (load.epoll < 0)
        err(1, "epoll_create1");
    load.start_us = peer_now_us();
    for (long i = 0; i < opt.sessions; i++)
        connect_session(&load.sessions[i]);
    const int64_t stop_us = load.start_us + opt.timeout_s * 1000000;
    while (load.over < opt.messages) {
        struct epoll_event events[256];
        int n = epoll_wait(load.epoll, events, 256, reconnect());
        for (int i = 0; i < n; i++)
            session_ready(events[i].data.ptr, events[i].events);
        if (peer_now_us() > stop_us) {
            print_results();
            errx(1, "%ld of %ld messages after %ld seconds", load.over, opt.messages, opt.timeout_s);
        }
    }
    print_results();
    return load.failed ? 3 : 0;
}
