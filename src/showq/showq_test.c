#include "queue/spool_test_util.h"

#include "queue/maildrop.h"
#include "run/coro.h"
#include "showq/showq.h"

static struct listing_rcpt rcpt(const char *address, const char *delay) {
    return (struct listing_rcpt){ str_c(address), STR(""), str_c(delay), STR("") };
}

static struct listing_entry entry(const char *queue, const char *id, uint64_t size, const char *sender,
                                  struct listing_rcpt *rcpts, size_t n) {
    struct listing_entry e = { .queue_name = str_c(queue),
                               .arrival_s = 1795256094,
                               .size = size,
                               .sender = str_c(sender),
                               .rcpts = rcpts,
                               .rcpt_count = n };
    assert_true(queue_id_from(str_c(id), &e.id));
    return e;
}

#define REFUSED "connect to 127.0.0.1[127.0.0.1]:9: Connection refused"

/* As Debian's postqueue printed the same messages. */
static void the_table(void **state) {
    (void)state;
    struct showq_writer w = { .form = SHOWQ_TABLE };
    struct buf out = { 0 };
    struct listing_rcpt one[] = { rcpt("a@x.example", REFUSED), rcpt("c@x.example", REFUSED),
                                  rcpt("b@y.example", REFUSED) };
    struct listing_rcpt two[] = { rcpt("held@x.example", "") };
    struct listing_rcpt three[] = { rcpt("a@a.example", "deferred transport"), rcpt("c@x.example", REFUSED),
                                    rcpt("d@a.example", "deferred transport") };
    struct listing_entry e = entry("deferred", "7B0CAA846F7", 300, "sender@there.example", one, 3);
    showq_write_begin(&w, &out, &e);
    e = entry("hold", "7C3E1A84708", 200530, "MAILER-DAEMON", two, 1);
    showq_write_begin(&w, &out, &e);
    e = entry("active", "62185F9", 292, "sender@there.example", three, 2);
    showq_write_begin(&w, &out, &e);
    showq_write_rcpts(&w, &out, three + 2, 1);
    showq_write_end(&w, &out);
    assert_str(buf_str(&out), "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n"
                              "7B0CAA846F7     300 Sat Nov 21 10:14:54  sender@there.example\n"
                              "                       (" REFUSED ")\n"
                              "                                         a@x.example\n"
                              "                                         c@x.example\n"
                              "                                         b@y.example\n"
                              "\n"
                              "7C3E1A84708!  200530 Sat Nov 21 10:14:54  MAILER-DAEMON\n"
                              "                                         held@x.example\n"
                              "\n"
                              "62185F9*        292 Sat Nov 21 10:14:54  sender@there.example\n"
                              "                                                          (deferred transport)\n"
                              "                                         a@a.example\n"
                              "                       (" REFUSED ")\n"
                              "                                         c@x.example\n"
                              "                                                          (deferred transport)\n"
                              "                                         d@a.example\n"
                              "\n"
                              "-- 196 Kbytes in 3 Requests.\n");
    buf_free(&out);
}

static void the_wide_table(void **state) {
    (void)state;
    struct showq_writer w = { .form = SHOWQ_TABLE, .long_ids = true };
    struct buf out = { 0 };
    struct listing_rcpt one[] = { rcpt("a@x.example", REFUSED) };
    struct listing_entry e = entry("deferred", "4jWp3p4wqCz1c9c4", 200525, "sender@there.example", one, 1);
    showq_write_begin(&w, &out, &e);
    e = entry("hold", "4jWp3p4lpjz1c9bg", 309, "MAILER-DAEMON", one, 0);
    e.forced_expire = true;
    showq_write_begin(&w, &out, &e);
    showq_write_end(&w, &out);
    assert_str(buf_str(&out), "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n"
                              "4jWp3p4wqCz1c9c4    200525 Sat Nov 21 10:14:54 sender@there.example\n"
                              "                       (" REFUSED ")\n"
                              "                                               a@x.example\n"
                              "\n"
                              "4jWp3p4lpjz1c9bg#      309 Sat Nov 21 10:14:54 MAILER-DAEMON\n"
                              "\n"
                              "-- 196 Kbytes in 2 Requests.\n");
    buf_free(&out);
}

static void an_empty_queue(void **state) {
    (void)state;
    struct showq_writer w = { .form = SHOWQ_TABLE }, j = { .form = SHOWQ_JSON };
    struct buf out = { 0 };
    showq_write_end(&j, &out);
    assert_str(buf_str(&out), "");
    showq_write_end(&w, &out);
    assert_str(buf_str(&out), "Mail queue is empty\n");
    buf_free(&out);
}

static void what_a_peer_said_stays_in_its_line(void **state) {
    (void)state;
    struct showq_writer w = { .form = SHOWQ_TABLE }, j = { .form = SHOWQ_JSON };
    struct buf out = { 0 };
    struct listing_rcpt one[] = { rcpt("\"a\nb\"@x.example", "said:\r\n\x1b[2J \"\\\xff\xc3\xa4") };
    one[0].orig = STR("o@x.example");
    one[0].bounce_reason = STR("no");
    struct listing_entry e = entry("deferred", "62185F9", 1, "", one, 1);
    showq_write_begin(&j, &out, &e);
    showq_write_end(&j, &out);
    assert_str(
        buf_str(&out),
        "{\"queue_name\": \"deferred\", \"queue_id\": \"62185F9\", \"arrival_time\": 1795256094, \"message_size\": 1, "
        "\"forced_expire\": false, \"sender\": \"\", \"recipients\": [{\"address\": \"\\\"a\\nb\\\"@x.example\", "
        "\"orig_address\": \"o@x.example\", \"delay_reason\": \"said:\\r\\n\\u001B[2J \\\"\\\\?\xc3\xa4\", "
        "\"bounce_reason\": \"no\"}]}\n");
    buf_clear(&out);
    one[0].bounce_reason = STR("");
    showq_write_begin(&w, &out, &e);
    showq_write_end(&w, &out);
    assert_true(str_contains(buf_str(&out), STR("(said:???[2J \"\\?\xc3\xa4)\n")));
    assert_true(str_contains(buf_str(&out), STR(" \"a?b\"@x.example\n")));
    buf_free(&out);
}

/* --- walking a queue --- */

struct seen {
    struct arena *arena;
    struct listing_entry at[16];
    size_t n, limit;
};

static struct str keep(struct seen *s, struct str text) {
    return arena_str(s->arena, text);
}

static bool see(void *ctx, const struct listing_entry *e) {
    struct seen *s = ctx;
    assert_true(s->n < 16);
    struct listing_entry *to = &s->at[s->n++];
    *to = *e;
    to->sender = keep(s, e->sender);
    to->rcpts = arena_array(s->arena, e->rcpt_count, sizeof *to->rcpts);
    for (size_t i = 0; i < e->rcpt_count; i++)
        to->rcpts[i] = (struct listing_rcpt){ keep(s, e->rcpts[i].address), keep(s, e->rcpts[i].orig),
                                              keep(s, e->rcpts[i].delay_reason), keep(s, e->rcpts[i].bounce_reason) };
    return s->n < s->limit;
}

static void drop(const struct test_queue *q, const char *name, struct str bytes, mode_t mode) {
    char path[128];
    snprintf(path, sizeof path, "%s/maildrop/%s", q->dir, name);
    int fd = open(path, O_CREAT | O_WRONLY, 0700);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes.p, bytes.n), (ssize_t)bytes.n);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void every_state_is_walked(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id, deferred;
    struct seen s = { .arena = q.arena, .limit = 99 };
    char path[128];
    snprintf(path, sizeof path, "%s/maildrop", q.dir);
    mkdir(path, 0700);

    struct conf *c;
    const struct conf_override o[] = { { STR_INIT("myhostname"), STR_INIT("test.example") },
                                       { STR_INIT("queue_directory"), str_c(q.dir) } };
    struct conf_source source = { .config_directory = STR("/nonexistent/angarium"),
                                  .overrides = o,
                                  .override_count = 2,
                                  .process_name = STR("showq"),
                                  .service_name = STR("showq"),
                                  .missing_is_empty = true };
    assert_null(conf_load(&source, q.arena, &c));
    struct showq list;
    assert_null(showq_open(&list, c, q.arena));
    showq_walk(&list, SHOWQ_ALL, see, &s);
    assert_int_equal(s.n, 0);

    assert_null(test_message(w, q.arena, 10, 1, SPOOL_HOLD, &id));
    assert_null(test_message(w, q.arena, 20, 1, SPOOL_INCOMING, &id));
    assert_null(test_message(w, q.arena, 30, 1, SPOOL_INCOMING, &id));
    assert_null(spool_move(r, &id, SPOOL_INCOMING, SPOOL_ACTIVE));
    assert_null(test_message(w, q.arena, 40, 4, SPOOL_INCOMING, &deferred));
    assert_null(spool_move(r, &deferred, SPOOL_INCOMING, SPOOL_DEFERRED));
    /* done; bounced and done, not told yet; deferred; nothing known */
    struct spool_failure f = test_failure(1, STR("no such user"));
    assert_null(spool_log_add(r, &deferred, SPOOL_LOG_BOUNCE, &f));
    assert_null(test_reason(r, &deferred, SPOOL_DEFERRED, 2, STR("busy"), false));
    assert_null(spool_mark_done(r, &deferred, SPOOL_DEFERRED, 0));
    assert_null(spool_mark_done(r, &deferred, SPOOL_DEFERRED, 1));
    struct buf b = { 0 };
    maildrop_put(&b, MAILDROP_SENDER, STR("user@here.example"));
    maildrop_put_rcpt(&b, 0, STR("to@there.example"));
    maildrop_put(&b, MAILDROP_CONTENT, STR("Subject: x\n\nhello\n"));
    maildrop_put(&b, MAILDROP_END, STR(""));
    drop(&q, "0ABC123", buf_str(&b), 0744);
    drop(&q, "0ABC124", str_sub(buf_str(&b), 0, b.n - 7), 0744); /* bad: passed over, the rest is listed */
    drop(&q, "0ABC125", buf_str(&b), 0600);                      /* being written */
    drop(&q, "not.one", buf_str(&b), 0744);
    buf_free(&b);

    showq_walk(&list, SHOWQ_ALL, see, &s);
    assert_int_equal(s.n, 5);
    assert_str(s.at[0].queue_name, "maildrop");
    assert_str(s.at[0].sender, "user@here.example");
    assert_str(s.at[0].rcpts[0].address, "to@there.example");
    assert_int_equal(s.at[0].size, 18);
    assert_str(s.at[1].queue_name, "active");
    assert_int_equal(s.at[1].size, 30);
    assert_int_equal(s.at[1].arrival_s, 1790000000);
    assert_str(s.at[2].queue_name, "incoming");
    assert_str(s.at[3].queue_name, "deferred");
    assert_int_equal(s.at[3].rcpt_count, 3);
    assert_str(s.at[3].rcpts[0].address, "to1@there.example");
    assert_str(s.at[3].rcpts[0].bounce_reason, "no such user");
    assert_str(s.at[3].rcpts[1].delay_reason, "busy");
    assert_str(s.at[3].rcpts[2].delay_reason, "");
    assert_str(s.at[4].queue_name, "hold");
    /* enough is enough */
    s.n = 0;
    s.limit = 2;
    showq_walk(&list, SHOWQ_ALL, see, &s);
    assert_int_equal(s.n, 2);
    showq_close(&list);
    conf_free(c);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

/* --- many at a time --- */

enum { MANY = 700, LARGE_RCPTS = 20000 };

struct packed {
    struct showq *q;
    struct arena *arena;
    size_t plain, packed, alone, frames, limit;
    uint64_t sum_plain, sum;
    int failed;
};

static uint64_t sum_of(const struct listing_entry *e) {
    uint64_t sum = e->size * 31 + e->rcpt_count;
    for (const char *p = e->id.text; *p; p++)
        sum = sum * 131 + (unsigned char)*p;
    for (size_t i = 0; i < e->rcpt_count; i++)
        for (size_t k = 0; k < e->rcpts[i].address.n; k++)
            sum = sum * 7 + (unsigned char)e->rcpts[i].address.p[k] + e->rcpts[i].delay_reason.n;
    return sum;
}
static bool see_plain(void *ctx, const struct listing_entry *e) {
    struct packed *p = ctx;
    p->plain++;
    p->sum_plain += sum_of(e);
    return true;
}
static bool see_alone(void *ctx, const struct listing_entry *e) {
    struct packed *p = ctx;
    p->alone++;
    p->sum += sum_of(e);
    return p->frames + p->alone < p->limit;
}
static bool see_packed(void *ctx, struct str entries) {
    struct packed *p = ctx;
    struct unpack u = unpack_from(entries);
    while (u.rest.n > 0) {
        struct listing_entry e;
        if (!listing_unpack(&u, LISTING_MSG_ENTRIES, p->arena, &e)) {
            p->failed++;
            return false;
        }
        p->packed++;
        p->sum += sum_of(&e);
    }
    p->frames++;
    return p->frames + p->alone < p->limit;
}
static void walk_packed(void *arg) {
    struct packed *p = arg;
    showq_walk_packed(p->q, see_alone, see_packed, p);
}

/* Whoever reads them, on threads or not: the same messages as one by one, the large one by itself. */
static void many_at_a_time(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id;
    for (size_t i = 0; i < MANY; i++) {
        assert_null(test_message(w, q.arena, 1 + i, i == 200 ? LARGE_RCPTS : 1 + i % 3, SPOOL_INCOMING, &id));
        assert_null(spool_move(r, &id, SPOOL_INCOMING, SPOOL_DEFERRED));
        for (size_t k = 0; i == 200 && k < LARGE_RCPTS; k += 50)
            assert_null(test_reason(r, &id, SPOOL_DEFERRED, k, STR("a reason of some length, as servers give"), false));
        assert_null(test_reason(r, &id, SPOOL_DEFERRED, 0, STR("busy"), false));
    }
    assert_null(test_message(w, q.arena, 20, 1, SPOOL_HOLD, &id));
    struct showq list = { .spool = test_spool(&q, SPOOL_LISTER), .maildrop_fd = -1 };
    list.peek = spool_peek_new(list.spool);
    for (int threads = 0; threads < 2; threads++) {
        struct packed p = { .q = &list, .arena = q.arena, .limit = SIZE_MAX };
        showq_walk(&list, SHOWQ_ALL, see_plain, &p);
        assert_int_equal(p.plain, MANY + 1);
        if (threads) {
            assert_null(loop_init());
            assert_non_null(coro_spawn(walk_packed, &p, "walk"));
            assert_null(loop_run());
            loop_free();
        } else {
            walk_packed(&p);
        }
        assert_int_equal(p.failed, 0);
        assert_int_equal(p.packed, MANY - 1);
        assert_int_equal(p.alone, 2); /* the large one and the held one */
        assert_true(p.sum == p.sum_plain);
        assert_true(p.frames >= MANY / 200);
        p.limit = 2;
        p.frames = p.alone = p.packed = 0;
        walk_packed(&p);
        assert_int_equal(p.frames + p.alone, 2); /* enough is enough */
    }
    showq_close(&list);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

int main(void) {
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table),
        cmocka_unit_test(the_wide_table),
        cmocka_unit_test(an_empty_queue),
        cmocka_unit_test(what_a_peer_said_stays_in_its_line),
        cmocka_unit_test(every_state_is_walked),
        cmocka_unit_test(many_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
