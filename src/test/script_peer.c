#include "test/script_peer.h"

#include "base/die.h"
#include "run/loop.h"
#include "test/test.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { PATIENCE_REAL_SECONDS = 20, LINE_MAX_BYTES = 1024 * 1024 };

struct peer {
    const char *script; /* borrowed from the test */
    struct io *io;      /* NULL: not there yet (script_peer_listen) */
    int64_t slow_us;    /* -1: not slow */
    bool lf_only, finished;
    char *failure; /* malloc */
};
static struct peer peers[SCRIPT_PEERS_MAX];
static size_t peer_count;

/* --- a transport past the seam, so that faults and counts of the test are those of the session alone --- */

struct plain {
    int fd;
};

static ssize_t plain_read(void *ctx, void *p, size_t n, uint32_t *ret_wait) {
    const struct plain *plain = ctx;
    *ret_wait = EPOLLIN;
    return read(plain->fd, p, n);
}

static ssize_t plain_write(void *ctx, const void *p, size_t n, uint32_t *ret_wait) {
    const struct plain *plain = ctx;
    *ret_wait = EPOLLOUT;
    return write(plain->fd, p, n);
}

static void plain_close(void *ctx) {
    struct plain *plain = ctx;
    close(plain->fd);
    free(plain);
}

static const struct io_transport plain_transport = { plain_read, plain_write, plain_close };

static struct io *plain_io(int fd) {
    struct plain *plain = malloc(sizeof *plain);
    if (!plain)
        die_no_memory(sizeof *plain);
    plain->fd = fd;
    return io_new_transport(&plain_transport, plain, fd);
}

/* --- steps --- */

static int64_t patience(void) {
    return deadline_in(sys == &sys_real ? PATIENCE_REAL_SECONDS : SCRIPT_PEER_WAIT);
}

/* Text that can be shown in a message. */
static void add_shown(struct buf *b, struct str s) {
    buf_byte(b, '"');
    for (size_t i = 0; i < s.n && i < 200; i++) {
        if (byte_is_print(s.p[i]))
            buf_byte(b, s.p[i]);
        else
            buf_printf(b, "\\x%02x", (unsigned char)s.p[i]);
    }
    buf_byte(b, '"');
}

static bool fail_step(struct peer *p, const char *what, struct str got) {
    struct buf b = { 0 };
    buf_printf(&b, "%s: got ", what);
    add_shown(&b, got);
    p->failure = b.p;
    return false;
}

static bool fail_error(struct peer *p, const char *what, error e, struct str got) {
    struct buf b = { 0 };
    buf_printf(&b, "%s: %.*s after ", what, STR_ARG(e->text));
    add_shown(&b, got);
    p->failure = b.p;
    return false;
}

/* The front of `s` matches `pattern`; the last star tried takes one byte more at each dead end. */
static bool matches(struct str s, struct str pattern) {
    size_t i = 0, k = 0, star = SIZE_MAX, star_at = 0;
    while (k < pattern.n) {
        if (pattern.p[k] == '*') {
            star = k++;
            star_at = i;
        } else if (i < s.n && s.p[i] == pattern.p[k]) {
            i++, k++;
        } else if (star != SIZE_MAX && star_at < s.n) {
            k = star + 1;
            i = ++star_at;
        } else {
            return false;
        }
    }
    return true;
}

static int hex_digit(char c) {
    if (byte_is_digit(c))
        return c - '0';
    c = byte_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void unescape(struct str s, struct buf *out) {
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '\\' || i + 1 == s.n) {
            buf_byte(out, s.p[i]);
            continue;
        }
        char c = s.p[++i];
        if (c == 'x' && i + 2 < s.n && hex_digit(s.p[i + 1]) >= 0 && hex_digit(s.p[i + 2]) >= 0) {
            buf_byte(out, (char)(hex_digit(s.p[i + 1]) * 16 + hex_digit(s.p[i + 2])));
            i += 2;
            continue;
        }
        buf_byte(out, c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : c == '0' ? '\0' : c);
    }
}

static bool parse_seconds(struct str s, int64_t *ret_us) {
    char text[32];
    if (s.n == 0 || s.n >= sizeof text)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    char *end;
    double v = strtod(text, &end);
    *ret_us = (int64_t)(v * (double)US_PER_S);
    return *end == 0 && v >= 0;
}

static bool send_bytes(struct peer *p, struct str s) {
    if (p->slow_us < 0) {
        io_write(p->io, s);
        io_flush(p->io, patience()); /* a session that has gone shows at the next expectation */
        return true;
    }
    for (size_t i = 0; i < s.n; i++) {
        wait_until(deadline_in_us(p->slow_us));
        io_write(p->io, str_sub(s, i, 1));
        io_flush(p->io, patience());
    }
    return true;
}

static bool step_send(struct peer *p, struct str arg, bool with_end) {
    struct buf b = { 0 };
    unescape(arg, &b);
    if (with_end)
        buf_add(&b, STR("\r\n"));
    bool fine = send_bytes(p, buf_str(&b));
    buf_free(&b);
    return fine;
}

static bool read_line(struct peer *p, const char *what, struct str *ret) {
    error e = io_line(p->io, LINE_MAX_BYTES, patience(), ret);
    if (e)
        return fail_error(p, what, e, *ret);
    struct str end = p->lf_only ? STR("\n") : STR("\r\n");
    if (!str_ends(*ret, end))
        return fail_step(p, what, *ret);
    ret->n -= end.n;
    return true;
}

static bool step_line(struct peer *p, const char *what, struct str arg) {
    struct str line;
    if (!read_line(p, what, &line))
        return false;
    return matches(line, arg) || fail_step(p, what, line);
}

static bool step_skip(struct peer *p, const char *what, struct str arg) {
    struct str line;
    do
        if (!read_line(p, what, &line))
            return false;
    while (!matches(line, arg));
    return true;
}

static bool step_reply(struct peer *p, const char *what, struct str arg) {
    struct str code = str_sub(arg, 0, 3), text = str_trim_left(str_from(arg, 3)), line;
    for (;;) {
        if (!read_line(p, what, &line))
            return false;
        if (!str_starts(line, code))
            return fail_step(p, what, line);
        if (line.n > 3 && line.p[3] == '-')
            continue;
        return matches(str_from(line, 4), text) || fail_step(p, what, line);
    }
}

static bool step_bytes(struct peer *p, const char *what, struct str arg) {
    struct buf want = { 0 }, got = { 0 };
    unescape(arg, &want);
    bool fine = true;
    while (fine && got.n < want.n) {
        struct str some;
        error e = io_some(p->io, want.n - got.n, patience(), &some);
        if (e)
            fine = fail_error(p, what, e, buf_str(&got));
        else
            buf_add(&got, some);
    }
    if (fine && !str_eq(buf_str(&got), buf_str(&want)))
        fine = fail_step(p, what, buf_str(&got));
    buf_free(&want);
    buf_free(&got);
    return fine;
}

static bool ended(error e) {
    return e && (e->kind == ERR_EOF || (e->kind == ERR_SYS && e->sys == ECONNRESET));
}

static bool step_eof(struct peer *p, const char *what, bool drop) {
    struct str some;
    error e;
    do
        e = io_some(p->io, IO_READ_SIZE, patience(), &some);
    while (drop && !e);
    if (!e)
        return fail_step(p, what, some);
    return ended(e) || fail_error(p, what, e, some);
}

static bool step_quiet(struct peer *p, const char *what, int64_t us) {
    struct str some;
    error e = io_some(p->io, IO_READ_SIZE, deadline_in_us(us), &some);
    if (!e)
        return fail_step(p, what, some);
    return e->kind == ERR_TIMEOUT || fail_error(p, what, e, some);
}

static bool step(struct peer *p, struct str line, const char *shown) {
    int64_t us;
    struct str rest = line, word;
    if (!str_word(&rest, STR(" "), &word))
        return true;
    /* one blank separates; more belong to the argument */
    struct str arg = str_from(line, word.n < line.n ? word.n + 1 : word.n);
    if (str_eq(word, STR(">")) || str_eq(word, STR(">|")))
        return step_send(p, arg, word.n == 1);
    if (str_eq(word, STR("<")))
        return step_line(p, shown, arg);
    if (str_eq(word, STR("<<")))
        return step_reply(p, shown, arg);
    if (str_eq(word, STR("<|")))
        return step_bytes(p, shown, arg);
    if (str_eq(word, STR("skip")))
        return step_skip(p, shown, arg);
    if (str_eq(word, STR("eof")) || str_eq(word, STR("drop")))
        return step_eof(p, shown, str_eq(word, STR("drop")));
    if (str_eq(word, STR("wait")) && parse_seconds(arg, &us))
        return !wait_until(deadline_in_us(us));
    if (str_eq(word, STR("quiet")) && parse_seconds(arg, &us))
        return step_quiet(p, shown, us);
    if (str_eq(word, STR("slow")) && (arg.n == 0 || parse_seconds(arg, &us))) {
        p->slow_us = arg.n ? us : -1;
        return true;
    }
    if (str_eq(word, STR("lf"))) {
        p->lf_only = true;
        return true;
    }
    if (str_eq(word, STR("shut"))) {
        shutdown(io_fd(p->io), SHUT_WR);
        return true;
    }
    die("script_peer: no such step: %s", shown);
}

static void play(void *arg) {
    struct peer *p = arg;
    struct str rest = str_c(p->script), line;
    for (unsigned number = 1; !p->failure && str_next(&rest, STR("\n"), &line); number++) {
        line = str_trim_left(line);
        if (line.n == 0 || line.p[0] == '#')
            continue;
        if (str_eq(str_trim(line), STR("close")))
            break;
        struct buf shown = { 0 };
        buf_printf(&shown, "line %u of the script (%.*s)", number, STR_ARG(line));
        if (!step(p, line, shown.p) && !p->failure)
            fail_step(p, shown.p, STR(""));
        buf_free(&shown);
    }
    io_close(p->io);
    p->io = NULL;
    p->finished = true;
}

static struct peer *peer_new(const char *script) {
    if (peer_count == SCRIPT_PEERS_MAX)
        die("script_peer: more than %d peers", SCRIPT_PEERS_MAX);
    struct peer *p = &peers[peer_count++];
    *p = (struct peer){ .script = script, .slow_us = -1 };
    return p;
}

static void peer_go(struct peer *p, struct io *io) {
    p->io = io;
    if (!coro_spawn(play, p, "script peer"))
        die("script_peer: no stack");
}

int script_peer_start(const char *script) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds))
        die("script_peer: socketpair: %s", strerror(errno));
    peer_go(peer_new(script), plain_io(fds[0]));
    return fds[1];
}

void script_peer_play(struct io *io, const char *script) {
    peer_go(peer_new(script), io);
}

/* --- a listening peer --- */

struct listener {
    int fd;
    struct peer *peers;
    size_t count;
};

static void listen_main(void *arg) {
    struct listener *l = arg;
    for (size_t i = 0; i < l->count; i++) {
        int fd;
        while ((fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0) {
            if (errno != EAGAIN && errno != EINTR)
                die("script_peer: accept: %s", strerror(errno));
            if (wait_readable(l->fd, patience()))
                goto out; /* check() says which peer nobody came to */
        }
        peer_go(&l->peers[i], plain_io(fd));
    }
out:
    close(l->fd);
    free(l);
}

void script_peer_listen(const struct endpoint *at, const char *const *scripts, size_t count, struct endpoint *ret) {
    struct listener *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    const struct sys *before = sys;
    sys = &sys_real; /* the peer's socket is not the session's */
    error e = listen_on(at, (int)count, 0600, &l->fd);
    sys = before;
    if (e)
        die("script_peer: listen: %.*s", STR_ARG(e->text));
    *ret = *at;
    ret->len = sizeof ret->u;
    getsockname(l->fd, &ret->u.sa, &ret->len);
    l->count = count;
    for (size_t i = 0; i < count; i++) {
        struct peer *p = peer_new(scripts[i]);
        if (i == 0)
            l->peers = p; /* they lie side by side */
    }
    if (!coro_spawn(listen_main, l, "script listener"))
        die("script_peer: no stack");
}

/* --- the outcome --- */

const char *script_peer_failure(void) {
    for (size_t i = 0; i < peer_count; i++) {
        if (peers[i].failure)
            return peers[i].failure;
        if (!peers[i].finished)
            return peers[i].io ? "the script was not played to its end" : "nobody came to play the script with";
    }
    return NULL;
}

void script_peer_forget(void) {
    for (size_t i = 0; i < peer_count; i++)
        free(peers[i].failure);
    peer_count = 0;
}

void script_peer_check(void) {
    const char *failure = script_peer_failure();
    if (failure)
        print_error("script_peer: %s\n", failure);
    bool failed = failure != NULL;
    script_peer_forget();
    if (failed)
        fail();
}
