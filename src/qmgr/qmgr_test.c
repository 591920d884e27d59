/* The queue manager whole: scenes, see qmgr_world.h. */
#include "qmgr/qmgr_world.h"

#include "mail/address.h"
#include "mail/dsn.h"
#include <errno.h>

/* --- scenes --- */

static void delivered_and_gone_script(struct world *w) {
    struct queue_id id = told(w, "from@here.example", "ok1@there.example ok2@there.example ok3@other.example");
    settle(w);
    CHECK(delivered("ok1@there.example") == 1 && delivered("ok2@there.example") == 1 &&
          delivered("ok3@other.example") == 1);
    CHECK(w->requests == 2);
    char line[128];
    snprintf(line, sizeof line, "%s: from=<from@here.example>, size=21, nrcpt=3 (queue active)", id.text);
    CHECK(logged(line) == 1);
    snprintf(line, sizeof line, "%s: removed", id.text);
    CHECK(logged(line) == 1);
    CHECK(in(SPOOL_ACTIVE) + in(SPOOL_INCOMING) + in(SPOOL_DEFERRED) == 0);
    /* the connection serves again */
    told(w, "", "ok4@there.example");
    settle(w);
    CHECK(w->requests == 3 && w->connections == 2);
    CHECK(logged("from=<>, size=21, nrcpt=1 (queue active)") == 1);
}
SCENE(delivered_and_gone)

static void found_without_a_notice_script(struct world *w) {
    mail(w, "a@b.example", "ok@there.example", 0);
    feed_trigger(w->q, STR("W"));
    settle(w);
    CHECK(delivered("ok@there.example") == 1);
}
SCENE(found_without_a_notice)

static void deferred_and_tried_again_script(struct world *w) {
    struct queue_id id = told(w, "a@b.example", "late@there.example ok@there.example");
    settle(w);
    CHECK(delivered("ok@there.example") == 1);
    CHECK(in(SPOOL_DEFERRED) == 1);
    struct spool_failure *f;
    size_t n;
    CHECK(!spool_reasons_read(w->reader, &id, SPOOL_DEFERRED, w->dir.arena, &f, &n) && n == 1 &&
          str_eq(f[0].reason, STR("busy now")) && str_eq(f[0].action, STR("delayed")));
    wait_until(deadline_in(200)); /* not before minimal_backoff_time */
    CHECK(w->requests == 1);
    w->late_ok = true;
    wait_until(deadline_in(500));
    settle(w);
    CHECK(delivered("late@there.example") == 1 && delivered("ok@there.example") == 1);
    CHECK(in(SPOOL_DEFERRED) == 0 && logged("removed") == 1);
}
SCENE(deferred_and_tried_again)

/* Between tries: as long as the message is old, within the two bounds. */
static void the_times_between_tries_script(struct world *w) {
    told(w, "a@b.example", "defer@there.example");
    int64_t begin = sys->wall_us(), last = begin;
    unsigned seen = 0;
    for (int i = 0; i < 6000 && seen < 9; i++) {
        settle(w);
        if (w->requests > seen) {
            int64_t now = sys->wall_us(), gap = (now - last) / US_PER_S, age = (last - begin) / US_PER_S;
            if (seen > 0) {
                int64_t want = age < 100 ? 100 : age > 1000 ? 1000 : age;
                CHECK(gap >= want - 1 && gap <= want + 25); /* queue_run_delay and the steps here */
            }
            last = now;
            seen = w->requests;
        }
        wait_until(deadline_in(5));
    }
    CHECK(seen == 9);
}
SCENE(the_times_between_tries, { STR_INIT("minimal_backoff_time"), STR_INIT("100s") },
      { STR_INIT("maximal_backoff_time"), STR_INIT("1000s") }, { STR_INIT("queue_run_delay"), STR_INIT("10s") })

static void returned_to_the_sender_script(struct world *w) {
    told(w, "a@b.example", "bounce@there.example ok@there.example bouncequiet@there.example");
    settle(w);
    CHECK(w->notices == 1 && w->notice_rcpts == 1);
    CHECK(str_eq(w->last_action, STR("failed")) && str_eq(w->last_status, STR("5.1.1")));
    CHECK(logged("removed") == 1 && in(SPOOL_DEFERRED) == 0);
}
SCENE(returned_to_the_sender)

static void no_notice_no_removal_script(struct world *w) {
    w->bounce_down = true;
    struct queue_id id = told(w, "a@b.example", "bounce@there.example ok@there.example");
    settle(w);
    struct spool_failure *f;
    size_t n;
    CHECK(in(SPOOL_DEFERRED) == 1 && logged("removed") == 0 && logged("status=deferred (bounce failed)") == 1);
    CHECK(!spool_log_read(w->reader, &id, SPOOL_LOG_BOUNCE, w->dir.arena, &f, &n) && n == 1);
    w->bounce_down = false;
    wait_until(deadline_in(1000));
    settle(w);
    CHECK(delivered("ok@there.example") == 1 && w->requests == 1); /* neither is tried again */
    CHECK(w->notices == 2 && in(SPOOL_DEFERRED) == 0 && logged("removed") == 1);
}
SCENE(no_notice_no_removal)

static void expired_script(struct world *w) {
    struct queue_id id = mail(w, "a@b.example", "defer1@there.example defer2@there.example", INT64_C(6) * 24 * 3600);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    id = mail(w, "", "defer3@there.example", INT64_C(6) * 24 * 3600);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    settle(w);
    CHECK(logged("from=<a@b.example>, status=expired, returned to sender") == 1);
    CHECK(logged("from=<>, status=expired, returned to sender") == 0); /* bounce_queue_lifetime = 7d here */
    CHECK(w->notices == 1 && w->notice_rcpts == 2 && str_eq(w->last_action, STR("failed")));
    CHECK(in(SPOOL_DEFERRED) == 1);
}
SCENE(expired, { STR_INIT("bounce_queue_lifetime"), STR_INIT("7d") })

static void returned_only_once_script(struct world *w) {
    w->bounce_down = w->bounce_down_once = true; /* the first notice is not taken, the second is */
    struct queue_id id = mail(w, "a@b.example", "bounce@there.example defer@there.example", INT64_C(6) * 24 * 3600);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    settle(w);
    CHECK(w->notices == 2 && in(SPOOL_DEFERRED) == 1);
    wait_until(deadline_in(5000));
    settle(w);
    CHECK(w->notices == 3 && w->requests == 1); /* what has been returned is not tried again */
    CHECK(in(SPOOL_DEFERRED) == 0 && logged("removed") == 1);
}
SCENE(returned_only_once)

static void tried_only_once_script(struct world *w) {
    told(w, "a@b.example", "defer1@there.example");
    settle(w);
    CHECK(w->notices == 1 && in(SPOOL_DEFERRED) == 0);
}
SCENE(tried_only_once, { STR_INIT("maximal_queue_lifetime"), STR_INIT("0") })

static void warned_once_script(struct world *w) {
    struct queue_id id = mail(w, "a@b.example", "defer1@there.example ok@there.example", INT64_C(3) * 3600);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    id = mail(w, "a@b.example", "defer1@there.example", 3600);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    settle(w);
    CHECK(w->warnings == 1 && w->notice_rcpts == 1 && str_eq(w->last_action, STR("delayed")));
    wait_until(deadline_in(30000));
    settle(w);
    CHECK(w->requests > 4);
    CHECK(w->warnings == 2); /* the second one is old enough by now; the first is not told twice */
}
SCENE(warned_once, { STR_INIT("delay_warning_time"), STR_INIT("2h") })

static void no_transport_script(struct world *w) {
    w->no_transport = true;
    told(w, "a@b.example", "ok1@there.example ok2@other.example");
    told(w, "a@b.example", "ok3@there.example");
    settle(w);
    CHECK(in(SPOOL_DEFERRED) == 2);
    CHECK(logged("dsn=4.3.0, status=deferred (mail transport unavailable)") == 3);
    unsigned refused = w->refused;
    told(w, "a@b.example", "ok4@there.example");
    settle(w);
    CHECK(w->refused == refused); /* not asked again before transport_retry_time */
    w->no_transport = false;
    wait_until(deadline_in(61));
    told(w, "a@b.example", "ok5@there.example");
    settle(w);
    CHECK(delivered("ok5@there.example") == 1);
}
SCENE(no_transport)

static void dead_destination_script(struct world *w) {
    for (int i = 0; i < 12; i++)
        told(w, "a@b.example", "dead@there.example");
    settle(w);
    CHECK(in(SPOOL_DEFERRED) == 12);
    CHECK(w->requests < 12);
    CHECK(logged("relay=none") ==
          logged("status=deferred (delivery temporarily suspended: connect to there.example: refused)"));
    CHECK(logged("dsn=4.4.1, status=deferred (delivery temporarily suspended") == 12 - w->requests);
    told(w, "a@b.example", "ok@other.example");
    settle(w);
    CHECK(delivered("ok@other.example") == 1);
    /* trigger F forgets it */
    feed_trigger(w->q, STR("F"));
    told(w, "a@b.example", "ok@there.example");
    settle(w);
    CHECK(delivered("ok@there.example") == 1);
}
SCENE(dead_destination)

static void the_agent_dies_script(struct world *w) {
    told(w, "a@b.example", "ok1@there.example die@there.example ok2@there.example");
    told(w, "a@b.example", "ok3@other.example");
    settle(w);
    CHECK(delivered("ok3@other.example") == 1);
    CHECK(logged("to=<die@there.example>, relay=none") == 1 &&
          logged("dsn=4.3.0, status=deferred (unknown mail transport error)") >= 2);
    CHECK(in(SPOOL_DEFERRED) == 1);
}
SCENE(the_agent_dies)

static void the_agent_forgets_script(struct world *w) {
    told(w, "a@b.example", "forget@there.example ok@there.example");
    settle(w);
    CHECK(delivered("ok@there.example") == 1 && in(SPOOL_DEFERRED) == 1);
    CHECK(logged("status=deferred (unknown mail transport error)") == 1);
    told(w, "a@b.example", "ok@there.example"); /* and is no suspect for it */
    settle(w);
    CHECK(delivered("ok@there.example") == 2);
}
SCENE(the_agent_forgets)

/* An agent that has ended while its connection was idle costs nobody anything. */
static void a_stale_connection_script(struct world *w) {
    told(w, "a@b.example", "ok1@there.example");
    settle(w);
    struct transport *t = scheduler_transport(w->q->scheduler, STR("smtp"));
    bool used;
    struct ipc *ipc;
    CHECK(!transport_connect(w->q, t, &ipc, &used) && used);
    shutdown(ipc_fd(ipc), SHUT_RDWR);
    transport_keep(w->q, t, ipc);
    told(w, "a@b.example", "ok2@there.example");
    settle(w);
    CHECK(delivered("ok2@there.example") == 1 && w->connections == 2);
}
SCENE(a_stale_connection)

/* The agent ends just as the next request comes: it has not been seen, so it goes to another. */
static void an_agent_that_ends_script(struct world *w) {
    told(w, "a@b.example", "ok1@there.example");
    settle(w);
    w->hang_up_once = true;
    told(w, "a@b.example", "ok2@there.example");
    settle(w);
    CHECK(delivered("ok2@there.example") == 1 && w->connections == 2 && !logged("status=deferred"));
}
SCENE(an_agent_that_ends)

/* The same on a connection that is new: an agent that drains takes it and closes it. */
static void an_agent_that_drains_script(struct world *w) {
    w->hang_up_once = true;
    told(w, "a@b.example", "ok@there.example");
    settle(w);
    CHECK(delivered("ok@there.example") == 1 && w->connections == 2 && !logged("status=deferred"));
}
SCENE(an_agent_that_drains)

/* Whoever is done is marked at once, not when the last one is: a crash in between must not deliver twice. */
static void marked_at_once_script(struct world *w) {
    struct queue_id id = told(w, "a@b.example", "ok@there.example hang@other.example bounce@third.example");
    for (int i = 0; i < 20; i++)
        wait_until(deadline_in_us(STEP_US));
    struct envelope env;
    CHECK(w->q->active.n == 1 && !spool_load(w->reader, &id, SPOOL_ACTIVE, w->dir.arena, &env, NULL));
    CHECK(env.rcpts[0].state == RCPT_DONE && env.rcpts[1].state == RCPT_TODO && env.rcpts[2].state == RCPT_DONE);
    cond_broadcast(&w->release);
    settle(w);
    CHECK(w->notices == 1 && logged("removed") == 1);
}
SCENE(marked_at_once)

static void concurrency_script(struct world *w) {
    for (int i = 0; i < 30; i++)
        told(w, "a@b.example", "ok@there.example");
    settle(w);
    CHECK(delivered("ok@there.example") == 30);
    CHECK(w->busy_max == 2);
}
SCENE(concurrency, { STR_INIT("smtp_destination_concurrency_limit"), STR_INIT("2") })

static void recipients_per_delivery_script(struct world *w) {
    struct buf to = { 0 };
    for (int i = 0; i < 120; i++)
        buf_printf(&to, "ok%d@there.example ", i);
    told(w, "a@b.example", to.p);
    buf_free(&to);
    settle(w);
    CHECK(w->seen_count == 120 && w->requests == 3 && w->rcpts_max == 50);
    told(w, "a@b.example", "ok@here.example ok@here.example user+x@here.example");
    settle(w);
    CHECK(w->seen_count == 123 && w->requests == 6); /* local: one each */
    CHECK(scheduler_transport(w->q->scheduler, STR("local"))->destinations.n <= 2);
}
SCENE(recipients_per_delivery, { STR_INIT("recipient_delimiter"), STR_INIT("+") })

static void resolving_script(struct world *w) {
    told(w, "a@b.example", "x@nowhere.example");
    told(w, "a@b.example", "x@broken.example");
    told(w, "a@b.example", "double-bounce@here.example");
    told(w, "a@b.example", "double-bounce@there.example");
    settle(w);
    CHECK(logged("to=<x@nowhere.example>, relay=none") == 1 &&
          logged("dsn=5.1.2, status=bounced (no such domain)") == 1);
    CHECK(w->notices == 1);
    CHECK(logged("dsn=4.3.0, status=deferred (table look-up failed)") == 1);
    CHECK(logged("dsn=2.0.0, status=sent (undeliverable postmaster notification discarded)") == 1);
    CHECK(delivered("double-bounce@there.example") == 1);
    CHECK(in(SPOOL_DEFERRED) == 1);
}
SCENE(resolving)

static void soft_bounce_script(struct world *w) {
    told(w, "a@b.example", "x@nowhere.example");
    settle(w);
    CHECK(logged("dsn=4.1.2, status=SOFTBOUNCE (no such domain)") == 1 && in(SPOOL_DEFERRED) == 1 && w->notices == 0);
}
SCENE(soft_bounce, { STR_INIT("soft_bounce"), STR_INIT("yes") })

static void deferred_transport_and_flush_script(struct world *w) {
    told(w, "a@b.example", "ok@there.example");
    settle(w);
    CHECK(logged("dsn=4.3.2, status=deferred (deferred transport)") == 1 && w->requests == 0);
    wait_until(deadline_in(1000));
    settle(w);
    CHECK(w->requests == 0);
    feed_trigger(w->q, STR("DFA"));
    settle(w);
    CHECK(delivered("ok@there.example") == 1);
}
SCENE(deferred_transport_and_flush, { STR_INIT("defer_transports"), STR_INIT("uucp, smtp") })

static void flush_of_one_script(struct world *w) {
    told(w, "a@b.example", "late@there.example");
    struct queue_id id = told(w, "a@b.example", "late@there.example");
    settle(w);
    w->late_ok = true;
    CHECK(!feed_deferred_id(w->q, &id, true));
    settle(w);
    CHECK(delivered("late@there.example") == 1 && in(SPOOL_DEFERRED) == 1);
}
SCENE(flush_of_one)

static void damaged_script(struct world *w) {
    struct queue_id id = mail(w, "a@b.example", "ok@there.example", 0);
    char path[128];
    snprintf(path, sizeof path, "%s/incoming/%s", w->dir.dir, id.text);
    CHECK(truncate(path, 100) == 0);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    told(w, "a@b.example", "ok@there.example");
    settle(w);
    CHECK(in(SPOOL_CORRUPT) == 1 && delivered("ok@there.example") == 1);
    char line[128];
    snprintf(line, sizeof line, "saving corrupt file \"%s\" from queue \"incoming\" to queue \"corrupt\"", id.text);
    CHECK(logged(line) == 1);
}
SCENE(damaged)

static void memory_is_bounded_script(struct world *w) {
    for (int i = 0; i < 40; i++)
        mail(w, "a@b.example", "hang@there.example", 0);
    feed_trigger(w->q, STR("I"));
    for (int i = 0; i < 100; i++)
        wait_until(deadline_in_us(STEP_US));
    CHECK(w->q->active.n == 7 && in(SPOOL_INCOMING) == 33);
    for (int i = 0; i < 200 && w->seen_count < 40; i++) {
        cond_broadcast(&w->release);
        wait_until(deadline_in_us(STEP_US));
    }
    CHECK(w->seen_count == 40);
}
SCENE(memory_is_bounded, { STR_INIT("qmgr_message_active_limit"), STR_INIT("7") })

/* The first one ends while it delivers; the second has the queue at once, but not that message. */
static void drain_script(struct world *w) {
    told(w, "a@b.example", "hang@there.example");
    for (int i = 0; i < 20; i++)
        wait_until(deadline_in_us(STEP_US));
    CHECK(w->requests == 1);
    for (int i = 0; i < 5; i++)
        told(w, "a@b.example", "hang@there.example");
    for (int i = 0; i < 20; i++)
        wait_until(deadline_in_us(STEP_US));
    CHECK(w->q->active.n == 6 && w->requests == 2);
    feed_drain(w->q);
    for (int i = 0; i < 20; i++)
        wait_until(deadline_in_us(STEP_US));
    CHECK(w->q->active.n == 2 && in(SPOOL_ACTIVE) == 6);
    spool_hand_over(w->reader);

    struct qmgr *old = w->q;
    struct spool *old_reader = w->reader;
    struct spool_options o = { .queue_directory = str_c(w->dir.dir), .access = SPOOL_READER };
    CHECK(!spool_open(&o, w->dir.arena, &w->reader) && spool_take_over(w->reader));
    w->q = qmgr_new(w->conf, w->reader, &world_outside, &w->work);
    CHECK(coro_spawn(feeder, w, "feed"));
    for (int i = 0; i < 20; i++)
        wait_until(deadline_in_us(STEP_US));
    CHECK(logged("skipped, still being delivered") == 2 && w->q->active.n == 4);
    for (int i = 0; i < 200 && in(SPOOL_ACTIVE); i++) {
        cond_broadcast(&w->release);
        wait_until(deadline_in_us(STEP_US));
    }
    CHECK(w->seen_count == 6 && in(SPOOL_ACTIVE) == 0 && logged("removed") == 6);
    CHECK(old->active.n == 0);
    qmgr_free(old);
    spool_close(old_reader);
}
SCENE(drain, { STR_INIT("smtp_destination_concurrency_limit"), STR_INIT("2") })

/* Who waits for a database keeps nobody else waiting, and its recipients are still delivered together. */
static void a_slow_table_script(struct world *w) {
    told(w, "a@b.example", "slow1@there.example slow2@there.example slow3@there.example");
    for (int i = 0; i < 3 * SLOW_S + 5; i++) {
        told(w, "a@b.example", "ok@there.example");
        wait_until(deadline_in(1));
        CHECK(delivered("ok@there.example") >= (unsigned)i); /* not held up */
    }
    CHECK(delivered("ok@there.example") == 3 * SLOW_S + 5);
    CHECK(delivered("slow1@there.example") == 1 && delivered("slow3@there.example") == 1);
    CHECK(w->rcpts_max == 3 && w->requests == 3 * SLOW_S + 6 && w->q->assigning == 0);
}
SCENE(a_slow_table)

/* Not even many of them; but only so many wait at a time. */
static void many_slow_tables_script(struct world *w) {
    const unsigned most = ASSIGNING_MAX;
    for (unsigned i = 0; i < most + 50; i++)
        told(w, "a@b.example", "slow@there.example");
    wait_until(deadline_in(1));
    CHECK(w->q->assigning == most && w->q->active.n == most);
    told(w, "a@b.example", "ok@there.example");
    wait_until(deadline_in(2 * SLOW_S));
    settle(w);
    CHECK(delivered("slow@there.example") == most + 50 && delivered("ok@there.example") == 1 && !w->q->assigning);
}
SCENE(many_slow_tables)

/* The answer comes when it is too late to deliver: the message is left for the next one, and this one ends. */
static void drain_while_asking_script(struct world *w) {
    told(w, "a@b.example", "slow@there.example ok@there.example");
    wait_until(deadline_in(1));
    CHECK(w->q->assigning == 1);
    feed_drain(w->q);
    CHECK(!group_wait(&w->work, deadline_in(2 * SLOW_S)));
    CHECK(w->seen_count == 0 && w->q->active.n == 0 && in(SPOOL_ACTIVE) == 1 && w->q->assigning == 0);
}
SCENE(drain_while_asking)

/* What was active when the last one was killed. */
static void taken_up_again(void **state) {
    (void)state;
    const struct conf_override o[] = { { STR_INIT("myhostname"), STR_INIT("test.example") } };
    struct world *w = world_new(o, 1);
    struct queue_id id = mail(w, "a@b.example", "ok1@there.example ok2@there.example bounce@there.example", 0);
    assert_null(spool_move(w->reader, &id, SPOOL_INCOMING, SPOOL_ACTIVE));
    assert_null(spool_mark_done(w->reader, &id, SPOOL_ACTIVE, 0));
    struct spool_failure f = test_failure(2, STR("no such user"));
    f.action = STR("failed");
    assert_null(spool_log_add(w->reader, &id, SPOOL_LOG_BOUNCE, &f));
    assert_null(spool_mark_done(w->reader, &id, SPOOL_ACTIVE, 2));
    run(w, settle);
    CHECK(delivered("ok1@there.example") == 0 && delivered("ok2@there.example") == 1);
    CHECK(w->notices == 1 && logged("removed") == 1 && in(SPOOL_ACTIVE) == 0);
    world_free(w);
}

enum { BACKLOG = 300 };

/* Messages from before the start, to be tried again at that time. */
static void with_backlog(int64_t next_try, void (*what)(struct world *w)) {
    const struct conf_override o[] = { { STR_INIT("myhostname"), STR_INIT("test.example") } };
    struct world *w = world_new(o, 1);
    for (unsigned i = 0; i < BACKLOG; i++) {
        struct queue_id id = mail(w, "a@b.example", "old@there.example", 0);
        /* some have waited, some were active when the last one was ended */
        enum spool_state state = i % 3 || next_try > 1 ? SPOOL_DEFERRED : SPOOL_ACTIVE;
        assert_null(spool_move(w->reader, &id, SPOOL_INCOMING, state));
        assert_null(spool_set_next_try(w->reader, &id, state, next_try));
    }
    run(w, what);
    world_free(w);
}

/* New mail that comes at the start is served while the backlog has hardly begun; soon there is no pause any more. */
static void slow_start_script(struct world *w) {
    told(w, "a@b.example", "new@there.example");
    wait_until(deadline_in_us(95000));
    CHECK(delivered("new@there.example") == 1);
    CHECK(delivered("old@there.example") > 0 && delivered("old@there.example") < 15);
    wait_until(deadline_in(2));
    CHECK(delivered("old@there.example") == BACKLOG);
}

static void slow_start(void **state) {
    (void)state;
    with_backlog(1, slow_start_script);
}

/* Who asks for all of it now does not wait for that. */
static void flush_at_the_start_script(struct world *w) {
    feed_trigger(w->q, STR("FAD"));
    wait_until(deadline_in_us(95000));
    CHECK(delivered("old@there.example") == BACKLOG);
}

static void flush_at_the_start(void **state) {
    (void)state;
    with_backlog(1, flush_at_the_start_script);
}

/* A scan has begun already, and passes over all of them: the one that was asked for meanwhile follows. */
static void flush_during_a_scan_script(struct world *w) {
    wait_until(deadline_in_us(15000));
    CHECK(w->q->deferred.running && w->seen_count == 0);
    feed_trigger(w->q, STR("FAD"));
    wait_until(deadline_in_us(95000));
    CHECK(delivered("old@there.example") == BACKLOG);
}

static void flush_during_a_scan(void **state) {
    (void)state;
    with_backlog(FAKE_WALL_START + INT64_C(60) * US_PER_S, flush_during_a_scan_script);
}

/* Each file call fails once, somewhere: nothing is lost, and what can be delivered is, at the latest by the next start.
 */
static void faults(void **state) {
    (void)state;
    static const char *const calls[] = { "openat",    "pread", "pwrite", "fstatat", "renameat", "unlinkat",
                                         "utimensat", "fsync", "flock",  "fchmod",  "mkdirat" };
    static const int errors[] = { EIO, ENOSPC, EMFILE };
    const struct conf_override o[] = { { STR_INIT("myhostname"), STR_INIT("test.example") } };
    for (size_t c = 0; c < sizeof calls / sizeof calls[0]; c++) {
        for (unsigned at = 1;; at++) {
            struct world *w = world_new(o, 1);
            mail(w, "a@b.example", "ok1@there.example bounce@there.example late@other.example", 0);
            mail(w, "a@b.example", "ok2@there.example", 0);
            fake_sys_fail(calls[c], at, errors[at % 3]);
            run(w, settle);
            bool none_left = fake_sys_clear_faults() > 0; /* the fault never came: all places have been tried */
            w->late_ok = true;
            size_t files = in(SPOOL_INCOMING) + in(SPOOL_ACTIVE) + in(SPOOL_DEFERRED);
            bool ok1 = delivered("ok1@there.example") > 0, ok2 = delivered("ok2@there.example") > 0;
            if (files < (ok2 ? 1U : 2U) || (!ok1 && files == 0))
                fail_msg("%s %u: a message is lost\n%.*s", calls[c], at, STR_ARG(buf_str(&w->log)));
            /* the next one, with everything well and hours later */
            world_close(w);
            world_open(w);
            fake_sys_advance(INT64_C(7200) * US_PER_S);
            run(w, settle);
            if (delivered("ok1@there.example") < 1 || delivered("ok2@there.example") < 1 ||
                delivered("late@other.example") < 1 || w->notices < 1 || in(SPOOL_CORRUPT) > 0)
                fail_msg("%s %u: not delivered\n%.*s", calls[c], at, STR_ARG(buf_str(&w->log)));
            if (in(SPOOL_INCOMING) + in(SPOOL_ACTIVE) + in(SPOOL_DEFERRED) > 0)
                fail_msg("%s %u: still there\n%.*s", calls[c], at, STR_ARG(buf_str(&w->log)));
            world_free(w);
            if (none_left)
                break;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delivered_and_gone),
        cmocka_unit_test(found_without_a_notice),
        cmocka_unit_test(deferred_and_tried_again),
        cmocka_unit_test(the_times_between_tries),
        cmocka_unit_test(returned_to_the_sender),
        cmocka_unit_test(no_notice_no_removal),
        cmocka_unit_test(expired),
        cmocka_unit_test(returned_only_once),
        cmocka_unit_test(tried_only_once),
        cmocka_unit_test(warned_once),
        cmocka_unit_test(no_transport),
        cmocka_unit_test(dead_destination),
        cmocka_unit_test(the_agent_dies),
        cmocka_unit_test(the_agent_forgets),
        cmocka_unit_test(a_stale_connection),
        cmocka_unit_test(an_agent_that_ends),
        cmocka_unit_test(an_agent_that_drains),
        cmocka_unit_test(marked_at_once),
        cmocka_unit_test(concurrency),
        cmocka_unit_test(recipients_per_delivery),
        cmocka_unit_test(resolving),
        cmocka_unit_test(soft_bounce),
        cmocka_unit_test(deferred_transport_and_flush),
        cmocka_unit_test(flush_of_one),
        cmocka_unit_test(damaged),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(a_slow_table),
        cmocka_unit_test(many_slow_tables),
        cmocka_unit_test(drain),
        cmocka_unit_test(drain_while_asking),
        cmocka_unit_test(taken_up_again),
        cmocka_unit_test(slow_start),
        cmocka_unit_test(flush_at_the_start),
        cmocka_unit_test(flush_during_a_scan),
        cmocka_unit_test(faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
