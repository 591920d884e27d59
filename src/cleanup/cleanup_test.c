#include "test/test.h"

#include "base/log.h"
#include "cleanup/cleanup.h"
#include "mail/dsn.h"
#include "proto/submit.h"
#include "test/fake_sys.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* A made-up client, and cleanup over a real spool in a directory of its own. */

static const struct conf_override base[] = {
    { STR_INIT("compatibility_level"), STR_INIT("3.6") },
    { STR_INIT("myhostname"), STR_INIT("mx.example.com") },
    { STR_INIT("mydomain"), STR_INIT("example.com") },
    { STR_INIT("myorigin"), STR_INIT("example.com") },
    { STR_INIT("mydestination"), STR_INIT("example.com") },
    { STR_INIT("inet_interfaces"), STR_INIT("127.0.0.1") },
    { STR_INIT("append_dot_mydomain"), STR_INIT("no") },
    { STR_INIT("hopcount_limit"), STR_INIT("5") },
    { STR_INIT("message_size_limit"), STR_INIT("20000") },
    { STR_INIT("message_reject_characters"), STR_INIT("\\0") },
    { STR_INIT("canonical_maps"), STR_INIT("inline:{ {c1=c2@x.test} }") },
    { STR_INIT("virtual_alias_maps"), STR_INIT("inline:{ {team=a@t.test, b@t.test}, {loop=loop2}, {loop2=loop} }") },
    { STR_INIT("sender_bcc_maps"), STR_INIT("inline:{ {watched@example.com=copy@b.test} }") },
    { STR_INIT("recipient_bcc_maps"), STR_INIT("inline:{ {@archive.test=keep@b.test} }") },
};
enum { BASE = sizeof base / sizeof base[0], EXTRA_MAX = 4, DEADLINE_S = 30 };
#define DEADLINE deadline_in(DEADLINE_S)

static struct {
    char dir[64];
    struct arena *a;
    struct conf *c;
    struct cleanup cleanup;
    struct ipc *client, *server;
    struct submit_link *link; /* owns client, when there is one */
    const char *queue_log;
    int failed, queued;
} t;

#define CHECK_COUNT t.failed
#include "test/check.h"

static void queued(void *ctx, const struct spool_news *news) {
    (void)ctx;
    CHECK(news->position.segment || queue_id_valid(queue_id_str(&news->id)));
    t.queued++;
}

static void serve(void *arg) {
    (void)arg;
    cleanup_serve(&t.cleanup, t.server);
    ipc_close(t.server);
    t.server = NULL;
}

static void run_client(void (*client)(void *), void *arg, const char *const *extra, bool raw) {
    struct conf_override all[BASE + EXTRA_MAX + 2];
    size_t n = 0;
    for (; n < BASE; n++)
        all[n] = base[n];
    for (; extra && extra[0]; extra += 2)
        all[n++] = (struct conf_override){ str_c(extra[0]), str_c(extra[1]) };
    all[n++] = (struct conf_override){ STR("queue_directory"), str_c(t.dir) };
    all[n++] = (struct conf_override){ STR("queue_log"), str_c(t.queue_log) };
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = all,
                                  .override_count = n,
                                  .process_name = STR("cleanup"),
                                  .service_name = STR("cleanup"),
                                  .missing_is_empty = true };
    t.a = arena_new();
    t.failed = t.queued = 0;
    error e = conf_load(&source, t.a, &t.c);
    if (e)
        fail_msg("%.*s", STR_ARG(e->text));
    assert_null(cleanup_open(&t.cleanup, t.c, t.a));
    spool_on_news(t.cleanup.spool, queued, NULL);
    assert_null(loop_init());
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    t.client = ipc_new(fds[0]);
    t.server = ipc_new(fds[1]);
    t.link = raw ? NULL : submit_link_new(t.client);
    assert_non_null(coro_spawn(client, arg, "client"));
    assert_non_null(coro_spawn(serve, NULL, "cleanup"));
    assert_null(loop_run());
    if (!t.link)
        ipc_close(t.client);
    submit_link_close(t.link);
    ipc_close(t.server);
    loop_free();
    cleanup_close(&t.cleanup);
    conf_free(t.c);
    arena_free(t.a);
    assert_int_equal(t.failed, 0);
}

static void run_as_set_up(void (*client)(void *), void *arg, const char *const *extra) {
    run_client(client, arg, extra, false);
}

static void hang_up_link(void) {
    submit_link_close(t.link);
    t.link = NULL;
    t.client = NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int set_up(void **state) {
    if (state)
        t.queue_log = *state;
    strcpy(t.dir, "/tmp/angarium-cleanup-XXXXXX");
    return mkdtemp(t.dir) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    return nftw(t.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static size_t accepted(void) {
    struct arena *a = arena_new();
    struct spool *s;
    struct spool_scan scan = { 0 };
    struct spool_entry entry;
    size_t n = 0;
    struct spool_options o = { .queue_directory = str_c(t.dir), .access = SPOOL_LISTER };
    if (!spool_open(&o, a, &s)) {
        while (spool_scan_next(s, &scan, SPOOL_INCOMING, &entry))
            n++;
        spool_close(s);
    }
    arena_free(a);
    return n;
}

/* --- what a client says --- */

struct mail {
    unsigned flags, env_flags;
    enum submit_action action; /* 0: none */
    const char *action_value;
    const char *sender, *full_name;
    const char *rcpts; /* separated by blanks */
    struct str content;
};

static error say(const struct mail *m, struct submit_result *ret) {
    struct queue_id id;
    struct submit *to;
    error e = submit_open(t.link, m->flags, DEADLINE, t.a, &to, &id, ret);
    if (e || ret->status != SUBMIT_OK)
        return e;
    submit_envelope(to, &(struct envelope){ .sender = str_c(m->sender), .flags = m->env_flags }, DEADLINE);
    if (m->full_name)
        submit_full_name(to, str_c(m->full_name), DEADLINE);
    struct str rest = str_c(m->rcpts), one;
    while (str_word(&rest, STR(" "), &one))
        submit_rcpt(to, &(struct rcpt){ .address = one, .orig = one }, DEADLINE);
    submit_content(to, m->content, DEADLINE);
    if (m->action)
        submit_action(to, m->action, str_c(m->action_value), DEADLINE);
    return submit_end(to, DEADLINE, t.a, ret);
}

/* What is in the queue under this name: "sender>rcpt(orig) rcpt(orig)|content_filter|content". */
static struct str stored(const struct queue_id *id, enum spool_state state) {
    struct spool_options o = spool_options_from(t.c, SPOOL_LISTER);
    struct spool *s;
    struct envelope e;
    struct spool_content content;
    if (spool_open(&o, t.a, &s))
        return STR("no spool");
    error bad = spool_load(s, id, state, t.a, &e, &content);
    struct buf b = { 0 };
    if (!bad) {
        buf_printf(&b, "%.*s>", STR_ARG(e.sender));
        for (size_t i = 0; i < e.rcpt_count; i++)
            buf_printf(&b, "%s%.*s(%.*s)", i ? " " : "", STR_ARG(e.rcpts[i].address), STR_ARG(e.rcpts[i].orig));
        buf_printf(&b, "|%.*s|", STR_ARG(e.content_filter));
        char *p = arena_alloc(t.a, content.size + 1);
        if (content.bytes.p)
            memcpy(p, content.bytes.p, content.size);
        else
            CHECK(pread(content.fd, p, content.size, (off_t)content.offset) == (ssize_t)content.size);
        CHECK(e.size == content.size);
        buf_add(&b, (struct str){ p, content.size });
        spool_content_close(&content);
    }
    struct str out = arena_str(t.a, bad ? bad->text : buf_str(&b));
    buf_free(&b);
    spool_close(s);
    return out;
}

static void expect_stored(int line, const struct queue_id *id, enum spool_state state, const char *want) {
    struct str got = stored(id, state);
    if (str_eq(got, str_c(want)))
        return;
    print_error("%d: got \"%.*s\", want \"%s\"\n", line, STR_ARG(got), want);
    t.failed++;
}

#define COMPLETE "Message-Id: <m>\nDate: d\nFrom: f@x\n"

static bool content_is_in_log(void) {
    return strcmp(t.queue_log, "yes") == 0;
}

static void good_messages(void *arg) {
    (void)arg;
    struct submit_result r;
    const unsigned all = SUBMIT_MAP | SUBMIT_FILTER | SUBMIT_LOCAL_HEADERS;
    struct mail m = { .flags = all,
                      .sender = "me",
                      .rcpts = "You a@x.test you a@x.test",
                      .content = STR("To: you, c1\n" COMPLETE "Bcc: x\n\nbody\n") };
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK && str_eq(r.dsn, STR("2.0.0")));
    CHECK(str_starts(r.text, STR("Ok: queued as ")) && str_ends(r.text, queue_id_str(&r.id)));
    expect_stored(__LINE__, &r.id, SPOOL_INCOMING,
                  "me@example.com>You@example.com(You) a@x.test(a@x.test)||To: you@example.com, c2@x.test\n" COMPLETE
                  "\nbody\n");
    /* from elsewhere: nothing is added or changed; held */
    m = (struct mail){ .flags = SUBMIT_MAP,
                       .env_flags = ENVELOPE_HOLD,
                       .sender = "",
                       .rcpts = "team c1@example.com",
                       .content = STR("To: you\n\n") };
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK);
    expect_stored(__LINE__, &r.id, SPOOL_HOLD, ">a@t.test(team) b@t.test(team) c2@x.test(c1@example.com)||To: you\n\n");
    /* our own notices: no maps */
    m = (struct mail){ .rcpts = "team", .sender = "watched@example.com", .content = STR("A: b\n\n") };
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK);
    expect_stored(__LINE__, &r.id, SPOOL_INCOMING, "watched@example.com>team@example.com(team)||A: b\n\n");
    m.flags = SUBMIT_MAP;
    m.rcpts = "x@archive.test";
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK);
    expect_stored(__LINE__, &r.id, SPOOL_INCOMING,
                  "watched@example.com>x@archive.test(x@archive.test) copy@b.test(copy@b.test) "
                  "keep@b.test(keep@b.test)||A: b\n\n");
    CHECK(t.queued == (content_is_in_log() ? 4 : 3)); /* of a file on hold nothing is told */
    /* a full name, of which control bytes are no part */
    m = (struct mail){ .flags = all, .sender = "me", .full_name = "A\nB", .rcpts = "x@y", .content = STR("\nz") };
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK);
    CHECK(str_contains(stored(&r.id, SPOOL_INCOMING), STR("\nFrom: A B <me@example.com>\n\nz\n")));
    hang_up_link();
}

/* What access tables want. */
static void acted_upon(void *arg) {
    (void)arg;
    struct submit_result r;
    struct mail m = {
        .flags = SUBMIT_MAP, .sender = "me@x.test", .rcpts = "a@x.test team", .content = STR("To: you\n\n")
    };
    m.action_value = "";
    m.action = SUBMIT_ACTION_HOLD;
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK);
    expect_stored(__LINE__, &r.id, SPOOL_HOLD,
                  "me@x.test>a@x.test(a@x.test) a@t.test(team) b@t.test(team)||To: you\n\n");
    m.action = SUBMIT_ACTION_DISCARD;
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK && str_eq(r.dsn, STR("2.0.0")));
    int told = content_is_in_log(); /* of the one on hold: a file's is not */
    CHECK(accepted() == 0 && t.queued == told);
    m.action = SUBMIT_ACTION_FILTER;
    m.action_value = "smtp:[127.0.0.1]:1";
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK);
    CHECK(str_contains(stored(&r.id, SPOOL_INCOMING), STR("|smtp:[127.0.0.1]:1|")));
    m.action = SUBMIT_ACTION_REDIRECT;
    m.action_value = "else";
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK && t.queued == 2 + told);
    expect_stored(__LINE__, &r.id, SPOOL_INCOMING, "me@x.test>else@example.com(team)||To: you\n\n");
    /* without recipients there is nobody to redirect it from; what is no action, or no value, is refused */
    m.rcpts = "";
    CHECK(!say(&m, &r) && r.status == SUBMIT_NO_RCPT);
    m.rcpts = "a@x.test";
    m.action_value = "";
    CHECK(!say(&m, &r) && r.status == SUBMIT_BAD);
    m.action_value = "a@x\nb";
    CHECK(!say(&m, &r) && r.status == SUBMIT_BAD);
    m.action = 77;
    m.action_value = "x";
    CHECK(!say(&m, &r) && r.status == SUBMIT_BAD);
    hang_up_link();
}

static void test_actions(void **state) {
    (void)state;
    run_as_set_up(acted_upon, NULL, NULL);
}

static void test_good(void **state) {
    (void)state;
    run_as_set_up(good_messages, NULL, NULL);
}

static void count_problems(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)level;
    (void)tag;
    *(unsigned *)ctx += str_contains(text, STR("map lookup problem"));
}

/* A dead table may take its time to say so: it is asked once, not for each address of the header. */
static void a_failing_table(void *arg) {
    (void)arg;
    struct submit_result r;
    unsigned problems = 0;
    log_set_sink(count_problems, &problems);
    struct mail m = { .flags = SUBMIT_MAP | SUBMIT_LOCAL_HEADERS,
                      .sender = "me",
                      .rcpts = "you",
                      .content = STR("To: a@x, b@x, c@x\nCc: d@x\n\nbody\n") };
    CHECK(!say(&m, &r) && r.status == SUBMIT_TEMP && problems == 1);
    log_set_sink(NULL, NULL);
    hang_up_link();
}

static void test_failing_table(void **state) {
    (void)state;
    static const char *const extra[] = { "recipient_canonical_maps", "fail:database", "recipient_canonical_classes",
                                         "header_recipient", NULL };
    run_as_set_up(a_failing_table, NULL, extra);
    assert_int_equal(accepted(), 0);
}

#define HOP "Received: from a by b; d\n"

static void refused_messages(void *arg) {
    (void)arg;
    struct submit_result r;
    struct arena *a = arena_new();
    char *big = arena_alloc(a, 30000);
    memset(big, 'x', 30000);
    const struct {
        const char *rcpts;
        struct str content;
        enum submit_status status;
        const char *dsn, *text, *filter;
    } rows[] = {
        { "x@y", STR_INIT(HOP HOP HOP HOP "\n"), SUBMIT_OK, "2.0.0", NULL, "" },
        { "x@y", STR_INIT(HOP HOP HOP HOP HOP "\n"), SUBMIT_HOPS, "5.4.0", "Error: too many hops",
          "error:5.4.0 too many hops" },
        { "x@y",
          { big, 30000 },
          SUBMIT_TOO_LARGE,
          "5.3.4",
          "Error: message file too big",
          "error:5.3.4 message file too big" },
        { "x@y", STR_INIT("A: b\n\nc\0d\n"), SUBMIT_CONTENT, "5.7.1", "disallowed character",
          "error:5.7.1 disallowed character" },
        { "", STR_INIT("A: b\n\n"), SUBMIT_NO_RCPT, "5.1.0", "Error: no recipients specified", NULL },
        { "loop", STR_INIT("A: b\n\n"), SUBMIT_TEMP, "4.6.0", "Alias expansion error", NULL },
    };
    size_t kept = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct mail m = { .flags = SUBMIT_MAP, .sender = "s@t", .rcpts = rows[i].rcpts, .content = rows[i].content };
        if (say(&m, &r) || r.status != rows[i].status || !str_eq(r.dsn, str_c(rows[i].dsn)) ||
            (rows[i].text && !str_eq(r.text, str_c(rows[i].text)))) {
            print_error("row %zu: %d %.*s %.*s\n", i, r.status, STR_ARG(r.dsn), STR_ARG(r.text));
            t.failed++;
        }
        kept += r.status == SUBMIT_OK;
        CHECK(accepted() == kept);
        /* nobody waits for the reply: it goes back to the sender */
        m.flags |= SUBMIT_BOUNCE;
        CHECK(!say(&m, &r) && r.status == (rows[i].filter ? SUBMIT_OK : rows[i].status));
        kept += r.status == SUBMIT_OK;
        CHECK(accepted() == kept);
        if (rows[i].filter && rows[i].filter[0])
            CHECK(str_contains(stored(&r.id, SPOOL_INCOMING), arena_printf(a, "|%s|", rows[i].filter)));
    }
    arena_free(a);
    hang_up_link();
}

static void test_refused(void **state) {
    (void)state;
    run_as_set_up(refused_messages, NULL, NULL);
}

/* --- clients that break the protocol: an answer or none, the connection closed, nothing left --- */

struct step {
    uint8_t type;
    struct str payload; /* p NULL: a good envelope */
};
#define STEPS_MAX 6
#define RCPT(address) STR_INIT(address "\0\0\0\0\0\0\0\0\0\0\0\0\0")
static const struct step hostile[][STEPS_MAX] = {
    { { SUBMIT_MSG_OPEN, STR_INIT("") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\1\0\0\0x") } },
    { { SUBMIT_MSG_ENVELOPE, STR_INIT("") } },
    { { SUBMIT_MSG_END, STR_INIT("") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") }, { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") }, { SUBMIT_MSG_END, STR_INIT("") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") }, { SUBMIT_MSG_CONTENT, STR_INIT("x") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") }, { SUBMIT_MSG_RCPT, RCPT("\3\0\0\0a@b") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") }, { SUBMIT_MSG_FULL_NAME, STR_INIT("\1\0\0\0a") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") }, { SUBMIT_MSG_ENVELOPE, STR_INIT("\377\377\377\377") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") },
      { SUBMIT_MSG_ENVELOPE, { NULL, 0 } },
      { SUBMIT_MSG_ENVELOPE, { NULL, 0 } } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") },
      { SUBMIT_MSG_ENVELOPE, { NULL, 0 } },
      { SUBMIT_MSG_RCPT, STR_INIT("\3\0\0\0a@b") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") },
      { SUBMIT_MSG_ENVELOPE, { NULL, 0 } },
      { SUBMIT_MSG_RCPT, RCPT("\3\0\0\0a\nb") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") },
      { SUBMIT_MSG_ENVELOPE, { NULL, 0 } },
      { SUBMIT_MSG_RCPT, RCPT("\3\0\0\0a\0b") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") },
      { SUBMIT_MSG_ENVELOPE, { NULL, 0 } },
      { SUBMIT_MSG_RCPT, RCPT("\3\0\0\0a\rb") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") },
      { SUBMIT_MSG_ENVELOPE, { NULL, 0 } },
      { SUBMIT_MSG_END, STR_INIT("x") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") },
      { SUBMIT_MSG_ENVELOPE, { NULL, 0 } },
      { SUBMIT_MSG_CONTENT, STR_INIT("x\n") },
      { SUBMIT_MSG_FULL_NAME, STR_INIT("\1\0\0\0a") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") },
      { SUBMIT_MSG_ENVELOPE, { NULL, 0 } },
      { SUBMIT_MSG_FULL_NAME, STR_INIT("\0\0\0\0") },
      { SUBMIT_MSG_FULL_NAME, STR_INIT("\0\0\0\0") } },
    { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") }, { SUBMIT_MSG_ENVELOPE, { NULL, 0 } }, { 99, STR_INIT("") } },
};

static void say_hostile(void *arg) {
    const struct step *steps = arg;
    struct buf b = { 0 };
    pack_u32(&b, 7);
    for (size_t i = 0; i < STEPS_MAX && steps[i].type; i++) {
        struct buf payload = { 0 };
        if (steps[i].payload.p)
            buf_add(&payload, steps[i].payload);
        else
            envelope_pack(&payload, &(struct envelope){ .sender = STR("a@b") });
        pack_u32(&b, (uint32_t)payload.n);
        pack_u8(&b, steps[i].type);
        buf_add(&b, buf_str(&payload));
        buf_free(&payload);
    }
    ipc_send(t.client, SUBMIT_FRAME_BEGIN, buf_str(&b), -1);
    buf_free(&b);
    struct ipc_msg m;
    error e;
    int results = 0;
    while (!(e = ipc_recv(t.client, DEADLINE, &m))) {
        struct unpack u = unpack_from(m.payload);
        CHECK(unpack_u32(&u) == 7 && (m.type == SUBMIT_FRAME_OPENED || m.type == SUBMIT_FRAME_RESULT));
        if (m.type != SUBMIT_FRAME_RESULT)
            continue;
        CHECK(unpack_u8(&u) == SUBMIT_BAD);
        results++;
        shutdown(ipc_fd(t.client), SHUT_WR);
    }
    CHECK(e == &err_eof && results == 1);
}

static void test_hostile(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        struct step steps[STEPS_MAX];
        memcpy(steps, hostile[i], sizeof steps);
        run_client(say_hostile, steps, NULL, true);
        assert_int_equal(accepted(), 0);
        assert_int_equal(t.queued, 0);
    }
    /* envelope values with line ends */
    struct step injected[STEPS_MAX] = { { SUBMIT_MSG_OPEN, STR_INIT("\0\0\0\0") },
                                        { SUBMIT_MSG_ENVELOPE, STR_INIT("") } };
    const struct envelope bad[] = {
        { .sender = STR("a\nb@c") },
        { .sender = STR("a@b"), .dsn_envid = STR("x\ny") },
        { .sender = STR("a@b"), .client = { .helo = STR("x\0y") } },
        { .sender = STR("a@b"), .content_filter = STR("smtp:x\r") },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf b = { 0 };
        envelope_pack(&b, &bad[i]);
        injected[1].payload = buf_str(&b);
        run_client(say_hostile, injected, NULL, true);
        assert_int_equal(accepted(), 0);
        buf_free(&b);
    }
}

/* --- ends in the middle --- */

/* What comes from the future would not grow old: nobody would ever be told that it cannot be delivered. */
static void from_the_future(void *arg) {
    (void)arg;
    struct queue_id id;
    struct submit *to;
    struct submit_result r;
    CHECK(!submit_open(t.link, 0, DEADLINE, t.a, &to, &id, &r));
    submit_envelope(to, &(struct envelope){ .sender = STR("a@b"), .arrival_us = INT64_MAX / 2 }, DEADLINE);
    submit_rcpt(to, &(struct rcpt){ .address = STR("c@d") }, DEADLINE);
    CHECK(!submit_content(to, STR("A: b\n\n"), DEADLINE));
    CHECK(!submit_end(to, DEADLINE, t.a, &r) && r.status == SUBMIT_OK);
    struct spool_options o = spool_options_from(t.c, SPOOL_LISTER);
    struct spool *s;
    struct envelope e;
    CHECK(!spool_open(&o, t.a, &s) && !spool_load(s, &r.id, SPOOL_INCOMING, t.a, &e, NULL));
    CHECK(e.arrival_us <= sys->wall_us());
    spool_close(s);
    hang_up_link();
}

/* How far a message goes before it is cancelled, by its own frame or with the connection. */
struct stage {
    int stage;
    bool cancel;
};

static void add_record(struct buf *b, enum submit_type type, struct str payload) {
    pack_u32(b, (uint32_t)payload.n);
    pack_u8(b, (uint8_t)type);
    buf_add(b, payload);
}

static void hang_up(void *arg) {
    const struct stage *s = arg;
    struct buf b = { 0 }, envelope = { 0 }, rcpt = { 0 };
    envelope_pack(&envelope, &(struct envelope){ .sender = STR("a@b") });
    rcpt_pack(&rcpt, &(struct rcpt){ .address = STR("a@b") });
    pack_u32(&b, 5);
    add_record(&b, SUBMIT_MSG_OPEN, STR("\2\0\0\0"));
    if (s->stage > 0)
        add_record(&b, SUBMIT_MSG_ENVELOPE, buf_str(&envelope));
    if (s->stage > 1)
        add_record(&b, SUBMIT_MSG_RCPT, buf_str(&rcpt));
    if (s->stage > 2)
        add_record(&b, SUBMIT_MSG_CONTENT, STR("A: b\n\nc\n"));
    ipc_send(t.client, SUBMIT_FRAME_BEGIN, buf_str(&b), -1);
    struct ipc_msg m;
    CHECK(!ipc_recv(t.client, DEADLINE, &m) && m.type == SUBMIT_FRAME_OPENED && accepted() == 0);
    if (s->cancel) {
        ipc_send(t.client, SUBMIT_FRAME_CANCEL, str_n(b.p, 4), -1);
        /* the same number, modulo the most there are: free again for the next */
        buf_clear(&b);
        pack_u32(&b, 5 + SUBMIT_STREAMS_MAX);
        add_record(&b, SUBMIT_MSG_END, STR(""));
        ipc_send(t.client, SUBMIT_FRAME_BEGIN, buf_str(&b), -1);
        CHECK(!ipc_recv(t.client, DEADLINE, &m) && m.type == SUBMIT_FRAME_RESULT && m.payload.p[4] == SUBMIT_BAD);
        CHECK(accepted() == 0);
    }
    buf_free(&b);
    buf_free(&envelope);
    buf_free(&rcpt);
    ipc_close(t.client);
    t.client = NULL;
}

static void drain_later(void *arg) {
    struct submit_result r;
    struct submit *to;
    struct mail m = { .sender = "a@b", .rcpts = "c@d", .content = STR("A: b\n\n") };
    (void)arg;
    struct queue_id id;
    CHECK(!submit_open(t.link, 0, DEADLINE, t.a, &to, &id, &r));
    cleanup_drain(&t.cleanup); /* one is under way: it is finished */
    submit_envelope(to, &(struct envelope){ .sender = str_c(m.sender) }, DEADLINE);
    submit_rcpt(to, &(struct rcpt){ .address = str_c(m.rcpts) }, DEADLINE);
    CHECK(!submit_content(to, m.content, DEADLINE));
    CHECK(submit_link_usable(t.link));
    CHECK(!submit_end(to, DEADLINE, t.a, &r) && r.status == SUBMIT_OK);
    CHECK(!submit_link_usable(t.link)); /* it was said that no other is wanted */
    CHECK(say(&m, &r) == &err_eof);
}

static void drain_idle(void *arg) {
    (void)arg;
    coro_yield(); /* let it wait */
    struct ipc_msg m;
    cleanup_drain(&t.cleanup);
    CHECK(ipc_recv(t.client, DEADLINE, &m) == &err_eof);
}

static void test_future(void **state) {
    (void)state;
    run_as_set_up(from_the_future, NULL, NULL);
}

static void test_ends(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct stage s = { i / 2, i % 2 };
        run_client(hang_up, &s, NULL, true);
        assert_int_equal(accepted(), 0);
    }
    run_client(drain_idle, NULL, NULL, true);
    assert_int_equal(accepted(), 0);
    run_as_set_up(drain_later, NULL, NULL);
    assert_int_equal(accepted(), 1);
}

/* --- disks that fail --- */

struct fault {
    const char *call;
    unsigned n;
    int errnum;
    enum submit_status want;
};

/* Where there is no room for a segment of the log a small message may still have a file. */
static bool finds_room_in_a_file(const struct fault *f) {
    return content_is_in_log() && f->errnum == ENOSPC;
}

static void into_a_fault(void *arg) {
    const struct fault *f = arg;
    struct submit_result r;
    struct mail m = { .sender = "a@b", .rcpts = "c@d", .content = STR("A: b\n\nbody\n") };
    fake_sys_fail(f->call, f->n, f->errnum);
    error e = say(&m, &r);
    bool kept = finds_room_in_a_file(f);
    if (e || r.status != (kept ? SUBMIT_OK : f->want)) {
        print_error("%s: %d\n", f->call, e ? -1 : (int)r.status);
        t.failed++;
    }
    fake_sys_clear_faults();
    CHECK(accepted() == kept && t.queued == kept);
    CHECK(!say(&m, &r) && r.status == SUBMIT_OK); /* the connection is as good as before */
    hang_up_link();
}

static void test_faults(void **state) {
    (void)state;
    static const struct fault faults[] = {
        { "openat", 1, ENOSPC, SUBMIT_NO_SPACE },
        { "openat", 1, EACCES, SUBMIT_TEMP },
        { "pwrite", 1, ENOSPC, SUBMIT_NO_SPACE },
        { "pwrite", 1, EIO, SUBMIT_TEMP },
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct fault f = faults[i];
        fake_sys_install();
        run_as_set_up(into_a_fault, &f, NULL);
        fake_sys_remove();
        assert_int_equal(accepted(), finds_room_in_a_file(&f) ? 2 : 1);
        assert_int_equal(tear_down(NULL) | set_up(NULL), 0);
    }
}

#define IN_BOTH_FORMS(log)                                                                                             \
    ROW(test_good, log), ROW(test_actions, log), ROW(test_failing_table, log), ROW(test_refused, log),                 \
        ROW(test_hostile, log), ROW(test_future, log), ROW(test_ends, log), ROW(test_faults, log)
#define ROW(test, log) cmocka_unit_test_prestate_setup_teardown(test, set_up, tear_down, log)

int main(void) {
    static char yes[] = "yes", no[] = "no"; /* queue_log */
    const struct CMUnitTest tests[] = { IN_BOTH_FORMS(yes), IN_BOTH_FORMS(no) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
