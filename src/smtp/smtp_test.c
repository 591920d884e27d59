/* Unit tests of smtp/: servers written down as scripts answer over loopback, from the same loop. */
#include "test/fake_sys.h"
#include "test/test.h"

#include "deliver/agent_fake.h"
#include "smtp/client.h"
#include "smtp/content.h"
#include "smtp/destination.h"

/* One step of a server: a command's first bytes and the reply. `expect` NULL: speak first. "<data>": take the message.
 * reply NULL: close without a word; "": say nothing. */
struct step {
    const char *expect, *reply;
};

struct fake_server {
    const struct step *steps, *later; /* of the first session, and of those after it; NULL: the same */
    struct buf content, commands;     /* what it was sent */
    int fd;
    uint16_t port;
    struct coro *coro;
    unsigned sessions;
    bool odd; /* something else than the script said came */
};
static struct fake_server servers[2];
static size_t server_count;
static struct client_config config;
static struct client client;
static struct group work;

static void serve_session(struct fake_server *s, struct io *io) {
    s->sessions++;
    const struct step *steps = s->sessions > 1 && s->later ? s->later : s->steps;
    for (const struct step *step = steps; step->expect || step->reply; step++) {
        struct str line;
        if (step->expect && strcmp(step->expect, "<data>") == 0) {
            while (!io_line(io, 100000, deadline_in(20), &line) && !str_eq(line, STR(".\r\n")))
                buf_add(&s->content, line);
        } else if (step->expect) {
            if (io_line(io, 100000, deadline_in(20), &line))
                return;
            buf_add(&s->commands, line);
            if (!str_starts(line, str_c(step->expect))) {
                print_error("server: got %.*s, want %s\n", STR_ARG(str_trim(line)), step->expect);
                s->odd = true;
                return;
            }
        }
        if (!step->reply)
            return;
        io_write(io, str_c(step->reply));
        if (io_flush(io, deadline_in(20)))
            return;
    }
}

static void serve(void *arg) {
    struct fake_server *s = arg;
    while (!wait_readable(s->fd, DEADLINE_NEVER)) {
        int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            continue;
        struct io *io = io_new(fd);
        serve_session(s, io);
        io_close(io);
    }
}

static void add_server(const struct step *steps) {
    struct fake_server *s = &servers[server_count++];
    *s = (struct fake_server){ .steps = steps };
    struct endpoint at;
    assert_true(endpoint_ip(STR("127.0.0.1"), 0, &at));
    assert_null(listen_on(&at, 5, 0, &s->fd));
    struct sockaddr_in bound = { 0 };
    socklen_t len = sizeof bound;
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&bound, &len), 0);
    s->port = ntohs(bound.sin_port);
}

/* One recipient after the other, as if each were a request of its own. */
static bool in_rounds;
static int64_t pause_us;          /* between them */
static bool no_lookups;           /* after the first */
static struct str second_nexthop; /* of all after the first; empty: the same */
static void deliver_in_rounds(struct agent_request *r) {
    for (size_t i = 0; i < r->req.env.rcpt_count; i++) {
        bool answered[FAKE_RCPTS];
        struct agent_request one = *r;
        for (size_t k = 0; k < FAKE_RCPTS; k++)
            answered[k] = k != i;
        one.answered = answered;
        if (i && second_nexthop.n)
            one.req.nexthop = second_nexthop;
        else if (i && no_lookups)
            client.config.families = 0; /* the nexthop says it all: no address is looked for */
        if (i && pause_us)
            wait_until(deadline_in_us(pause_us));
        client_deliver(&client, &one);
        r->answered[i] = answered[i];
    }
}

static void deliver_with_servers(struct agent_request *r) {
    for (size_t i = 0; i < server_count; i++)
        servers[i].coro = coro_spawn(serve, &servers[i], "server");
    client_init(&client, &config, &work);
    if (in_rounds)
        deliver_in_rounds(r);
    else
        client_deliver(&client, r);
    kept_drain(&client.kept);
    group_wait(&work, DEADLINE_NEVER);
    for (size_t i = 0; i < server_count; i++)
        coro_cancel(servers[i].coro);
}

static void start(struct fake_qmgr *f, const struct step *first, const struct step *second) {
    in_rounds = no_lookups = false;
    pause_us = 0;
    server_count = 0;
    add_server(first);
    if (second)
        add_server(second);
    fake_start(f, STR("smtp"), deliver_with_servers, NULL, 0);
    config = (struct client_config){
        .connect_timeout = 20,
        .helo_timeout = 20,
        .mail_timeout = 20,
        .rcpt_timeout = 20,
        .data_init_timeout = 20,
        .data_xfer_timeout = 20,
        .data_done_timeout = 20,
        .quit_timeout = 20,
        .helo_name = STR("us.example"),
        .myhostname = STR("us.example"),
        .address_preference = STR("any"),
        .bind_address = STR(""),
        .bind_address6 = STR(""),
        .discard_keywords = STR(""),
        .fallback_relay = STR(""),
        .always_ehlo = true,
        .quote_envelope = true,
        .skip_5xx_greeting = true,
        .mx_session_limit = 2,
        .line_length_limit = 998,
        .rset_timeout = 20,
        .cache_on_demand = true,
        .cache_time_limit = 2,
        .reuse_time_limit = 300,
        .families = DNS_FAMILY_IPV4,
        .default_port = 25,
    };
    f->req.nexthop = second ? arena_printf(f->arena, "[127.0.0.1]:%u [127.0.0.1]:%u", servers[0].port, servers[1].port)
                            : arena_printf(f->arena, "[127.0.0.1]:%u", servers[0].port);
    fake_rcpt(f, STR("a@there.example"), STR(""));
}

static void finish(struct fake_qmgr *f) {
    for (size_t i = 0; i < server_count; i++) {
        assert_false(servers[i].odd);
        close(servers[i].fd);
        buf_free(&servers[i].content);
        buf_free(&servers[i].commands);
    }
    fake_end(f);
}

#define END                                                                                                            \
    { NULL, NULL }
#define PIPELINED "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 8BITMIME\r\n"

static void accepted(void **state) {
    (void)state;
    static const struct step script[] = {
        { NULL, "220 mx.example ESMTP\r\n" },
        { "EHLO us.example", PIPELINED },
        { "MAIL FROM:<sender@there.example> SIZE=", "250 2.1.0 Ok\r\n" },
        { "RCPT TO:<a@there.example>", "250 2.1.5 Ok\r\n" },
        { "RCPT TO:<\"b b\"@there.example>", "250 2.1.5 Ok\r\n" },
        { "DATA", "354 go on\r\n" },
        { "<data>", "250 2.6.0 queued as 77\r\n" },
        { "QUIT", "221 bye\r\n" },
        END,
    };
    struct fake_qmgr f;
    start(&f, script, NULL);
    fake_rcpt(&f, STR("b b@there.example"), STR(""));
    f.content = STR("Subject: x\n\n.dot\nbare\rcr\nno end");
    fake_run(&f);
    assert_int_equal(f.result_count, 2);
    assert_int_equal(f.results[0].status, DELIVERY_SENT);
    assert_str(f.results[1].dsn, "2.6.0");
    assert_str(f.results[0].reason, "250 2.6.0 queued as 77");
    assert_str(buf_str(&servers[0].content), "Subject: x\r\n\r\n..dot\r\nbare cr\r\nno end\r\n");
    assert_true(str_contains(buf_str(&f.log), STR("relay=127.0.0.1[127.0.0.1]:")));
    assert_false(f.done.destination_dead);
    finish(&f);
}

static void long_lines_are_folded(void **state) {
    (void)state;
    static const struct step script[] = {
        { NULL, "220 x ESMTP\r\n" }, { "EHLO", "250 x\r\n" },    { "MAIL", "250 Ok\r\n" },  { "RCPT", "250 Ok\r\n" },
        { "DATA", "354 go\r\n" },    { "<data>", "250 Ok\r\n" }, { "QUIT", "221 bye\r\n" }, END,
    };
    static const struct {
        int64_t limit;
        const char *wire;
    } rows[] = {
        { 0, "abcdefgh\r\nij\r\n" },
        { 4, "abcd\r\n efg\r\n h\r\nij\r\n" },
        { 1, "ab\r\n c\r\n d\r\n e\r\n f\r\n g\r\n h\r\nij\r\n" }, /* taken as 2 */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fake_qmgr f;
        start(&f, script, NULL);
        config.line_length_limit = rows[i].limit;
        f.content = STR("abcdefgh\nij\n");
        fake_run(&f);
        assert_str(buf_str(&servers[0].content), rows[i].wire);
        finish(&f);
    }
}

static void one_of_two_refused(void **state) {
    (void)state;
    static const struct step script[] = {
        { NULL, "220 mx.example ESMTP\r\n" },
        { "EHLO", "250 mx.example\r\n" }, /* no pipelining: one at a time */
        { "MAIL FROM:<sender@there.example>\r\n", "250 Ok\r\n" },
        { "RCPT TO:<a@there.example>", "550-5.1.1 no such\r\n550 5.1.1 user\r\n" },
        { "RCPT TO:<b@there.example>", "250 Ok\r\n" },
        { "DATA", "354 go on\r\n" },
        { "<data>", "250 Ok\r\n" },
        { "QUIT", "221 bye\r\n" },
        END,
    };
    struct fake_qmgr f;
    start(&f, script, NULL);
    fake_rcpt(&f, STR("b@there.example"), STR(""));
    fake_run(&f);
    assert_int_equal(f.result_count, 2);
    assert_int_equal(f.results[0].status, DELIVERY_BOUNCED);
    assert_str(f.results[0].dsn, "5.1.1");
    assert_str(f.results[0].reason, "host 127.0.0.1[127.0.0.1] said: 550-5.1.1 no such 550 5.1.1 user "
                                    "(in reply to RCPT TO command)");
    assert_int_equal(f.results[1].status, DELIVERY_SENT);
    assert_str(f.results[1].dsn, "2.0.0");
    finish(&f);
}

static void old_server_gets_helo(void **state) {
    (void)state;
    static const struct step script[] = {
        { NULL, "220 mx.example\r\n" }, { "EHLO", "502 what\r\n" }, { "HELO us.example", "250 hi\r\n" },
        { "MAIL", "250 Ok\r\n" },       { "RCPT", "250 Ok\r\n" },   { "DATA", "354 go on\r\n" },
        { "<data>", "250 Ok\r\n" },     { "QUIT", "221 bye\r\n" },  END,
    };
    struct fake_qmgr f;
    start(&f, script, NULL);
    fake_run(&f);
    assert_int_equal(f.results[0].status, DELIVERY_SENT);
    finish(&f);
}

static void temporary_refusal_goes_to_the_next_server(void **state) {
    (void)state;
    static const struct step busy[] = {
        { NULL, "220 one ESMTP\r\n" },     { "EHLO", "250 one\r\n" }, { "MAIL", "250 Ok\r\n" },
        { "RCPT", "450 4.2.0 later\r\n" }, { "QUIT", "221 bye\r\n" }, END,
    };
    static const struct step good[] = {
        { NULL, "220 two ESMTP\r\n" }, { "EHLO", "250 two\r\n" },  { "MAIL", "250 Ok\r\n" },  { "RCPT", "250 Ok\r\n" },
        { "DATA", "354 go on\r\n" },   { "<data>", "250 Ok\r\n" }, { "QUIT", "221 bye\r\n" }, END,
    };
    struct fake_qmgr f;
    start(&f, busy, good);
    fake_run(&f);
    assert_int_equal(f.result_count, 1);
    assert_int_equal(f.results[0].status, DELIVERY_SENT);
    assert_true(str_contains(buf_str(&f.log), STR("said: 450 4.2.0 later (in reply to RCPT TO command)")));
    finish(&f);
}

/* What DATA is refused for are the recipients that had been accepted; the others' own answers stand. */
static void refused_data_is_not_for_those_refused_before(void **state) {
    (void)state;
    static const struct step first[] = {
        { NULL, "220 one ESMTP\r\n" },
        { "EHLO", "250 one\r\n" },
        { "MAIL", "250 Ok\r\n" },
        { "RCPT TO:<a@", "250 Ok\r\n" },
        { "RCPT TO:<b@", "450 4.2.0 later\r\n" },
        { "DATA", "554 5.6.0 not this\r\n" },
        { "QUIT", "221 bye\r\n" },
        END,
    };
    static const struct step second[] = {
        { NULL, "220 two ESMTP\r\n" }, { "EHLO", "250 two\r\n" },
        { "MAIL", "250 Ok\r\n" },      { "RCPT TO:<b@", "250 Ok\r\n" },
        { "DATA", "354 go on\r\n" },   { "<data>", "250 Ok\r\n" },
        { "QUIT", "221 bye\r\n" },     END,
    };
    struct fake_qmgr f;
    start(&f, first, second);
    fake_rcpt(&f, STR("b@there.example"), STR(""));
    fake_run(&f);
    assert_int_equal(f.result_count, 2);
    assert_int_equal(f.results[0].rcpt_index, 100);
    assert_int_equal(f.results[0].status, DELIVERY_BOUNCED);
    assert_int_equal(f.results[1].status, DELIVERY_SENT);
    finish(&f);
}

/* RFC 5321, 5.1: among the MX hosts of a domain. */
static void own_name_among_the_hosts(void **state) {
    (void)state;
    static const struct {
        const char *names[3];
        uint16_t preferences[3];
        uint16_t best; /* of the MX records */
        size_t left;
        const char *dsn, *text;
    } rows[] = {
        { { "a", "b" }, { 10, 20 }, 10, 2, "", "" },
        { { "a", "us.example", "c" }, { 10, 20, 30 }, 10, 1, "", "" },
        { { "us.example", "b" }, { 10, 10 }, 10, 0, "5.4.6", "mail for there.example loops back to myself" },
        /* the primary has no address just now: that is not a loop */
        { { "us.example", "c" }, { 20, 30 }, 10, 0, "4.4.4", "unable to find primary relay for there.example" },
    };
    struct arena *a = arena_new();
    struct endpoint at;
    assert_true(endpoint_ip(STR("192.0.2.1"), 25, &at));
    struct client_config c = { .myhostname = STR("us.example") };
    const struct destination d = { .host = STR("there.example"), .port = 25 };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct target targets[3];
        struct target_list list = { .at = targets };
        struct failure why = { STR(""), STR("") };
        while (list.n < 3 && rows[i].names[list.n]) {
            targets[list.n] = (struct target){ str_c(rows[i].names[list.n]), at, rows[i].preferences[list.n] };
            list.n++;
        }
        assert_int_equal(destination_cut_at_self(&c, a, &d, rows[i].best, &list, &why), rows[i].left > 0);
        assert_int_equal(list.n, rows[i].left);
        assert_str(why.dsn, rows[i].dsn);
        assert_str(why.text, rows[i].text);
    }
    arena_free(a);
}

static void permanent_refusal_does_not(void **state) {
    (void)state;
    static const struct step script[] = {
        { NULL, "220 one ESMTP\r\n" },
        { "EHLO", "250 one\r\n" },
        { "MAIL", "550 5.7.1 not you\r\n" },
        { "QUIT", "221 bye\r\n" },
        END,
    };
    static const struct step unused[] = { END };
    struct fake_qmgr f;
    start(&f, script, unused);
    fake_run(&f);
    assert_int_equal(f.results[0].status, DELIVERY_BOUNCED);
    assert_str(f.results[0].dsn, "5.7.1");
    assert_int_equal(servers[1].sessions, 0);
    finish(&f);
}

/* How a conversation can break off, and what is said of it. */
static void broken_conversations(void **state) {
    (void)state;
    static const struct step no_greeting[] = { { NULL, NULL }, END };
    static const struct step refused[] = { { NULL, "554 5.7.1 go away\r\n" }, END };
    static const struct step gone_after_mail[] = {
        { NULL, "220 x ESMTP\r\n" }, { "EHLO", "250 x\r\n" }, { "MAIL", NULL }, END
    };
    static const struct step gone_in_data[] = { { NULL, "220 x ESMTP\r\n" },
                                                { "EHLO", "250 x\r\n" },
                                                { "MAIL", "250 Ok\r\n" },
                                                { "RCPT", "250 Ok\r\n" },
                                                { "DATA", "354 go\r\n" },
                                                { "<data>", NULL },
                                                END };
    static const struct step gibberish[] = { { NULL, "HTTP/1.1 400 Bad Request\r\n" }, END };
    static const struct step closing[] = {
        { NULL, "220 x ESMTP\r\n" }, { "EHLO", "250 x\r\n" }, { "MAIL", "421 4.3.2 closing\r\n" }, END
    };
    static const struct {
        const struct step *steps;
        const char *dsn, *reason;
        bool dead;
    } rows[] = {
        { no_greeting, "4.4.2", "lost connection with 127.0.0.1[127.0.0.1] while receiving the initial server greeting",
          true },
        { refused, "4.7.1", "host 127.0.0.1[127.0.0.1] refused to talk to me: 554 5.7.1 go away", true },
        { gone_after_mail, "4.4.2", "lost connection with 127.0.0.1[127.0.0.1] while sending MAIL FROM", false },
        { gone_in_data, "4.4.2",
          "lost connection with 127.0.0.1[127.0.0.1] while sending end of data -- message may be sent more than once",
          false },
        { gibberish, "4.5.0", "Protocol error: host 127.0.0.1[127.0.0.1] said: HTTP/1.1 400 Bad Request", true },
        { closing, "4.3.2", "host 127.0.0.1[127.0.0.1] said: 421 4.3.2 closing (in reply to MAIL FROM command)",
          false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fake_qmgr f;
        start(&f, rows[i].steps, NULL);
        fake_run(&f);
        assert_int_equal(f.result_count, 1);
        assert_int_equal(f.results[0].status, DELIVERY_DEFERRED);
        assert_str(f.results[0].dsn, rows[i].dsn);
        assert_str(f.results[0].reason, rows[i].reason);
        assert_int_equal(f.done.destination_dead, rows[i].dead);
        finish(&f);
    }
}

static void nobody_listens(void **state) {
    (void)state;
    static const struct step unused[] = { END };
    struct fake_qmgr f;
    start(&f, unused, NULL);
    close(servers[0].fd);
    server_count = 0;
    fake_run(&f);
    assert_int_equal(f.results[0].status, DELIVERY_DEFERRED);
    assert_true(str_ends(f.results[0].reason, STR("Connection refused")));
    assert_true(str_starts(f.results[0].reason, STR("connect to 127.0.0.1[127.0.0.1]:")));
    assert_true(str_contains(buf_str(&f.log), STR("relay=none")));
    assert_true(f.done.destination_dead);
    finish(&f);
}

static void too_large_for_the_server(void **state) {
    (void)state;
    static const struct step script[] = {
        { NULL, "220 x ESMTP\r\n" }, { "EHLO", "250-x\r\n250 SIZE 10\r\n" }, { "QUIT", "221 bye\r\n" }, END
    };
    struct fake_qmgr f;
    start(&f, script, NULL);
    fake_run(&f);
    assert_int_equal(f.results[0].status, DELIVERY_BOUNCED);
    assert_str(f.results[0].dsn, "5.3.4");
    finish(&f);
}

static void lmtp_answers_for_each(void **state) {
    (void)state;
    static const struct step script[] = {
        { NULL, "220 x LMTP\r\n" },
        { "LHLO us.example", PIPELINED },
        { "MAIL", "250 Ok\r\n" },
        { "RCPT", "250 Ok\r\n" },
        { "RCPT", "550 5.1.1 unknown\r\n" },
        { "RCPT", "250 Ok\r\n" },
        { "DATA", "354 go\r\n" },
        { "<data>", "250 2.0.0 first\r\n452 4.2.2 mailbox full\r\n" },
        { "QUIT", "221 bye\r\n" },
        END,
    };
    struct fake_qmgr f;
    start(&f, script, NULL);
    config.lmtp = true;
    fake_rcpt(&f, STR("b@there.example"), STR(""));
    fake_rcpt(&f, STR("c@there.example"), STR(""));
    fake_run(&f);
    assert_int_equal(f.result_count, 3);
    enum delivery_status by_rcpt[3];
    for (size_t i = 0; i < 3; i++)
        by_rcpt[f.results[i].rcpt_index - 100] = f.results[i].status;
    assert_int_equal(by_rcpt[0], DELIVERY_SENT);
    assert_int_equal(by_rcpt[1], DELIVERY_BOUNCED);
    assert_int_equal(by_rcpt[2], DELIVERY_DEFERRED);
    finish(&f);
}

/* --- sessions kept for the next message --- */
#define GREETING                                                                                                       \
    { NULL, "220 x ESMTP\r\n" }, {                                                                                     \
        "EHLO", PIPELINED                                                                                              \
    }
#define TO(rcpt)                                                                                                       \
    { "MAIL", "250 2.1.0 Ok\r\n" }, { "RCPT TO:<" rcpt "@", "250 2.1.5 Ok\r\n" }, {                                    \
        "DATA", "354 go\r\n"                                                                                           \
    }
#define TAKEN                                                                                                          \
    { "<data>", "250 2.0.0 queued\r\n" }
#define QUIT                                                                                                           \
    { "QUIT", "221 bye\r\n" }

/* Messages to a, b, ... one after the other, for a destination that has more to come. */
static void start_rounds(struct fake_qmgr *f, const struct step *first, const struct step *later) {
    start(f, first, NULL);
    servers[0].later = later;
    in_rounds = true;
    f->req.flags = DELIVERY_MORE;
    fake_rcpt(f, STR("b@there.example"), STR(""));
}

static void logged(struct fake_qmgr *f, const char *text, bool wanted) {
    if (str_contains(buf_str(&f->log), str_c(text)) != wanted)
        print_error("%s \"%s\" in:\n%.*s", wanted ? "no" : "there is", text, STR_ARG(buf_str(&f->log)));
    assert_int_equal(str_contains(buf_str(&f->log), str_c(text)), wanted);
}

static void session_is_used_again(void **state) {
    (void)state;
    static const struct step script[] = { GREETING, TO("a"), TAKEN, TO("b"), TAKEN, TO("c"), TAKEN, QUIT, END };
    struct fake_qmgr f;
    start_rounds(&f, script, NULL);
    fake_rcpt(&f, STR("c@there.example"), STR(""));
    no_lookups = true;
    fake_run(&f);
    assert_int_equal(f.result_count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(f.results[i].status, DELIVERY_SENT);
    assert_int_equal(servers[0].sessions, 1);
    logged(&f, "to=<b@there.example>, relay=127.0.0.1[127.0.0.1]:", true);
    logged(&f, ", conn_use=2, delay=", true);
    logged(&f, ", conn_use=3, delay=", true);
    logged(&f, ", conn_use=1, delay=", false);
    finish(&f);
}

static void not_kept(const struct client_config *with, bool more) {
    static const struct step first[] = { GREETING, TO("a"), TAKEN, QUIT, END };
    static const struct step later[] = { GREETING, TO("b"), TAKEN, QUIT, END };
    struct fake_qmgr f;
    start_rounds(&f, first, later);
    f.req.flags = more ? DELIVERY_MORE : 0;
    config.cache_on_demand = with->cache_on_demand;
    config.reuse_time_limit = with->reuse_time_limit;
    fake_run(&f);
    assert_int_equal(f.results[1].status, DELIVERY_SENT);
    assert_int_equal(servers[0].sessions, 2);
    logged(&f, "conn_use", false);
    finish(&f);
}

static void when_sessions_are_not_kept(void **state) {
    (void)state;
    not_kept(&(struct client_config){ .cache_on_demand = true, .reuse_time_limit = 300 }, false);
    not_kept(&(struct client_config){ .cache_on_demand = false, .reuse_time_limit = 300 }, true);
    not_kept(&(struct client_config){ .cache_on_demand = true, .reuse_time_limit = 0 }, true);
}

static void use_is_counted(void **state) {
    (void)state;
    static const struct step first[] = { GREETING, TO("a"), TAKEN, TO("b"), TAKEN, QUIT, END };
    static const struct step later[] = { GREETING, TO("c"), TAKEN, QUIT, END };
    struct fake_qmgr f;
    start_rounds(&f, first, later);
    fake_rcpt(&f, STR("c@there.example"), STR(""));
    config.reuse_count_limit = 1; /* so a connection is used up to two times */
    fake_run(&f);
    assert_int_equal(f.result_count, 3);
    assert_int_equal(servers[0].sessions, 2);
    logged(&f, "conn_use=2", true);
    logged(&f, "conn_use=3", false);
    finish(&f);
}

/* Nobody uses it for smtp_connection_cache_time_limit: QUIT; a time limit on use as a whole: QUIT after the message. */
static void sessions_end_in_time(void **state) {
    (void)state;
    static const struct step idle[] = { GREETING, TO("a"), TAKEN, QUIT, END };
    static const struct step later[] = { GREETING, TO("b"), TAKEN, QUIT, END };
    struct fake_qmgr f;
    fake_sys_install();
    fake_sys_real_wait(50); /* the loopback may take a moment */
    start_rounds(&f, idle, later);
    pause_us = 2 * US_PER_S + 1000;
    fake_run(&f);
    assert_int_equal(servers[0].sessions, 2);
    logged(&f, "conn_use", false);
    finish(&f);

    static const struct step three[] = { GREETING, TO("a"), TAKEN, TO("b"), TAKEN, TO("c"), TAKEN, QUIT, END };
    start_rounds(&f, three, later);
    fake_rcpt(&f, STR("c@there.example"), STR(""));
    pause_us = 19 * US_PER_S / 10; /* each time shortly before its end */
    fake_run(&f);
    assert_int_equal(servers[0].sessions, 1);
    finish(&f);

    static const struct step two[] = { GREETING, TO("a"), TAKEN, TO("b"), TAKEN, QUIT, END };
    static const struct step third[] = { GREETING, TO("c"), TAKEN, QUIT, END };
    start_rounds(&f, two, third);
    fake_rcpt(&f, STR("c@there.example"), STR(""));
    pause_us = 19 * US_PER_S / 10;
    config.reuse_time_limit = 1; /* over when b has been sent, not yet when a has */
    fake_run(&f);
    assert_int_equal(servers[0].sessions, 2);
    finish(&f);
    fake_sys_remove();
}

/* What becomes of a kept session until the final dot costs a new connection and nothing else. */
static void kept_session_is_gone(void **state) {
    (void)state;
    static const struct step closed[] = { GREETING, TO("a"), TAKEN, { NULL, NULL }, END };
    static const struct step said_so[] = {
        GREETING, TO("a"), TAKEN, { NULL, "421 4.4.2 idle\r\n" }, { NULL, NULL }, END
    };
    static const struct step at_mail[] = { GREETING, TO("a"), TAKEN, { "MAIL", NULL }, END };
    static const struct step nonsense[] = { GREETING, TO("a"), TAKEN, { "MAIL", "what?\r\n" }, { NULL, NULL }, END };
    static const struct step refuses[] = { GREETING,       TO("a"), TAKEN, { "MAIL", "421 4.7.0 enough of you\r\n" },
                                           { NULL, NULL }, END };
    static const struct step at_rcpt[] = { GREETING, TO("a"), TAKEN, { "MAIL", "250 Ok\r\n" }, { "RCPT", NULL }, END };
    static const struct step at_data[] = {
        GREETING, TO("a"), TAKEN, { "MAIL", "250 Ok\r\n" }, { "RCPT", "250 Ok\r\n" }, { "DATA", NULL }, END
    };
    static const struct step *const rows[] = { closed, said_so, at_mail, nonsense, refuses, at_rcpt, at_data };
    static const struct step later[] = { GREETING, TO("b"), TAKEN, QUIT, END };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fake_qmgr f;
        start_rounds(&f, rows[i], later);
        pause_us = 1000; /* so that the server has closed, if it does */
        fake_run(&f);
        assert_int_equal(f.result_count, 2);
        assert_int_equal(f.results[1].status, DELIVERY_SENT);
        assert_int_equal(servers[0].sessions, 2);
        assert_false(f.done.destination_dead);
        logged(&f, "lost connection", false);
        logged(&f, "421 4.", false); /* a port may have the digits */
        finish(&f);
    }
    /* the server may have the message */
    static const struct step after_dot[] = { GREETING, TO("a"), TAKEN, TO("b"), { "<data>", NULL }, END };
    struct fake_qmgr f;
    start_rounds(&f, after_dot, later);
    fake_run(&f);
    assert_int_equal(f.results[1].status, DELIVERY_DEFERRED);
    assert_int_equal(servers[0].sessions, 1);
    logged(&f, "while sending end of data -- message may be sent more than once", true);
    logged(&f, "conn_use=2", true);
    finish(&f);
}

/* A transaction that came to nothing does not go on in the next message's. */
static void refused_transaction_is_reset(void **state) {
    (void)state;
    static const struct step script[] = { GREETING,
                                          { "MAIL", "250 Ok\r\n" },
                                          { "RCPT TO:<a@", "550 5.1.1 no\r\n" },
                                          { "DATA", "503 5.5.1 RCPT first\r\n" },
                                          { "RSET", "250 Ok\r\n" },
                                          TO("b"),
                                          TAKEN,
                                          QUIT,
                                          END };
    struct fake_qmgr f;
    start_rounds(&f, script, NULL);
    fake_run(&f);
    assert_int_equal(f.results[0].status, DELIVERY_BOUNCED);
    assert_int_equal(f.results[1].status, DELIVERY_SENT);
    assert_int_equal(servers[0].sessions, 1);
    finish(&f);
    static const struct step bad[] = { GREETING,
                                       { "MAIL", "250 Ok\r\n" },
                                       { "RCPT TO:<a@", "550 5.1.1 no\r\n" },
                                       { "DATA", "503 5.5.1 RCPT first\r\n" },
                                       { "RSET", "500 5.5.2 what\r\n" },
                                       { NULL, NULL },
                                       END };
    static const struct step later[] = { GREETING, TO("b"), TAKEN, QUIT, END };
    start_rounds(&f, bad, later);
    fake_run(&f);
    assert_int_equal(f.results[1].status, DELIVERY_SENT);
    assert_int_equal(servers[0].sessions, 2);
    finish(&f);
}

/* RFC 2920, 3.1: DATA was under way before the refusals were known. */
static void nobody_accepted_but_data(void **state) {
    (void)state;
    static const struct step script[] = { GREETING,
                                          { "MAIL", "250 Ok\r\n" },
                                          { "RCPT TO:<a@", "550 5.1.1 no\r\n" },
                                          { "DATA", "354 go on\r\n" },
                                          { ".\r\n", "554 5.5.1 no valid recipients\r\n" },
                                          TO("b"),
                                          TAKEN,
                                          QUIT,
                                          END };
    struct fake_qmgr f;
    start_rounds(&f, script, NULL);
    fake_run(&f);
    assert_int_equal(f.results[0].status, DELIVERY_BOUNCED);
    assert_int_equal(f.results[1].status, DELIVERY_SENT);
    assert_int_equal(servers[0].sessions, 1);
    assert_str(buf_str(&servers[0].content), "Subject: test\r\n\r\nhello\r\n");
    finish(&f);
}

/* What the one server says for now is the answer, and it is not asked again for the same message. */
static void kept_session_refuses_for_now(void **state) {
    (void)state;
    static const struct step script[] = { GREETING,
                                          TO("a"),
                                          TAKEN,
                                          { "MAIL", "250 Ok\r\n" },
                                          { "RCPT TO:<b@", "450 4.2.1 later\r\n" },
                                          { "DATA", "503 5.5.1 RCPT first\r\n" },
                                          { "RSET", "250 Ok\r\n" },
                                          QUIT,
                                          END };
    struct fake_qmgr f;
    start_rounds(&f, script, NULL);
    fake_run(&f);
    assert_int_equal(f.results[1].status, DELIVERY_DEFERRED);
    assert_str(f.results[1].dsn, "4.2.1");
    assert_int_equal(servers[0].sessions, 1);
    logged(&f, "to=<b@there.example>, relay=127.0.0.1[127.0.0.1]:", true);
    logged(&f, "conn_use=2", true);
    logged(&f, "said: 450 4.2.1 later (in reply to RCPT TO command))", true);
    finish(&f);
}

/* A session made for one nexthop serves another that leads to the same server. */
static void session_of_another_nexthop(void **state) {
    (void)state;
    static const struct step script[] = { GREETING, TO("a"), TAKEN, TO("b"), TAKEN, QUIT, END };
    struct fake_qmgr f;
    start_rounds(&f, script, NULL);
    second_nexthop = arena_printf(f.arena, "127.0.0.1:%u", servers[0].port);
    fake_run(&f);
    second_nexthop = STR("");
    assert_int_equal(f.results[1].status, DELIVERY_SENT);
    assert_int_equal(servers[0].sessions, 1);
    finish(&f);
}

static void not_too_many_are_kept(void **state) {
    (void)state;
    static struct client_config c = { .skip_quit_response = true, .cache_time_limit = 2, .quit_timeout = 1 };
    struct kept k = { .work = &work };
    assert_null(loop_init());
    for (int i = 0; i < KEPT_MAX + 3; i++) {
        struct arena *a = arena_new();
        struct session *s = ARENA_NEW(a, struct session);
        s->config = &c;
        s->arena = a;
        s->io = io_new(open("/dev/null", O_RDWR | O_CLOEXEC));
        char name[20];
        snprintf(name, sizeof name, "d%d", i);
        kept_add(&k, s, str_c(name));
    }
    assert_int_equal(k.count, KEPT_MAX);
    assert_null(kept_take(&k, STR("d2")));
    struct session *s = kept_take(&k, STR("d3"));
    assert_non_null(s);
    session_drop(s);
    kept_drain(&k);
    assert_null(loop_run());
    assert_int_equal(k.count, 0);
    assert_int_equal(work.running, 0);
    loop_free();
}

static void destinations(void **state) {
    (void)state;
    static const struct {
        const char *text, *host;
        unsigned port;
        bool good, literal;
    } rows[] = {
        { "example.com", "example.com", 25, true, false },
        { "example.com:587", "example.com", 587, true, false },
        { "[mx.example]", "mx.example", 25, true, true },
        { "[mx.example]:2525", "mx.example", 2525, true, true },
        { "[2001:db8::1]:26", "2001:db8::1", 26, true, true },
        { "[ipv6:2001:db8::1]", "2001:db8::1", 25, true, true },
        { "inet:mx.example:24", "mx.example", 24, true, false },
        { "[mx.example", "", 0, false, false },
        { "[]", "", 0, false, false },
        { "mx:25x", "", 0, false, false },
        { "mx:+25", "", 0, false, false },
        { "mx:0", "", 0, false, false },
        { "mx:65536", "", 0, false, false },
        { "[mx]25", "", 0, false, false },
        { ":25", "", 0, false, false },
        { "", "", 0, false, false },
    };
    struct client_config c = { .default_port = 25 };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct destination d;
        bool good = destination_parse(&c, str_c(rows[i].text), &d);
        if (good != rows[i].good)
            print_error("%s\n", rows[i].text);
        assert_int_equal(good, rows[i].good);
        if (!good)
            continue;
        assert_str(d.host, rows[i].host);
        assert_int_equal(d.port, rows[i].port);
        assert_int_equal(d.literal, rows[i].literal);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(destinations),
        cmocka_unit_test(accepted),
        cmocka_unit_test(long_lines_are_folded),
        cmocka_unit_test(one_of_two_refused),
        cmocka_unit_test(old_server_gets_helo),
        cmocka_unit_test(temporary_refusal_goes_to_the_next_server),
        cmocka_unit_test(refused_data_is_not_for_those_refused_before),
        cmocka_unit_test(own_name_among_the_hosts),
        cmocka_unit_test(permanent_refusal_does_not),
        cmocka_unit_test(broken_conversations),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(too_large_for_the_server),
        cmocka_unit_test(lmtp_answers_for_each),
        cmocka_unit_test(session_is_used_again),
        cmocka_unit_test(when_sessions_are_not_kept),
        cmocka_unit_test(use_is_counted),
        cmocka_unit_test(sessions_end_in_time),
        cmocka_unit_test(kept_session_is_gone),
        cmocka_unit_test(refused_transaction_is_reset),
        cmocka_unit_test(nobody_accepted_but_data),
        cmocka_unit_test(kept_session_refuses_for_now),
        cmocka_unit_test(session_of_another_nexthop),
        cmocka_unit_test(not_too_many_are_kept),
        FAKE_IN_FRAME(accepted),
        FAKE_IN_FRAME(long_lines_are_folded),
    };
    return cmocka_run_group_tests_name("smtp", tests, NULL, NULL);
}
