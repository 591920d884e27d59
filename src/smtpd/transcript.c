#include "smtpd/transcript.h"

#include "base/log.h"
#include "base/utf8.h"
#include "proto/receive.h"
#include "smtpd/session.h"

enum {
    FOLD_INDENT = 4,  /* blanks in front of what was folded, besides the one of all lines */
    DROPPED_SHARE = 4 /* a full transcript loses at least that part of its beginning, so that it is moved rarely */
};

unsigned error_classes_parse(struct str notify_classes) {
    static const struct {
        struct str name;
        unsigned classes;
    } rows[] = {
        { STR_INIT("bounce"), ERROR_BOUNCE },     { STR_INIT("data"), ERROR_DATA },
        { STR_INIT("policy"), ERROR_POLICY },     { STR_INIT("protocol"), ERROR_PROTOCOL },
        { STR_INIT("resource"), ERROR_RESOURCE }, { STR_INIT("software"), ERROR_SOFTWARE },
    };
    unsigned classes = ERROR_NONE;
    struct str word;
    while (str_word(&notify_classes, STR_COMMA_SPACE, &word))
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            if (str_eq_icase(word, rows[i].name))
                classes |= rows[i].classes;
    return classes;
}

static bool is_kept(const struct session *s) {
    return s->set->notify_classes != ERROR_NONE && !s->trusted;
}

/* Whole lines, at least `bytes`. */
static void drop_beginning(struct transcript *t, size_t bytes) {
    size_t n = 0;
    while (n < bytes && n < t->text.n)
        if (t->text.p[n++] == '\n')
            t->lines--;
    while (n > 0 && n < t->text.n && t->text.p[n - 1] != '\n')
        n++;
    t->lines -= n > bytes;
    memmove(t->text.p, t->text.p + n, t->text.n - n);
    t->text.n -= n;
}

void transcript_add(struct session *s, char direction, struct str line) {
    if (!is_kept(s))
        return;
    if (!s->transcript)
        s->transcript = ARENA_NEW(s->arena, struct transcript);
    struct transcript *t = s->transcript;
    line = str_sub(line, 0, TRANSCRIPT_MAX / DROPPED_SHARE);
    if (t->text.n + line.n > TRANSCRIPT_MAX)
        drop_beginning(t, TRANSCRIPT_MAX / DROPPED_SHARE + line.n);
    buf_add(&t->text, direction == '<' ? STR("In:  ") : STR("Out: "));
    buf_printable(&t->text, line, line.n);
    buf_byte(&t->text, '\n');
    t->lines++;
}

void transcript_flush(struct session *s) {
    if (!s->transcript || s->transcript->lines <= s->set->history_lines)
        return;
    buf_clear(&s->transcript->text);
    s->transcript->lines = 0;
}

void transcript_free(struct transcript *t) {
    if (t)
        buf_free(&t->text);
}

void transcript_fold(struct buf *b, struct str line) {
    size_t room = TRANSCRIPT_LINE - 1;
    buf_byte(b, ' ');
    while (line.n > room) {
        size_t end = room + 1;
        while (end > 0 && line.p[end - 1] != ' ')
            end--;
        if (end == 0) /* a word that is longer than a line */
            for (end = room; end < line.n && line.p[end] != ' ';)
                end++;
        struct str rest = str_from(line, end);
        while (rest.n && rest.p[0] == ' ')
            rest = str_from(rest, 1);
        line.n = end;
        while (line.n && line.p[line.n - 1] == ' ')
            line.n--;
        buf_add(b, line);
        if (rest.n == 0) {
            buf_byte(b, '\n');
            return;
        }
        buf_printf(b, "\n%*s", FOLD_INDENT + 1, "");
        line = rest;
        room = TRANSCRIPT_LINE - 1 - FOLD_INDENT;
    }
    buf_add(b, line);
    buf_byte(b, '\n');
}

/* --- the notice --- */
static void put_header(struct buf *b, const struct session *s, struct str to) {
    struct str host = s->set->myhostname;
    bool old = str_eq_icase(conf_str(s->set->conf, PARAM_header_from_format), STR("obsolete"));
    if (old)
        buf_printf(b, "From: MAILER-DAEMON@%.*s (Mail Delivery System)\nTo: %.*s (Postmaster)\n", STR_ARG(host),
                   STR_ARG(to));
    else
        buf_printf(b, "From: Mail Delivery System <MAILER-DAEMON@%.*s>\nTo: Postmaster <%.*s>\n", STR_ARG(host),
                   STR_ARG(to));
    buf_printf(b, "Subject: %.*s SMTP server: errors from %.*s\n\n", STR_ARG(s->set->mail_name), STR_ARG(s->log_name));
}

static void put_body(struct buf *b, const struct session *s) {
    static const char *const reasons[] = {
        [END_LOST] = "lost connection", [END_TIMEOUT] = "timeout", [END_ERRORS] = "too many errors"
    };
    struct str rest = s->transcript ? buf_str(&s->transcript->text) : STR(""), line;
    buf_add(b, STR("Transcript of session follows.\n\n"));
    while (rest.n && str_next(&rest, STR("\n"), &line))
        transcript_fold(b, line);
    buf_byte(b, '\n');
    if (s->end == END_LOST || s->end == END_TIMEOUT || s->end == END_ERRORS)
        buf_printf(b, "Session aborted, reason: %s\n", reasons[s->end]);
    buf_add(b, STR("\nFor other details, see the local mail logfile\n"));
}

static error submit(const struct session *s, struct arena *a, struct str to, struct str content) {
    const struct conf *c = s->set->conf;
    const struct backend *back = s->back;
    struct submit_result result = { .status = SUBMIT_OK };
    struct submission *m = NULL;
    struct queue_id id;
    unsigned flags = SUBMIT_MAP | SUBMIT_LOCAL_HEADERS | receive_detect_utf8(c, STR("notify")) |
                     receive_internal_filter(c, STR("notify"));
    struct envelope env = { .arrival_us = sys->wall_us(), .flags = ENVELOPE_INTERNAL };
    env.sender =
        arena_printf(a, "%.*s@%.*s", STR_ARG(conf_str(c, PARAM_double_bounce_sender)), STR_ARG(s->set->myhostname));
    if (!str_is_ascii(content))
        env.flags |= ENVELOPE_8BIT;
    const struct rcpt rcpt = { .address = to, .orig = to };
    error e = back->submit_open(back->ctx, a, flags, &m, &id, &result);
    if (!e && m) { /* a failure of one of these is kept for submit_end() */
        (void)back->submit_envelope(m, &env);
        (void)back->submit_rcpt(m, &rcpt);
        (void)back->submit_content(m, content);
        e = back->submit_end(m, a, &result);
    }
    if (!e && result.status != SUBMIT_OK)
        e = err_make(a, ERR_TEMP, "cleanup has refused it: %.*s", STR_ARG(result.text));
    return e;
}

void transcript_send(struct session *s) {
    const struct conf *c = s->set->conf;
    if (!is_kept(s) || (s->error_classes & s->set->notify_classes) == 0)
        return;
    struct str error_recipient = conf_str(c, PARAM_error_notice_recipient);
    bool bounce = s->error_classes & ERROR_BOUNCE;
    struct buf content = { 0 };
    struct arena *a = arena_new();
    put_header(&content, s, error_recipient);
    put_body(&content, s);
    struct str to = bounce ? conf_str(c, PARAM_bounce_notice_recipient) : error_recipient;
    error e = submit(s, a, to, buf_str(&content));
    if (e)
        log_warn("postmaster notice of errors from %.*s to %.*s failed: %.*s", STR_ARG(s->log_name), STR_ARG(to),
                 STR_ARG(e->text));
    arena_free(a);
    buf_free(&content);
}
