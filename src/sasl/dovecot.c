#include "sasl/dovecot.h"

#include "base/buf.h"
#include "base/die.h"
#include "base/map.h"
#include "sasl/fields.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char text_lost[] = "Connection lost to authentication server";
static const char text_backend[] = "Authentication backend error";

struct link { /* one connection */
    struct io *io;
    struct arena *arena; /* mechanisms */
    VEC(struct sasl_mechanism) mechanisms;
    struct map requests; /* by number: struct request */
    struct group inside; /* who is about to write */
    struct line_writer out;
    bool may_cancel;
    size_t cancels; /* written and not sent yet */
};

struct dovecot {
    struct sasl_server base;
    dovecot_dial *dial;
    void *ctx;
    struct link *link; /* after its handshake; NULL: none */
    struct coro *reader;
    struct group readers;
    bool connecting;
    struct cond settled; /* connecting has ended */
    int64_t rest_until;
    char why[256]; /* of the last failure to connect */
    uint32_t connections, requests;
};

enum { KEY_SIZE = 4, CANCELS_MAX = 256, AUTH_FIELDS_MAX = 1024 /* bytes of AUTH before the response, roughly */ };
struct request {
    struct sasl_exchange base;
    struct link *link; /* NULL: it was lost */
    char key[KEY_SIZE];
    uint32_t id;
    struct cond answered;
    bool done;
    struct arena *arena;
    struct sasl_answer answer; /* in `arena` */
};

static void put_u32(char *p, uint32_t v) {
    memcpy(p, &v, KEY_SIZE);
}

/* --- the handshake --- */
static unsigned property(struct str word) {
    static const struct {
        struct str word;
        unsigned property;
    } words[] = {
        { STR_INIT("plaintext"), SASL_PLAINTEXT },
        { STR_INIT("active"), SASL_ACTIVE },
        { STR_INIT("dictionary"), SASL_DICTIONARY },
        { STR_INIT("anonymous"), SASL_ANONYMOUS },
        { STR_INIT("forward-secrecy"), SASL_FORWARD_SECRECY },
        { STR_INIT("mutual-auth"), SASL_MUTUAL_AUTH },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_eq(word, words[i].word))
            return words[i].property;
    return 0;
}

/* What goes into an EHLO line as a word (RFC 4422, 3.1, somewhat wider). */
static bool mechanism_name_valid(struct str name) {
    if (name.n == 0 || name.n > SASL_MECHANISM_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (!byte_is_alnum(name.p[i]) && name.p[i] != '-' && name.p[i] != '_')
            return false;
    return true;
}

static bool add_mechanism(struct link *l, struct str fields) {
    struct str name = STR(""), word;
    struct sasl_mechanism m = { 0 };
    if (!field_next(&fields, &name) || !mechanism_name_valid(name) || l->mechanisms.n == SASL_MECHANISMS_MAX)
        return false;
    while (field_next(&fields, &word)) {
        if (str_eq(word, STR("private"))) /* for the server's own clients */
            return true;
        m.properties |= property(word);
    }
    m.name = arena_str(l->arena, name);
    *vec_add(l->arena, &l->mechanisms) = m;
    return true;
}

/* NULL and `*ret_done`: the connection may be used. Else what is wrong with the line. */
static const char *handshake_line(struct link *l, struct str line, bool *ret_done) {
    struct str word = STR(""), number = STR("");
    uint32_t v;
    (void)field_next(&line, &word);
    if (str_eq(word, STR("VERSION"))) {
        if (!field_next(&line, &number) || !str_to_u32(number, UINT32_MAX, &v))
            return "malformed VERSION line";
        if (v != 1)
            return "protocol version not supported";
        l->may_cancel = field_next(&line, &number) && str_to_u32(number, UINT32_MAX, &v) && v >= 1;
        return NULL;
    }
    if (str_eq(word, STR("MECH")))
        return add_mechanism(l, line) ? NULL : "malformed MECH line";
    *ret_done = str_eq(word, STR("DONE"));
    return NULL;
}

/* True: ready. Else `why` says what happened. */
static bool handshake(struct dovecot *d, struct link *l, int64_t deadline) {
    /* unique among the clients of a server that may still know our last connection */
    uint32_t number = (d->connections++ % 512) << 22 | ((uint32_t)getpid() & 0x3fffff);
    io_printf(l->io, "VERSION\t1\t1\nCPID\t%u\n", number);
    error e = io_flush(l->io, deadline);
    bool done = false;
    const char *fault = NULL;
    for (size_t lines = 0; !e && !done && !fault; lines++) {
        struct str line;
        e = lines < DOVECOT_HANDSHAKE_LINES_MAX ? line_read(l->io, DOVECOT_LINE_MAX, deadline, &line) : &err_limit;
        if (!e)
            fault = handshake_line(l, line, &done);
    }
    if (!e && !fault && l->mechanisms.n == 0)
        fault = "it offers no mechanisms";
    if (e)
        snprintf(d->why, sizeof d->why, "handshake: %.*s", STR_ARG(e->text));
    else if (fault)
        snprintf(d->why, sizeof d->why, "handshake: %s", fault);
    return !e && !fault;
}

/* --- answers --- */
static struct request *find(struct link *l, struct str number) {
    uint32_t id;
    char key[KEY_SIZE];
    if (!str_to_u32(number, UINT32_MAX, &id))
        return NULL;
    put_u32(key, id);
    return map_get(&l->requests, str_n(key, KEY_SIZE));
}

static void read_fields(struct request *r, struct str fields) {
    struct str f;
    while (field_next(&fields, &f)) {
        if (str_starts(f, STR("user=")))
            r->answer.username = sasl_printable(r->arena, field_unescape(r->arena, str_from(f, 5)), SASL_USERNAME_MAX);
        else if (str_starts(f, STR("reason=")))
            r->answer.reason = sasl_printable(r->arena, field_unescape(r->arena, str_from(f, 7)), SASL_REASON_MAX);
        else if (str_eq(f, STR("temp")) || str_eq(f, STR("code=temp_fail")))
            r->answer.outcome = LOGIN_TEMP;
    }
}

static void answered(struct request *r) {
    r->done = true;
    cond_broadcast(&r->answered);
}

/* NULL, or what is wrong. Answers nobody waits for any more, and words we do not know, are passed over. */
static const char *answer_line(struct link *l, struct str line) {
    struct str word = STR(""), number = STR("");
    (void)field_next(&line, &word);
    bool ok = str_eq(word, STR("OK")), more = str_eq(word, STR("CONT")), fail = str_eq(word, STR("FAIL"));
    if (!ok && !more && !fail)
        return NULL;
    uint32_t id;
    if (!field_next(&line, &number) || !str_to_u32(number, UINT32_MAX, &id))
        return "an answer without a number";
    struct request *r = find(l, number);
    if (!r || r->done)
        return NULL;
    r->answer = (struct sasl_answer){ .outcome = ok ? LOGIN_OK : more ? LOGIN_MORE : LOGIN_FAILED };
    if (more) {
        struct str challenge = STR("");
        (void)field_next(&line, &challenge);
        if (!sasl_base64_valid(challenge))
            return "a challenge that is not base64";
        r->answer.challenge = arena_str(r->arena, challenge);
    } else {
        read_fields(r, line);
        if (ok && r->answer.username.n == 0)
            return "an OK without a user name";
    }
    answered(r);
    return NULL;
}

/* Every login on it is lost; nobody finds it any more. */
static void link_break(struct dovecot *d, struct link *l, const char *reason, const char *detail) {
    if (d->link == l)
        d->link = NULL;
    size_t at = 0;
    struct map_entry *entry;
    while (map_next(&l->requests, &at, &entry)) {
        struct request *r = entry->value;
        r->link = NULL;
        if (!r->done) {
            sasl_lost(r->arena, &r->answer, reason, str_c(detail));
            r->done = true;
            cond_broadcast(&r->answered);
        }
    }
    map_free(&l->requests);
}

static void link_free(struct link *l) {
    io_close(l->io);
    map_free(&l->requests);
    arena_free(l->arena);
    free(l);
}

static void read_answers(void *arg) {
    struct dovecot *d = arg;
    struct link *l = d->link;
    const char *fault = NULL;
    error e = NULL;
    char why[256];
    while (!e && !fault) {
        struct str line;
        e = line_read(l->io, DOVECOT_LINE_MAX, DEADLINE_NEVER, &line);
        if (!e)
            fault = answer_line(l, line);
    }
    if (fault)
        snprintf(why, sizeof why, "%s", fault);
    else
        snprintf(why, sizeof why, "%.*s", STR_ARG(e->text));
    d->reader = NULL;
    link_break(d, l, fault ? text_backend : text_lost, why);
    int shielded = coro_shield(1);
    (void)group_wait(&l->inside, DEADLINE_NEVER); /* each has a deadline of its own */
    coro_shield(shielded);
    link_free(l);
    group_leave(&d->readers);
}

/* --- the connection --- */
static void connect_once(struct dovecot *d, int64_t deadline) {
    int64_t ours = deadline_in(DOVECOT_CONNECT_SECONDS);
    if (deadline > ours)
        deadline = ours;
    struct io *io = NULL;
    error e = d->dial(d->ctx, deadline, &io);
    if (e) {
        snprintf(d->why, sizeof d->why, "%.*s", STR_ARG(e->text));
        return;
    }
    struct link *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    l->io = l->out.io = io;
    io_secret(io, true);
    l->arena = arena_new();
    if (!handshake(d, l, deadline)) {
        link_free(l);
        return;
    }
    d->link = l;
    group_enter(&d->readers);
    d->reader = coro_spawn(read_answers, d, "login server");
    if (!d->reader) {
        snprintf(d->why, sizeof d->why, "out of memory");
        d->link = NULL;
        group_leave(&d->readers);
        link_free(l);
    }
}

/* The connection, made if need be. An error is in the process's one text, for the log. */
static error want_link(struct dovecot *d, int64_t deadline, struct link **ret) {
    static struct err refused = { .kind = ERR_TEMP };
    while (d->connecting) {
        error e = cond_wait(&d->settled, deadline);
        if (e)
            return e;
    }
    if (!d->link && sys->mono_us() >= d->rest_until) {
        d->connecting = true;
        connect_once(d, deadline);
        d->connecting = false;
        if (!d->link)
            d->rest_until = deadline_in(DOVECOT_REST_SECONDS);
        cond_broadcast(&d->settled);
    }
    *ret = d->link;
    if (d->link)
        return NULL;
    refused.text = str_c(d->why);
    return &refused;
}

static void send_line(struct link *l, struct buf *line, int64_t deadline) {
    group_enter(&l->inside);
    l->cancels = 0;
    line_write(&l->out, line, deadline);
    group_leave(&l->inside);
}

/* --- requests --- */
static void request_free(struct request *r) {
    if (r->link)
        map_remove(&r->link->requests, str_n(r->key, KEY_SIZE));
    arena_free(r->arena);
    free(r);
}

static void wait_answer(struct request *r, int64_t deadline) {
    error e = NULL;
    while (!r->done && !e)
        e = cond_wait(&r->answered, deadline);
    if (r->done)
        return;
    sasl_lost(r->arena, &r->answer, text_lost, STR("no answer in time"));
}

static void give_answer(const struct request *r, struct arena *a, struct sasl_answer *ret) {
    *ret = (struct sasl_answer){ .outcome = r->answer.outcome,
                                 .challenge = arena_str(a, r->answer.challenge),
                                 .username = arena_str(a, r->answer.username),
                                 .reason = arena_str(a, r->answer.reason),
                                 .detail = arena_str(a, r->answer.detail) };
}

static void dovecot_cancel(struct sasl_exchange *x) {
    struct request *r = (struct request *)x;
    struct link *l = r->link;
    /* it goes with the next line; if it cannot, the server forgets the login by itself after some time */
    if (l && l->may_cancel && !l->out.writing && l->cancels < CANCELS_MAX) {
        l->cancels++;
        io_printf(l->io, "CANCEL\t%u\n", r->id);
    }
    request_free(r);
}

/* Give the answer; the request stays when it is not the last. */
static struct sasl_exchange *finish(struct request *r, struct arena *a, struct sasl_answer *ret) {
    give_answer(r, a, ret);
    if (ret->outcome == LOGIN_MORE)
        return &r->base;
    if (r->done || !r->link)
        request_free(r);
    else
        dovecot_cancel(&r->base);
    return NULL;
}

static void start(struct request *r, struct link *l, const struct sasl_peer *peer, struct str mechanism,
                  const struct str *initial, int64_t deadline) {
    struct dovecot *d = (struct dovecot *)r->base.server;
    r->id = ++d->requests;
    put_u32(r->key, r->id);
    r->link = l;
    r->done = false;
    map_put(&l->requests, str_n(r->key, KEY_SIZE), r);
    struct buf b = { 0 };
    (void)buf_reserve(&b, AUTH_FIELDS_MAX + (initial ? initial->n : 0)); /* grown, it would leave copies behind */
    buf_printf(&b, "AUTH\t%u\t%.*s", r->id, STR_ARG(mechanism));
    field_add(&b, "service", peer->service);
    buf_add(&b, STR("\tnologin"));
    field_add(&b, "lip", peer->local_address);
    field_add(&b, "rip", peer->address);
    field_add(&b, "lport", peer->local_port);
    field_add(&b, "rport", peer->port);
    field_add(&b, "realm", peer->realm);
    if (peer->tls)
        buf_add(&b, STR("\tsecured"));
    if (initial) /* always the last */
        buf_printf(&b, "\tresp=%.*s", STR_ARG(*initial));
    buf_byte(&b, '\n');
    send_line(l, &b, deadline);
    wait_answer(r, deadline);
}

/* The server's own spelling of a mechanism that may be used. */
static const struct sasl_mechanism *mechanism_find(const struct link *l, const struct sasl_policy *p, struct str name) {
    for (size_t i = 0; i < l->mechanisms.n; i++)
        if (str_eq_icase(l->mechanisms.at[i].name, name) && sasl_policy_allows(p, &l->mechanisms.at[i]))
            return &l->mechanisms.at[i];
    return NULL;
}

static struct sasl_exchange *dovecot_begin(struct sasl_server *s, const struct sasl_peer *peer,
                                           const struct sasl_policy *p, struct str mechanism, const struct str *initial,
                                           int64_t deadline, struct arena *a, struct sasl_answer *ret) {
    struct dovecot *d = (struct dovecot *)s;
    struct request *r = calloc(1, sizeof *r);
    if (!r)
        die_no_memory(sizeof *r);
    r->base.server = s;
    r->arena = arena_new();
    /* a connection that the server has ended meanwhile says so only when it is used */
    for (int tries = 0; tries < 2; tries++) {
        struct link *l = NULL;
        error e = want_link(d, deadline, &l);
        if (e) {
            sasl_lost(r->arena, &r->answer, text_lost, e->text);
            break;
        }
        const struct sasl_mechanism *m = mechanism_find(l, p, mechanism);
        if (!m) {
            r->done = true;
            r->answer =
                (struct sasl_answer){ .outcome = LOGIN_FAILED, .reason = STR("Invalid authentication mechanism") };
            break;
        }
        start(r, l, peer, m->name, initial, deadline);
        if (r->link || r->answer.reason.p != text_lost)
            break;
    }
    return finish(r, a, ret);
}

static void dovecot_respond(struct sasl_exchange *x, struct str response, int64_t deadline, struct arena *a,
                            struct sasl_answer *ret) {
    struct request *r = (struct request *)x;
    if (!r->link) {
        sasl_lost(a, ret, text_lost, STR("the connection has ended"));
        request_free(r);
        return;
    }
    r->done = false;
    arena_reset(r->arena);
    struct buf b = { 0 };
    (void)buf_reserve(&b, AUTH_FIELDS_MAX + response.n);
    buf_printf(&b, "CONT\t%u\t%.*s\n", r->id, STR_ARG(response));
    send_line(r->link, &b, deadline);
    wait_answer(r, deadline);
    (void)finish(r, a, ret);
}

static error dovecot_mechanisms(struct sasl_server *s, const struct sasl_peer *peer, const struct sasl_policy *p,
                                int64_t deadline, struct arena *a, struct sasl_mechanism **ret, size_t *ret_count) {
    (void)peer;
    struct link *l = NULL;
    error e = want_link((struct dovecot *)s, deadline, &l);
    *ret_count = 0;
    if (e)
        return e;
    *ret = arena_array(a, l->mechanisms.n, sizeof **ret);
    for (size_t i = 0; i < l->mechanisms.n; i++) {
        const struct sasl_mechanism *m = &l->mechanisms.at[i];
        if (sasl_policy_allows(p, m))
            (*ret)[(*ret_count)++] =
                (struct sasl_mechanism){ .name = arena_str(a, m->name), .properties = m->properties };
    }
    return NULL;
}

struct sasl_server *dovecot_new(dovecot_dial *dial, void *ctx) {
    static const struct sasl_ops ops = {
        .mechanisms = dovecot_mechanisms,
        .begin = dovecot_begin,
        .respond = dovecot_respond,
        .cancel = dovecot_cancel,
    };
    struct dovecot *d = calloc(1, sizeof *d);
    if (!d)
        die_no_memory(sizeof *d);
    d->base.ops = &ops;
    d->dial = dial;
    d->ctx = ctx;
    return &d->base;
}

void dovecot_free(struct sasl_server *s) {
    struct dovecot *d = (struct dovecot *)s;
    if (!d)
        return;
    if (d->reader)
        coro_cancel(d->reader);
    (void)group_wait(&d->readers, DEADLINE_NEVER);
    free(d);
}
