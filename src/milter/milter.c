#include "milter/milter.h"

#include "base/log.h"
#include <stdio.h>
#include <sys/socket.h>

enum { READ_PIECE = 64 * 1024 };

static const struct milter_verdict pass = { .what = MILTER_PASS, .text = STR_INIT("") };
static const struct milter_verdict rejected = { MILTER_REFUSE, STR_INIT("550 5.7.1 Command rejected"), true };
static const struct milter_verdict try_later = { MILTER_REFUSE,
                                                 STR_INIT("451 4.7.1 Service unavailable - try again later"), false };
static const struct milter_verdict closing = { MILTER_REFUSE, STR_INIT("421 4.7.0 Server closing connection"), false };

static struct milter_verdict default_verdict(const struct milter *m) {
    static const struct milter_verdict verdicts[] = {
        [MILTER_DEFAULT_ACCEPT] = { .what = MILTER_PASS, .text = STR_INIT("") },
        [MILTER_DEFAULT_REJECT] = { MILTER_REFUSE, STR_INIT("550 5.5.0 Service unavailable"), false },
        [MILTER_DEFAULT_TEMPFAIL] = { MILTER_REFUSE, STR_INIT("451 4.7.1 Service unavailable - try again later"),
                                      false },
        [MILTER_DEFAULT_QUARANTINE] = { MILTER_HOLD, STR_INIT(""), false },
        [MILTER_DEFAULT_SHUTDOWN] = { MILTER_REFUSE, STR_INIT("421 4.7.1 Service unavailable - try again later"),
                                      false },
    };
    return verdicts[m->config->on_error];
}

/* The other copy of the descriptor, where there is one, sees the end, too. */
static void drop_connection(struct milter *m) {
    if (m->io)
        shutdown(io_fd(m->io), SHUT_RDWR);
    io_close(m->io);
    m->io = NULL;
}

/* From now on it is as if it always gave this verdict. */
static struct milter_verdict decide(struct milter *m, struct milter_verdict v) {
    m->state = MILTER_DECIDED;
    m->sticky = v;
    m->sticky.plain = false; /* later it is no word about what was just said */
    return v;
}

static struct milter_verdict broken(struct milter *m) {
    drop_connection(m);
    return decide(m, default_verdict(m));
}

void milter_give_up(struct milter *m) {
    (void)broken(m);
}

#define MILTER_WARN(m, format, ...) log_warn("milter %.*s: " format, STR_ARG((m)->config->target.text), __VA_ARGS__)

/* --- reading and writing --- */

static int64_t event_deadline(const struct milters *ms, int64_t seconds) {
    int64_t deadline = deadline_in(seconds);
    return ms->until && ms->until < deadline ? ms->until : deadline;
}

static const char *why(error e, char *out, size_t size) {
    struct str s = e->kind == ERR_TIMEOUT ? STR("Connection timed out")
                   : e->kind == ERR_EOF   ? STR("the filter has closed the connection")
                                          : e->text;
    size_t n = s.n < size - 1 ? s.n : size - 1;
    memcpy(out, s.p, n);
    out[n] = 0;
    return out;
}

/* Letter and data, in `b`. False: it has been logged. */
static bool read_packet(struct milter *m, const char *event, int64_t deadline, struct buf *b) {
    unsigned char head[MILTER_HEAD];
    char text[200];
    buf_clear(b);
    error e = io_full(m->io, head, sizeof head, deadline);
    if (e) {
        MILTER_WARN(m, "can't read %s reply packet header: %s", event, why(e, text, sizeof text));
        return false;
    }
    uint32_t size = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
    if (size < 1 || size > MILTER_PACKET_MAX) {
        MILTER_WARN(m, "%s: unreasonable packet length: %u > %d", event, size, MILTER_PACKET_MAX);
        return false;
    }
    while (b->n < size) { /* memory only for what has come */
        size_t n = size - b->n < READ_PIECE ? size - b->n : READ_PIECE;
        e = io_full(m->io, buf_reserve(b, n), n, deadline);
        if (e) {
            MILTER_WARN(m, "can't read %s reply packet: %s", event, why(e, text, sizeof text));
            return false;
        }
        b->n += n;
    }
    return true;
}

/* --- macros --- */

static struct str default_macro(const struct milters *ms, struct str name) {
    for (size_t i = 0; i < ms->macros->defaults.n; i++)
        if (milter_macro_is(ms->macros->defaults.at[i].name, name))
            return ms->macros->defaults.at[i].value;
    return (struct str){ 0 };
}

static struct str without_braces(struct str name) {
    return name.n > 2 && name.p[0] == '{' ? str_sub(name, 1, name.n - 2) : name;
}

/* Names and values of a stage, as they are sent. */
void milter_make_macros(struct milters *ms, const struct milter *m, enum milter_stage stage, struct buf *b) {
    if (m->macros_made[stage].p) {
        buf_add(b, m->macros_made[stage]);
        return;
    }
    struct str list = m->macros[stage].p ? m->macros[stage] : ms->macros->lists[stage], name;
    struct arena *a = arena_new();
    size_t begun = b->n;
    while (milter_macro_next(&list, &name)) {
        struct str value = ms->macro(ms->ctx, a, without_braces(name));
        if (!value.p)
            value = default_macro(ms, name);
        if (!value.p || b->n - begun + name.n + value.n > MILTER_MACROS_MAX)
            continue;
        milter_add_text(b, name);
        milter_add_text(b, value);
    }
    arena_free(a);
}

static void put_macros(struct milters *ms, const struct milter *m, enum milter_event event, struct buf *b) {
    const struct milter_event_row *row = &milter_events[event];
    if (m->version < row->macro_version)
        return;
    size_t begun = milter_packet_begin(b, 'D');
    buf_byte(b, row->letter);
    milter_make_macros(ms, m, row->macros, b);
    milter_packet_end(b, begun);
}

/* --- the beginning --- */

static error say_hello(struct milters *ms, struct milter *m, int64_t deadline) {
    static const struct err refused = { .kind = ERR_SYNTAX, .text = STR_INIT("option negotiation failed") };
    unsigned actions = milter_action_mask(m->config->version), protocol = milter_protocol_mask(m->config->version);
    struct buf b = { 0 };
    struct milter_options got;
    milter_put_options(&b, m->config->version, actions, protocol);
    io_set_write_deadline(m->io, deadline);
    io_write(m->io, buf_str(&b));
    error e = read_packet(m, "SMFIC_OPTNEG", deadline, &b) ? NULL : &refused;
    const char *wrong = e ? NULL : milter_options_parse(buf_str(&b), &got);
    if (!e && !wrong && (got.version < 2 || got.version > m->config->version))
        wrong = "option negotiation: a protocol version that was not offered";
    if (!e && !wrong && (got.actions & ~actions))
        wrong = "option negotiation: actions that were not offered";
    if (wrong) {
        MILTER_WARN(m, "%s", wrong);
        e = &refused;
    }
    if (!e) {
        m->version = got.version;
        m->protocol = got.protocol & protocol; /* of what was not offered we do not know what it means */
        for (size_t i = 0; i < MILTER_STAGES; i++)
            m->macros[i] = got.macros[i].p ? arena_str(ms->arena, got.macros[i]) : (struct str){ 0 };
    }
    buf_free(&b);
    return e;
}

static bool connected(struct milters *ms, struct milter *m) {
    if (m->state != MILTER_NEW)
        return m->state != MILTER_DECIDED;
    int64_t deadline = event_deadline(ms, m->config->connect_timeout);
    char text[200];
    error e = ms->dial(ms->ctx, &m->config->target, deadline, &m->io);
    if (e)
        log_warn("connect to Milter service %.*s: %s", STR_ARG(m->config->target.text), why(e, text, sizeof text));
    else
        e = say_hello(ms, m, deadline);
    if (e) {
        broken(m);
        return false;
    }
    m->state = MILTER_OPEN;
    return true;
}

/* --- one event --- */

static bool in_session_start(enum milter_event e) {
    return e == MILTER_CONNECT || e == MILTER_HELO;
}

/* A refusal at the front counts for the whole session. */
static struct milter_verdict refuse(struct milter *m, enum milter_event event, struct milter_verdict v) {
    if (in_session_start(event) || str_starts(v.text, STR("421")))
        return decide(m, v);
    return v;
}

static struct milter_verdict accepted(struct milter *m, enum milter_event event) {
    if (in_session_start(event))
        m->state = MILTER_DONE;
    else if (event != MILTER_UNKNOWN || m->in_message)
        m->state = MILTER_ACCEPTED;
    return pass;
}

static struct milter_verdict discard(struct milter *m, enum milter_event event) {
    if (in_session_start(event) || (event == MILTER_UNKNOWN && !m->in_message)) {
        MILTER_WARN(m, "DISCARD action is not allowed after %s: there is no message", milter_events[event].name);
        return pass;
    }
    m->state = MILTER_ACCEPTED;
    return (struct milter_verdict){ .what = MILTER_DISCARD, .text = STR("") };
}

static struct milter_verdict protocol_error(struct milter *m, enum milter_event event, const char *what) {
    MILTER_WARN(m, "%s after event %s", what, milter_events[event].name);
    return broken(m);
}

/* What the last word of a filter to an event means. */
static struct milter_verdict judge(struct milters *ms, struct milter *m, enum milter_event event,
                                   const struct milter_reply *r) {
    struct milter_verdict v = { .what = MILTER_REFUSE };
    char text[100];
    switch (r->said) {
    case MILTER_SAID_CONTINUE:
        return pass;
    case MILTER_SAID_ACCEPT:
        return accepted(m, event);
    case MILTER_SAID_SKIP:
        m->skip |= 1U << event;
        return pass;
    case MILTER_SAID_DISCARD:
        return discard(m, event);
    case MILTER_SAID_REJECT:
        return refuse(m, event, rejected);
    case MILTER_SAID_TEMPFAIL:
        return refuse(m, event, try_later);
    case MILTER_SAID_REPLY_CODE:
        if (milter_reply_text(ms->arena, r->text, &v.text))
            return refuse(m, event, v);
        snprintf(text, sizeof text, "malformed reply \"%.*s\"", STR_ARG(str_sub(r->text, 0, 60)));
        return protocol_error(m, event, text);
    case MILTER_SAID_SHUTDOWN:
        drop_connection(m);
        return decide(m, closing);
    default:
        snprintf(text, sizeof text, "unexpected filter response %s", milter_said_name(r->said));
        return protocol_error(m, event, text);
    }
}

struct editing {
    bool (*edit)(void *arg, const struct milter_reply *r);
    void *arg;
    unsigned count;
    bool *ret_whole;
};

/* Nobody knows what else it would have changed: neither the old message nor a part of the new one is what the filter
 * wants. */
static struct milter_verdict half_edited(struct milter *m, const struct editing *g, struct milter_verdict v) {
    if (!g || g->count == 0 || *g->ret_whole || v.what == MILTER_REFUSE)
        return v;
    return decide(m, try_later);
}

static struct milter_verdict read_answer(struct milters *ms, struct milter *m, enum milter_event event, int64_t seconds,
                                         struct editing *g, struct buf *b) {
    const char *name = milter_events[event].name;
    for (unsigned patience = 0; patience <= MILTER_PROGRESS_MAX;) {
        struct milter_reply r;
        if (!read_packet(m, name, event_deadline(ms, seconds), b))
            return broken(m);
        const char *wrong = milter_reply_parse(buf_str(b), &r);
        if (wrong)
            return protocol_error(m, event, wrong);
        if (r.said == MILTER_SAID_PROGRESS) {
            patience++;
        } else if (g && milter_is_edit(r.said)) {
            if (++g->count > MILTER_EDITS_MAX)
                return protocol_error(m, event, "too many changes");
            if (!g->edit(g->arg, &r)) {
                broken(m);
                return (struct milter_verdict){ .what = MILTER_REFUSE, .text = STR("") };
            }
        } else {
            struct milter_verdict v = judge(ms, m, event, &r);
            if (g && m->io)
                *g->ret_whole = true;
            return v;
        }
    }
    return protocol_error(m, event, "no answer, but one request for more time after the other");
}

bool milter_hears(const struct milter *m, enum milter_event event) {
    const struct milter_event_row *row = &milter_events[event];
    return m->state == MILTER_OPEN && m->version >= row->version && !(m->protocol & row->not_wanted) &&
           !(m->skip & 1U << event);
}

static bool is_mute(const struct milter *m, enum milter_event event) {
    return (m->protocol & milter_events[event].no_reply) || (event == MILTER_HEADER && m->config->mute_header);
}

/* `packet`: the event itself. */
static struct milter_verdict tell(struct milters *ms, struct milter *m, enum milter_event event, struct str packet,
                                  struct editing *g) {
    if (m->state == MILTER_DECIDED)
        return m->sticky;
    if (!milter_hears(m, event))
        return pass;
    bool content = event >= MILTER_HEADER;
    int64_t seconds = content ? m->config->content_timeout : m->config->command_timeout;
    struct buf b = { 0 };
    put_macros(ms, m, event, &b);
    io_set_write_deadline(m->io, event_deadline(ms, seconds));
    io_write(m->io, buf_str(&b));
    io_write(m->io, packet);
    struct milter_verdict v = pass;
    if (!is_mute(m, event))
        v = half_edited(m, g, read_answer(ms, m, event, seconds, g, &b));
    buf_free(&b);
    return v;
}

/* --- the list --- */

void milters_open(struct milters *ms, struct arena *a, const struct milter_configs *list) {
    ms->arena = a;
    ms->n = list->n;
    ms->at = arena_array(a, list->n, sizeof *ms->at);
    for (size_t i = 0; i < list->n; i++)
        ms->at[i] = (struct milter){ .config = &list->at[i], .version = list->at[i].version };
}

static void say(struct milter *m, char letter) {
    struct buf b = { 0 };
    milter_put(&b, letter, STR(""));
    io_write(m->io, buf_str(&b));
    buf_free(&b);
}

void milters_close(struct milters *ms) {
    for (size_t i = 0; i < ms->n; i++) {
        struct milter *m = &ms->at[i];
        if (!m->io)
            continue;
        if (m->in_message)
            say(m, 'A');
        say(m, 'Q');
        (void)io_flush(m->io, 0); /* what does not go at once does not matter: the end of the connection says it, too */
        drop_connection(m);
    }
    ms->n = 0;
}

/* Tell all, in order. Who refuses or discards is the last to hear of it; a wish to hold the message does not keep the
 * others from hearing of it. */
static struct milter_verdict tell_all(struct milters *ms, enum milter_event event, const struct buf *packet) {
    struct milter_verdict all = pass;
    for (size_t i = 0; i < ms->n; i++) {
        struct milter *m = &ms->at[i];
        struct milter_verdict v = tell(ms, m, event, buf_str(packet), NULL);
        if (v.what > MILTER_HOLD)
            return v;
        if (v.what == MILTER_HOLD)
            all = v;
    }
    return all;
}

static char family_of(struct str address) {
    return str_index(address, ':') >= 0 ? '6' : '4';
}

struct milter_verdict milters_connect(struct milters *ms, struct str name, struct str address, unsigned port) {
    for (size_t i = 0; i < ms->n; i++)
        connected(ms, &ms->at[i]);
    struct buf b = { 0 };
    size_t begun = milter_packet_begin(&b, 'C');
    milter_add_text(&b, name);
    if (address.n == 0) {
        buf_byte(&b, 'U');
    } else {
        char family = family_of(address);
        buf_byte(&b, family);
        buf_byte(&b, (char)(unsigned char)(port >> 8));
        buf_byte(&b, (char)(unsigned char)port);
        if (family == '6')
            buf_add(&b, STR("IPv6:"));
        milter_add_text(&b, address);
    }
    milter_packet_end(&b, begun);
    struct milter_verdict v = tell_all(ms, MILTER_CONNECT, &b);
    buf_free(&b);
    return v;
}

static struct milter_verdict tell_texts(struct milters *ms, enum milter_event event, struct str text, struct str args) {
    struct buf b = { 0 };
    struct str word;
    size_t begun = milter_packet_begin(&b, milter_events[event].letter);
    milter_add_text(&b, text);
    while (str_word(&args, STR_SPACE, &word))
        milter_add_text(&b, word);
    milter_packet_end(&b, begun);
    struct milter_verdict v = tell_all(ms, event, &b);
    buf_free(&b);
    return v;
}

struct milter_verdict milters_helo(struct milters *ms, struct str helo) {
    return tell_texts(ms, MILTER_HELO, helo, STR(""));
}

static void message_begins(struct milters *ms) {
    for (size_t i = 0; i < ms->n; i++) {
        struct milter *m = &ms->at[i];
        if (m->state == MILTER_ACCEPTED)
            m->state = MILTER_OPEN;
        m->skip = 0;
    }
}

struct milter_verdict milters_mail(struct milters *ms, struct str path, struct str args) {
    message_begins(ms);
    for (size_t i = 0; i < ms->n; i++)
        ms->at[i].in_message = true;
    return tell_texts(ms, MILTER_MAIL, path, args);
}

struct milter_verdict milters_rcpt(struct milters *ms, struct str path, struct str args, bool refused) {
    if (!refused)
        return tell_texts(ms, MILTER_RCPT, path, args);
    for (size_t i = 0; i < ms->n; i++) {
        struct milter *m = &ms->at[i];
        if (m->state != MILTER_OPEN || !(m->protocol & MILTER_REJECTED_RCPT))
            continue;
        struct milters one = *ms;
        one.at = m;
        one.n = 1;
        (void)tell_texts(&one, MILTER_RCPT, path, args);
    }
    return pass;
}

struct milter_verdict milters_data(struct milters *ms) {
    struct buf b = { 0 };
    milter_put(&b, 'T', STR(""));
    struct milter_verdict v = tell_all(ms, MILTER_DATA, &b);
    buf_free(&b);
    return v;
}

struct milter_verdict milters_unknown(struct milters *ms, struct str line) {
    struct buf b = { 0 };
    size_t begun = milter_packet_begin(&b, 'U');
    milter_add_text(&b, line);
    milter_packet_end(&b, begun);
    struct milter_verdict v = tell_all(ms, MILTER_UNKNOWN, &b);
    buf_free(&b);
    return v;
}

void milters_abort(struct milters *ms) {
    for (size_t i = 0; i < ms->n; i++) {
        struct milter *m = &ms->at[i];
        if (m->in_message && m->io)
            say(m, 'A'); /* nobody answers it; it goes out with what comes next */
        m->in_message = false;
    }
    message_begins(ms);
}

void milters_break(struct milters *ms) {
    for (size_t i = 0; i < ms->n; i++)
        if (ms->at[i].io)
            milter_give_up(&ms->at[i]);
}

/* --- content --- */

bool milter_wants_content(const struct milter *m) {
    return m->state == MILTER_OPEN || (m->state == MILTER_DECIDED && m->sticky.what != MILTER_PASS);
}

struct milter_verdict milter_header(struct milters *ms, struct milter *m, struct str name, struct str value) {
    struct buf b = { 0 };
    size_t begun = milter_packet_begin(&b, 'L');
    milter_add_text(&b, name);
    if (!(m->protocol & MILTER_LEADING_SPACE) && str_starts(value, STR(" ")))
        value = str_from(value, 1);
    milter_add_text(&b, value);
    milter_packet_end(&b, begun);
    struct milter_verdict v = tell(ms, m, MILTER_HEADER, buf_str(&b), NULL);
    buf_free(&b);
    return v;
}

static struct milter_verdict tell_bytes(struct milters *ms, struct milter *m, enum milter_event event, struct str bytes,
                                        struct editing *g) {
    struct buf b = { 0 };
    milter_put(&b, milter_events[event].letter, bytes);
    struct milter_verdict v = tell(ms, m, event, buf_str(&b), g);
    buf_free(&b);
    return v;
}

struct milter_verdict milter_end_of_header(struct milters *ms, struct milter *m) {
    return tell_bytes(ms, m, MILTER_EOH, STR(""), NULL);
}

struct milter_verdict milter_body(struct milters *ms, struct milter *m, struct str bytes) {
    return tell_bytes(ms, m, MILTER_BODY, bytes, NULL);
}

struct milter_verdict milter_end_of_message(struct milters *ms, struct milter *m,
                                            bool (*edit)(void *arg, const struct milter_reply *r), void *arg,
                                            bool *ret_whole) {
    struct editing g = { .edit = edit, .arg = arg, .ret_whole = ret_whole };
    *ret_whole = false;
    return tell_bytes(ms, m, MILTER_EOM, STR(""), &g);
}
