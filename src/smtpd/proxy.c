#include "smtpd/proxy.h"

#include "base/log.h"
#include "mail/dsn.h"
#include "mail/reply.h"
#include "smtpd/log.h"
#include "smtpd/reply.h"
#include "smtpd/xclient.h"
#include <errno.h>
#include <unistd.h>

enum { LINE_MAX = REPLY_BYTES_MAX, PIECE = 32 * 1024 /* of a waiting message, read at a time */ };

static const char write_error[] = "451 4.3.0 Error: queue file write error"; /* what is wrong is nobody's business */

/* Content that waits for its end (speed_adjust), in transport form. */
struct held {
    struct buf bytes; /* not yet in the file, */
    int fd;           /* which is -1 as long as there is none */
    uint64_t in_file;
    VEC(struct str) rcpts; /* command lines */
};

struct proxy {
    struct session *s;
    struct io *io; /* NULL: not connected, or no more */
    bool failed;   /* the filter is gone, or a waiting message cannot be kept */
    bool in_content;
    bool inside_line; /* of content */
    struct buf out;   /* content in transport form, on its way */
    struct buf reply; /* the last one, LF between its lines; or ours for the client */
    struct str mail;  /* command line */
    struct held held;
};

/* --- settings --- */
error proxy_settings_load(struct arena *a, const struct conf *c, struct arena *err_arena, struct proxy_settings *ret) {
    struct str filter = conf_str(c, PARAM_smtpd_proxy_filter), options = conf_str(c, PARAM_smtpd_proxy_options), word;
    *ret = (struct proxy_settings){ .text = filter,
                                    .ehlo = conf_str(c, PARAM_smtpd_proxy_ehlo),
                                    .timeout = conf_time(c, PARAM_smtpd_proxy_timeout) };
    while (str_word(&options, STR_COMMA_SPACE, &word)) {
        if (!str_eq_icase(word, STR("speed_adjust")))
            return err_make(err_arena, ERR_CONFIG,
                            "bad parameter value: 'smtpd_proxy_options = %.*s': there is only speed_adjust",
                            STR_ARG(conf_str(c, PARAM_smtpd_proxy_options)));
        ret->speed_adjust = true;
    }
    if (filter.n == 0)
        return NULL;
    bool typed = str_starts(filter, STR("inet:")) || str_starts(filter, STR("unix:"));
    struct str text = typed ? filter : arena_printf(a, "inet:%.*s", STR_ARG(filter));
    error e = dial_parse(a, text, &ret->target);
    if (e)
        return err_make(err_arena, ERR_CONFIG, "bad parameter value: 'smtpd_proxy_filter = %.*s': %.*s",
                        STR_ARG(filter), STR_ARG(e->text));
    ret->on = true;
    return NULL;
}

bool proxy_used(const struct session *s) {
    return s->set->proxy.on && !s->trusted;
}

static const struct proxy_settings *settings_of(const struct proxy *p) {
    return &p->s->set->proxy;
}

static int64_t deadline_of(const struct proxy *p) {
    return deadline_in(settings_of(p)->timeout);
}

/* --- the conversation --- */
static void set_reply(struct proxy *p, struct str text) {
    buf_clear(&p->reply);
    buf_add(&p->reply, text);
}

static void give_up(struct proxy *p) {
    io_close(p->io);
    p->io = NULL;
    p->failed = true;
    set_reply(p, str_c(write_error));
}

static bool broken(struct proxy *p, error e) {
    log_warn("%s proxy %.*s", e->kind == ERR_TIMEOUT ? "timeout talking to" : "lost connection with",
             STR_ARG(settings_of(p)->text));
    give_up(p);
    return false;
}

static bool read_reply(struct proxy *p) {
    int64_t deadline = deadline_of(p);
    struct reply_reader reader = { 0 };
    struct reply got;
    enum reply_state state = REPLY_MORE;
    error e = NULL;
    for (size_t garbage = 0; state != REPLY_DONE && !e;) {
        struct str line;
        e = io_line(p->io, LINE_MAX, deadline, &line);
        if (e)
            break;
        state = reply_line(&reader, line, &got);
        if (state != REPLY_BAD)
            continue;
        log_proxy_garbage(p->s, line);
        if (++garbage == PROXY_GARBAGE_MAX)
            e = &err_eof;
    }
    if (!e)
        set_reply(p, got.text);
    reply_free(&reader);
    return e ? broken(p, e) : true;
}

enum want { WANT_OK = '2', WANT_MORE = '3', WANT_ANY = 0 };

/* The reply to `said` is there. What the filter has against a command of ours is not the client's business. */
static bool wanted(struct proxy *p, enum want want, struct str said, bool ours) {
    char class = p->reply.p[0];
    if (want == WANT_ANY || class == (char)want)
        return true;
    log_proxy_rejected(p->s, said, buf_str(&p->reply));
    if (ours || (class != '4' && class != '5'))
        set_reply(p, str_c(write_error));
    return false;
}

static bool say(struct proxy *p, struct str line) {
    if (!p->io)
        return false;
    int64_t deadline = deadline_of(p);
    io_set_write_deadline(p->io, deadline);
    io_printf(p->io, "%.*s\r\n", STR_ARG(line));
    error e = io_flush(p->io, deadline);
    return (e ? broken(p, e) : true) && read_reply(p);
}

static bool command(struct proxy *p, enum want want, struct str line, bool ours) {
    return say(p, line) && wanted(p, want, line, ours);
}

/* --- XFORWARD --- */

/* Has EHLO's answer this attribute behind XFORWARD? */
static bool offered(struct str answer, struct str attribute) {
    struct str line, word;
    while (str_next(&answer, STR("\n"), &line)) {
        line = str_from(line, 4);
        if (!str_word(&line, STR_SPACE, &word) || !str_eq_icase(word, STR("XFORWARD")))
            continue;
        while (str_word(&line, STR_SPACE, &word))
            if (str_eq_icase(word, attribute))
                return true;
    }
    return false;
}

/* Who the client is, or whom it has named to us. */
static bool forward(struct proxy *p) {
    struct session *s = p->s;
    struct arena *a = session_scratch(s);
    struct client_info c = xforward_client(s);
    bool ipv6 = str_index(c.address, ':') >= 0;
    const struct {
        struct str name, value;
    } attributes[] = {
        { STR_INIT("NAME"), c.name },
        { STR_INIT("ADDR"), ipv6 ? arena_cat(a, STR("IPv6:"), c.address) : c.address },
        { STR_INIT("PORT"), c.port },
        { STR_INIT("HELO"), c.helo },
        { STR_INIT("IDENT"), c.ident },
        { STR_INIT("PROTO"), c.protocol },
        { STR_INIT("SOURCE"), xforward_local(s) ? STR("LOCAL") : STR("REMOTE") },
    };
    struct str answer = arena_str(a, buf_str(&p->reply));
    struct buf line = { 0 };
    bool ok = true;
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes && ok; i++) {
        struct str value = attributes[i].value;
        if (!offered(answer, attributes[i].name))
            continue;
        bool known = value.n && !str_eq(value, STR("unknown"));
        value = known ? xtext_encode(a, value) : STR("[UNAVAILABLE]");
        if (line.n && line.n + attributes[i].name.n + value.n + 4 > PROXY_XFORWARD_LINE_MAX) {
            ok = command(p, WANT_OK, buf_str(&line), true);
            buf_clear(&line);
        }
        buf_printf(&line, "%s %.*s=%.*s", line.n ? "" : "XFORWARD", STR_ARG(attributes[i].name), STR_ARG(value));
    }
    if (ok && line.n)
        ok = command(p, WANT_OK, buf_str(&line), true);
    buf_free(&line);
    return ok;
}

/* --- commands --- */

/* Up to and with MAIL. */
static bool open_filter(struct proxy *p) {
    const struct proxy_settings *set = settings_of(p);
    const struct backend *back = p->s->back;
    error e = back->dial(back->ctx, &set->target, deadline_of(p), &p->io);
    if (e) {
        log_warn("connect to proxy filter %.*s: %.*s", STR_ARG(set->text), STR_ARG(e->text));
        give_up(p);
        return false;
    }
    struct str ehlo = arena_printf(session_scratch(p->s), "EHLO %.*s", STR_ARG(set->ehlo));
    return read_reply(p) && wanted(p, WANT_OK, STR("connection request"), true) && command(p, WANT_OK, ehlo, true) &&
           forward(p) && command(p, WANT_OK, p->mail, false);
}

static bool tell_client(struct proxy *p) {
    return reply_lines(p->s, p->failed ? ERROR_SOFTWARE : ERROR_NONE, buf_str(&p->reply));
}

bool proxy_mail(struct session *s) {
    struct tx *tx = s->tx;
    struct proxy *p = ARENA_NEW(tx->arena, struct proxy);
    *p = (struct proxy){ .s = s, .mail = tx->mail_line, .held.fd = -1 };
    set_reply(p, str_c(write_error));
    if (s->set->proxy.speed_adjust || open_filter(p)) {
        tx->proxy = p;
        log_client(s);
        return true;
    }
    tell_client(p);
    proxy_free(p);
    return false;
}

bool proxy_rcpt(struct session *s) {
    struct proxy *p = s->tx->proxy;
    if (s->set->proxy.speed_adjust) {
        *vec_add(s->tx->arena, &p->held.rcpts) = arena_str(s->tx->arena, s->line);
        return true;
    }
    return command(p, WANT_OK, s->line, false) || tell_client(p);
}

static bool begin_content(struct proxy *p) {
    p->in_content = command(p, WANT_MORE, STR("DATA"), false);
    return p->in_content;
}

bool proxy_data(struct session *s) {
    struct proxy *p = s->tx->proxy;
    return s->set->proxy.speed_adjust || begin_content(p) || tell_client(p);
}

/* --- content --- */

/* Lines for SMTP (RFC 5321, 4.5.2). A CR inside one could be the end of a line, and of more, to somebody. */
static void to_transport(struct proxy *p, struct str bytes) {
    struct buf *out = &p->out;
    while (bytes.n > 0) {
        if (!p->inside_line && bytes.p[0] == '.')
            buf_byte(out, '.');
        ptrdiff_t end = str_index(bytes, '\n');
        struct str line = end < 0 ? bytes : str_sub(bytes, 0, (size_t)end);
        char *to = buf_reserve(out, line.n);
        for (size_t i = 0; i < line.n; i++)
            to[i] = line.p[i] == '\r' ? ' ' : line.p[i];
        out->n += line.n;
        if (end >= 0)
            buf_add(out, STR("\r\n"));
        p->inside_line = end < 0;
        bytes = str_from(bytes, line.n + (end >= 0));
    }
}

static bool not_held(struct proxy *p, error e) {
    log_warn("smtpd_proxy_options = speed_adjust: file for a waiting message in queue_directory: %.*s",
             STR_ARG(e->text));
    give_up(p);
    return false;
}

/* What waits goes to its file. */
static bool to_file(struct proxy *p) {
    struct held *h = &p->held;
    const struct backend *back = p->s->back;
    error e = h->fd < 0 ? back->scratch_file(back->ctx, deadline_of(p), &h->fd) : NULL;
    if (e)
        return not_held(p, e);
    struct str left = buf_str(&h->bytes);
    while (left.n > 0) {
        ssize_t n = sys->pwrite(h->fd, left.p, left.n, (off_t)h->in_file);
        if (n <= 0)
            return not_held(p, err_errno(n < 0 ? errno : ENOSPC));
        h->in_file += (size_t)n;
        left = str_from(left, (size_t)n);
    }
    buf_clear(&h->bytes);
    return true;
}

static bool hold(struct proxy *p) {
    buf_add(&p->held.bytes, buf_str(&p->out));
    return p->held.bytes.n < PROXY_HELD_MAX || to_file(p);
}

static bool pass_on(struct proxy *p, struct str bytes) {
    if (!p->io)
        return false;
    int64_t deadline = deadline_of(p);
    io_set_write_deadline(p->io, deadline);
    io_write(p->io, bytes);
    error e = io_flush(p->io, deadline);
    return e ? broken(p, e) : true;
}

bool proxy_content(struct proxy *p, struct str bytes) {
    if (p->failed)
        return false;
    to_transport(p, bytes);
    bool ok = settings_of(p)->speed_adjust ? hold(p) : pass_on(p, buf_str(&p->out));
    buf_clear(&p->out);
    return ok;
}

/* A waiting message goes to the filter. */
static bool release(struct proxy *p) {
    struct held *h = &p->held;
    char *piece = arena_alloc(session_scratch(p->s), PIECE);
    if (p->failed || !open_filter(p))
        return false;
    for (size_t i = 0; i < h->rcpts.n; i++)
        if (!command(p, WANT_OK, h->rcpts.at[i], false))
            return false;
    if (!begin_content(p))
        return false;
    for (uint64_t at = 0; at < h->in_file;) {
        uint64_t left = h->in_file - at;
        ssize_t n = sys->pread(h->fd, piece, left < PIECE ? (size_t)left : PIECE, (off_t)at);
        if (n <= 0)
            return not_held(p, err_errno(n < 0 ? errno : EIO));
        if (!pass_on(p, str_n(piece, (size_t)n)))
            return false;
        at += (size_t)n;
    }
    return pass_on(p, buf_str(&h->bytes));
}

/* --- the end --- */
static void log_verdict(struct session *s, bool accepted, struct str reply) {
    s->check_recipient = s->tx->first_rcpt;
    log_proxy_verdict(s, accepted, reply);
    s->check_recipient = STR("");
}

bool proxy_end(struct session *s) {
    struct proxy *p = s->tx->proxy;
    bool passed = s->set->proxy.speed_adjust ? release(p) : !p->failed;
    if (passed && say(p, STR(".")))
        p->in_content = false;
    else
        passed = false;
    struct str reply = buf_str(&p->reply);
    bool accepted = passed && reply.p[0] == '2';
    log_verdict(s, accepted, reply);
    if (!accepted)
        return tell_client(p);
    s->errors = s->junk = 0;
    return reply_ok(s, "%.*s", STR_ARG(reply));
}

void proxy_rejected(struct session *s, const char *reply) {
    log_verdict(s, false, str_c(reply));
}

void proxy_free(struct proxy *p) {
    if (!p)
        return;
    if (p->io && !p->in_content) { /* in the middle of content it would be content */
        io_write(p->io, STR("QUIT\r\n"));
        (void)io_flush(p->io, deadline_in(1)); /* nothing depends on it */
    }
    io_close(p->io);
    if (p->held.fd >= 0)
        close(p->held.fd);
    buf_free(&p->held.bytes);
    buf_free(&p->out);
    buf_free(&p->reply);
}
