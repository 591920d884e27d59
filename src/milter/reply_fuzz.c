/* A filter that says anything, in a whole conversation: what comes is given to it as the filter's side of the
 * connection. */
#include "milter/milter.h"

#include "base/log.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 60 * 1024 /* what a socket takes without anybody reading */ };

static int fuzz_end;
static const struct milter_macros no_macros;
static struct milter_config config = { .target = { .text = STR_INIT("fuzz") },
                                       .connect_timeout = 30,
                                       .command_timeout = 30,
                                       .content_timeout = 30,
                                       .version = 6 };

static error give(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret) {
    (void)ctx;
    (void)t;
    (void)deadline;
    *ret = io_new(fuzz_end);
    fuzz_end = -1;
    return NULL;
}

static struct str no_macro(void *ctx, struct arena *a, struct str name) {
    (void)ctx;
    (void)a;
    (void)name;
    return STR("x");
}

static void check(struct milter_verdict v) {
    bool text = v.text.n > 4 && (v.text.p[0] == '4' || v.text.p[0] == '5');
    if ((v.what == MILTER_REFUSE) != text)
        abort();
    for (size_t i = 0; i < v.text.n; i++)
        if (v.text.p[i] != '\n' && ((unsigned char)v.text.p[i] < ' ' || v.text.p[i] == 0x7f))
            abort();
}

static bool edit(void *arg, const struct milter_reply *r) {
    size_t *sum = arg; /* every byte is looked at */
    for (size_t i = 0; i < r->text.n; i++)
        *sum += (unsigned char)r->text.p[i];
    for (size_t i = 0; i < r->argument.n; i++)
        *sum += (unsigned char)r->argument.p[i];
    return true;
}

static void converse(void *arg) {
    struct milters *ms = arg;
    size_t sum = 0;
    bool whole;
    check(milters_connect(ms, STR("client.example"), STR("192.0.2.1"), 25));
    check(milters_helo(ms, STR("client.example")));
    check(milters_unknown(ms, STR("FOO bar")));
    check(milters_mail(ms, STR("<a@client.example>"), STR("SIZE=1 BODY=8BITMIME")));
    check(milters_rcpt(ms, STR("<b@example.com>"), STR(""), false));
    check(milters_rcpt(ms, STR("<c@example.com>"), STR(""), true));
    check(milters_data(ms));
    for (size_t i = 0; i < ms->n && milter_wants_content(&ms->at[i]); i++) {
        struct milter *m = &ms->at[i];
        check(milter_header(ms, m, STR("Subject"), STR(" x")));
        check(milter_end_of_header(ms, m));
        check(milter_body(ms, m, STR("text\r\n")));
        check(milter_end_of_message(ms, m, edit, &sum, &whole));
    }
    milters_abort(ms);
    milters_close(ms);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fds[2];
    struct arena *a = arena_new();
    struct milter_options options;
    struct milter_reply reply;
    struct str said, input = str_n((const char *)data, size);
    (void)milter_options_parse(input, &options);
    if (!milter_reply_parse(input, &reply))
        (void)milter_reply_text(a, reply.text, &said);
    log_set_sink(NULL, NULL);
    if (size <= INPUT_MAX && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0) {
        fuzz_end = fds[0];
        if (write(fds[1], data, size) != (ssize_t)size || shutdown(fds[1], SHUT_WR) < 0 || loop_init())
            abort();
        struct milter_configs list = { &config, 1 };
        struct milters ms = { .macros = &no_macros, .macro = no_macro, .dial = give };
        milters_open(&ms, a, &list);
        coro_spawn(converse, &ms, "fuzz");
        if (loop_run())
            abort();
        loop_free();
        close(fds[1]);
        if (fuzz_end >= 0)
            close(fuzz_end);
    }
    arena_free(a);
    return 0;
}
