/* Conversations with a filter that is played from a list of answers, under a clock that jumps. */
#include "milter/milter.h"

#include "base/log.h"
#include "test/fake_sys.h"
#include "test/test.h"
#include <sys/socket.h>
#include <unistd.h>

static int failed;
#define CHECK_COUNT failed
#include "test/check.h"

enum { HEARD_MAX = 400 };

/* The filter: each event that it answers takes the next of `says`, which ends with NULL. */
struct filter {
    struct milter_options options;
    const struct answer {
        const char *bytes; /* letter and data */
        size_t n;          /* 0: bytes is a C string without NULs */
        int64_t wait;      /* seconds before it */
        bool close;        /* instead */
    } * says;
    char heard[HEARD_MAX + 1]; /* the letters of what came */
    struct buf last;           /* the last packet */
    int fd;
};

static struct filter *the_filter;
static struct str last_log;
static struct buf log_text;

static void keep_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx;
    (void)level;
    (void)tag;
    buf_clear(&log_text);
    buf_add(&log_text, text);
    last_log = buf_str(&log_text);
}

static void send_packet(struct io *io, struct str packet) {
    struct buf b = { 0 };
    milter_put(&b, packet.p[0], str_from(packet, 1));
    io_write(io, buf_str(&b));
    (void)io_flush(io, DEADLINE_NEVER);
    buf_free(&b);
}

static void send_options(struct io *io, const struct filter *f) {
    struct buf b = { 0 };
    buf_byte(&b, 'O');
    milter_add_u32(&b, f->options.version);
    milter_add_u32(&b, f->options.actions);
    milter_add_u32(&b, f->options.protocol);
    for (uint32_t i = 0; i < MILTER_STAGES; i++)
        if (f->options.macros[i].p) {
            milter_add_u32(&b, i);
            milter_add_text(&b, f->options.macros[i]);
        }
    send_packet(io, buf_str(&b));
    buf_free(&b);
}

static bool next_packet(struct io *io, struct buf *b) {
    unsigned char head[MILTER_HEAD];
    if (io_full(io, head, sizeof head, DEADLINE_NEVER))
        return false;
    size_t n = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
    buf_clear(b);
    if (io_full(io, buf_reserve(b, n), n, DEADLINE_NEVER))
        return false;
    b->n = n;
    return true;
}

static bool is_mute(const struct filter *f, char letter) {
    for (size_t i = 0; i < MILTER_EVENTS; i++)
        if (milter_events[i].letter == letter)
            return f->options.protocol & milter_events[i].no_reply;
    return false;
}

static void play(void *arg) {
    struct filter *f = arg;
    struct io *io = io_new(f->fd);
    const struct answer *a = f->says;
    while (next_packet(io, &f->last)) {
        char letter = f->last.p[0];
        size_t n = strlen(f->heard);
        if (letter != 'D' && letter != 'O' && n < HEARD_MAX)
            f->heard[n] = letter;
        if (letter == 'Q')
            break;
        if (letter == 'O')
            send_options(io, f);
        if (strchr("ODAK", letter) || is_mute(f, letter))
            continue;
        for (;;) {
            if (!a->bytes && !a->close) {
                send_packet(io, STR("c"));
                break;
            }
            if (a->wait)
                (void)wait_until(deadline_in(a->wait));
            if (a->close)
                goto out;
            send_packet(io, a->n ? str_n(a->bytes, a->n) : str_c(a->bytes));
            char said = a->bytes[0];
            a++;
            if (!milter_is_edit(said) && said != 'p')
                break;
        }
    }
out:
    io_close(io);
}

static error dial_filter(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret) {
    (void)ctx;
    (void)deadline;
    int fds[2];
    if (t->port == 9) /* nobody there */
        return err_errno(111);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return err_errno(24);
    the_filter->fd = fds[1];
    coro_spawn(play, the_filter, "filter");
    *ret = io_new(fds[0]);
    return NULL;
}

static struct str macro(void *ctx, struct arena *a, struct str name) {
    (void)ctx;
    if (str_eq(name, STR("i")))
        return STR("ID");
    if (str_eq(name, STR("j")))
        return arena_printf(a, "mail.%s", "example");
    return (struct str){ 0 };
}

static struct milter_config config;
static struct milter_macros macros;
static struct arena *arena;
static struct milters list;

static int set_up(void **state) {
    (void)state;
    arena = arena_new();
    fake_sys_install();
    assert_null(loop_init());
    config = (struct milter_config){ .target = { .text = STR("inet:test:1") },
                                     .connect_timeout = 30,
                                     .command_timeout = 30,
                                     .content_timeout = 300,
                                     .version = 6,
                                     .on_error = MILTER_DEFAULT_TEMPFAIL };
    macros = (struct milter_macros){ 0 };
    for (size_t i = 0; i < MILTER_STAGES; i++)
        macros.lists[i] = STR("i, j {x}");
    list = (struct milters){ .macros = &macros, .macro = macro, .dial = dial_filter };
    log_set_sink(keep_log, NULL);
    last_log = STR("");
    failed = 0;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    loop_free();
    fake_sys_remove();
    log_set_sink(NULL, NULL);
    arena_free(arena);
    buf_free(&log_text);
    return 0;
}

static void run(void (*fn)(void *arg), struct filter *f) {
    static const struct answer none[] = { { 0 } };
    the_filter = f;
    if (f->options.version == 0)
        f->options.version = 6;
    if (!f->says)
        f->says = none;
    milters_open(&list, arena, &(struct milter_configs){ &config, 1 });
    coro_spawn(fn, f, "session");
    error e = loop_run();
    buf_free(&f->last);
    assert_null(e);
    assert_int_equal(failed, 0);
}

static bool is(struct milter_verdict v, enum milter_judgement what, const char *text) {
    if (v.what == what && str_eq(v.text, str_c(text)))
        return true;
    print_error("verdict %d \"%.*s\"\n", v.what, STR_ARG(v.text));
    return false;
}

static struct milter_verdict to_rcpt(void) {
    CHECK(is(milters_connect(&list, STR("c.example"), STR("192.0.2.1"), 25), MILTER_PASS, ""));
    CHECK(is(milters_helo(&list, STR("c.example")), MILTER_PASS, ""));
    CHECK(is(milters_mail(&list, STR("<a@c.example>"), STR("SIZE=1 BODY=8BITMIME")), MILTER_PASS, ""));
    return milters_rcpt(&list, STR("<b@example>"), STR(""), false);
}

static bool no_edit(void *arg, const struct milter_reply *r) {
    (void)arg;
    (void)r;
    CHECK(false);
    return true;
}

static struct milter_verdict content(bool (*edit)(void *, const struct milter_reply *), void *arg, bool *whole) {
    struct milter *m = &list.at[0];
    CHECK(is(milter_header(&list, m, STR("Subject"), STR(" x")), MILTER_PASS, ""));
    CHECK(is(milter_end_of_header(&list, m), MILTER_PASS, ""));
    CHECK(is(milter_body(&list, m, STR("text\r\n")), MILTER_PASS, ""));
    return milter_end_of_message(&list, m, edit, arg, whole);
}

static void whole_session(void *arg) {
    struct filter *f = arg;
    bool whole = false;
    CHECK(is(to_rcpt(), MILTER_PASS, ""));
    CHECK(is(milters_data(&list), MILTER_PASS, ""));
    CHECK(is(content(no_edit, NULL, &whole), MILTER_PASS, ""));
    CHECK(whole);
    milters_abort(&list);
    CHECK(is(milters_unknown(&list, STR("FOO bar")), MILTER_PASS, ""));
    CHECK(str_eq(buf_str(&f->last), STR("UFOO bar\0")));
    milters_close(&list);
}

static void test_all_events(void **state) {
    (void)state;
    struct filter f = { 0 };
    run(whole_session, &f);
    assert_string_equal(f.heard, "CHMRTLNBEAUQ");
}

static void test_not_wanted(void **state) {
    (void)state;
    struct filter f = { .options = { .protocol =
                                         MILTER_NO_HELO | MILTER_NO_HEADERS | MILTER_NO_BODY | MILTER_MUTE_MAIL } };
    f.options.protocol |= MILTER_MUTE_EOH;
    static const struct answer says[] = { { "c", 0, 0, false }, { "c", 0, 0, false }, { 0 } };
    f.says = says;
    run(whole_session, &f);
    assert_string_equal(f.heard, "CMRTNEAUQ");
}

static void old_version(void *arg) {
    bool whole;
    (void)arg;
    CHECK(is(to_rcpt(), MILTER_PASS, ""));
    CHECK(is(milters_data(&list), MILTER_PASS, ""));
    CHECK(is(content(no_edit, NULL, &whole), MILTER_PASS, ""));
    CHECK(is(milters_unknown(&list, STR("FOO")), MILTER_PASS, ""));
    milters_close(&list);
}

static void test_version_2(void **state) {
    (void)state;
    struct filter f = { .options = { .version = 2 } };
    run(old_version, &f);
    assert_string_equal(f.heard, "CHMRLNBEAQ"); /* no DATA, no unknown commands */
}

static void macro_session(void *arg) {
    struct filter *f = arg;
    struct milter_verdict v = to_rcpt();
    struct buf b = { 0 };
    CHECK(is(v, MILTER_PASS, ""));
    milter_make_macros(&list, &list.at[0], MILTER_AT_RCPT, &b);
    CHECK(str_eq(buf_str(&b), STR("j\0mail.example\0{x}\0default\0")));
    buf_clear(&b);
    milter_make_macros(&list, &list.at[0], MILTER_AT_MAIL, &b);
    CHECK(str_eq(buf_str(&b), STR("i\0ID\0j\0mail.example\0{x}\0default\0")));
    buf_free(&b);
    (void)f;
    milters_close(&list);
}

static void test_macros(void **state) {
    (void)state;
    struct filter f = { 0 };
    f.options.macros[MILTER_AT_RCPT] = STR("j {x} {y}"); /* its own list comes before main.cf's */
    *vec_add(arena, &macros.defaults) = (struct milter_macro){ STR("x"), STR("default") };
    run(macro_session, &f);
}

/* --- refusals --- */

static struct milter_verdict wanted;

static void refused_at_rcpt(void *arg) {
    (void)arg;
    CHECK(is(to_rcpt(), wanted.what, wanted.text.p));
    CHECK(is(milters_rcpt(&list, STR("<c@example>"), STR(""), false), MILTER_PASS, ""));
    milters_abort(&list);
    milters_close(&list);
}

static void test_replies(void **state) {
    (void)state;
    static const struct {
        const char *said;
        size_t n;
        const char *text;
    } rows[] = {
        { "r", 1, "550 5.7.1 Command rejected" },
        { "t", 1, "451 4.7.1 Service unavailable - try again later" },
        { "y550 5.7.1 my%% text\0", 21, "550 5.7.1 my% text" },
        { "y554-5.7.1 one\r\n554 5.7.1 two\0", 30, "554-5.7.1 one\n554 5.7.1 two" },
        { "y554 5.7.1 one\n554-5.7.1 two\n\0", 30, "554-5.7.1 one\n554 5.7.1 two" },
        { "y450 a\x01\xff\0", 9, "450 a??" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct answer says[] = { { "c", 0, 0, false },
                                       { "c", 0, 0, false },
                                       { "c", 0, 0, false },
                                       { rows[i].said, rows[i].n, 0, false },
                                       { 0 } };
        struct filter f = { .says = says };
        if (i > 0)
            set_up(state);
        wanted = (struct milter_verdict){ .what = MILTER_REFUSE, .text = str_c(rows[i].text) };
        run(refused_at_rcpt, &f);
        assert_string_equal(f.heard, "CHMRRAQ");
        if (i + 1 < sizeof rows / sizeof *rows)
            tear_down(state);
    }
}

/* What cannot be understood breaks the filter, whose default action decides from then on. */
static void broken_at_rcpt(void *arg) {
    (void)arg;
    CHECK(is(to_rcpt(), wanted.what, wanted.text.p));
    CHECK(is(milters_data(&list), wanted.what, wanted.text.p));
    milters_abort(&list);
    CHECK(is(milters_mail(&list, STR("<>"), STR("")), wanted.what, wanted.text.p));
    milters_close(&list);
}

static void test_broken(void **state) {
    (void)state;
    static const struct {
        const char *said;
        size_t n;
    } rows[] = {
        { "y550", 4 },
        { "y550 5.7.1", 10 },
        { "y250 fine\0", 10 },
        { "yabc\0", 5 },
        { "y\0", 2 },
        { "y554-a\n550 b\0", 13 },
        { "y554-a\n55\0", 10 },
        { "y650 x\0", 7 },
        { "hX\0v\0", 5 },
        { "Z", 1 },
        { "f", 1 },
        { "cx", 2 },
        { "qwhy\0", 5 },
        { "rr", 2 },
        { "\0", 1 },
    };
    static const struct {
        enum milter_default action;
        enum milter_judgement what;
        const char *text;
    } defaults[] = {
        { MILTER_DEFAULT_TEMPFAIL, MILTER_REFUSE, "451 4.7.1 Service unavailable - try again later" },
        { MILTER_DEFAULT_REJECT, MILTER_REFUSE, "550 5.5.0 Service unavailable" },
        { MILTER_DEFAULT_ACCEPT, MILTER_PASS, "" },
        { MILTER_DEFAULT_QUARANTINE, MILTER_HOLD, "" },
        { MILTER_DEFAULT_SHUTDOWN, MILTER_REFUSE, "421 4.7.1 Service unavailable - try again later" },
    };
    size_t n = sizeof rows / sizeof *rows;
    for (size_t i = 0; i < n; i++) {
        const struct answer says[] = { { "c", 0, 0, false },
                                       { "c", 0, 0, false },
                                       { "c", 0, 0, false },
                                       { rows[i].said, rows[i].n, 0, false },
                                       { 0 } };
        struct filter f = { .says = says };
        if (i > 0)
            set_up(state);
        size_t d = i % (sizeof defaults / sizeof *defaults);
        config.on_error = defaults[d].action;
        wanted = (struct milter_verdict){ .what = defaults[d].what, .text = str_c(defaults[d].text) };
        run(broken_at_rcpt, &f);
        assert_string_equal(f.heard, "CHMR");
        assert_true(str_contains(last_log, STR("milter inet:test:1: ")));
        if (i + 1 < n)
            tear_down(state);
    }
}

static void test_silence(void **state) {
    (void)state;
    static const struct answer says[] = { { "c", 0, 0, false },  { "c", 0, 29, false }, { "p", 0, 20, false },
                                          { "c", 0, 29, false }, { "c", 0, 31, false }, { 0 } };
    struct filter f = { .says = says };
    wanted = (struct milter_verdict){ .what = MILTER_REFUSE,
                                      .text = STR("451 4.7.1 Service unavailable - try again later") };
    run(broken_at_rcpt, &f);
    assert_true(str_ends(last_log, STR("Connection timed out")));
}

static void connect_fails(void *arg) {
    (void)arg;
    CHECK(is(milters_connect(&list, STR("c"), STR("::1"), 1), wanted.what, wanted.text.p));
    CHECK(is(milters_helo(&list, STR("c")), wanted.what, wanted.text.p));
    milters_close(&list);
}

static void test_nobody_there(void **state) {
    (void)state;
    struct filter f = { 0 };
    config.target.port = 9;
    config.on_error = MILTER_DEFAULT_REJECT;
    wanted = (struct milter_verdict){ .what = MILTER_REFUSE, .text = STR("550 5.5.0 Service unavailable") };
    run(connect_fails, &f);
    assert_true(str_contains(last_log, STR("connect to Milter service inet:test:1: ")));
}

static void test_bad_options(void **state) {
    (void)state;
    struct filter f = { .options = { .version = 7 } };
    wanted = (struct milter_verdict){ .what = MILTER_REFUSE,
                                      .text = STR("451 4.7.1 Service unavailable - try again later") };
    run(connect_fails, &f);
    assert_true(str_contains(last_log, STR("version that was not offered")));
}

static void test_refused_client(void **state) {
    (void)state;
    static const struct answer says[] = { { "y554 5.7.1 no\0", 14, 0, false }, { 0 } };
    struct filter f = { .says = says };
    wanted = (struct milter_verdict){ .what = MILTER_REFUSE, .text = STR("554 5.7.1 no") };
    run(connect_fails, &f); /* also at HELO, of which it does not hear */
    assert_string_equal(f.heard, "CQ");
}

static void accepts(void *arg) {
    (void)arg;
    CHECK(is(to_rcpt(), MILTER_PASS, ""));
    CHECK(!milter_wants_content(&list.at[0]));
    milters_abort(&list);
    CHECK(is(milters_mail(&list, STR("<>"), STR("")), MILTER_PASS, ""));
    CHECK(milter_wants_content(&list.at[0]));
    milters_close(&list);
}

/* MI-03: what was accepted is one message */
static void test_accept_is_for_one_message(void **state) {
    (void)state;
    static const struct answer says[] = { { "c", 0, 0, false }, { "c", 0, 0, false }, { "a", 0, 0, false }, { 0 } };
    struct filter f = { .says = says };
    run(accepts, &f);
    assert_string_equal(f.heard, "CHMAMAQ");
}

static void shut_down(void *arg) {
    (void)arg;
    CHECK(is(to_rcpt(), MILTER_REFUSE, "421 4.7.0 Server closing connection"));
    milters_close(&list);
}

static void test_shutdown(void **state) {
    (void)state;
    static const struct answer says[] = {
        { "c", 0, 0, false }, { "c", 0, 0, false }, { "c", 0, 0, false }, { "4junk", 0, 0, false }, { 0 }
    };
    struct filter f = { .says = says };
    run(shut_down, &f);
    assert_string_equal(f.heard, "CHMR");
}

static void skips(void *arg) {
    (void)arg;
    bool whole;
    struct milter *m = &list.at[0];
    CHECK(is(to_rcpt(), MILTER_PASS, ""));
    CHECK(is(milter_body(&list, m, STR("one")), MILTER_PASS, ""));
    CHECK(!milter_hears(m, MILTER_BODY));
    CHECK(is(milter_body(&list, m, STR("two")), MILTER_PASS, ""));
    CHECK(is(milter_end_of_message(&list, m, no_edit, NULL, &whole), MILTER_DISCARD, ""));
    milters_abort(&list);
    CHECK(is(milters_mail(&list, STR("<>"), STR("")), MILTER_PASS, ""));
    CHECK(milter_hears(m, MILTER_BODY));
    milters_close(&list);
}

static void test_skip_and_discard(void **state) {
    (void)state;
    static const struct answer says[] = { { "c", 0, 0, false },
                                          { "c", 0, 0, false },
                                          { "c", 0, 0, false },
                                          { "c", 0, 0, false },
                                          { "s", 0, 0, false },
                                          { "d", 0, 0, false },
                                          { 0 } };
    struct filter f = { .says = says };
    run(skips, &f);
    assert_string_equal(f.heard, "CHMRBEAMAQ");
}

/* --- changes --- */

static struct buf edits;

static bool note_edit(void *arg, const struct milter_reply *r) {
    (void)arg;
    buf_printf(&edits, "%c%u %.*s|%.*s;", r->said, r->index, STR_ARG(r->text), STR_ARG(r->argument));
    return true;
}

static void edits_message(void *arg) {
    (void)arg;
    bool whole = false;
    CHECK(is(to_rcpt(), MILTER_PASS, ""));
    struct milter_verdict v = content(note_edit, NULL, &whole);
    CHECK(is(v, wanted.what, wanted.text.p));
    CHECK(whole == (wanted.what == MILTER_PASS));
    milters_close(&list);
}

#define EDITS                                                                                                          \
    { "c", 0, 0, false }, { "c", 0, 0, false }, { "c", 0, 0, false }, { "c", 0, 0, false }, { "c", 0, 0, false },      \
        { "c", 0, 0, false }, { "c", 0, 0, false }, { "hX\0v\0", 5, 0, false }, { "p", 0, 200, false },                \
        { "i\0\0\1\2Y\0w\0", 9, 0, false }, { "bnew", 0, 200, false }, {                                               \
        "e<x>\0RET=HDRS\0", 14, 0, false                                                                               \
    }

static void test_edits(void **state) {
    (void)state;
    static const struct answer says[] = { EDITS, { "a", 0, 0, false }, { 0 } };
    struct filter f = { .says = says };
    wanted = (struct milter_verdict){ .what = MILTER_PASS, .text = STR("") };
    buf_clear(&edits);
    run(edits_message, &f);
    assert_str(buf_str(&edits), "h0 X|v;i258 Y|w;b0 new|;e0 <x>|RET=HDRS;");
    buf_free(&edits);
}

/* MI-02: a filter that dies half-way leaves nobody with half of its changes, whatever its default action */
static void test_dies_while_editing(void **state) {
    (void)state;
    static const struct answer says[] = { EDITS, { .close = true }, { 0 } };
    struct filter f = { .says = says };
    config.on_error = MILTER_DEFAULT_ACCEPT;
    wanted = (struct milter_verdict){ .what = MILTER_REFUSE,
                                      .text = STR("451 4.7.1 Service unavailable - try again later") };
    run(edits_message, &f);
    buf_free(&edits);
}

/* --- hand-over --- */

static void hands_over(void *arg) {
    struct filter *f = arg;
    struct buf b = { 0 };
    int fds[MILTERS_MAX];
    bool whole = false;
    CHECK(is(to_rcpt(), MILTER_PASS, ""));
    size_t n = milters_pack(&list, &b, fds);
    CHECK(n == 1);
    fds[0] = dup(fds[0]);
    struct milters other = { 0 };
    CHECK(milters_unpack(&other, arena, buf_str(&b), fds, n));
    struct milter *m = &other.at[0];
    CHECK(is(milter_header(&other, m, STR("A"), STR(" b")), MILTER_PASS, ""));
    CHECK(str_eq(buf_str(&f->last), STR("LA\0b\0")));
    CHECK(is(milter_end_of_message(&other, m, no_edit, NULL, &whole), MILTER_REFUSE, "550 5.7.1 Command rejected"));
    milters_hand_back(&other);
    milters_abort(&list);
    CHECK(is(milters_mail(&list, STR("<>"), STR("")), MILTER_PASS, "")); /* it is still there */
    for (size_t cut = 0; cut < b.n; cut++) {
        int none = -1;
        CHECK(!milters_unpack(&other, arena, str_sub(buf_str(&b), 0, cut), &none, 0) || cut == 0);
    }
    milters_close(&list);
    buf_free(&b);
}

static void test_hand_over(void **state) {
    (void)state;
    static const struct answer says[] = { { "c", 0, 0, false },
                                          { "c", 0, 0, false },
                                          { "c", 0, 0, false },
                                          { "c", 0, 0, false },
                                          { "c", 0, 0, false },
                                          { "r", 0, 0, false },
                                          { 0 } };
    struct filter f = { .says = says };
    run(hands_over, &f);
    assert_string_equal(f.heard, "CHMRLEAMAQ");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_all_events),
        TEST(test_not_wanted),
        TEST(test_version_2),
        TEST(test_macros),
        TEST(test_replies),
        TEST(test_broken),
        TEST(test_silence),
        TEST(test_nobody_there),
        TEST(test_bad_options),
        TEST(test_refused_client),
        TEST(test_accept_is_for_one_message),
        TEST(test_shutdown),
        TEST(test_skip_and_discard),
        TEST(test_edits),
        TEST(test_dies_while_editing),
        TEST(test_hand_over),
    };
    return cmocka_run_group_tests_name("milter", tests, NULL, NULL);
}
