#include "smtpd/reply.h"

#include "mail/dsn.h"
#include "smtpd/footer.h"

/* The client pays for its mistakes with our time (smtpd_soft_error_limit). What it has coming is sent before. */
static void penalty(struct session *s) {
    if (s->errors < s->set->soft_errors || s->set->error_sleep <= 0)
        return;
    error e = io_flush(s->io, session_deadline(s));
    if (!e)
        e = wait_until(deadline_in(s->set->error_sleep));
    if (e)
        session_broken(s, e);
}

/* The text is one line of printable ASCII, or UTF-8 that the client gave us itself. */
static void put_line(struct session *s, struct str text) {
    struct buf line = { 0 };
    buf_printable(&line, text, REPLY_TEXT_MAX);
    buf_add(&line, STR("\r\n"));
    io_set_write_deadline(s->io, session_deadline(s));
    io_write(s->io, buf_str(&line));
    buf_free(&line);
}

/* soft_bounce: "550 5.1.1" becomes "450 4.1.1", in the line that begins at `at`. */
static void soften(const struct session *s, struct buf *b, size_t at) {
    if (!s->set->soft_bounce || b->p[at] != '5')
        return;
    b->p[at] = '4';
    if (b->n > at + 4 && dsn_status_length(str_from(buf_str(b), at + 4)))
        b->p[at + 4] = '4';
}

static void put_final(struct session *s, struct str text) {
    if (str_starts(text, STR("421")) || str_starts(text, STR("521")))
        s->hang_up = true;
    penalty(s);
    struct buf b = { 0 };
    buf_add(&b, text);
    soften(s, &b, 0);
    session_footer(s, &b);
    struct str rest = buf_str(&b), line;
    while (str_next(&rest, STR("\n"), &line)) {
        if (rest.n && line.n > 3)
            ((char *)(uintptr_t)line.p)[3] = '-';
        put_line(s, line);
    }
    buf_free(&b);
}

static void put_format(struct session *s, const char *format, va_list ap) __attribute__((format(printf, 2, 0)));
static void put_format(struct session *s, const char *format, va_list ap) {
    struct buf b = { 0 };
    buf_vprintf(&b, format, ap);
    put_final(s, buf_str(&b));
    buf_free(&b);
}

bool reply_ok(struct session *s, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    put_format(s, format, ap);
    va_end(ap);
    return true;
}

bool reply_fail(struct session *s, const char *format, ...) {
    s->errors++;
    va_list ap;
    va_start(ap, format);
    put_format(s, format, ap);
    va_end(ap);
    return false;
}

bool reply_lines(struct session *s, struct str lines) {
    struct buf b = { 0 };
    buf_add(&b, lines);
    for (size_t i = 0; i + 1 < b.n; i++)
        if (b.p[i] == '\n')
            soften(s, &b, i + 1);
    reply_fail(s, "%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
    return false;
}

bool reply_refusal(struct session *s, error refusal) {
    if (refusal->dsn.n)
        return reply_fail(s, "%d %.*s %.*s", refusal->code, STR_ARG(refusal->dsn), STR_ARG(refusal->text));
    return reply_fail(s, "%d %.*s", refusal->code, STR_ARG(refusal->text));
}

void reply_part(struct session *s, const char *format, ...) {
    struct buf b = { 0 };
    va_list ap;
    va_start(ap, format);
    buf_vprintf(&b, format, ap);
    va_end(ap);
    put_line(s, buf_str(&b));
    buf_free(&b);
}
