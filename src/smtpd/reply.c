#include "smtpd/reply.h"

#include "base/log.h"
#include "mail/dsn.h"
#include "smtpd/footer.h"
#include "smtpd/log.h"

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
    struct str said = str_trim(buf_str(&line));
    log_conversation(s, '>', said);
    transcript_add(s, '>', said);
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

/* A refusal of one line: "4NN text" or "5NN text", and no control bytes. */
static bool is_refusal(struct str text) {
    if (text.n < 4 || (text.p[0] != '4' && text.p[0] != '5') || !byte_is_digit(text.p[1]) ||
        !byte_is_digit(text.p[2]) || text.p[3] != ' ')
        return false;
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] < ' ')
            return false;
    return true;
}

/* smtpd_reject_filter_maps: each line of a refusal is looked up, and may become another refusal. Where a table fails
 * the client hears what we meant to say. */
static void filter_refusal(const struct session *s, struct buf *b) {
    if (!s->set->reject_filter || (b->p[0] != '4' && b->p[0] != '5'))
        return;
    struct arena *a = arena_new();
    struct str rest = arena_str(a, buf_str(b)), line, found, table;
    buf_clear(b);
    while (str_next(&rest, STR("\n"), &line)) {
        enum table_result r = maps_get(s->set->reject_filter, line, a, &found, &table);
        if (r == TABLE_ERROR)
            log_lookup_error(STR("smtpd_reject_filter_maps"), line);
        else if (r == TABLE_FOUND && is_refusal(found))
            line = found;
        else if (r == TABLE_FOUND)
            log_warn(
                "smtpd_reject_filter_maps: table %.*s: \"%.*s\" is no reply that begins with 4NN or 5NN and a blank: "
                "the reply stays as it is",
                STR_ARG(table), STR_ARG(found));
        buf_printf(b, "%s%.*s", b->n ? "\n" : "", STR_ARG(line));
    }
    arena_free(a);
}

static void put_final(struct session *s, struct str text) {
    struct buf b = { 0 };
    buf_add(&b, text);
    filter_refusal(s, &b);
    if (str_starts(buf_str(&b), STR("421")) || str_starts(buf_str(&b), STR("521")))
        s->hang_up = true;
    penalty(s);
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
    s->error_classes |= ERROR_PROTOCOL;
    va_list ap;
    va_start(ap, format);
    put_format(s, format, ap);
    va_end(ap);
    s->errors++; /* its own reply does not wait for it */
    return false;
}

bool reply_error(struct session *s, unsigned classes, const char *format, ...) {
    s->error_classes |= classes;
    va_list ap;
    va_start(ap, format);
    put_format(s, format, ap);
    va_end(ap);
    s->errors++;
    return false;
}

bool reply_lines(struct session *s, unsigned classes, struct str lines) {
    struct buf b = { 0 };
    buf_add(&b, lines);
    for (size_t i = 0; i + 1 < b.n; i++)
        if (b.p[i] == '\n')
            soften(s, &b, i + 1);
    reply_error(s, classes, "%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
    return false;
}

bool reply_refusal(struct session *s, error refusal) {
    if (refusal->dsn.n)
        return reply_error(s, ERROR_NONE, "%d %.*s %.*s", refusal->code, STR_ARG(refusal->dsn), STR_ARG(refusal->text));
    return reply_error(s, ERROR_NONE, "%d %.*s", refusal->code, STR_ARG(refusal->text));
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
