#include "qmgr/qmgr_world.h"

#include "base/log.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include <errno.h>
#include <sys/socket.h>

struct world *world;

static void log_to_world(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)level;
    (void)tag;
    struct world *w = ctx;
    buf_add(&w->log, text);
    buf_byte(&w->log, '\n');
}

unsigned logged(const char *what) {
    unsigned n = 0;
    struct str rest = buf_str(&world->log), line;
    while (str_next(&rest, STR("\n"), &line))
        n += str_contains(line, str_c(what));
    return n;
}

unsigned delivered(const char *address) {
    unsigned n = 0;
    for (size_t i = 0; i < world->seen_count; i++)
        n += str_eq(world->seen[i], str_c(address));
    return n;
}

/* --- agents --- */

struct agent_arg {
    struct ipc *ipc;
    struct str service;
};

/* False: the agent dies. */
static bool serve(struct ipc *ipc, struct delivery_request *r) {
    struct delivery_done done = { .reason = STR(""), .dsn = STR("") };
    for (size_t i = 0; i < r->env.rcpt_count; i++) {
        struct str to = r->env.rcpts[i].address;
        struct delivery_result res = {
            .rcpt_index = r->rcpt_index[i], .status = DELIVERY_SENT, .dsn = STR("2.0.0"), .reason = STR("delivered")
        };
        res.action = res.diagnostic_type = res.diagnostic = res.remote_type = res.remote_mta = STR("");
        if (str_starts(to, STR("die")))
            return false;
        if (str_starts(to, STR("hang")))
            cond_wait(&world->release, DEADLINE_NEVER);
        if (str_starts(to, STR("forget")))
            continue;
        bool late = str_starts(to, STR("late")) && !world->late_ok;
        if (str_starts(to, STR("defer")) || str_starts(to, STR("dead")) || late) {
            res.status = DELIVERY_DEFERRED;
            res.dsn = STR("4.2.0");
            res.reason = STR("busy now");
        } else if (str_starts(to, STR("bounce"))) {
            res.status = DELIVERY_BOUNCED;
            res.dsn = STR("5.1.1");
            res.reason = STR("no such user");
        } else {
            CHECK(world->seen_count < SEEN_MAX);
            world->seen[world->seen_count++] = arena_str(world->dir.arena, to);
        }
        if (str_starts(to, STR("dead"))) {
            done = (struct delivery_done){ true, STR("connect to there.example: refused"), STR("4.4.1") };
            res.dsn = done.dsn;
        }
        delivery_send_result(ipc, &res);
    }
    delivery_send_done(ipc, &done);
    return !ipc_flush(ipc, DEADLINE_NEVER);
}

static void agent_run(void *arg) {
    struct agent_arg *self = arg;
    struct ipc_msg m = { .fd = -1 };
    bool alive = true;
    while (alive && !ipc_recv(self->ipc, DEADLINE_NEVER, &m)) {
        struct arena *a = arena_new();
        struct delivery_request r;
        alive = delivery_unpack_request(&m, a, &r);
        CHECK(alive);
        if (alive && world->hang_up_once) {
            world->hang_up_once = alive = false;
            content_release(&r.content);
        }
        if (alive) {
            world->requests++;
            if (++world->busy > world->busy_max)
                world->busy_max = world->busy;
            if (r.env.rcpt_count > world->rcpts_max)
                world->rcpts_max = (unsigned)r.env.rcpt_count;
            wait_until(deadline_in_us(1000)); /* so that others run meanwhile */
            alive = world->serve ? world->serve(self->ipc, &r) : serve(self->ipc, &r);
            world->busy--;
            content_release(&r.content);
        }
        arena_free(a);
    }
    ipc_msg_drop(&m);
    ipc_close(self->ipc);
    free(self);
}

static void bounce_run(void *arg) {
    struct agent_arg *self = arg;
    struct ipc_msg m = { .fd = -1 };
    struct arena *a = arena_new();
    struct bounce_request r;
    struct bounce_ahead ahead = { 0 };
    while (!ipc_recv(self->ipc, DEADLINE_NEVER, &m)) {
        if (bounce_unpack_more(&m, a, &ahead))
            continue;
        if (!bounce_unpack_request(&m, a, &ahead, &r))
            break;
        ahead = (struct bounce_ahead){ 0 };
        struct queue_id id;
        queue_id_make(&id, sys->wall_us(), 1, false);
        if (r.kind == BOUNCE_DELAYED)
            world->warnings++;
        else
            world->notices++;
        if (world->told_of)
            world->told_of(&r);
        world->notice_rcpts += r.rcpt_count;
        world->last_action = arena_str(world->dir.arena, r.rcpts[0].action);
        world->last_status = arena_str(world->dir.arena, r.rcpts[0].status);
        bounce_reply(self->ipc, world->bounce_down ? BOUNCE_TEMP : BOUNCE_OK, &id);
        if (world->bounce_down_once)
            world->bounce_down_once = world->bounce_down = false;
        content_release(&r.content);
        if (ipc_flush(self->ipc, DEADLINE_NEVER))
            break;
    }
    ipc_msg_drop(&m);
    arena_free(a);
    ipc_close(self->ipc);
    free(self);
}

static error fake_connect(void *ctx, struct str endpoint, int64_t deadline, struct ipc **ret) {
    (void)ctx;
    (void)deadline;
    bool bounce = str_eq(endpoint, STR("private/bounce")) || str_eq(endpoint, STR("private/defer")) ||
                  str_eq(endpoint, STR("private/trace"));
    if (world->no_transport && !bounce) {
        world->refused++;
        return err_errno(ECONNREFUSED);
    }
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return err_errno(errno);
    struct agent_arg *arg = calloc(1, sizeof *arg);
    if (!arg)
        abort();
    arg->ipc = ipc_new(fds[1]);
    *ret = ipc_new(fds[0]);
    world->connections += !bounce;
    if (!coro_spawn(bounce ? bounce_run : agent_run, arg, "agent"))
        abort();
    return NULL;
}

/* local part "slow...": asks a database that takes its time; domain "there.example": smtp to it; "here.example": local;
 * "nowhere.example": refused; "broken.example": later */
static error fake_resolve(void *ctx, struct arena *a, struct str sender, struct str recipient, struct route *ret) {
    (void)ctx;
    (void)sender;
    struct str domain = address_split(recipient).domain;
    if (world->resolve)
        return world->resolve(a, recipient, ret);
    if (str_starts(recipient, STR("slow")))
        wait_until(deadline_in(SLOW_S));
    if (str_eq(domain, STR("nowhere.example")))
        return err_smtp(a, 550, "5.1.2", "no such domain");
    if (str_eq(domain, STR("broken.example")))
        return err_make(a, ERR_TEMP, "table look-up failed");
    *ret =
        (struct route){ .class = CLASS_DEFAULT, .transport = STR("smtp"), .nexthop = domain, .recipient = recipient };
    if (str_eq(domain, STR("here.example"))) {
        ret->class = CLASS_LOCAL;
        ret->transport = STR("local");
    }
    return NULL;
}

static unsigned fake_limit(void *ctx, struct str transport) {
    (void)ctx;
    (void)transport;
    return world->process_limit;
}

/* --- the world --- */

const struct qmgr_outside world_outside = { fake_connect, fake_resolve, NULL, fake_limit, NULL };

void world_open(struct world *w) {
    w->reader = test_spool(&w->dir, SPOOL_READER);
    assert_true(spool_take_over(w->reader));
    w->q = qmgr_new(w->conf, w->reader, &world_outside, &w->work);
}

void world_close(struct world *w) {
    qmgr_free(w->q);
    spool_close(w->reader);
}

struct world *world_new(const struct conf_override *o, size_t n) {
    fake_sys_install();
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    world = w;
    w->dir = test_queue_new();
    struct conf_source source = { .config_directory = STR("/nonexistent/angarium"),
                                  .overrides = o,
                                  .override_count = n,
                                  .process_name = STR("qmgr"),
                                  .service_name = STR("qmgr"),
                                  .missing_is_empty = true };
    assert_null(conf_load(&source, w->dir.arena, &w->conf));
    w->writer = test_spool(&w->dir, SPOOL_WRITER);
    log_set_sink(log_to_world, w);
    world_open(w);
    return w;
}

void world_free(struct world *w) {
    world_close(w);
    spool_close(w->writer);
    log_set_sink(NULL, NULL);
    conf_free(w->conf);
    buf_free(&w->log);
    test_queue_free(&w->dir);
    int failed = w->failed;
    free(w);
    fake_sys_remove();
    assert_int_equal(failed, 0);
}

struct queue_id mail(struct world *w, const char *from, const char *to, int64_t age_s) {
    struct spool_new *m;
    struct queue_id id = { 0 };
    error e = spool_create(w->writer, &m);
    CHECK(!e);
    if (e)
        return id;
    id = *spool_new_id(m);
    spool_write(m, STR("Subject: test\n\nhello\n"));
    struct envelope env = { .arrival_us = sys->wall_us() - age_s * US_PER_S, .sender = str_c(from) };
    env.dsn_envid = env.content_filter = STR("");
    env.client.name = env.client.reverse_name = env.client.address = env.client.port = env.client.helo = STR("");
    env.client.protocol = env.client.ident = env.client.sasl_method = env.client.sasl_username = STR("");
    env.client.sasl_sender = STR("");
    struct str rest = str_c(to), word;
    env.rcpts = calloc(strlen(to) / 2 + 1, sizeof *env.rcpts);
    assert_non_null(env.rcpts);
    while (str_word(&rest, STR_SPACE, &word)) {
        struct rcpt *r = &env.rcpts[env.rcpt_count++];
        r->address = word;
        r->orig = r->dsn_orcpt = STR("");
        if (str_starts(word, STR("bouncequiet")))
            r->dsn_notify = DSN_NOTIFY_NEVER;
    }
    CHECK(!spool_commit(m, &env, SPOOL_INCOMING));
    free(env.rcpts);
    return id;
}

struct queue_id told(struct world *w, const char *from, const char *to) {
    struct queue_id id = mail(w, from, to, 0);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    return id;
}

size_t in(enum spool_state state) {
    struct spool *l = NULL;
    struct spool_options o = { .queue_directory = str_c(world->dir.dir), .access = SPOOL_LISTER };
    if (spool_open(&o, world->dir.arena, &l))
        return 999;
    size_t n = test_count(l, state);
    spool_close(l);
    return n;
}

void settle(struct world *w) {
    for (int i = 0; i < IDLE_ROUNDS; i++) {
        coro_yield();
        if (!w->q->active.n && !w->q->want_count && !w->q->incoming.running && !w->q->deferred.running)
            return;
        if (wait_until(deadline_in_us(STEP_US)))
            return;
    }
}

void feeder(void *arg) {
    struct world *w = arg;
    feed_run(w->q);
}

static void script_run(void *arg) {
    struct world *w = arg;
    if (!coro_spawn(feeder, w, "feed"))
        abort();
    w->script(w);
    feed_drain(w->q);
    cond_broadcast(&w->release);
    group_wait(&w->work, DEADLINE_NEVER);
    loop_stop();
}

void run(struct world *w, void (*script)(struct world *w)) {
    w->script = script;
    assert_null(loop_init());
    assert_non_null(coro_spawn(script_run, w, "script"));
    assert_null(loop_run());
    /* what is left are agents that wait for a request */
    struct transport *t;
    for (size_t at = 0; (t = scheduler_each(w->q->scheduler, &at));)
        transport_close_idle(t, 0);
    assert_null(loop_run());
    loop_free();
}

void scene(void (*script)(struct world *w), const struct conf_override *o, size_t n) {
    struct world *w = world_new(o, n);
    run(w, script);
    world_free(w);
}
