/* Model check: the queue manager with its spool, driven by random operations, beside a model that knows only what may
 * happen to a message. The clock is fake: months pass in seconds.
 *
 * The model schedules nothing. It has a list of messages and what became of each recipient, hears what agents, the
 * bounce service and the log hear, and says of each event whether it may be:
 *   - nothing is lost: a message goes when each recipient was delivered or the sender has been told of it, and not
 * before;
 *   - nothing is delivered twice (there is no crash here), nor after it was returned;
 *   - limits: deliveries at a time to a destination and of a transport, recipients of a delivery, pauses between
 *     deliveries, messages and recipients in memory;
 *   - times: the next try not before the message's age, within the backoff limits, is over again, and not much later;
 *     return when the lifetime is over and a try has failed; one warning, not early;
 *   - held mail is not touched, deferred transports deliver only in a flush;
 *   - a small message behind large ones waits for no more deliveries of theirs than the delivery slots allow.
 *
 * ANGARIUM_MODEL_RUNS: so many seeds instead of a few; ANGARIUM_MODEL_SEED: the first one. */
#include "qmgr/qmgr_world.h"

#include "base/log.h"
#include "mail/address.h"
#include <errno.h>
#include <stdio.h>

enum {
    RUNS = 2,
    STEPS = 110,
    MESSAGES_MAX = 3000,
    RCPT_LIMIT = 4, /* per delivery */
    WINDOW = 4,     /* per destination */
    PROCESSES = 6,  /* per transport */
    ACTIVE_LIMIT = 60,
    RCPTS_MEMORY = 800, /* qmgr_message_recipient_limit and default_recipient_limit */
    RCPTS_EXTRA = 100,
    RCPTS_MINIMUM = 5,
    RATE_S = 20, /* between deliveries of `slow` to a destination */
    BACKOFF_MIN_S = 300,
    BACKOFF_MAX_S = 4000,
    RUN_DELAY_S = 200,
    LIFETIME_S = 2 * 86400,
    BOUNCE_LIFETIME_S = 86400,
    WARN_S = 4 * 3600,
    SLOT_COST = 5,
    SLOT_LOAN = 3,
    SMALL_MAX = 12,  /* recipients of a message that is not large */
    LARGE_MIN = 200, /* of a large one */
    SLACK_S = 120,   /* a scan, other deliveries of the same message, notices */
    SERVICE_S_MAX = 3,
};

#define DAY (INT64_C(86400) * US_PER_S)

/* --- random numbers: splitmix64 --- */

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}
/* For the operations: a sequence. */
static uint64_t random_state;
static unsigned below(unsigned n) {
    return (unsigned)(mix(random_state += UINT64_C(0x9e3779b97f4a7c15)) % n);
}
static bool percent(unsigned n) {
    return below(100) < n;
}

/* --- the model --- */

/* For what happens to a recipient: of it, the how manieth time and the question alone. The order of events is not the
 * same each time (hash tables have seeds of their own), and must not change the rest. */
enum question { Q_TEMPORARY, Q_SLOW_TABLE, Q_TIME, Q_DIES, Q_FORGETS, Q_DEFERS, Q_BOUNCES, Q_TWICE };
static unsigned of(uint64_t seed, unsigned message, unsigned rcpt, unsigned try, enum question q, unsigned n) {
    uint64_t z = seed;
    const unsigned parts[] = { message, rcpt, try, q };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        z = mix((z ^ parts[i]) + UINT64_C(0x9e3779b97f4a7c15));
    return (unsigned)(z % n);
}

enum fate { TODO, BUSY, DELIVERED, FAILED, TOLD };

struct model_message {
    struct queue_id id;
    bool gone, null_sender, held, flush, flushed, warned, fresh, is_small;
    unsigned number, rcpt_count, domain, tries;
    uint8_t *fate;
    int64_t came;                        /* mono */
    int64_t arrival;                     /* wall */
    int64_t last_event;                  /* wall; 0: the next try may be at any time */
    unsigned small_before, large_before; /* deliveries of each kind begun before it came; for `is_small` */
};

struct destination_state {
    bool down, failing;
    unsigned busy;
    int64_t ended; /* mono: the last delivery */
};

enum { DOMAINS = 9, QUIET = 6, SLOW = 7, LAZY = 8 };
static const char *const domain_names[DOMAINS] = { "d0.example",    "d1.example",   "d2.example",
                                                   "d3.example",    "d4.example",   "d5.example",
                                                   "quiet.example", "slow.example", "lazy.example" };

static struct model {
    struct model_message *messages;
    unsigned count;
    struct destination_state domains[DOMAINS];
    unsigned busy[3]; /* of smtp, slow, lazy */
    bool calm;        /* everything works */
    unsigned small_begun, large_begun;
    unsigned deliveries, returned, warnings, restarts, tries;
    int64_t flush_until, full; /* mono */
    uint64_t seed;
} model;

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            broken(__LINE__, #condition);                                                                              \
    } while (0)

static void broken(int line, const char *what) {
    print_error("seed %llu, day %lld: line %d: %s\n", (unsigned long long)model.seed,
                (long long)((sys->wall_us() - FAKE_WALL_START) / DAY), line, what);
    print_error("the log ends with:\n%.*s\n", STR_ARG(buf_str(&world->log)));
    abort(); /* the state is that of the moment */
}

static struct model_message *message_by_id(struct str id) {
    for (unsigned i = model.count; i-- > 0;) /* the last one of that name */
        if (str_eq(queue_id_str(&model.messages[i].id), id))
            return &model.messages[i];
    return NULL;
}

/* "m12r3@d0.example" */
static struct model_message *message_by_address(struct str address, unsigned *ret_rcpt, unsigned *ret_domain) {
    unsigned m, r;
    char text[64];
    MUST(address.n < sizeof text);
    memcpy(text, address.p, address.n);
    text[address.n] = 0;
    MUST(sscanf(text, "m%ur%u@", &m, &r) == 2 && m < model.count && r < model.messages[m].rcpt_count);
    struct str domain = address_split(address).domain;
    for (*ret_domain = 0; *ret_domain < DOMAINS && !str_eq(domain, str_c(domain_names[*ret_domain]));)
        ++*ret_domain;
    *ret_rcpt = r;
    return &model.messages[m];
}

static int64_t lifetime(const struct model_message *m) {
    return US_PER_S * (m->null_sender ? BOUNCE_LIFETIME_S : LIFETIME_S);
}

static int64_t backoff(const struct model_message *m, int64_t at) {
    int64_t age = at - m->arrival, least = US_PER_S * BACKOFF_MIN_S, most = US_PER_S * BACKOFF_MAX_S;
    return age < least ? least : age > most ? most : age;
}

static unsigned chance(const struct model_message *m, unsigned rcpt, enum question q, unsigned n) {
    return of(model.seed, m->number, rcpt, m->tries, q, n);
}
static bool happens(const struct model_message *m, unsigned rcpt, enum question q, unsigned in_100) {
    return !model.calm && chance(m, rcpt, q, 100) < in_100;
}

static bool is_active(const struct model_message *m) {
    return map_get(&world->q->active, queue_id_str(&m->id)) != NULL;
}

static unsigned count_fate(const struct model_message *m, enum fate f) {
    unsigned n = 0;
    for (unsigned i = 0; i < m->rcpt_count; i++)
        n += m->fate[i] == f;
    return n;
}

/* --- what the log says --- */

/* No message is taken up now. */
static void note_full(void) {
    if (world->q->active.n == ACTIVE_LIMIT || world->q->rcpts >= RCPTS_MEMORY + ACTIVE_LIMIT * RCPTS_MINIMUM)
        model.full = sys->mono_us();
}

/* Lately: there may have been no room for it when its time came. */
static bool was_full(void) {
    return model.full && sys->mono_us() - model.full < US_PER_S * (RUN_DELAY_S + SLACK_S);
}

static void taken_up(struct model_message *m, struct str line) {
    int64_t now = sys->wall_us();
    char text[256];
    unsigned nrcpt = 0;
    snprintf(text, sizeof text, "%.*s", STR_ARG(line));
    const char *at = strstr(text, "nrcpt=");
    MUST(at && sscanf(at, "nrcpt=%u", &nrcpt) == 1);
    MUST(!m->gone && !m->held && count_fate(m, BUSY) == 0);
    MUST(nrcpt == count_fate(m, TODO));
    bool flushing = world->q->ignore_times && world->q->deferred.running; /* with the active queue full, for hours */
    m->flush = m->flush || flushing || sys->mono_us() < model.flush_until;
    note_full();
    if (m->last_event && !m->flush) {
        int64_t due = m->last_event + backoff(m, m->last_event);
        MUST(now >= due);
        MUST(now <= due + US_PER_S * (RUN_DELAY_S + SLACK_S) || was_full());
    }
    m->fresh = false;
    m->flushed = m->flush;
    m->flush = false;
    m->last_event = now;
    m->tries++;
    model.tries++;
}

static void removed(struct model_message *m) {
    MUST(!m->gone);
    for (unsigned i = 0; i < m->rcpt_count; i++)
        MUST(m->fate[i] == DELIVERED || m->fate[i] == TOLD);
    m->gone = true;
}

/* The queue manager's own word about a recipient. */
static void decided(struct model_message *m, struct str line) {
    struct str rest = line, address;
    MUST(str_next(&rest, STR("<"), &address) && str_next(&rest, STR(">"), &address));
    unsigned r, d;
    MUST(message_by_address(address, &r, &d) == m && is_active(m));
    m->last_event = sys->wall_us();
    if (str_contains(line, STR("status=deferred")))
        MUST(m->fate[r] == TODO || m->fate[r] == BUSY);
    else
        MUST(str_contains(line, STR("status=bounced")) && m->fate[r] == TODO && d == DOMAINS);
    m->fate[r] = d == DOMAINS ? FAILED : TODO;
}

static void model_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)level;
    (void)tag;
    struct world *w = ctx;
    if (w->log.n > 20000) /* the end of it is for who looks at a failure */
        buf_consume(&w->log, 10000);
    buf_printf(&w->log, "%.*s\n", STR_ARG(text));
    ptrdiff_t colon = str_index(text, ':');
    struct model_message *m = colon < 0 ? NULL : message_by_id(str_sub(text, 0, (size_t)colon));
    if (!m)
        return;
    if (str_ends(text, STR("(queue active)")))
        taken_up(m, text);
    else if (str_ends(text, STR(": removed")))
        removed(m);
    else if (str_contains(text, STR(": to=<")))
        decided(m, text);
    else if (str_contains(text, STR("status=expired")))
        MUST(sys->wall_us() - m->arrival >= lifetime(m));
}

/* --- what agents see --- */

static error model_resolve(struct arena *a, struct str recipient, struct route *ret) {
    struct str domain = address_split(recipient).domain;
    if (str_eq(domain, STR("nowhere.example")))
        return err_smtp(a, 550, "5.1.2", "no such domain");
    unsigned r, d;
    struct model_message *m = message_by_address(recipient, &r, &d);
    if (happens(m, r, Q_TEMPORARY, 2))
        return err_make(a, ERR_TEMP, "table look-up failed");
    bool backlog = m->rcpt_count >= LARGE_MIN && m->number % 4; /* others are slow to sort, and never get one */
    if (!backlog && happens(m, r, Q_SLOW_TABLE, 3)) {
        m->is_small = false; /* it waits for the table, while others are delivered */
        wait_until(deadline_in(chance(m, r, Q_TIME, 3)));
    }
    struct str transport = str_eq(domain, STR("slow.example"))   ? STR("slow")
                           : str_eq(domain, STR("lazy.example")) ? STR("lazy")
                                                                 : STR("smtp");
    *ret = (struct route){ .class = CLASS_DEFAULT, .transport = transport, .recipient = recipient };
    ret->nexthop = arena_str(a, domain);
    return NULL;
}

/* How long did a small message wait for large ones? Looked at only where nothing else can have kept it waiting. Others
 * that are not large overtake as well, and the last of them may have been lent half of what it needed. */
static void check_wait(const struct model_message *m) {
    unsigned small = model.small_begun - m->small_before, large = model.large_begun - m->large_before;
    if (m->is_small && (!model.full || model.full < m->came))
        MUST(large <= SLOT_COST * (small + SMALL_MAX / 2 + SLOT_LOAN) + PROCESSES);
}

static void begin(struct delivery_request *r, struct model_message **ret_m, unsigned *ret_rcpt, unsigned *ret_d) {
    unsigned rcpt = 0, d = 0;
    struct model_message *m = NULL;
    note_full();
    MUST(r->env.rcpt_count > 0 && r->env.rcpt_count <= RCPT_LIMIT);
    for (size_t i = 0; i < r->env.rcpt_count; i++) {
        struct model_message *of = message_by_address(r->env.rcpts[i].address, &rcpt, &d);
        MUST(!m || m == of);
        m = of;
        MUST(m->fate[rcpt] == TODO);
        m->fate[rcpt] = BUSY;
    }
    MUST(str_eq(queue_id_str(&r->id), queue_id_str(&m->id)) && is_active(m) && !m->held && !m->gone && d < DOMAINS);
    MUST(str_eq(r->nexthop, str_c(domain_names[d])));
    MUST(d != LAZY || m->flushed);
    struct destination_state *ds = &model.domains[d];
    unsigned t = d == SLOW ? 1 : d == LAZY ? 2 : 0;
    MUST(++ds->busy <= (d == SLOW ? 1 : WINDOW));
    MUST(++model.busy[t] <= PROCESSES);
    if (d == SLOW && ds->ended)
        MUST(sys->mono_us() >= ds->ended + RATE_S * US_PER_S);
    if (d < SLOW) {
        check_wait(m);
        m->is_small = false; /* the wait for its first delivery counts */
        if (m->rcpt_count >= LARGE_MIN)
            model.large_begun++;
        else
            model.small_begun++;
    }
    *ret_m = m;
    *ret_rcpt = rcpt;
    *ret_d = d;
}

static void put_back(const struct delivery_request *r, struct model_message *m) {
    for (size_t i = 0; i < r->env.rcpt_count; i++) {
        unsigned rcpt, d;
        message_by_address(r->env.rcpts[i].address, &rcpt, &d);
        if (m->fate[rcpt] == BUSY)
            m->fate[rcpt] = TODO;
    }
}

static void answer(struct ipc *ipc, const struct delivery_request *r, size_t i, struct model_message *m,
                   const struct destination_state *ds) {
    struct delivery_result res = { .rcpt_index = r->rcpt_index[i], .status = DELIVERY_SENT, .dsn = STR("2.0.0") };
    res.reason = STR("so it is");
    res.action = res.diagnostic_type = res.diagnostic = res.remote_type = res.remote_mta = STR("");
    unsigned rcpt, d;
    message_by_address(r->env.rcpts[i].address, &rcpt, &d);
    m->fate[rcpt] = DELIVERED;
    if (ds->down || happens(m, rcpt, Q_DEFERS, ds->failing ? 90 : 12)) {
        res.status = DELIVERY_DEFERRED;
        res.dsn = STR("4.2.0");
        m->fate[rcpt] = TODO;
    } else if (happens(m, rcpt, Q_BOUNCES, 4)) {
        res.status = DELIVERY_BOUNCED;
        res.dsn = STR("5.1.1");
        m->fate[rcpt] = FAILED;
    }
    model.deliveries += m->fate[rcpt] == DELIVERED;
    delivery_send_result(ipc, &res);
    if (happens(m, rcpt, Q_TWICE, 1)) /* twice: the second one does not count */
        delivery_send_result(ipc, &res);
}

static bool model_serve(struct ipc *ipc, struct delivery_request *r) {
    struct model_message *m;
    unsigned rcpt, d;
    begin(r, &m, &rcpt, &d);
    struct destination_state *ds = &model.domains[d];
    struct delivery_done done = { .reason = STR(""), .dsn = STR("") };
    bool quick = m->rcpt_count >= LARGE_MIN || d == QUIET;
    wait_until(deadline_in_us(1000 + chance(m, rcpt, Q_TIME, quick ? 20000 : SERVICE_S_MAX * 1000000)));
    bool dies = happens(m, rcpt, Q_DIES, 1);
    if (!dies)
        for (size_t i = 0; i < r->env.rcpt_count; i++)
            if (!happens(m, r->rcpt_index[i], Q_FORGETS, 1))
                answer(ipc, r, i, m, ds);
    if (ds->down)
        done = (struct delivery_done){ true, STR("connect: refused"), STR("4.4.1") };
    put_back(r, m);
    m->last_event = sys->wall_us();
    ds->busy--;
    model.busy[d == SLOW ? 1 : d == LAZY ? 2 : 0]--;
    ds->ended = sys->mono_us();
    if (dies) { /* the same request may come again at once: perhaps the agent had only closed an old connection */
        ds->ended = 0;
        return false;
    }
    delivery_send_done(ipc, &done);
    return !ipc_flush(ipc, DEADLINE_NEVER);
}

static void model_told_of(const struct bounce_request *r) {
    struct model_message *m = message_by_id(queue_id_str(&r->id));
    MUST(m && is_active(m) && !m->gone);
    m->last_event = sys->wall_us();
    if (world->bounce_down)
        return;
    int64_t age = sys->wall_us() - m->arrival;
    if (r->kind == BOUNCE_DELAYED) {
        MUST(!m->warned && age >= WARN_S * US_PER_S);
        m->warned = true;
        model.warnings++;
    }
    if (r->kind == BOUNCE_SUCCESS)
        MUST(m->warned);
    for (size_t i = 0; i < r->rcpt_count; i++) {
        unsigned rcpt, d;
        MUST(message_by_address(r->rcpts[i].address, &rcpt, &d) == m);
        if (r->kind == BOUNCE_DELAYED)
            MUST(m->fate[rcpt] == TODO);
        if (r->kind == BOUNCE_SUCCESS)
            MUST(m->fate[rcpt] == DELIVERED);
        if (r->kind != BOUNCE_FAILED)
            continue;
        MUST(m->fate[rcpt] == FAILED || (m->fate[rcpt] == TODO && age >= lifetime(m)));
        m->fate[rcpt] = TOLD;
        model.returned++;
    }
}

/* --- operations --- */

static void op_arrive(struct world *w, unsigned rcpts, unsigned domain) {
    if (model.count == MESSAGES_MAX)
        return;
    struct model_message *m = &model.messages[model.count];
    *m = (struct model_message){ .rcpt_count = rcpts, .null_sender = percent(10), .domain = domain };
    m->number = model.count;
    m->fate = calloc(rcpts, 1);
    assert_non_null(m->fate);
    struct buf to = { 0 };
    for (unsigned i = 0; i < rcpts; i++) {
        unsigned d = domain < DOMAINS ? domain : percent(90) ? below(QUIET) : percent(50) ? SLOW : below(DOMAINS);
        bool nowhere = domain == DOMAINS && percent(2);
        buf_printf(&to, "m%ur%u@%s ", model.count, i, nowhere ? "nowhere.example" : domain_names[d]);
    }
    m->arrival = sys->wall_us();
    m->fresh = true;
    m->is_small = domain == QUIET && rcpts < 10;
    m->came = sys->mono_us();
    m->small_before = model.small_begun;
    m->large_before = model.large_begun;
    model.count++;
    m->id = mail(w, m->null_sender ? "" : "from@here.example", to.p, 0);
    m->arrival = sys->wall_us();
    if (percent(95))
        feed_notice(w->q, &m->id, SPOOL_INCOMING);
    else
        m->is_small = false; /* found by a scan, some time */
    buf_free(&to);
}

static struct model_message *some_message(void) {
    return model.count ? &model.messages[below(model.count)] : NULL;
}

static void op_flush(struct world *w) {
    if (percent(50)) {
        struct model_message *m = some_message();
        if (!m || m->gone || is_active(m) || m->held)
            return;
        m->flush = true;
        feed_notice(w->q, &m->id, SPOOL_DEFERRED);
        return;
    }
    for (unsigned i = 0; i < model.count; i++)
        model.messages[i].flush = true;
    model.flush_until = deadline_in(SLACK_S); /* the scan may see what is deferred meanwhile */
    feed_trigger(w->q, STR("FAD"));
}

static void op_hold(struct world *w) {
    struct model_message *m = some_message();
    if (!m || m->gone || is_active(m))
        return;
    if (m->held) {
        MUST(!spool_move(w->reader, &m->id, SPOOL_HOLD, SPOOL_DEFERRED));
        m->held = false;
        m->last_event = 0;
    } else if (!spool_move(w->reader, &m->id, SPOOL_DEFERRED, SPOOL_HOLD)) {
        m->held = true;
    }
}

static void disturb(void) {
    for (unsigned i = 0; i < model.count; i++) {
        model.messages[i].last_event = 0;
        model.messages[i].is_small = false;
    }
}

static void op_clock(void) {
    static const int64_t steps[] = { 1, -1, 3600, -3600, 86400, -86400, 20 * 86400, -20 * 86400 };
    fake_sys_step_wall(steps[below(sizeof steps / sizeof steps[0])] * US_PER_S);
    disturb();
}

static void op_restart(struct world *w) {
    feed_drain(w->q);
    MUST(!group_wait(&w->work, DEADLINE_NEVER));
    for (int i = 0; i < 20; i++)
        coro_yield(); /* the feeder has seen it, too */
    MUST(w->q->active.n == 0 && w->q->rcpts == 0 && w->q->hungry == NULL);
    world_close(w);
    disturb();
    world_open(w);
    if (!coro_spawn(feeder, w, "feed"))
        abort();
    model.domains[SLOW].ended = 0; /* the pause is not remembered (postconf(5)) */
    model.restarts++;
}

static void step(struct world *w) {
    unsigned what = below(100);
    struct destination_state *ds = &model.domains[below(QUIET)];
    if (what < 45)
        for (unsigned n = below(4) + 1; n > 0; n--)
            op_arrive(w, percent(60) ? 1 : 1 + below(SMALL_MAX), DOMAINS);
    else if (what < 55)
        op_arrive(w, 1 + below(3), QUIET);
    else if (what < 62) {
        if (percent(50))
            op_arrive(w, LARGE_MIN + below(2000), DOMAINS);
        else
            op_arrive(w, LARGE_MIN + below(800), below(QUIET));
        wait_until(deadline_in_us(200000));
        op_arrive(w, 1, QUIET);
    } else if (what < 72)
        ds->down = !ds->down;
    else if (what < 76)
        ds->failing = !ds->failing;
    else if (what < 81)
        op_flush(w);
    else if (what < 89)
        op_hold(w);
    else if (what < 91)
        op_clock();
    else if (what < 93)
        op_restart(w);
    else if (what < 95)
        w->bounce_down = !w->bounce_down;
    else if (what < 96)
        feed_trigger(w->q, percent(50) ? STR("W") : STR("F"));
}

static void check_state(const struct world *w) {
    note_full();
    MUST(w->q->active.n <= ACTIVE_LIMIT);
    /* a message of up to PIECE_MAX recipients comes whole */
    MUST(w->q->rcpts <= 3 * (RCPTS_MEMORY + RCPTS_EXTRA) + ACTIVE_LIMIT * RCPTS_MINIMUM + PIECE_MAX);
}

static void script(struct world *w) {
    static const int waits_s[] = { 0, 0, 1, 1, 5, 60, 600, 3600, 6 * 3600, 86400 };
    for (int i = 0; i < STEPS; i++) {
        step(w);
        int64_t until = deadline_in(waits_s[below(sizeof waits_s / sizeof waits_s[0])]);
        do {
            wait_until(deadline_in_us(200000) < until ? deadline_in_us(200000) + until / 50 - sys->mono_us() / 50
                                                      : until);
            check_state(w);
        } while (sys->mono_us() < until);
    }
    /* everything works again, and nothing is held: all of it has an end */
    model.calm = true;
    w->bounce_down = false;
    for (unsigned i = 0; i < DOMAINS; i++)
        model.domains[i].down = model.domains[i].failing = false;
    for (unsigned i = 0; i < model.count; i++)
        if (model.messages[i].held)
            MUST(!spool_move(w->reader, &model.messages[i].id, SPOOL_HOLD, SPOOL_DEFERRED));
    for (unsigned i = 0; i < model.count; i++)
        model.messages[i].held = false;
    disturb();
    for (int i = 0; i < 400 && in(SPOOL_DEFERRED) + in(SPOOL_ACTIVE) + in(SPOOL_INCOMING) > 0; i++) {
        if (i % 100 == 0) {
            for (unsigned k = 0; k < model.count; k++)
                model.messages[k].flush = true;
            feed_trigger(w->q, STR("FADI"));
        }
        wait_until(deadline_in(600));
    }
}

static int no_sync(int fd) {
    (void)fd;
    return 0;
}

static void run_seed(uint64_t seed) {
    const struct conf_override o[] = {
        { STR_INIT("myhostname"), STR_INIT("test.example") },
        { STR_INIT("qmgr_message_active_limit"), STR_INIT("60") },
        { STR_INIT("qmgr_message_recipient_limit"), STR_INIT("800") },
        { STR_INIT("qmgr_message_recipient_minimum"), STR_INIT("5") },
        { STR_INIT("default_recipient_limit"), STR_INIT("800") },
        { STR_INIT("default_extra_recipient_limit"), STR_INIT("100") },
        { STR_INIT("default_destination_recipient_limit"), STR_INIT("4") },
        { STR_INIT("default_destination_concurrency_limit"), STR_INIT("4") },
        { STR_INIT("slow_destination_rate_delay"), STR_INIT("20s") },
        { STR_INIT("slow_destination_concurrency_failed_cohort_limit"), STR_INIT("10") },
        { STR_INIT("minimal_backoff_time"), STR_INIT("300s") },
        { STR_INIT("maximal_backoff_time"), STR_INIT("4000s") },
        { STR_INIT("queue_run_delay"), STR_INIT("200s") },
        { STR_INIT("maximal_queue_lifetime"), STR_INIT("2d") },
        { STR_INIT("bounce_queue_lifetime"), STR_INIT("1d") },
        { STR_INIT("delay_warning_time"), STR_INIT("4h") },
        { STR_INIT("confirm_delay_cleared"), STR_INIT("yes") },
        { STR_INIT("defer_transports"), STR_INIT("lazy") },
    };
    struct world *w = world_new(o, sizeof o / sizeof o[0]);
    static struct sys quick;
    quick = *sys;
    quick.fsync = quick.fdatasync = no_sync; /* nothing crashes here */
    sys = &quick;
    memset(&model, 0, sizeof model);
    model.seed = random_state = seed;
    model.messages = calloc(MESSAGES_MAX, sizeof *model.messages);
    assert_non_null(model.messages);
    w->serve = model_serve;
    w->told_of = model_told_of;
    w->resolve = model_resolve;
    w->process_limit = PROCESSES;
    world_close(w); /* again, with the limit */
    world_open(w);
    log_set_sink(model_log, w);
    run(w, script);
    size_t rcpts = 0;
    for (unsigned i = 0; i < model.count; i++) {
        struct model_message *m = &model.messages[i];
        if (!m->gone)
            print_error("left: %s\n", m->id.text);
        MUST(m->gone && count_fate(m, DELIVERED) + count_fate(m, TOLD) == m->rcpt_count);
        rcpts += m->rcpt_count;
        free(m->fate);
    }
    MUST(in(SPOOL_CORRUPT) == 0);
    print_message("seed %llu: %lld days, %u messages, %zu recipients, %u tries, %u restarts: "
                  "%u delivered, %u returned, %u warnings\n",
                  (unsigned long long)seed, (long long)((sys->mono_us() - FAKE_MONO_START) / DAY), model.count, rcpts,
                  model.tries, model.restarts, model.deliveries, model.returned, model.warnings);
    free(model.messages);
    world_free(w);
}

static unsigned long long from_environment(const char *name, unsigned long long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void random_operations(void **state) {
    (void)state;
    uint64_t seed = from_environment("ANGARIUM_MODEL_SEED", 1);
    for (unsigned long long n = from_environment("ANGARIUM_MODEL_RUNS", RUNS); n > 0; n--)
        run_seed(seed++);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(random_operations) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
