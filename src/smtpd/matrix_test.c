/* matrix_test.c - every command in every state, and what DATA then does (two half-finished resets once let a client
 * send mail without a sender). */
#include "test/test.h"

#include "smtpd/harness.h"
#include "test/fake_sys.h"
#include <stdlib.h>
#include <unistd.h>

/* Each state is a list of commands; a "." line ends content. */
static const char *const states[] = {
    "",
    "EHLO x\n",
    "HELO x\n",
    "EHLO x\nMAIL FROM:<a@there.example>\n",
    "EHLO x\nMAIL FROM:<a@there.example>\nRCPT TO:<user@here.example>\n",
    "EHLO x\nMAIL FROM:<>\nRCPT TO:<user@here.example>\nRCPT TO:<user2@here.example>\n",
    "EHLO x\nMAIL FROM:<a@there.example>\nRCPT TO:<nobody@here.example>\n",
    "EHLO x\nMAIL FROM:<a@there.example>\nRCPT TO:<user@here.example>\nDATA\n.\n",
    "EHLO x\nMAIL FROM:<a@there.example>\nRCPT TO:<user@here.example>\nRSET\n",
    "EHLO x\nMAIL FROM:<a@there.example> SIZE=99999999\nRCPT TO:<user@here.example>\n",
    "MAIL FROM:<a@there.example>\nRCPT TO:<user@here.example>\nEHLO y\n",
};
static const char *const inputs[] = {
    "EHLO y",
    "HELO y",
    "EHLO",
    "MAIL FROM:<b@there.example>",
    "MAIL FROM:<b@",
    "MAIL FROM:<b@there.example> FOO",
    "MAIL FROM:<b@there.example> SIZE=99999999",
    "MAIL",
    "RCPT TO:<user2@here.example>",
    "RCPT TO:<nobody@here.example>",
    "RCPT TO:<x@elsewhere.example>",
    "RCPT TO:<",
    "RCPT",
    "RCPT TO:<x@temp.example>",
    "DATA",
    "DATA x",
    "RSET",
    "RSET x",
    "NOOP",
    "VRFY user@here.example",
    "VRFY pel\xc3\xa9@elsewhere.example",
    "VRFY <>",
    "VRFY",
    "HELP",
    "FOO",
    "",
    "STARTTLS",
    "AUTH PLAIN",
    "XCLIENT NAME=x",
    "BDAT 3 LAST",
    "ETRN x",
    "\xff",
};
enum { STATES = sizeof states / sizeof *states, INPUTS = sizeof inputs / sizeof *inputs };

struct client {
    int fd;
    const char *state, *first, *second;
};

/* One command and its reply's code; 0: the session has ended. */
static int ask(struct io *io, struct str line) {
    struct str reply;
    io_write(io, line);
    io_write(io, STR("\r\n"));
    do {
        if (io_line(io, 4096, deadline_in(1000), &reply))
            return 0;
    } while (reply.n > 3 && reply.p[3] == '-');
    assert_true(reply.n > 5 && str_ends(reply, STR("\r\n")));
    assert_true(reply.p[0] >= '2' && reply.p[0] <= '5' && byte_is_digit(reply.p[1]) && byte_is_digit(reply.p[2]));
    return (reply.p[0] - '0') * 100 + (reply.p[1] - '0') * 10 + (reply.p[2] - '0');
}

/* DATA that was allowed gets its content at once. */
static void command(struct io *io, struct str line) {
    if (ask(io, line) == 354 && !str_eq(line, STR(".")))
        ask(io, STR("."));
}

static void run_client(void *arg) {
    struct client *c = arg;
    struct io *io = io_new(c->fd);
    struct str line, state = str_c(c->state);
    assert_null(io_line(io, 1000, deadline_in(1000), &line));
    while (state.n && str_next(&state, STR("\n"), &line)) {
        if (line.n == 0)
            break;
        ask(io, line);
    }
    command(io, str_c(c->first));
    command(io, str_c(c->second));
    command(io, STR("DATA"));
    ask(io, STR("QUIT"));
    io_close(io);
}

static void test_matrix(void **state) {
    const char *options = *state;
    for (size_t s = 0; s < STATES; s++) {
        fake_sys_install();
        struct harness h;
        harness_begin(&h, options);
        for (size_t i = 0; i < INPUTS * INPUTS; i++) {
            struct client c = { .state = states[s], .first = inputs[i / INPUTS], .second = inputs[i % INPUTS] };
            int pair[2];
            assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
            c.fd = pair[1];
            assert_non_null(coro_spawn(run_client, &c, "client"));
            harness_session(&h, "192.0.2.1", pair[0]);
            const char *fault = harness_messages_fault(&h);
            if (fault)
                fail_msg("state %zu, \"%s\", \"%s\": a message %s", s, c.first, c.second, fault);
            harness_clear(&h);
        }
        harness_end(&h);
        fake_sys_remove();
    }
}

int main(void) {
    static char plain[] = "";
    static char refusing[] = "smtpd_end_of_data_restrictions = reject";
    static char at_once[] = "smtpd_delay_reject = no\nsmtpd_delay_open_until_valid_rcpt = no\n"
                            "smtpd_sender_restrictions = reject_unlisted_sender\nsmtpd_helo_required = yes";
    static char small[] = "message_size_limit = 1\nsmtpd_recipient_limit = 1\nsmtpd_recipient_overshoot_limit = 1";
    const struct CMUnitTest tests[] = {
        { "plain", test_matrix, NULL, NULL, plain },
        { "end of data refused", test_matrix, NULL, NULL, refusing },
        { "checks at once", test_matrix, NULL, NULL, at_once },
        { "small limits", test_matrix, NULL, NULL, small },
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
