/* qmgr_world.h - for tests of the queue manager: a real spool in a temporary directory, a clock that jumps, and agents
 * that do what the local part of a recipient says ("ok1", "defer", "bounce", "dead", "late", "hang", "die", "forget").
 */
#ifndef ANGARIUM_QMGR_QMGR_WORLD_H
#define ANGARIUM_QMGR_QMGR_WORLD_H

#include "queue/spool_test_util.h"

#include "proto/bounce.h"
#include "qmgr/qmgr.h"
#include "test/fake_sys.h"

enum { SEEN_MAX = 4000, IDLE_ROUNDS = 400, STEP_US = 20000, SLOW_S = 20 };

struct world {
    struct test_queue dir;
    struct conf *conf;
    struct spool *writer, *reader;
    struct qmgr *q;
    struct group work;
    struct buf log;
    int failed;
    void (*script)(struct world *w);
    /* What agents do, when not NULL: false, the agent dies. */
    bool (*serve)(struct ipc *ipc, struct delivery_request *r);
    void (*told_of)(const struct bounce_request *r);                            /* of each notice, when not NULL */
    error (*resolve)(struct arena *a, struct str recipient, struct route *ret); /* when not NULL */
    unsigned process_limit;
    /* what agents saw */
    unsigned requests, busy, busy_max, rcpts_max, connections, refused;
    struct str seen[SEEN_MAX]; /* addresses that were delivered, in order */
    size_t seen_count;
    bool no_transport, bounce_down, bounce_down_once, late_ok, hang_up_once;
    struct cond release;
    unsigned notices, warnings;
    size_t notice_rcpts;
    struct str last_action, last_status;
};

extern struct world *world; /* of the running test */

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print_error("%s:%d: %s\n%.*s", __FILE__, __LINE__, #condition, STR_ARG(buf_str(&world->log)));             \
            world->failed++;                                                                                           \
        }                                                                                                              \
    } while (0)

struct world *world_new(const struct conf_override *o, size_t n);
void world_free(struct world *w); /* fails the test if a CHECK() did */
/* What a restart of the queue manager ends and begins. */
void world_close(struct world *w);
void world_open(struct world *w);
extern const struct qmgr_outside world_outside;
void feeder(void *world); /* a coroutine that feeds world->q */

/* A message for the recipients in `to` (blanks between), `age_s` old. */
struct queue_id mail(struct world *w, const char *from, const char *to, int64_t age_s);
/* The same, new, and the queue manager is told. */
struct queue_id told(struct world *w, const char *from, const char *to);
size_t in(enum spool_state state);
unsigned logged(const char *what);       /* lines with it */
unsigned delivered(const char *address); /* how often */
/* Until nothing moves any more; less than a second passes. */
void settle(struct world *w);
/* The queue manager runs while the script does, and drains at its end. */
void run(struct world *w, void (*script)(struct world *w));
void scene(void (*script)(struct world *w), const struct conf_override *o, size_t n);
/* Test `name` runs `name_script` with these settings. */
#define SCENE(name, ...)                                                                                               \
    static void name(void **state) {                                                                                   \
        (void)state;                                                                                                   \
        const struct conf_override o[] = { { STR_INIT("myhostname"), STR_INIT("test.example") }, __VA_ARGS__ };        \
        scene(name##_script, o, sizeof o / sizeof o[0]);                                                               \
    }
#endif
