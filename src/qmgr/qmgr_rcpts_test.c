/* Messages with many recipients: read in pieces, within bounds, beside small mail. Order and delays of deliveries. */
#include "qmgr/qmgr_world.h"

#include "base/log.h"
#include <malloc.h>

/* "NAME1@there.example NAME2@there.example ..." */
static struct str many(struct world *w, const char *name, unsigned from, unsigned count) {
    struct buf b = { 0 };
    for (unsigned i = 0; i < count; i++)
        buf_printf(&b, "%s%u@%s.example ", name, from + i, i % 7 ? "there" : "other");
    struct str s = arena_str(w->dir.arena, buf_str(&b));
    buf_free(&b);
    return s;
}

static unsigned most_rcpts;
static bool wait_for(struct world *w, unsigned seen, int64_t seconds) {
    for (int64_t end = deadline_in(seconds); w->seen_count < seen && sys->mono_us() < end;) {
        if (w->q->rcpts > most_rcpts)
            most_rcpts = (unsigned)w->q->rcpts;
        if (wait_until(deadline_in_us(1000)))
            return false;
    }
    return w->seen_count >= seen;
}

static bool each_once(struct world *w, unsigned count) {
    unsigned char seen[SEEN_MAX] = { 0 };
    for (size_t i = 0; i < w->seen_count; i++) {
        unsigned n = (unsigned)atoi(w->seen[i].p + strlen("ok"));
        if (n < SEEN_MAX && seen[n]++)
            return false;
    }
    unsigned all = 0;
    for (unsigned i = 0; i < count; i++)
        all += seen[i];
    return all == count;
}

static void in_pieces_script(struct world *w) {
    most_rcpts = 0;
    told(w, "list@b.example", many(w, "ok", 0, 3900).p);
    CHECK(wait_for(w, 3900, 600));
    settle(w);
    CHECK(each_once(w, 3900) && logged("removed") == 1 && in(SPOOL_ACTIVE) == 0);
    /* at first 300, later what smtp has room for */
    CHECK(most_rcpts >= 300 && most_rcpts <= 500);
    CHECK(w->q->rcpts == 0 && w->q->hungry == NULL);
}
SCENE(in_pieces, { STR_INIT("qmgr_message_recipient_limit"), STR_INIT("300") },
      { STR_INIT("default_recipient_limit"), STR_INIT("200") })

/* With no room at all: ten at a time, and it gets there. */
static void the_minimum_script(struct world *w) {
    most_rcpts = 0;
    told(w, "list@b.example", many(w, "ok", 0, 1500).p);
    CHECK(wait_for(w, 1500, 600));
    settle(w);
    CHECK(each_once(w, 1500) && logged("removed") == 1);
    CHECK(most_rcpts >= 7 && most_rcpts <= 24);
}
SCENE(the_minimum, { STR_INIT("qmgr_message_recipient_limit"), STR_INIT("1") },
      { STR_INIT("qmgr_message_recipient_minimum"), STR_INIT("7") },
      { STR_INIT("default_recipient_limit"), STR_INIT("0") },
      { STR_INIT("default_extra_recipient_limit"), STR_INIT("0") })

/* Small mail is taken up and delivered while the newsletter has all the room there is for it. */
static void small_mail_beside_it_script(struct world *w) {
    most_rcpts = 0;
    told(w, "list@b.example", many(w, "ok", 0, 3500).p);
    CHECK(wait_for(w, 100, 60));
    for (int i = 0; i < 20; i++) {
        unsigned before = delivered("ok9999@there.example");
        size_t seen = w->seen_count;
        told(w, "a@b.example", "ok9999@there.example");
        while (delivered("ok9999@there.example") == before && w->seen_count < 3500)
            wait_until(deadline_in_us(100));
        /* what is under way, and one more to each of the two destinations */
        CHECK(w->seen_count - seen <= 45 && w->seen_count < 3500);
        CHECK(wait_for(w, (unsigned)w->seen_count + 50, 60));
    }
    CHECK(wait_for(w, 3520, 600));
    settle(w);
    CHECK(logged("removed") == 21);
}
SCENE(small_mail_beside_it, { STR_INIT("qmgr_message_recipient_limit"), STR_INIT("100") },
      { STR_INIT("default_recipient_limit"), STR_INIT("100") },
      { STR_INIT("default_destination_recipient_limit"), STR_INIT("5") },
      { STR_INIT("default_destination_concurrency_limit"), STR_INIT("2") })

static void deferred_and_returned_script(struct world *w) {
    struct str ok = many(w, "ok", 0, 1200), later = many(w, "late", 0, 1300), bad = many(w, "bounce", 0, 100);
    struct buf all = { 0 };
    buf_printf(&all, "%.*s%.*s%.*s", STR_ARG(later), STR_ARG(ok), STR_ARG(bad));
    told(w, "list@b.example", all.p);
    buf_free(&all);
    CHECK(wait_for(w, 1200, 600));
    settle(w);
    CHECK(in(SPOOL_DEFERRED) == 1 && each_once(w, 1200) && w->notices == 1 && w->notice_rcpts == 100);
    /* after a restart only those that are left are tried */
    w->late_ok = true;
    wait_until(deadline_in(1000));
    CHECK(wait_for(w, 2500, 600));
    settle(w);
    CHECK(in(SPOOL_DEFERRED) == 0 && logged("removed") == 1 && w->seen_count == 2500);
    CHECK(logged("nrcpt=1300 (queue active)") == 1 && w->q->rcpts == 0);
}
SCENE(deferred_and_returned, { STR_INIT("qmgr_message_recipient_limit"), STR_INIT("300") },
      { STR_INIT("default_recipient_limit"), STR_INIT("200") })

/* More of them than are kept in memory: the notice has all. */
static void expired_script(struct world *w) {
    mail(w, "list@b.example", many(w, "defer", 0, 1700).p, INT64_C(6) * 24 * 3600);
    feed_trigger(w->q, STR("I"));
    for (int i = 0; i < 50 && !logged("removed"); i++)
        wait_until(deadline_in_us(STEP_US));
    CHECK(w->notice_rcpts == 1700 && logged("status=expired, returned to sender") == 1 && logged("removed") == 1);
}
SCENE(expired)

static void no_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx;
    (void)level;
    (void)tag;
    (void)text;
}

static bool let_go;
static bool never_done(struct ipc *ipc, struct delivery_request *r) {
    (void)ipc;
    (void)r;
    while (!let_go)
        cond_wait(&world->release, DEADLINE_NEVER);
    return false;
}

/* One of 150 takes its time. */
static bool some_stay(struct ipc *ipc, struct delivery_request *r) {
    struct delivery_done done = { .reason = STR(""), .dsn = STR("") };
    struct delivery_result res = { .rcpt_index = r->rcpt_index[0], .status = DELIVERY_SENT, .dsn = STR("2.0.0") };
    res.reason = res.action = res.diagnostic_type = res.diagnostic = res.remote_type = res.remote_mta = STR("");
    while (atoi(r->env.rcpts[0].address.p + strlen("ok")) % 150 == 0 && !let_go)
        cond_wait(&world->release, DEADLINE_NEVER);
    world->seen[world->seen_count++] = arena_str(world->dir.arena, r->env.rcpts[0].address);
    delivery_send_result(ipc, &res);
    delivery_send_done(ipc, &done);
    return !ipc_flush(ipc, DEADLINE_NEVER);
}

/* What is answered is in memory as long as others of its piece wait, and counts. */
static void stragglers_script(struct world *w) {
    let_go = false;
    most_rcpts = 0;
    w->serve = some_stay;
    told(w, "list@b.example", many(w, "ok", 1, 3600).p);
    bool all = wait_for(w, 3600, 600);
    print_message("stalled at %zu, most %u\n", w->seen_count, most_rcpts);
    CHECK(!all && w->seen_count > 500);
    CHECK(most_rcpts <= 300 + 200 + 100);
    let_go = true;
    cond_broadcast(&w->release);
    CHECK(wait_for(w, 3600, 600));
    settle(w);
    CHECK(logged("removed") == 1 && w->q->rcpts == 0);
}
SCENE(stragglers, { STR_INIT("qmgr_message_recipient_limit"), STR_INIT("300") },
      { STR_INIT("default_recipient_limit"), STR_INIT("200") },
      { STR_INIT("default_destination_recipient_limit"), STR_INIT("1") })

/* What the allocator has given out since `before`, for each of `n`. Nothing with a sanitizer's allocator. */
static size_t memory_each(size_t before, size_t n) {
    size_t now = mallinfo2().uordblks;
    return now > before ? (now - before) / n : 0;
}

/* 256 MiB for a million queued messages: that is for 20,000 active ones, and all that README.md allows of recipients.
 */
static void memory_script(struct world *w) {
    enum { MESSAGES = 2000, RCPTS = 3900, MESSAGE_BYTES = 2048, RCPT_BYTES = 256 };
    let_go = false;
    w->serve = never_done;
    log_set_sink(no_log, NULL);
    told(w, "a@b.example", "ok@there.example"); /* what there is but once */
    while (w->busy == 0)
        wait_until(deadline_in_us(STEP_US));
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < MESSAGES; i++)
        told(w, "somebody@somewhere.example", "somebody.else@there.example");
    while (w->q->active.n < MESSAGES + 1 || w->q->assigning)
        wait_until(deadline_in_us(STEP_US));
    size_t message = memory_each(before, MESSAGES);
    struct str list = many(w, "somebody.else.or.other", 0, RCPTS);
    before = mallinfo2().uordblks;
    told(w, "somebody@somewhere.example", list.p);
    while (w->q->rcpts < MESSAGES + 1 + RCPTS || w->q->assigning)
        wait_until(deadline_in_us(STEP_US));
    size_t rcpt = memory_each(before, RCPTS);
    print_message("bytes: %zu an active message, %zu a recipient\n", message, rcpt);
    CHECK(message <= MESSAGE_BYTES && rcpt <= RCPT_BYTES);
    let_go = true;
}
SCENE(memory, { STR_INIT("default_destination_concurrency_limit"), STR_INIT("1") })

static void rate_delay_script(struct world *w) {
    int64_t begin = sys->wall_us();
    for (int i = 0; i < 3; i++)
        told(w, "a@b.example", "ok@there.example");
    told(w, "a@b.example", "ok@other.example");
    for (unsigned i = 1; i <= 3; i++) {
        wait_until(deadline_in_us(STEP_US));
        while (w->requests < i + 1)
            wait_until(deadline_in_us(STEP_US));
        int64_t took = sys->wall_us() - begin;
        CHECK(took >= (i - 1) * 100 * US_PER_S && took < ((i - 1) * 100 + 2) * US_PER_S);
    }
    settle(w);
    CHECK(delivered("ok@there.example") == 3 && w->busy_max == 2);
}
SCENE(rate_delay, { STR_INIT("smtp_destination_rate_delay"), STR_INIT("100s") })

/* The sender who was warned hears of the end of the delay, once, and only who was warned. */
static void delay_cleared_script(struct world *w) {
    struct queue_id id = mail(w, "a@b.example", "late1@there.example late2@there.example", INT64_C(3) * 3600);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    told(w, "a@b.example", "late3@there.example");
    settle(w);
    CHECK(w->warnings == 1 && w->notices == 0);
    w->late_ok = true;
    wait_until(deadline_in(4400));
    settle(w);
    CHECK(w->seen_count == 3 && w->notices == 1 && w->notice_rcpts == 4);
    CHECK(str_eq(w->last_action, STR("delivered")) && str_eq(w->last_status, STR("2.0.0")));
}
static void delay_not_confirmed_script(struct world *w) {
    struct queue_id id = mail(w, "a@b.example", "late1@there.example late2@there.example", INT64_C(3) * 3600);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    settle(w);
    w->late_ok = true;
    wait_until(deadline_in(4400));
    settle(w);
    CHECK(w->warnings == 1 && w->seen_count == 2 && w->notices == 0);
}
SCENE(delay_not_confirmed, { STR_INIT("delay_warning_time"), STR_INIT("2h") })
SCENE(delay_cleared, { STR_INIT("delay_warning_time"), STR_INIT("2h") },
      { STR_INIT("confirm_delay_cleared"), STR_INIT("yes") })

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_pieces),
        cmocka_unit_test(the_minimum),
        cmocka_unit_test(small_mail_beside_it),
        cmocka_unit_test(deferred_and_returned),
        cmocka_unit_test(expired),
        cmocka_unit_test(memory),
        cmocka_unit_test(stragglers),
        cmocka_unit_test(rate_delay),
        cmocka_unit_test(delay_cleared),
        cmocka_unit_test(delay_not_confirmed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
