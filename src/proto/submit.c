#include "proto/submit.h"

#include "base/die.h"
#include "proto/mux.h"
#include <stdlib.h>

enum {
    GATHERED = 32 * 1024,    /* of one message before any of it is sent: one that is smaller goes in one frame */
    UNSENT_MAX = 128 * 1024, /* of all messages of a link, in memory: more waits in the messages */
    TEXT_MAX = 2000,         /* bytes of a reply text that are believed */
    CANCEL_SECONDS = 10,
};

struct submit_link {
    struct mux mux;
    struct submit *slots[SUBMIT_STREAMS_MAX];
    size_t count;
    uint32_t next; /* the next stream number, if its slot is free */
    bool closing;  /* cleanup is about to end */
};

struct submit {
    struct submit_link *link;
    struct mux_waiter waiter;
    uint32_t number;
    bool begun;      /* BEGIN has been sent */
    uint32_t window; /* bytes that may be sent */
    struct buf out;  /* records, not yet given to the link */
    size_t content;  /* where in `out` the CONTENT record that may grow begins; SIZE_MAX: there is none */
    error failed;
    uint8_t got; /* 0, SUBMIT_FRAME_OPENED, SUBMIT_FRAME_RESULT */
    struct buf answer;
};

static const struct err malformed = { .kind = ERR_SYNTAX,
                                      .dsn = STR_INIT(""),
                                      .text = STR_INIT("malformed answer from the cleanup service"),
                                      .detail = STR_INIT("") };

int submit_status_code(enum submit_status s) {
    static const int codes[] = {
        [SUBMIT_OK] = 250,        [SUBMIT_TEMP] = 451, [SUBMIT_NO_SPACE] = 452,
        [SUBMIT_TOO_LARGE] = 552, [SUBMIT_HOPS] = 554, [SUBMIT_CONTENT] = 550,
        [SUBMIT_NO_RCPT] = 550,   [SUBMIT_BAD] = 451,  [SUBMIT_REPLY] = 550,
    };
    return (unsigned)s < sizeof codes / sizeof codes[0] ? codes[s] : 451;
}

/* --- what cleanup says --- */
static bool unpack_id(struct unpack *u, bool may_be_empty, struct queue_id *ret) {
    struct str id = unpack_str(u);
    *ret = (struct queue_id){ 0 };
    if (u->bad || id.n >= QUEUE_ID_MAX)
        return false;
    if (id.n == 0)
        return may_be_empty;
    return queue_id_from(id, ret);
}

/* A text that goes into an SMTP reply: one line, nothing that could end it early; `reply`: any number of lines. */
static bool text_valid(struct str s, bool reply) {
    if (s.n > (reply ? SUBMIT_RECORD_MAX : TEXT_MAX))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (((unsigned char)s.p[i] < ' ' && !(reply && s.p[i] == '\n')) || s.p[i] == 0x7f)
            return false;
    return !reply || (s.n > 4 && (s.p[0] == '4' || s.p[0] == '5'));
}

static error unpack_result(struct str bytes, struct arena *a, struct submit_result *ret) {
    struct unpack u = unpack_from(bytes);
    uint8_t status = unpack_u8(&u);
    struct submit_result r = { .status = (enum submit_status)status };
    if (status > SUBMIT_REPLY || !unpack_id(&u, true, &r.id))
        return &malformed;
    r.size = unpack_u64(&u);
    r.dsn = unpack_str(&u);
    r.text = unpack_str(&u);
    if (!unpack_done(&u) || !text_valid(r.dsn, false) || !text_valid(r.text, r.status == SUBMIT_REPLY))
        return &malformed;
    r.dsn = arena_str(a, r.dsn);
    r.text = arena_str(a, r.text);
    *ret = r;
    return NULL;
}

/* --- the link --- */
/* A frame for one stream. Late ones, for a message that was cancelled, find nobody. */
static error take_frame(void *ctx, const struct ipc_msg *f) {
    struct submit_link *l = ctx;
    if (f->type == SUBMIT_FRAME_CLOSING) {
        l->closing = true;
        return f->payload.n == 0 ? NULL : &malformed;
    }
    struct unpack u = unpack_from(f->payload);
    uint32_t number = unpack_u32(&u);
    struct submit *m = l->slots[number % SUBMIT_STREAMS_MAX];
    uint32_t credit = f->type == SUBMIT_FRAME_CREDIT ? unpack_u32(&u) : 0;
    if (u.bad || (f->type == SUBMIT_FRAME_CREDIT && u.rest.n > 0))
        return &malformed;
    if (!m || m->number != number)
        return NULL;
    switch (f->type) {
    case SUBMIT_FRAME_CREDIT:
        if (credit > SUBMIT_WINDOW - m->window)
            return &malformed;
        m->window += credit;
        break;
    case SUBMIT_FRAME_OPENED:
    case SUBMIT_FRAME_RESULT:
        if (m->got == SUBMIT_FRAME_RESULT || m->got == f->type)
            return &malformed;
        m->got = f->type;
        buf_clear(&m->answer);
        buf_add(&m->answer, u.rest);
        break;
    default:
        return &malformed;
    }
    mux_wake(&m->waiter);
    return NULL;
}

static bool answered(const void *m) {
    return ((const struct submit *)m)->got != 0;
}
static bool finished(const void *m) {
    return ((const struct submit *)m)->got == SUBMIT_FRAME_RESULT;
}
static bool may_send(const void *m) {
    return ((const struct submit *)m)->window > 0 || finished(m);
}

static error wait_for(struct submit *m, bool (*done)(const void *), int64_t deadline) {
    return mux_wait(&m->link->mux, &m->waiter, done, m, deadline);
}

static void send_frame(struct submit *m, enum submit_frame type, struct str bytes) {
    ipc_send_numbered(m->link->mux.ipc, (uint8_t)type, m->number, bytes);
}

/* Everything gathered, as far as the window goes at a time. What comes after a result is of no use to anybody. */
static error send_gathered(struct submit *m, int64_t deadline) {
    struct submit_link *l = m->link;
    while (m->out.n > 0 && !m->failed && !finished(m)) {
        error e = m->window == 0 ? mux_flush(&l->mux, deadline) : NULL;
        if (!e)
            e = wait_for(m, may_send, deadline);
        if (!e)
            e = mux_room(&l->mux, UNSENT_MAX, deadline);
        m->failed = e;
        if (e || finished(m))
            break;
        struct str bytes = str_sub(buf_str(&m->out), 0, m->window);
        send_frame(m, m->begun ? SUBMIT_FRAME_DATA : SUBMIT_FRAME_BEGIN, bytes);
        m->begun = true;
        m->window -= (uint32_t)bytes.n;
        buf_consume(&m->out, bytes.n);
    }
    m->content = SIZE_MAX;
    if (!m->failed)
        m->failed = mux_flush(&l->mux, deadline);
    return m->failed;
}

/* --- links --- */
struct submit_link *submit_link_new(struct ipc *ipc) {
    struct submit_link *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    l->mux = (struct mux){ .ipc = ipc, .take = take_frame, .ctx = l };
    return l;
}

void submit_link_close(struct submit_link *l) {
    if (!l)
        return;
    if (l->count > 0)
        die("submit_link_close: %zu messages are under way", l->count);
    mux_close(&l->mux);
    free(l);
}

bool submit_link_usable(const struct submit_link *l) {
    return !l->mux.broken && !l->closing && l->count < SUBMIT_STREAMS_MAX;
}

size_t submit_link_count(const struct submit_link *l) {
    return l->count;
}

/* --- messages --- */
static struct submit *submit_new(struct submit_link *l) {
    struct submit *m = calloc(1, sizeof *m);
    if (!m)
        die_no_memory(sizeof *m);
    while (l->slots[l->next % SUBMIT_STREAMS_MAX])
        l->next++;
    *m = (struct submit){ .link = l, .number = l->next++, .window = SUBMIT_WINDOW, .content = SIZE_MAX };
    l->slots[m->number % SUBMIT_STREAMS_MAX] = m;
    l->count++;
    return m;
}

static void submit_free(struct submit *m) {
    struct submit_link *l = m->link;
    l->slots[m->number % SUBMIT_STREAMS_MAX] = NULL;
    l->count--;
    buf_free(&m->out);
    buf_free(&m->answer);
    free(m);
}

void submit_cancel(struct submit *m) {
    if (!m)
        return;
    struct submit_link *l = m->link;
    bool tell = m->begun && !finished(m) && !l->mux.broken;
    if (tell)
        send_frame(m, SUBMIT_FRAME_CANCEL, STR(""));
    submit_free(m);
    if (!tell || l->mux.flushing)
        return;
    error e = ipc_flush(l->mux.ipc, deadline_in(CANCEL_SECONDS));
    if (e)
        mux_break(&l->mux, e);
}

enum { RECORD_HEAD = 5 };

/* A record whose payload is what is added to m->out up to record_end(). Returns where it begins. */
static size_t record_begin(struct submit *m, enum submit_type type) {
    size_t at = m->out.n;
    m->content = type == SUBMIT_MSG_CONTENT ? at : SIZE_MAX;
    pack_u32(&m->out, 0);
    pack_u8(&m->out, (uint8_t)type);
    return at;
}

static void record_set_size(struct submit *m, size_t at, size_t size) {
    for (size_t i = 0; i < sizeof(uint32_t); i++)
        m->out.p[at + i] = (char)(unsigned char)(size >> (8 * i));
}

static error record_end(struct submit *m, size_t at, int64_t deadline) {
    size_t size = m->out.n - at - RECORD_HEAD;
    if (!m->failed && size > SUBMIT_RECORD_MAX)
        m->failed = &err_limit;
    if (m->failed) {
        buf_truncate(&m->out, at);
        m->content = SIZE_MAX;
        return m->failed;
    }
    record_set_size(m, at, size);
    return m->out.n < GATHERED ? NULL : send_gathered(m, deadline);
}

static error add_record(struct submit *m, enum submit_type type, struct str payload, int64_t deadline) {
    size_t at = record_begin(m, type);
    buf_add(&m->out, payload);
    return record_end(m, at, deadline);
}

error submit_open(struct submit_link *l, unsigned flags, int64_t deadline, struct arena *a, struct submit **ret,
                  struct queue_id *ret_id, struct submit_result *ret_refused) {
    *ret = NULL;
    if (!submit_link_usable(l))
        return l->mux.broken ? l->mux.broken : &err_eof;
    struct submit *m = submit_new(l);
    size_t at = record_begin(m, SUBMIT_MSG_OPEN);
    pack_u32(&m->out, flags);
    error e = record_end(m, at, deadline);
    if (!e)
        e = send_gathered(m, deadline);
    if (!e)
        e = wait_for(m, answered, deadline);
    *ret_refused = (struct submit_result){ .status = SUBMIT_OK, .dsn = STR(""), .text = STR("") };
    if (!e && m->got == SUBMIT_FRAME_OPENED) {
        struct unpack u = unpack_from(buf_str(&m->answer));
        if (unpack_id(&u, false, ret_id) && unpack_done(&u)) {
            *ret = m;
            return NULL;
        }
        e = &malformed;
    } else if (!e) {
        e = unpack_result(buf_str(&m->answer), a, ret_refused);
        /* OK before there was a message would make the caller believe that nothing had been accepted */
        if (!e && ret_refused->status == SUBMIT_OK)
            e = &malformed;
    }
    if (e == &malformed)
        mux_break(&l->mux, e);
    submit_cancel(m);
    return e;
}

error submit_envelope(struct submit *m, const struct envelope *env, int64_t deadline) {
    size_t at = record_begin(m, SUBMIT_MSG_ENVELOPE);
    envelope_pack(&m->out, env);
    return record_end(m, at, deadline);
}

error submit_full_name(struct submit *m, struct str name, int64_t deadline) {
    size_t at = record_begin(m, SUBMIT_MSG_FULL_NAME);
    pack_str(&m->out, name);
    return record_end(m, at, deadline);
}

error submit_rcpt(struct submit *m, const struct rcpt *r, int64_t deadline) {
    size_t at = record_begin(m, SUBMIT_MSG_RCPT);
    rcpt_pack(&m->out, r);
    return record_end(m, at, deadline);
}

error submit_action(struct submit *m, enum submit_action action, struct str value, int64_t deadline) {
    size_t at = record_begin(m, SUBMIT_MSG_ACTION);
    pack_u8(&m->out, (uint8_t)action);
    pack_str(&m->out, value);
    return record_end(m, at, deadline);
}

/* More for the CONTENT record that was added last; false when there is none that could take it. */
static bool content_grow(struct submit *m, struct str bytes) {
    if (m->content == SIZE_MAX)
        return false;
    struct unpack u = unpack_from(str_from(buf_str(&m->out), m->content));
    size_t size = unpack_u32(&u);
    if (size + bytes.n > SUBMIT_RECORD_MAX)
        return false;
    buf_add(&m->out, bytes);
    record_set_size(m, m->content, size + bytes.n);
    return true;
}

error submit_content(struct submit *m, struct str bytes, int64_t deadline) {
    error e = m->failed;
    while (bytes.n > 0 && !e) {
        struct str piece = str_sub(bytes, 0, SUBMIT_RECORD_MAX);
        bytes = str_from(bytes, piece.n);
        if (!content_grow(m, piece))
            e = add_record(m, SUBMIT_MSG_CONTENT, piece, deadline);
        else if (m->out.n >= GATHERED)
            e = send_gathered(m, deadline);
    }
    return e;
}

error submit_milters(struct submit *m, struct str packed, const int *fds, size_t n, int64_t deadline) {
    struct submit_link *l = m->link;
    error e = send_gathered(m, deadline); /* they come when cleanup knows the stream */
    for (size_t i = 0; i < n && !e && !finished(m); i++) {
        struct buf b = { 0 };
        pack_u32(&b, m->number);
        ipc_send(l->mux.ipc, SUBMIT_FRAME_DESCRIPTOR, buf_str(&b), fds[i]);
        buf_free(&b);
    }
    return e ? e : add_record(m, SUBMIT_MSG_MILTERS, packed, deadline);
}

error submit_end(struct submit *m, int64_t deadline, struct arena *a, struct submit_result *ret) {
    struct submit_link *l = m->link;
    error e = add_record(m, SUBMIT_MSG_END, STR(""), deadline);
    if (!e)
        e = send_gathered(m, deadline);
    if (!e)
        e = wait_for(m, finished, deadline);
    if (!e) {
        e = unpack_result(buf_str(&m->answer), a, ret);
        /* what has no name is not in the queue */
        if (!e && ret->status == SUBMIT_OK && !ret->id.text[0])
            e = &malformed;
        if (e)
            mux_break(&l->mux, e);
    }
    submit_cancel(m);
    return e;
}
