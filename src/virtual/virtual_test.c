#include "test/test.h"

#include "deliver/agent_fake.h"
#include "virtual/virtual.h"
#include <stdlib.h>
#include <unistd.h>

static char dir[] = "/tmp/virtual_test_XXXXXX";
static char uid_map[40], gid_map[40], base[100];

static void test_path(void **state) {
    (void)state;
    static const struct {
        const char *base, *value, *want;
    } rows[] = {
        { "/base", "a", "/base/a" },
        { "/base", "a/b/", "/base/a/b/" },
        { "/base", "/a", "/base//a" },
        { "/base", "a..b/..c/", "/base/a..b/..c/" },
        { "", "/abs/box", "/abs/box" },
        /* TB-04 */
        { "/base", "../a", "" },
        { "/base", "a/../../b", "" },
        { "/base", "..", "" },
        { "/base", "a/..", "" },
        { "/base", "a\nb", "" },
        { "/base", "a\177", "" },
        { "/base", "", "" },
        { "/base", "./", "" },
        { "/base", "/", "" },
        { "", "relative", "" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        assert_str(virtual_path(a, str_c(rows[i].base), str_c(rows[i].value)), rows[i].want);
    arena_free(a);
}

struct row {
    const char *address, *mailboxes, *uids, *gids; /* NULL: our own ids */
    enum delivery_status status;
    const char *dsn, *reason;
};

static void deliver(const struct row *row) {
    const struct conf_override o[] = {
        { STR("virtual_mailbox_maps"), str_c(row->mailboxes) },
        { STR("virtual_mailbox_base"), str_c(base) },
        { STR("virtual_uid_maps"), str_c(row->uids ? row->uids : uid_map) },
        { STR("virtual_gid_maps"), str_c(row->gids ? row->gids : gid_map) },
        { STR("recipient_delimiter"), STR("+") },
        { STR("virtual_mailbox_limit"), STR("0") },
        { STR("deliver_lock_attempts"), STR("1") },
    };
    struct fake_qmgr f;
    fake_start(&f, STR("virtual"), virtual_deliver, o, sizeof(o) / sizeof(*o));
    assert_null(virtual_init(&f.ctx, f.arena));
    fake_rcpt(&f, str_c(row->address), str_c(row->address));
    fake_run(&f);
    assert_int_equal(f.result_count, 1);
    if (!str_contains(f.results[0].reason, str_c(row->reason)) || f.results[0].status != row->status)
        print_error("%s %s: %.*s", row->address, row->mailboxes, STR_ARG(buf_str(&f.log)));
    assert_int_equal(f.results[0].status, row->status);
    assert_str(f.results[0].dsn, row->dsn);
    assert_true(str_contains(f.results[0].reason, str_c(row->reason)));
    virtual_end(&f.ctx);
    fake_end(&f);
}

static void test_deliveries(void **state) {
    (void)state;
    static const struct row rows[] = {
        { "a@v.example", "inline:{a@v.example=box}", NULL, NULL, DELIVERY_SENT, "2.0.0", "delivered to mailbox" },
        { "A+ext@V.example", "inline:{a@v.example=md/}", NULL, NULL, DELIVERY_SENT, "2.0.0", "delivered to maildir" },
        { "any@v.example", "inline:{@v.example=x/y/}", NULL, NULL, DELIVERY_SENT, "2.0.0", "delivered to maildir" },
        { "No@v.example", "inline:{a@v.example=box}", NULL, NULL, DELIVERY_BOUNCED, "5.1.1",
          "unknown user: \"no@v.example\"" },
        /* TB-04: what a table says is not trusted */
        { "a@v.example", "inline:{a@v.example=../box}", NULL, NULL, DELIVERY_DEFERRED, "4.3.5", "configuration" },
        { "a@v.example", "inline:{a@v.example=box}", "static:0", NULL, DELIVERY_DEFERRED, "4.3.5", "configuration" },
        { "a@v.example", "inline:{a@v.example=box}", "static:99", NULL, DELIVERY_DEFERRED, "4.3.5", "configuration" },
        { "a@v.example", "inline:{a@v.example=box}", "static:-1", NULL, DELIVERY_DEFERRED, "4.3.5", "configuration" },
        { "a@v.example", "inline:{a@v.example=box}", "static:1000x", NULL, DELIVERY_DEFERRED, "4.3.5",
          "configuration" },
        { "a@v.example", "inline:{a@v.example=box}", "static:4294967296", NULL, DELIVERY_DEFERRED, "4.3.5",
          "configuration" },
        { "a@v.example", "inline:{a@v.example=box}", "inline:{b@v.example=1000}", NULL, DELIVERY_DEFERRED, "4.3.5",
          "configuration" },
        { "a@v.example", "inline:{a@v.example=box}", NULL, "static:wheel", DELIVERY_DEFERRED, "4.3.5",
          "configuration" },
        { "a@v.example", "texthash:/nonexistent/table", NULL, NULL, DELIVERY_DEFERRED, "4.3.5", "configuration" },
        /* errors wait: a mailbox of a customer is not bounced for them */
        { "a@v.example", "inline:{a@v.example=md}", NULL, NULL, DELIVERY_DEFERRED, "4.2.0",
          "cannot open file: Is a directory" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        deliver(&rows[i]);
    char path[200];
    snprintf(path, sizeof(path), "%s/box", base);
    struct buf b = { 0 };
    assert_true(buf_read_file(&b, path, 100000));
    assert_true(str_contains(buf_str(&b), STR("X-Original-To: a@v.example\nDelivered-To: a@v.example\n")));
    buf_free(&b);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, (uid_t)atol(uid_map + strlen("static:")));
    snprintf(path, sizeof(path), "%s/box", dir);
    assert_int_equal(access(path, F_OK), -1);
}

/* gid 0 is an id like others. */
static void test_gid_0(void **state) {
    (void)state;
    if (getuid() != 0)
        return; /* only one of the two kinds of users can see this */
    const struct row row = { "g@v.example", "inline:{g@v.example=gbox}", NULL, "static:0", DELIVERY_SENT,
                             "2.0.0",       "delivered to mailbox" };
    deliver(&row);
}

static void test_other_user(void **state) {
    (void)state;
    if (getuid() == 0)
        return; /* only one of the two kinds of users can see this */
    const struct row row = { "a@v.example",  "inline:{a@v.example=box}", "static:2147483",
                             NULL,           DELIVERY_DEFERRED,          "4.3.5",
                             "configuration" };
    deliver(&row);
}

/* Who has resent mail to himself gets it: unlike local(8), nothing is forwarded from here that could loop. */
static void test_delivered_before(void **state) {
    (void)state;
    const struct conf_override o[] = { { STR("virtual_mailbox_maps"), STR("static:again/") },
                                       { STR("virtual_mailbox_base"), str_c(base) },
                                       { STR("virtual_uid_maps"), str_c(uid_map) },
                                       { STR("virtual_gid_maps"), str_c(gid_map) } };
    struct fake_qmgr f;
    fake_start(&f, STR("virtual"), virtual_deliver, o, 4);
    assert_null(virtual_init(&f.ctx, f.arena));
    fake_rcpt(&f, STR("Loop@v.example"), STR(""));
    f.content = STR("Subject: x\nDelivered-To:\n loop@V.example\n\nDelivered-To: no@v.example\n");
    fake_run(&f);
    assert_int_equal(f.results[0].status, DELIVERY_SENT);
    assert_str(f.results[0].reason, "delivered to maildir");
    virtual_end(&f.ctx);
    fake_end(&f);
}

/* virtual_mailbox_limit below message_size_limit, or the latter without end: mail could never be delivered. */
static void test_limits(void **state) {
    (void)state;
    static const struct {
        const char *mailbox, *message;
        bool good;
    } rows[] = {
        { "100", "100", true }, { "99", "100", false }, { "100", "0", false }, { "0", "0", true }, { "0", "5", true }
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct conf_override o[] = { { STR("virtual_mailbox_limit"), str_c(rows[i].mailbox) },
                                           { STR("message_size_limit"), str_c(rows[i].message) } };
        struct fake_qmgr f;
        fake_start(&f, STR("virtual"), virtual_deliver, o, 2);
        error e = virtual_init(&f.ctx, f.arena);
        assert_int_equal(!e, rows[i].good);
        if (e)
            assert_str(e->text, "configuration error: virtual_mailbox_limit is smaller than message_size_limit");
        else
            virtual_end(&f.ctx);
        fake_end(&f);
    }
}

static int start(void **state) {
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    /* as root: under some other user id */
    uid_t uid = getuid() ? getuid() : 12345;
    gid_t gid = getuid() ? getgid() : 12345;
    snprintf(uid_map, sizeof(uid_map), "static:%ld", (long)uid);
    snprintf(gid_map, sizeof(gid_map), "static:%ld", (long)gid);
    snprintf(base, sizeof(base), "%s/base", dir);
    if (chmod(dir, 0755) != 0 || mkdir(base, 0700) != 0)
        return -1;
    return getuid() == 0 ? chown(base, uid, gid) : 0;
}
static int end(void **state) {
    (void)state;
    char command[100];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_deliveries),
        cmocka_unit_test(test_gid_0),
        cmocka_unit_test(test_other_user),
        cmocka_unit_test(test_delivered_before),
        FAKE_IN_FRAME(test_delivered_before),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, start, end);
}
