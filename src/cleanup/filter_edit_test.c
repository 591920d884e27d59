/* What a mail filter's changes make of a header and an envelope. */
#include "cleanup/filter_edit.h"

#include "base/log.h"
#include "mail/dsn.h"
#include "test/test.h"
#include <ftw.h>
#include <stdlib.h>
#include <unistd.h>

#define HEADER "Received: by us\nX-A: 1\nReceived: other\n\tfolded\nX-A: 2\n"
#define ADD MILTER_SAID_ADD_HEADER
#define INS MILTER_SAID_INSERT_HEADER
#define CHG MILTER_SAID_CHANGE_HEADER

static struct {
    char dir[64];
    struct arena *a;
    struct conf *c;
    struct cleanup cleanup;
    struct message m;
    struct filtered f;
} t;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int begin(void **state) {
    (void)state;
    snprintf(t.dir, sizeof t.dir, "/tmp/filter_edit_test.XXXXXX");
    if (!mkdtemp(t.dir))
        return -1;
    const struct conf_override o[] = {
        { STR("compatibility_level"), STR("3.6") },   { STR("myhostname"), STR("mx.example.com") },
        { STR("mydomain"), STR("example.com") },      { STR("myorigin"), STR("example.com") },
        { STR("mydestination"), STR("example.com") }, { STR("inet_interfaces"), STR("127.0.0.1") },
        { STR("queue_directory"), str_c(t.dir) },
    };
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = o,
                                  .override_count = sizeof o / sizeof o[0],
                                  .process_name = STR("cleanup"),
                                  .service_name = STR("cleanup"),
                                  .missing_is_empty = true };
    t.a = arena_new();
    log_set_sink(NULL, NULL);
    return conf_load(&source, t.a, &t.c) || cleanup_open(&t.cleanup, t.c, t.a) ? -1 : 0;
}

static int end(void **state) {
    (void)state;
    cleanup_close(&t.cleanup);
    conf_free(t.c);
    arena_free(t.a);
    return nftw(t.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void begin_message(const char *header) {
    t.m = (struct message){ .s = &t.cleanup, .arena = arena_new(), .id = { "TEST" } };
    t.f = (struct filtered){ .m = &t.m, .scratch = arena_new() };
    filtered_header(&t.f, str_c(header));
}

static void end_message(void) {
    filtered_free(&t.f);
    arena_free(t.m.arena);
}

static bool edit(char said /* enum milter_said */, uint32_t index, const char *text, const char *argument,
                 bool leading_space) {
    struct milter_reply r = { .said = said, .index = index, .text = str_c(text), .argument = str_c(argument) };
    return filtered_edit(&t.f, &r, leading_space);
}

static const struct {
    char said;
    uint32_t index;
    const char *name, *value;
    bool leading_space;
    const char *header;
} rows[] = {
    { ADD, 0, "X-New", "v", false, HEADER "X-New: v\n" },
    { ADD, 0, "X-New", " v", true, HEADER "X-New: v\n" },
    { ADD, 0, "X-New", "v", true, HEADER "X-New:v\n" },
    { ADD, 0, "X-New", "", false, HEADER "X-New: \n" },
    /* places: our own Received: is not counted, whatever stands around it */
    { INS, 0, "X-New", "v", false, "X-New: v\n" HEADER },
    { INS, 1, "X-New", "v", false, "Received: by us\nX-New: v\nX-A: 1\nReceived: other\n\tfolded\nX-A: 2\n" },
    { INS, 2, "X-New", "v", false, "Received: by us\nX-A: 1\nX-New: v\nReceived: other\n\tfolded\nX-A: 2\n" },
    { INS, 99, "X-New", "v", false, HEADER "X-New: v\n" },
    { CHG, 1, "Received", "changed", false, "Received: by us\nX-A: 1\nReceived: changed\nX-A: 2\n" },
    { CHG, 1, "received", "", false, "Received: by us\nX-A: 1\nX-A: 2\n" },
    { CHG, 2, "Received", "", false, HEADER },
    { CHG, 2, "x-a", "3", false, "Received: by us\nX-A: 1\nReceived: other\n\tfolded\nx-a: 3\n" },
    { CHG, 1, "X-A", "", false, "Received: by us\nReceived: other\n\tfolded\nX-A: 2\n" },
    { CHG, 3, "X-A", "3", false, HEADER "X-A: 3\n" },
    { CHG, 1, "X-None", "", false, HEADER },
    { CHG, UINT32_MAX, "X-A", "", false, HEADER },
    /* a value cannot be a field of its own, nor the end of the header */
    { ADD, 0, "X", "a\nSubject: b", false, HEADER "X: a\n\tSubject: b\n" },
    { ADD, 0, "X", "a\r\n b\n\n\r\n \nc", false, HEADER "X: a\n b\n\tc\n" },
    { ADD, 0, "X", "a\rb", false, HEADER "X: a b\n" },
    /* and these are no names */
    { ADD, 0, "", "v", false, HEADER },
    { ADD, 0, "X Y", "v", false, HEADER },
    { ADD, 0, "X:", "v", false, HEADER },
    { ADD, 0, "X\nY", "v", false, HEADER },
    { INS, 0, "\303\274", "v", false, HEADER },
};

static void test_header(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf b = { 0 };
        begin_message(HEADER);
        assert_int_equal(t.f.own, 0);
        assert_true(edit(rows[i].said, rows[i].index, rows[i].name, rows[i].value, rows[i].leading_space));
        for (size_t k = 0; k < t.f.fields.n; k++)
            buf_add(&b, t.f.fields.at[k]);
        assert_str(buf_str(&b), rows[i].header);
        assert_int_equal(t.f.header_changed, strcmp(rows[i].header, HEADER) != 0);
        assert_str(t.f.fields.at[t.f.own], "Received: by us\n"); /* it is still known which one is ours */
        buf_free(&b);
        end_message();
    }
}

static void test_endless_header(void **state) {
    (void)state;
    size_t taken = 0;
    static char value[60001];
    memset(value, 'v', sizeof value - 1);
    begin_message(HEADER);
    while (taken < 1000 && edit(ADD, 0, "X", value, false))
        taken++;
    assert_true(taken > 10 && taken < 1000);
    end_message();
}

/* MI-10: ESMTP words of a filter are held to what a client's are */
static void test_envelope(void **state) {
    (void)state;
    static const struct {
        const char *args, *orcpt;
        unsigned notify;
    } rcpts[] = {
        { "NOTIFY=NEVER ORCPT=rfc822;a+2Bb@c", "rfc822;a+b@c", DSN_NOTIFY_NEVER },
        { "ORCPT=rfc822;a+00b@c", "", 0 },
        { "ORCPT=a NOTIFY=MAYBE X=1", "", 0 },
    };
    begin_message(HEADER);
    for (size_t i = 0; i < sizeof rcpts / sizeof rcpts[0]; i++) {
        assert_true(edit(MILTER_SAID_ADD_RCPT_PAR, 0, "<u@x.test>", rcpts[i].args, false));
        assert_str(t.m.given.at[i].dsn_orcpt, rcpts[i].orcpt);
        assert_int_equal(t.m.given.at[i].dsn_notify, rcpts[i].notify);
    }
    /* no addresses, or several */
    static const char *const bad[] = { "<>", "<a@b\n>", "<a@b> <c@d>", "<a@b", "\"" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_true(edit(MILTER_SAID_ADD_RCPT, 0, bad[i], "", false));
        assert_int_equal(t.m.given.n, 3);
    }
    assert_true(edit(MILTER_SAID_ADD_RCPT, 0, "<other>", "", false));
    assert_true(edit(MILTER_SAID_DEL_RCPT, 0, "<nobody@x.test>", "", false));
    assert_false(t.f.deleted);
    assert_true(edit(MILTER_SAID_DEL_RCPT, 0, "<U@x.test>", "", false)); /* each that is the same address */
    assert_true(t.f.deleted);
    assert_int_equal(t.m.given.n, 1);
    assert_true(edit(MILTER_SAID_DEL_RCPT, 0, "<other@example.com>", "", false)); /* as it will be queued */
    assert_int_equal(t.m.given.n, 0);

    assert_true(edit(MILTER_SAID_CHANGE_FROM, 0, "<s@x.test>", "ENVID=a+2Bb RET=HDRS", false));
    assert_str(t.m.env.sender, "s@x.test");
    assert_str(t.m.env.dsn_envid, "a+b");
    assert_int_equal(t.m.env.dsn_ret, DSN_RET_HDRS);
    assert_true(edit(MILTER_SAID_CHANGE_FROM, 0, "<>", "ENVID=a+00b RET=ALL", false));
    assert_int_equal(t.m.env.sender.n, 0);
    assert_int_equal(t.m.env.dsn_envid.n, 0);
    assert_int_equal(t.m.env.dsn_ret, 0);
    end_message();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_endless_header),
        cmocka_unit_test(test_envelope),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
