#include "test/test.h"

#include "deliver/agent_fake.h"
#include "local/local.h"
#include "proto/rewrite.h"
#include "proto/submit_fake.h"
#include <errno.h>
#include <pwd.h>
#include <sys/stat.h>

/* Deliveries as a whole: a real agent, with cleanup and trivial-rewrite played by coroutines. The recipients are the
 * user who runs the test and, as root, "nobody". */
static char dir[] = "/tmp/local_test_XXXXXX";
static char me[100], other[100], spool[200], forwards[200];

static struct fake_qmgr f;
static struct fake_cleanup cleanup;
static int rewrite_fd;
static struct coro *rewrite_coro;

/* Answers as trivial-rewrite would with mydestination = here.example. */
static void fake_rewrite(void *arg) {
    (void)arg;
    struct endpoint peer;
    int fd;
    while (!io_accept(rewrite_fd, DEADLINE_NEVER, &peer, &fd)) {
        struct ipc *ipc = ipc_new(fd);
        struct router *router = router_new(f.ctx.conf);
        assert_null(rewrite_serve(ipc, router)); /* one after the other will do */
        router_free(router);
        ipc_close(ipc);
    }
}

static void deliver_and_stop(struct agent_request *r) {
    local_deliver(r);
    fake_cleanup_stop(&cleanup);
    coro_cancel(rewrite_coro);
}

struct setting {
    const char *name, *value;
};
/* One message to `to` with these aliases; the loop runs until all has been said. */
static void deliver(const char *to, const char *aliases, const char *content, const struct setting *extra, size_t n) {
    struct conf_override o[20] = {
        { STR("alias_maps"), str_c(aliases) },         { STR("mail_spool_directory"), str_c(spool) },
        { STR("forward_path"), str_c(forwards) },      { STR("myhostname"), STR("here.example") },
        { STR("mydestination"), STR("here.example") }, { STR("recipient_delimiter"), STR("+") },
        { STR("deliver_lock_attempts"), STR("1") },    { STR("inet_interfaces"), STR("127.0.0.1") },
        { STR("default_privs"), STR("nobody") },       { STR("queue_directory"), STR("/") },
    };
    size_t count = 10;
    for (size_t i = 0; i < n; i++)
        o[count++] = (struct conf_override){ str_c(extra[i].name), str_c(extra[i].value) };
    fake_start(&f, STR("local"), deliver_and_stop, o, count);
    f.ctx.standalone = true;
    assert_null(local_init(&f.ctx, f.arena));
    fake_rcpt(&f, str_c(to), str_c(to));
    f.content = str_c(content ? content : "Subject: x\n\nhello\n");
    memset(&cleanup, 0, sizeof(cleanup));
    f.before = NULL;
}
static void start_services(struct fake_qmgr *q) {
    struct endpoint at;
    fake_cleanup_start(&cleanup, q->arena, STR("public/cleanup"));
    assert_true(endpoint_unix(STR("private/rewrite"), &at));
    assert_null(listen_on(&at, 10, 0600, &rewrite_fd));
    rewrite_coro = coro_spawn(fake_rewrite, NULL, "rewrite");
    assert_non_null(rewrite_coro);
}
static void run(void) {
    f.before = start_services;
    fake_run(&f);
    assert_null(f.failed);
    assert_int_equal(f.result_count, 1);
}
static void finish(void) {
    close(rewrite_fd);
    fake_cleanup_free(&cleanup);
    local_end(&f.ctx);
    fake_end(&f);
}

static void logged(const char *text) {
    if (!str_contains(buf_str(&f.log), str_c(text)))
        print_error("no \"%s\" in:\n%.*s", text, STR_ARG(buf_str(&f.log)));
    assert_true(str_contains(buf_str(&f.log), str_c(text)));
}
static void result(enum delivery_status status, const char *dsn) {
    if (f.results[0].status != status || !str_eq(f.results[0].dsn, str_c(dsn)))
        print_error("%.*s", STR_ARG(buf_str(&f.log)));
    assert_int_equal(f.results[0].status, status);
    assert_str(f.results[0].dsn, dsn);
}
__attribute__((format(printf, 1, 2))) static const char *fmt(const char *format, ...) {
    static char ring[8][600];
    static unsigned at;
    char *p = ring[at++ % 8];
    va_list ap;
    va_start(ap, format);
    vsnprintf(p, sizeof(ring[0]), format, ap);
    va_end(ap);
    return p;
}
static bool file_has(const char *path, const char *text) {
    struct buf b = { 0 };
    bool has = buf_read_file(&b, path, 1 << 20) && str_contains(buf_str(&b), str_c(text));
    buf_free(&b);
    return has;
}
static void put(const char *path, const char *text, mode_t mode) {
    unlink(path);
    int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

/* --- users --- */
static void test_mailbox(void **state) {
    (void)state;
    deliver(fmt("%s@here.example", me), "", NULL, NULL, 0);
    run();
    result(DELIVERY_SENT, "2.0.0");
    logged("relay=local, ");
    logged("status=sent (delivered to mailbox)\n");
    const char *box = fmt("%s/%s", spool, me);
    assert_true(file_has(box, "From sender@there.example  "));
    assert_true(file_has(box, fmt("Return-Path: <sender@there.example>\nX-Original-To: %s@here.example\n"
                                  "Delivered-To: %s@here.example\nSubject: x\n\nhello\n\n",
                                  me, me)));
    finish();
}

static void test_unknown(void **state) {
    (void)state;
    static const char *const names[] = { "no such user", "nosuchuser", "../../etc/passwd", "..", "a/b", "" };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        deliver(fmt("%s@here.example", names[i]), "", NULL, NULL, 0);
        run();
        result(DELIVERY_BOUNCED, "5.1.1");
        logged(fmt("status=bounced (unknown user: \"%s\")\n", names[i]));
        finish();
    }
    deliver("MAILER-DAEMON@here.example", "", NULL, NULL, 0);
    run();
    result(DELIVERY_SENT, "2.0.0");
    logged("warning: required alias not found: mailer-daemon\n");
    logged("status=sent (discarded)\n");
    finish();
}

static void test_loop(void **state) {
    (void)state;
    deliver(fmt("%s@here.example", me), "", fmt("A: b\nDelivered-To: %s@HERE.example\n\nx\n", me), NULL, 0);
    run();
    result(DELIVERY_BOUNCED, "5.4.6");
    logged(fmt("status=bounced (mail forwarding loop for %s@here.example)\n", me));
    finish();
}

static void test_maildir_spool(void **state) {
    (void)state;
    const struct setting s = { "mail_spool_directory", fmt("%s/", spool) };
    unlink(fmt("%s/%s", spool, me));
    deliver(fmt("%s@here.example", me), "", NULL, &s, 1);
    run();
    logged("status=sent (delivered to maildir)\n");
    finish();
    assert_int_equal(access(fmt("%s/%s/new", spool, me), F_OK), 0);
    assert_int_equal(system(fmt("rm -r %s/%s", spool, me)), 0);
}

/* --- aliases --- */
static void test_aliases(void **state) {
    (void)state;
    static const char *const maps = "inline:{ {both=%s, far@away.example, near@away.example}, {self=self}, "
                                    "{loopa=loopb}, {loopb=loopa}, {bad=nosuchuser}, {base=%s}, {empty=,}, "
                                    "{list=%s, far@away.example}, {owner-list=%s} }";
    const char *aliases = strdup(fmt(maps, me, me, me, me));
    deliver("Both@here.example", aliases, NULL, NULL, 0);
    run();
    result(DELIVERY_SENT, "2.0.0");
    logged(fmt("to=<%s@here.example>, orig_to=<Both@here.example>, relay=local, ", me));
    logged("status=sent (delivered to mailbox)\n");
    logged("to=<Both@here.example>, relay=local, ");
    logged("status=sent (forwarded as NEW1)\n");
    assert_int_equal(cleanup.count, 1);
    const struct fake_message *m = &cleanup.messages[0];
    assert_str(m->env.sender, "sender@there.example");
    assert_int_equal(m->rcpt_count, 2);
    assert_str(m->rcpts[0].address, "far@away.example");
    assert_str(m->rcpts[0].orig, "Both@here.example");
    assert_str(m->rcpts[1].address, "near@away.example");
    struct str sent = buf_str(&m->content);
    assert_true(str_starts(sent, STR("Received: by here.example (Angarium)\n\tid NEW1; ")));
    assert_true(str_ends(sent, STR("\nDelivered-To: Both@here.example\nSubject: x\n\nhello\n")));
    finish();

    deliver("self@here.example", aliases, NULL, NULL, 0);
    run();
    logged("status=bounced (unknown user: \"self\")\n");
    finish();
    deliver("loopa@here.example", aliases, NULL, NULL, 0);
    run();
    result(DELIVERY_BOUNCED, "5.4.6");
    logged("warning: alias database loop for loopb\n");
    logged("status=bounced (alias database loop for loopb)\n");
    finish();
    deliver("bad@here.example", aliases, NULL, NULL, 0);
    run();
    result(DELIVERY_BOUNCED, "5.1.1");
    logged("to=<nosuchuser@here.example>, orig_to=<bad@here.example>, ");
    assert_str(f.results[0].address, "nosuchuser@here.example");
    finish();
    /* the extension is not part of the name, unless that is an alias itself */
    deliver("base+ext@here.example", aliases, NULL, NULL, 0);
    run();
    result(DELIVERY_SENT, "2.0.0");
    finish();
    deliver("empty@here.example", aliases, NULL, NULL, 0);
    run();
    result(DELIVERY_SENT, "2.0.0");
    finish();
    /* with an owner everything is forwarded, from the owner */
    deliver("list@here.example", aliases, NULL, NULL, 0);
    f.rcpts[0].dsn_notify = 4;
    f.req.env.dsn_envid = STR("id");
    run();
    result(DELIVERY_SENT, "2.0.0");
    assert_int_equal(cleanup.messages[0].rcpt_count, 2);
    assert_str(cleanup.messages[0].env.sender, "owner-list@here.example");
    assert_str(cleanup.messages[0].env.dsn_envid, "");
    assert_int_equal(cleanup.messages[0].rcpts[0].dsn_notify, 0);
    finish();
    const struct setting s = { "expand_owner_alias", "yes" };
    deliver("list@here.example", aliases, NULL, &s, 1);
    run();
    assert_str(cleanup.messages[0].env.sender, me);
    finish();
    /* an owner that nobody can name now is not no owner: bounces would go to whoever wrote to the list */
    deliver("list@here.example", "inline:{ {list=far@away.example} }, fail:database", NULL, NULL, 0);
    run();
    result(DELIVERY_DEFERRED, "4.3.0");
    logged("alias database fail:database: lookup failed");
    assert_int_equal(cleanup.count, 0);
    finish();
    free((void *)(uintptr_t)aliases);
}

/* AL-02: a name with blanks is asked for with quotes, then without. */
static void test_alias_quotes(void **state) {
    (void)state;
    const char *maps = "regexp:{ {/^\"al ice\"$$/ far@away.example} {/^bo b$$/ near@away.example} }";
    deliver("al ice@here.example", maps, NULL, NULL, 0);
    run();
    assert_str(cleanup.messages[0].rcpts[0].address, "far@away.example");
    finish();
    deliver("bo b@here.example", maps, NULL, NULL, 0);
    run();
    assert_str(cleanup.messages[0].rcpts[0].address, "near@away.example");
    finish();
}

/* What was asked for with the message goes on with what is forwarded, but success (RFC 3461, 5.2.7.1). */
static void test_forward_dsn(void **state) {
    (void)state;
    deliver("a@here.example", "inline:{a=far@away.example}", NULL, NULL, 0);
    f.rcpts[0].dsn_notify = 2 | 4;
    f.rcpts[0].dsn_orcpt = STR("rfc822;first@z.example");
    f.req.env.dsn_envid = STR("id");
    run();
    assert_str(cleanup.messages[0].env.dsn_envid, "id");
    assert_str(cleanup.messages[0].rcpts[0].dsn_orcpt, "rfc822;first@z.example");
    assert_int_equal(cleanup.messages[0].rcpts[0].dsn_notify, 4);
    finish();
    deliver("a@here.example", "inline:{a=far@away.example}", NULL, NULL, 0);
    cleanup.open_status = SUBMIT_NO_SPACE;
    run();
    result(DELIVERY_DEFERRED, "4.3.1");
    finish();
    deliver("a@here.example", "inline:{a=far@away.example}", NULL, NULL, 0);
    cleanup.end_status = SUBMIT_HOPS;
    run();
    result(DELIVERY_BOUNCED, "5.0.0");
    finish();
}

static void test_table_down(void **state) {
    (void)state;
    deliver(fmt("%s@here.example", me), "texthash:/nonexistent/aliases", NULL, NULL, 0);
    run();
    result(DELIVERY_DEFERRED, "4.3.0");
    logged("(alias database unavailable)\n");
    finish();
}

/* AL-01: one nesting count over aliases, lists and forward files. */
static void test_includes(void **state) {
    (void)state;
    const char *list = fmt("%s/list", dir);
    put(list, fmt("# members\nfar@away.example, \"|/bin/true\"\n:include:%s/list2\n", dir), 0644);
    put(fmt("%s/list2", dir), "near@away.example\n", 0644);
    const char *alias = strdup(fmt("inline:{l=:include:%s}", list));
    deliver("l@here.example", alias, NULL, NULL, 0);
    run();
    logged("(mail to command is restricted)\n");
    result(DELIVERY_BOUNCED, "5.7.1");
    assert_int_equal(cleanup.messages[0].rcpt_count, 2);
    finish();
    put(fmt("%s/list2", dir), fmt(":include:%s/list2\n", dir), 0644);
    deliver("l@here.example", alias, NULL, NULL, 0);
    run();
    logged("status=bounced (file inclusion loop for ");
    finish();
    put(fmt("%s/list2", dir), fmt(":include:%s/list\n", dir), 0644);
    deliver("l@here.example", alias, NULL, NULL, 0);
    run();
    logged("status=bounced (file inclusion loop for ");
    finish();
    put(fmt("%s/list", dir), "x\n", 0666);
    deliver("l@here.example", alias, NULL, NULL, 0);
    run();
    logged("is world writable\n");
    result(DELIVERY_BOUNCED, "5.3.5");
    finish();
    put(fmt("%s/list", dir), "# nobody yet\n", 0644);
    deliver("l@here.example", alias, NULL, NULL, 0);
    run();
    logged("status=sent (discarded)\n");
    result(DELIVERY_SENT, "2.0.0");
    finish();
    deliver("l@here.example", "inline:{l=:include:/nonexistent/list}", NULL, NULL, 0);
    run();
    logged("warning: unable to lookup :include: file /nonexistent/list: No such file or directory\n");
    logged("status=bounced (mail system configuration error)\n");
    finish();
    free((void *)(uintptr_t)alias);
}

/* Lists of other users: root's alias makes their owner act, a user's ~/.forward does not. */
static void test_include_rights(void **state) {
    (void)state;
    const struct passwd *entry = getpwnam("daemon");
    if (getuid() != 0 || !entry)
        return; /* only root can act as others */
    uid_t user = entry->pw_uid;
    entry = getpwnam("bin");
    if (!entry)
        return;
    uid_t owner = entry->pw_uid;
    char list[200], out[200], path[200];
    snprintf(list, sizeof(list), "%s/list", dir);
    snprintf(out, sizeof(out), "%s/out", dir);
    snprintf(path, sizeof(path), "%s/forward-daemon", dir);
    const struct setting set[] = { { "allow_mail_to_commands", "alias, forward, include" } };
    const char *alias = strdup(fmt("inline:{l=:include:%s}", list));
    const struct {
        const char *to;
        uid_t uid;
    } rows[] = { { "daemon@here.example", user }, { "l@here.example", owner } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        put(out, "", 0666);
        put(list, fmt("\"|/usr/bin/id -u >%s\"\n", out), 0644);
        assert_int_equal(chown(list, owner, (gid_t)-1), 0);
        put(path, fmt(":include:%s\n", list), 0644);
        deliver(rows[i].to, alias, NULL, set, 1);
        run();
        result(DELIVERY_SENT, "2.0.0");
        assert_true(file_has(out, fmt("%ld\n", (long)rows[i].uid)));
        finish();
    }
    unlink(list);
    unlink(out);
    unlink(path);
    free((void *)(uintptr_t)alias);
}

/* Asked about together, members still have their turns one after the other, lists in lists among them. */
static void test_members_in_turn(void **state) {
    (void)state;
    deliver("l@here.example",
            "inline:{{l=a@away.example, b@away.example, m, e@away.example, n, h@away.example}, "
            "{m=c@away.example, d@away.example}, {n=f@away.example, a@away.example, g@away.example}}",
            NULL, NULL, 0);
    run();
    result(DELIVERY_SENT, "2.0.0");
    assert_int_equal(cleanup.messages[0].rcpt_count, 8);
    for (size_t i = 0; i < 8; i++) {
        struct str address = cleanup.messages[0].rcpts[i].address;
        assert_int_equal(address.p[0], "abcdefgh"[i]);
        assert_true(str_ends(address, STR("@away.example")));
    }
    finish();
}

/* Of a list that is too long nobody is left out in silence. */
static void test_long_list(void **state) {
    (void)state;
    struct buf b = { 0 };
    for (size_t i = 0; i <= ALIAS_ITEMS_MAX; i++)
        buf_add(&b, STR("far@away.example\n"));
    buf_byte(&b, 0);
    put(fmt("%s/long", dir), b.p, 0644);
    buf_free(&b);
    deliver("l@here.example", fmt("inline:{l=:include:%s/long}", dir), NULL, NULL, 0);
    run();
    result(DELIVERY_DEFERRED, "4.3.5");
    assert_int_equal(cleanup.count, 0);
    finish();
}

/* --- ~/.forward --- */
static void test_forward_file(void **state) {
    (void)state;
    char path[700], ext[700];
    snprintf(path, sizeof(path), "%s/forward-%s", dir, me);
    snprintf(ext, sizeof(ext), "%s/forward-%s+ext", dir, me);
    put(path, fmt("far@away.example, %s\n", me), 0644);
    deliver(fmt("%s@here.example", me), "", NULL, NULL, 0);
    run();
    result(DELIVERY_SENT, "2.0.0");
    logged("(delivered to mailbox)\n");
    logged("(forwarded as NEW1)\n");
    finish();
    /* user+ext has a file of its own */
    put(ext, fmt("%s/file-%s\n", spool, me), 0644);
    deliver(fmt("%s+ext@here.example", me), "", NULL, NULL, 0);
    run();
    logged(fmt("(delivered to file: %s/file-%s)\n", spool, me));
    finish();
    /* an extension that would lead elsewhere does not */
    deliver(fmt("%s+../x@here.example", me), "", NULL, NULL, 0);
    run();
    logged("(forwarded as NEW1)\n");
    finish();
    /* empty: no forwarding; others may write to it, or own it: not used */
    put(path, "\n# nothing\n", 0644);
    deliver(fmt("%s@here.example", me), "", NULL, NULL, 0);
    run();
    assert_int_equal(cleanup.count, 0);
    logged("(delivered to mailbox)\n");
    finish();
    put(path, "far@away.example\n", 0666);
    deliver(fmt("%s@here.example", me), "", NULL, NULL, 0);
    run();
    assert_int_equal(cleanup.count, 0);
    logged("forward-");
    logged(" is world writable\n");
    finish();
    if (getuid() == 0) {
        put(path, "far@away.example\n", 0644);
        assert_int_equal(chown(path, 12345, 12345), 0);
        deliver(fmt("%s@here.example", me), "", NULL, NULL, 0);
        run();
        assert_int_equal(cleanup.count, 0);
        finish();
    }
    unlink(path);
    unlink(ext);
}

/* --- commands --- */
static void test_command_results(void **state) {
    (void)state;
    static const struct {
        const char *command;
        enum delivery_status status;
        const char *dsn, *reason;
    } rows[] = {
        { "cat > /dev/null", DELIVERY_SENT, "2.0.0", "(delivered to command: cat > /dev/null)" },
        { "/bin/true", DELIVERY_SENT, "2.0.0", "(delivered to command: /bin/true)" },
        { "exit 75", DELIVERY_DEFERRED, "4.3.0", "(temporary failure)" },
        { "exit 67", DELIVERY_BOUNCED, "5.1.1", "(user unknown)" },
        { "exit 77", DELIVERY_BOUNCED, "5.7.0", "(permission denied)" },
        { "exit 3", DELIVERY_BOUNCED, "5.3.0", "(Command died with status 3: \"exit 3\")" },
        { "echo a; echo b; exit 1", DELIVERY_BOUNCED, "5.3.0",
          "(Command died with status 1: \"echo a; echo b; exit 1\". Command output: a b )" },
        { "echo 5.7.9 go away; exit 1", DELIVERY_BOUNCED, "5.7.9", "(go away )" },
        { "echo 4.7.9 go away; exit 1", DELIVERY_DEFERRED, "4.7.9", "(go away )" },
        { "echo 2.7.9 go away; exit 1", DELIVERY_BOUNCED, "5.0.0", "(go away )" },
        { "echo 5.7.9 ignored; exit 0", DELIVERY_SENT, "2.0.0", "(delivered to command: " },
        { "kill -9 $$", DELIVERY_DEFERRED, "4.3.0", "(Command died with signal 9: \"kill -9 $$\")" },
        { "/nonexistent/cmd", DELIVERY_DEFERRED, "4.3.0",
          "(temporary failure. Command output: local: fatal: execvp /nonexistent/cmd: No such file or directory )" },
        { "printf 'x\\\\001y'; exit 1", DELIVERY_BOUNCED, "5.3.0", "Command output: x_y)" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        put(fmt("%s/forward-%s", dir, me), fmt("\"|%s\"\n", rows[i].command), 0644);
        deliver(fmt("%s@here.example", me), "", NULL, NULL, 0);
        run();
        logged(rows[i].reason);
        result(rows[i].status, rows[i].dsn);
        finish();
    }
    unlink(fmt("%s/forward-%s", dir, me));
}

static void test_command_limit(void **state) {
    (void)state;
    const struct setting s = { "command_time_limit", "1s" };
    put(fmt("%s/forward-%s", dir, me), "\"|sleep 600; echo\"\n", 0644);
    deliver(fmt("%s@here.example", me), "", NULL, &s, 1);
    run();
    result(DELIVERY_BOUNCED, "5.3.0");
    logged("(Command time limit exceeded: \"sleep 600; echo\")\n");
    finish();
    unlink(fmt("%s/forward-%s", dir, me));
}

/* OT-02, OT-12: what a peer chose reaches a command in its environment only, without special characters. */
static void test_command_environment(void **state) {
    (void)state;
    const char *out = strdup(fmt("%s/out", dir));
    put(out, "", 0666);
    put(fmt("%s/forward-%s", dir, me), fmt("\"|cat > %s; env >> %s; pwd >> %s; id -u >> %s\"\n", out, out, out, out),
        0644);
    deliver(fmt("%s+a`id`;$(x)@here.example", me), "", "Subject: x\n\nFrom me\nlast\n", NULL, 0);
    f.req.env.sender = STR("\";touch /tmp/bad;\"@there.example");
    f.req.env.client = (struct client_info){ .name = STR("host.example"),
                                             .address = STR("192.0.2.1"),
                                             .helo = STR("$(helo)"),
                                             .protocol = STR("ESMTP"),
                                             .reverse_name = STR(""),
                                             .port = STR("") };
    run();
    result(DELIVERY_SENT, "2.0.0");
    static const char *const want[] = {
        "\nReturn-Path: <\"\\\";touch /tmp/bad;\\\"\"@there.example>\n",
        "\nSubject: x\n\nFrom me\nlast\n",
        "\nEXTENSION=a_id____x_\n",
        "\nDOMAIN=here.example\n",
        "\nSENDER=__touch_/tmp/bad__@there.example\n",
        "\nCLIENT_HELO=__helo_\n",
        "\nCLIENT_ADDRESS=192.0.2.1\n",
        "\nCLIENT_HOSTNAME=host.example\n",
    };
    for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++) {
        if (!file_has(out, want[i]))
            print_error("no \"%s\"\n", want[i]);
        assert_true(file_has(out, want[i]));
    }
    assert_true(file_has(out, fmt("\nUSER=%s\n", me)));
    assert_true(file_has(out, fmt("\n%ld\n", (long)getuid() ? (long)getuid() : 0L)) || getuid() == 0);
    finish();
    unlink(fmt("%s/forward-%s", dir, me));
    free((void *)(uintptr_t)out);
}

static void test_command_words(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct str *words;
    assert_int_equal(command_words(a, STR("/usr/bin/prog -a  b/c"), &words), 3);
    assert_str(words[2], "b/c");
    static const char *const shell[] = { "exit 0", "a | b", "a $b", "a 'b c'", "a > b", "a;b",
                                         "a\nb",   "",      "  ",   "X=1 a",   "cd /" };
    for (size_t i = 0; i < sizeof(shell) / sizeof(*shell); i++)
        assert_int_equal(command_words(a, str_c(shell[i]), &words), 0);
    arena_free(a);
}

/* Commands and files of root's aliases run as default_privs. */
static void test_default_privs(void **state) {
    (void)state;
    if (getuid() != 0)
        return;
    const char *out = strdup(fmt("%s/out", dir));
    put(out, "", 0666);
    deliver("c@here.example", fmt("inline:{ {c=\"|id -un >> %s; id -G >> %s\"} }", out, out), NULL, NULL, 0);
    run();
    result(DELIVERY_SENT, "2.0.0");
    assert_true(file_has(out, "nobody\n"));
    struct passwd *p = getpwnam("nobody");
    assert_true(file_has(out, fmt("\n%ld\n", (long)p->pw_gid)));
    finish();
    free((void *)(uintptr_t)out);
}

/* The user's id, also for a mailbox in a spool that only root may write to. */
static void test_spool_rights(void **state) {
    (void)state;
    if (getuid() != 0)
        return;
    static const struct {
        mode_t mode;
        gid_t gid;
    } rows[] = { { 01777, 0 }, { 02775, 8 }, { 0755, 0 } };
    struct passwd *p = getpwnam("nobody");
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        assert_int_equal(chown(spool, 0, rows[i].gid), 0);
        assert_int_equal(chmod(spool, rows[i].mode), 0);
        for (int twice = 0; twice < 2; twice++) {
            deliver("nobody@here.example", "", NULL, NULL, 0);
            run();
            result(DELIVERY_SENT, "2.0.0");
            finish();
        }
        struct stat st;
        assert_int_equal(stat(fmt("%s/nobody", spool), &st), 0);
        assert_int_equal(st.st_uid, p->pw_uid);
        assert_int_equal(access(fmt("%s/nobody.lock", spool), F_OK), -1);
        unlink(fmt("%s/nobody", spool));
        const struct setting s = { "mail_spool_directory", fmt("%s/", spool) };
        deliver("nobody@here.example", "", NULL, &s, 1);
        run();
        result(DELIVERY_SENT, "2.0.0");
        finish();
        assert_int_equal(stat(fmt("%s/nobody/new", spool), &st), 0);
        assert_int_equal(st.st_uid, p->pw_uid);
        assert_int_equal(system(fmt("rm -r %s/nobody", spool)), 0);
    }
    assert_int_equal(chmod(spool, 01777), 0);
}

/* --- names --- */
static void test_expand(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct local_names n = { .account = { .name = STR("u"), .home = STR("/home/u"), .shell = STR("/bin/sh") },
                             .recipient = STR("u+$home@x"),
                             .extension = STR("$home;x"),
                             .domain = STR("x"),
                             .local = STR("u+e"),
                             .delimiter = STR("+") };
    static const struct {
        const char *text, *want;
    } rows[] = {
        { "$home/.forward${recipient_delimiter}${extension}", "/home/u/.forward+_home_x" },
        { "$user-$domain-$local-$shell", "u-x-u+e-/bin/sh" },
        { "${extension?yes}${nothing?no}${nothing:else}", "yeselse" },
        { "$recipient", "u+_home@x" }, /* OT-01: never expanded in turn */
    };
    struct str got;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        assert_null(local_expand(str_c(rows[i].text), &n, STR("abcdefghijklmnopqrstuvwxyz/+-@."), a, &got));
        assert_str(got, rows[i].want);
    }
    /* AL-03 */
    n.extension = STR("");
    assert_null(local_expand(STR("f${recipient_delimiter}${extension}"), &n, STR(""), a, &got));
    assert_str(got, "f+");
    arena_free(a);
}

static void test_luser_relay(void **state) {
    (void)state;
    const struct setting s = { "luser_relay", "$user+$extension@away.example" };
    deliver("nosuchuser+abc@here.example", "", NULL, &s, 1);
    run();
    logged("(forwarded as NEW1)\n");
    assert_str(cleanup.messages[0].rcpts[0].address, "nosuchuser+abc@away.example");
    finish();
    /* to nobody here, again and again: it ends */
    const struct setting loop = { "luser_relay", "x$user" };
    deliver("nosuchuser@here.example", "", NULL, &loop, 1);
    run();
    result(DELIVERY_BOUNCED, "5.1.1");
    finish();
}

static void test_probe(void **state) {
    (void)state;
    unlink(fmt("%s/%s", spool, me));
    deliver(fmt("%s@here.example", me), "", NULL, NULL, 0);
    f.req.flags = DELIVERY_VERIFY;
    run();
    logged("status=deliverable (delivers to mailbox)\n");
    assert_int_equal(access(fmt("%s/%s", spool, me), F_OK), -1);
    finish();
    deliver("a@here.example", "inline:{a=\"|false\"}", NULL, NULL, 0);
    f.req.flags = DELIVERY_VERIFY;
    run();
    logged("status=deliverable (aliased to ");
    finish();
}

static int start(void **state) {
    (void)state;
    struct passwd *p = getpwuid(getuid());
    if (!p || !mkdtemp(dir) || chmod(dir, 0755) != 0)
        return -1;
    snprintf(me, sizeof(me), "%s", p->pw_name);
    snprintf(other, sizeof(other), "nobody");
    snprintf(spool, sizeof(spool), "%s/spool", dir);
    snprintf(forwards, sizeof(forwards), "%s/forward-$user${recipient_delimiter}${extension}, %s/forward-$user", dir,
             dir);
    if (chdir(dir) != 0 || mkdir("public", 0700) != 0 || mkdir("private", 0700) != 0 || mkdir("spool", 0700) != 0)
        return -1;
    return chmod("spool", 01777);
}
static int end(void **state) {
    (void)state;
    return system(fmt("rm -rf %s", dir));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mailbox),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_loop),
        cmocka_unit_test(test_maildir_spool),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_forward_dsn),
        cmocka_unit_test(test_alias_quotes),
        cmocka_unit_test(test_table_down),
        cmocka_unit_test(test_members_in_turn),
        cmocka_unit_test(test_includes),
        cmocka_unit_test(test_include_rights),
        cmocka_unit_test(test_long_list),
        cmocka_unit_test(test_forward_file),
        cmocka_unit_test(test_command_results),
        cmocka_unit_test(test_command_limit),
        cmocka_unit_test(test_command_environment),
        cmocka_unit_test(test_command_words),
        cmocka_unit_test(test_default_privs),
        cmocka_unit_test(test_spool_rights),
        cmocka_unit_test(test_expand),
        cmocka_unit_test(test_luser_relay),
        cmocka_unit_test(test_probe),
        FAKE_IN_FRAME(test_mailbox),
        FAKE_IN_FRAME(test_loop),
        FAKE_IN_FRAME(test_aliases),
        FAKE_IN_FRAME(test_command_environment),
    };
    return cmocka_run_group_tests(tests, start, end);
}
