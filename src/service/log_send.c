#include "service/log_send.h"

#include "run/coro.h"
#include "service/log_datagram.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum {
    HOST_MAX = 256,
    CALL_LINES = 64, /* datagrams to syslog in one call */
    RETRY_FIRST_US = 1000,
    RETRY_LAST_US = 1000000,
    CRASH_STACK = 64 * 1024,
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all below */

static struct {
    enum log_target target;
    int fd, facility;
    char host[HOST_MAX];
    bool lost;
    unsigned dropped; /* lines, while stuck */
    int64_t stuck_until;
    void (*on_lost)(void *arg);
    void *on_lost_arg;
} to = { .fd = -1, .facility = LOG_MAIL };

/* Memory that is never given back, but of which only as much is touched as was ever needed. The counts are set when a
 * line is complete: a process may crash in the middle of one, and log the crash. */
static char bytes[LOG_GATHER_MAX];
static size_t line_ends[LOG_GATHER_LINES];
static struct {
    bool on;
    volatile size_t n, lines;   /* of `bytes`, of `line_ends` */
    int64_t sent_us;            /* when the last call was */
    int64_t retry_us, retry_at; /* 0: the reader takes lines */
    struct buf line;
} gather;
static _Thread_local bool on_loop_thread;

static int64_t now_us(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * US_PER_S + t.tv_nsec / 1000;
}

/* --- the text of a line --- */

static void add_time(struct buf *b, int64_t wall_s) {
    static int64_t second = -1;
    static char text[32];
    static size_t n;
    if (second != wall_s) {
        time_t t = (time_t)wall_s;
        struct tm tm;
        localtime_r(&t, &tm);
        n = strftime(text, sizeof text, "%b %e %H:%M:%S ", &tm);
        second = wall_s;
    }
    buf_add(b, str_n(text, n));
}

static void add_line(struct buf *b, int64_t wall_s, struct str host, struct str tag, struct str text) {
    add_time(b, wall_s);
    if (host.n) {
        buf_add(b, host);
        buf_byte(b, ' ');
    }
    buf_add(b, tag);
    buf_add(b, STR(": "));
    buf_add(b, text);
}

void logging_format(struct buf *b, int64_t wall_s, struct str host, struct str tag, struct str text) {
    pthread_mutex_lock(&lock);
    add_line(b, wall_s, host, tag, text);
    pthread_mutex_unlock(&lock);
}

/* --- sending what is gathered --- */

enum outcome { SENT, FULL, LOST };

static enum outcome failed(void) {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? FULL : LOST;
}

static enum outcome send_postlog(int flags) {
    while (send(to.fd, bytes, gather.n, flags) < 0)
        if (errno != EINTR)
            return failed();
    gather.n = gather.lines = 0;
    return SENT;
}

/* One datagram a line (RFC 3164). What has gone is forgotten, whatever the outcome. */
static enum outcome send_syslog(int flags) {
    static struct iovec iov[CALL_LINES];
    static struct mmsghdr messages[CALL_LINES];
    size_t gone = 0;
    enum outcome outcome = SENT;
    while (gone < gather.lines && outcome == SENT) {
        unsigned n = 0;
        for (; n < CALL_LINES && gone + n < gather.lines; n++) {
            size_t at = gone + n ? line_ends[gone + n - 1] : 0;
            iov[n] = (struct iovec){ bytes + at, line_ends[gone + n] - at };
            messages[n] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &iov[n], .msg_iovlen = 1 } };
        }
        int sent = sendmmsg(to.fd, messages, n, flags);
        if (sent > 0)
            gone += (unsigned)sent;
        else if (errno != EINTR)
            outcome = failed();
    }
    if (gone == 0)
        return outcome;
    size_t from = line_ends[gone - 1], left = gather.lines - gone, n = gather.n - from;
    gather.lines = gather.n = 0;
    memmove(bytes, bytes + from, n);
    for (size_t i = 0; i < left; i++)
        line_ends[i] = line_ends[i + gone] - from;
    gather.n = n;
    gather.lines = left;
    return outcome;
}

static void lost(void) {
    gather.n = gather.lines = 0;
    if (to.lost || (gather.on && !on_loop_thread)) /* the loop finds it out by itself */
        return;
    to.lost = true;
    if (to.on_lost)
        to.on_lost(to.on_lost_arg);
}

/* `wait`: a reader that is behind is waited for, a little; what it does not take then is dropped. */
static void flush(bool wait) {
    if (gather.lines == 0)
        return;
    if (to.fd < 0) {
        lost();
        return;
    }
    int64_t now = now_us(CLOCK_MONOTONIC);
    if (!wait && gather.retry_us && now < gather.retry_at)
        return;
    bool stuck = to.stuck_until && now < to.stuck_until;
    int flags = MSG_NOSIGNAL | (wait && !stuck ? 0 : MSG_DONTWAIT);
    size_t before = gather.lines;
    enum outcome outcome = to.target == LOG_TO_SYSLOG ? send_syslog(flags) : send_postlog(flags);
    gather.sent_us = now;
    if (outcome != FULL || wait)
        gather.retry_us = 0;
    else if (gather.lines < before || gather.retry_us == 0) /* it reads */
        gather.retry_us = RETRY_FIRST_US;
    else if (gather.retry_us < RETRY_LAST_US)
        gather.retry_us *= 2;
    gather.retry_at = now + gather.retry_us;
    if (outcome == SENT) {
        to.stuck_until = 0;
    } else if (outcome == LOST) {
        lost();
    } else if (wait) {
        /* Whoever reads is busy or hanging. Mail goes on; the gap will be visible. */
        to.stuck_until = now_us(CLOCK_MONOTONIC) + LOG_STUCK_US;
        to.dropped += (unsigned)gather.lines;
        gather.n = gather.lines = 0;
    }
}

static const int syslog_level[] = { LOG_INFO, LOG_WARNING, LOG_ERR, LOG_CRIT, LOG_CRIT };

static void keep(enum log_level level, struct str tag, struct str text) {
    int64_t now = now_us(CLOCK_REALTIME), wall_s = now / US_PER_S;
    buf_clear(&gather.line);
    if (to.target == LOG_TO_SYSLOG) {
        buf_printf(&gather.line, "<%d>", to.facility | syslog_level[level]);
        add_line(&gather.line, wall_s, STR(""), tag, text);
    } else {
        add_line(&gather.line, wall_s, str_c(to.host), tag, text);
    }
    struct str line = buf_str(&gather.line);
    if (gather.n + LOG_DATAGRAM_HEAD + LOG_DATAGRAM_LINE + line.n > sizeof bytes || gather.lines == LOG_GATHER_LINES)
        flush(true);
    struct buf out = { .p = bytes, .n = gather.n, .room = sizeof bytes }; /* never more: it does not grow */
    if (to.target == LOG_TO_SYSLOG) {
        buf_add(&out, line);
    } else {
        if (out.n == 0)
            log_datagram_begin(&out);
        log_datagram_line(&out, now, line);
        if (level > LOG_LEVEL_INFO)
            log_datagram_set_urgent(&out);
    }
    line_ends[gather.lines] = out.n;
    gather.n = out.n;
    gather.lines++;
}

static void send_line(enum log_level level, struct str tag, struct str text) {
    unsigned gap = to.dropped;
    keep(level, tag, text);
    if (!gather.on || !on_loop_thread || level >= LOG_LEVEL_FATAL)
        flush(true);
    else if (level > LOG_LEVEL_INFO || gather.n >= LOG_GATHER_SEND)
        flush(false);
    if (gap && to.dropped == gap && gather.lines == 0 && !to.lost) { /* this one got through again */
        char gone[80];
        to.dropped = 0;
        int n = snprintf(gone, sizeof gone, "warning: the log did not take %u lines of this process", gap);
        keep(LOG_LEVEL_WARN, tag, str_n(gone, (size_t)n));
        flush(true);
    }
}

/* A file is for those who log little, and is written at once. */
static bool write_line(struct str tag, struct str text) {
    struct buf *line = &gather.line;
    buf_clear(line);
    add_line(line, now_us(CLOCK_REALTIME) / US_PER_S, str_c(to.host), tag, text);
    buf_byte(line, '\n');
    return write(to.fd, line->p, line->n) == (ssize_t)line->n;
}

bool log_send(enum log_level level, struct str tag, struct str text) {
    bool good = true;
    pthread_mutex_lock(&lock);
    if (to.target == LOG_TO_FILE)
        good = write_line(tag, text);
    else if (to.target != LOG_TO_NOTHING)
        send_line(level, tag, text);
    pthread_mutex_unlock(&lock);
    return good;
}

/* --- when --- */

/* The loop is about to sleep. */
static int64_t before_sleep(void *arg) {
    (void)arg;
    if (gather.lines == 0) /* only this thread keeps any */
        return DEADLINE_NEVER;
    pthread_mutex_lock(&lock);
    int64_t now = now_us(CLOCK_MONOTONIC);
    int64_t due = gather.retry_us ? gather.retry_at : to.target == LOG_TO_SYSLOG ? now : gather.sent_us + LOG_GATHER_US;
    if (now >= due) {
        flush(false);
        due = gather.retry_at;
    }
    int64_t left = gather.lines ? due - now : DEADLINE_NEVER;
    pthread_mutex_unlock(&lock);
    return left;
}

void logging_flush(void) {
    pthread_mutex_lock(&lock);
    flush(true);
    pthread_mutex_unlock(&lock);
}

/* What was gathered is the parent's to send. */
static void in_child(void) {
    pthread_mutex_init(&lock, NULL);
    gather.on = false;
    gather.n = gather.lines = 0;
    log_forked();
}

/* No lock: whoever holds it is this thread, or does not go on. */
static void crashed(int signo) {
    if (gather.lines && to.fd >= 0) {
        if (to.target == LOG_TO_SYSLOG)
            send_syslog(MSG_NOSIGNAL | MSG_DONTWAIT);
        else
            send_postlog(MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    raise(signo); /* by its default action now, once we return */
}

/* The last lines before a crash say most about it. A sanitizer has handlers of its own, which stay. */
static void watch_for_crashes(void) {
    static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
    static char stack[CRASH_STACK]; /* the coroutine's may be what has run out */
    stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack }, old;
    if (sigaltstack(NULL, &old) == 0 && old.ss_flags & SS_DISABLE)
        sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction now = { .sa_handler = crashed, .sa_flags = SA_ONSTACK | (int)SA_RESETHAND }, was;
        if (sigaction(signals[i], NULL, &was) == 0 && was.sa_handler == SIG_DFL)
            sigaction(signals[i], &now, NULL);
    }
}

void logging_gather_start(void) {
    static bool once;
    if (!once) {
        once = true;
        atexit(logging_flush);
    }
    watch_for_crashes();
    on_loop_thread = true;
    gather.on = true;
    loop_on_sleep(before_sleep, NULL);
}

void logging_gather_end(void) {
    logging_flush();
    gather.on = false;
    loop_on_sleep(NULL, NULL);
}

/* --- where to --- */

void log_send_to(enum log_target target, int fd) {
    static bool once;
    if (!once) {
        once = true;
        pthread_atfork(NULL, NULL, in_child);
    }
    pthread_mutex_lock(&lock);
    flush(true);
    if (to.fd >= 0)
        close(to.fd);
    to.fd = fd;
    to.target = target;
    to.lost = false;
    to.stuck_until = 0;
    gather.retry_us = 0;
    gather.n = gather.lines = 0;
    pthread_mutex_unlock(&lock);
}

enum log_target log_send_target(void) {
    return to.target;
}

void log_send_host(struct str host) {
    snprintf(to.host, sizeof to.host, "%.*s", STR_ARG(host));
}

void log_send_facility(int facility) {
    to.facility = facility;
}

void logging_on_lost(void (*fn)(void *arg), void *arg) {
    to.on_lost = fn;
    to.on_lost_arg = arg;
    if (to.lost && fn)
        fn(arg);
}
