/* postsuper(1): delete, hold, release, requeue, expire messages; put the queue's files in order. For the superuser.
 *
 * The queue manager moves messages; it is asked when it runs (proto/edit.h). When it does not, this command takes its
 * place for a moment (spool_take_over()) and does the same with the same code (queue/queue_edit.h). */
#include "base/log.h"
#include "cmd/queue_access.h"
#include "cmd/trigger.h"
#include "proto/edit.h"
#include "queue/queue_repair.h"
#include "service/logging.h"
#include "showq/select.h"
#include "showq/showq.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    REACH_SECONDS = 30, /* a queue manager that is just starting or ending */
    ASK_SECONDS = 600,  /* for one batch: the disk may be busy */
    RETRY_US = 100 * 1000,
    BUSY_TRIES = 20, /* cleanup is done with a message in a moment */
    LINE_MAX_BYTES = 1000,
};

/* In the order in which they are done, to each message and one after the other. */
enum op { OP_DELETE, OP_REQUEUE, OP_EXPIRE, OP_FORCE, OP_HOLD, OP_RELEASE, OPS };

static const struct op_row {
    char option;
    enum queue_edit edit;
    const char *done; /* the log line of a message */
} ops[OPS] = {
    [OP_DELETE] = { 'd', QUEUE_DELETE, "removed" },    [OP_REQUEUE] = { 'r', QUEUE_REQUEUE, "requeued" },
    [OP_EXPIRE] = { 'e', QUEUE_EXPIRE, "expired" },    [OP_FORCE] = { 'f', QUEUE_EXPIRE, "expired" },
    [OP_HOLD] = { 'h', QUEUE_HOLD, "placed on hold" }, [OP_RELEASE] = { 'H', QUEUE_RELEASE, "released from hold" },
};

struct wanted {
    bool given, all;
    VEC(struct queue_id) ids;
};

struct super {
    struct arena *arena;
    struct conf *conf;
    struct spool *reader; /* we are in office; NULL: `ipc` */
    struct ipc *ipc;
    unsigned queues; /* mask of queue_states(), and SHOWQ_MAILDROP */
    struct selection selection;
    bool failed;
    size_t deleted, requeued, expired, held, released; /* messages */
};

/* --- reaching the queue --- */

static void pause_a_moment(void) {
    usleep(RETRY_US);
}

static bool nobody_there(error e) {
    return e->kind == ERR_SYS && (e->sys == ENOENT || e->sys == ECONNREFUSED);
}

static void take_office(struct super *s) {
    struct spool_options o = spool_options_from(s->conf, SPOOL_READER);
    struct spool *spool;
    error e = spool_open(&o, s->arena, &spool);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    if (spool_take_over(spool)) {
        s->reader = spool;
        return;
    }
    spool_close(spool);
}

static void reach_queue(struct super *s) {
    if (s->reader || s->ipc)
        return;
    struct str path = queue_socket(s->conf, s->arena, conf_str(s->conf, PARAM_queue_service_name));
    int64_t deadline = deadline_in(REACH_SECONDS);
    for (;;) {
        error e = edit_open(path, deadline, &s->ipc);
        if (!e)
            return;
        if (e->kind == ERR_PERM)
            log_fatal("the queue manager refuses: %.*s", STR_ARG(e->text));
        if (nobody_there(e))
            take_office(s);
        if (s->reader)
            return;
        if (sys->mono_us() >= deadline)
            log_fatal("cannot reach the queue manager, and it has not let go of the queue: %.*s -- try again",
                      STR_ARG(e->text));
        pause_a_moment();
    }
}

static void leave_queue(struct super *s) {
    ipc_close(s->ipc);
    s->ipc = NULL;
    error e = s->reader ? spool_settle(s->reader) : NULL;
    if (e)
        log_warn("queue file system: %.*s", STR_ARG(e->text));
    spool_close(s->reader);
    s->reader = NULL;
}

/* --- changes --- */

static void edit_here(struct super *s, const struct edit_request *r, enum queue_edited *results) {
    for (size_t i = 0; i < r->count; i++) {
        error e;
        results[i] = queue_edit(s->reader, &r->ids[i], r->what, r->states, &e);
        if (e)
            log_warn("%s: %.*s", r->ids[i].text, STR_ARG(e->text));
    }
}

static void edit_batch(struct super *s, const struct edit_request *r, enum queue_edited *results) {
    for (;;) {
        reach_queue(s);
        if (s->reader) {
            edit_here(s, r, results);
            return;
        }
        error e = edit_ask(s->ipc, r, deadline_in(ASK_SECONDS), results);
        if (!e)
            return;
        /* It ended while it was asked (a reload): its successor is asked for the same. */
        log_debug("queue manager: %.*s", STR_ARG(e->text));
        leave_queue(s);
    }
}

static void count(struct super *s, enum op op) {
    size_t *counts[OPS] = { [OP_DELETE] = &s->deleted, [OP_REQUEUE] = &s->requeued, [OP_EXPIRE] = &s->expired,
                            [OP_FORCE] = &s->expired,  [OP_HOLD] = &s->held,        [OP_RELEASE] = &s->released };
    ++*counts[op];
}

static void report(struct super *s, enum op op, const struct queue_id *id, enum queue_edited result, bool lines) {
    if (result == QUEUE_EDITED) {
        count(s, op);
        if (lines)
            log_info("%s: %s", id->text, ops[op].done);
    } else if (result == QUEUE_FAILED) {
        log_warn("%s: not changed: see the log of the queue manager", id->text);
        s->failed = true;
    } else if (result == QUEUE_BUSY) {
        log_warn("%s: not changed: it is being written or delivered -- try again in a while", id->text);
        s->failed = true;
    }
}

/* maildrop/: no queue manager has these. */
static bool delete_submission(const struct super *s, const struct queue_id *id) {
    struct str path =
        arena_printf(s->arena, "%.*s/maildrop/%s", STR_ARG(conf_str(s->conf, PARAM_queue_directory)), id->text);
    return sys->unlinkat(AT_FDCWD, path.p, 0) == 0;
}

static void edit_ids(struct super *s, enum op op, const struct queue_id *ids, size_t n, bool lines) {
    enum queue_edited results[EDIT_IDS_MAX];
    struct queue_id busy[EDIT_IDS_MAX];
    struct edit_request r = { .what = ops[op].edit, .states = s->queues & QUEUE_STATES_ALL };
    for (size_t at = 0; at < n; at += r.count) {
        r.ids = ids + at;
        r.count = n - at < EDIT_IDS_MAX ? n - at : EDIT_IDS_MAX;
        edit_batch(s, &r, results);
        size_t busy_count = 0;
        for (size_t i = 0; i < r.count; i++) {
            if (op == OP_DELETE && results[i] == QUEUE_NOTHING && (s->queues & SHOWQ_MAILDROP) &&
                delete_submission(s, &r.ids[i]))
                results[i] = QUEUE_EDITED;
            if (results[i] == QUEUE_BUSY)
                busy[busy_count++] = r.ids[i];
            else
                report(s, op, &r.ids[i], results[i], lines);
        }
        struct edit_request again = r;
        again.ids = busy;
        for (int tries = 0; busy_count > 0 && tries < BUSY_TRIES; tries++) {
            size_t left = 0;
            pause_a_moment();
            again.count = busy_count;
            edit_batch(s, &again, results);
            for (size_t i = 0; i < busy_count; i++) {
                if (results[i] == QUEUE_BUSY && tries + 1 < BUSY_TRIES)
                    busy[left++] = busy[i];
                else
                    report(s, op, &busy[i], results[i], lines);
            }
            busy_count = left;
        }
    }
}

/* -f is an expiry and a release, each counted. */
static void apply(struct super *s, enum op op, const struct queue_id *ids, size_t n, bool lines) {
    size_t some = op == OP_FORCE && lines ? 1 : n; /* what is done to a message stands together in the log */
    for (size_t at = 0; at < n; at += some) {
        edit_ids(s, op, ids + at, some, lines);
        if (op == OP_FORCE)
            edit_ids(s, OP_RELEASE, ids + at, some, lines);
    }
}

/* --- which --- */

struct gathering {
    const struct super *s;
    struct arena *a;
    unsigned queues;
    int64_t now_s;
    VEC(struct queue_id) ids;
};

static bool gather(void *ctx, const struct listing_entry *e) {
    struct gathering *g = ctx;
    if (selection_takes(&g->s->selection, e, g->now_s))
        *vec_add(g->a, &g->ids) = e->id;
    return true;
}

/* The queues a change looks at: a message that is held already is not held again. */
static unsigned queues_of(const struct super *s, enum op op) {
    unsigned states = queue_edit_states(ops[op].edit);
    if (op == OP_DELETE)
        states |= SHOWQ_MAILDROP;
    return s->queues & states;
}

/* Everything in the queues, or what the selection takes of it. */
static void gather_all(struct gathering *g) {
    struct showq q;
    error e = showq_open(&q, g->s->conf, g->a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    if (selection_is_set(&g->s->selection))
        showq_walk(&q, g->queues, gather, g);
    else
        showq_walk_ids(&q, g->queues, gather, g);
    showq_close(&q);
}

static bool is_among(const struct wanted *w, const struct queue_id *id) {
    for (size_t i = 0; i < w->ids.n; i++)
        if (strcmp(w->ids.at[i].text, id->text) == 0)
            return true;
    return false;
}

static void run(struct super *s, enum op op, const struct wanted *w) {
    if (!w->all && !selection_is_set(&s->selection)) {
        apply(s, op, w->ids.at, w->ids.n, true);
        return;
    }
    struct gathering g = { .s = s, .a = arena_new(), .queues = queues_of(s, op) };
    g.now_s = sys->wall_us() / US_PER_S;
    gather_all(&g);
    if (w->all) {
        apply(s, op, g.ids.at, g.ids.n, false);
    } else {
        for (size_t i = 0; i < g.ids.n; i++)
            if (is_among(w, &g.ids.at[i]))
                apply(s, op, &g.ids.at[i], 1, true);
    }
    arena_free(g.a);
}

/* --- structure --- */

static void repaired(void *ctx, enum queue_repaired what, struct str path, struct str other) {
    struct super *s = ctx;
    switch (what) {
    case REPAIRED_MOVED:
        log_debug("renamed file %.*s as %.*s", STR_ARG(path), STR_ARG(other));
        break;
    case REPAIRED_FINISHED:
        log_info("%.*s: a whole message without its mode: taken back into the queue", STR_ARG(path));
        break;
    case REPAIRED_DIRECTORY:
        log_debug("remove directory %.*s", STR_ARG(path));
        break;
    case REPAIRED_PURGED:
        log_debug("removed file %.*s", STR_ARG(path));
        break;
    case REPAIR_BOGUS:
        log_warn("bogus file name: %.*s", STR_ARG(path));
        break;
    case REPAIR_IN_THE_WAY:
        log_warn("%.*s belongs to %.*s, where another file is: look at both with postcat(1), remove one", STR_ARG(path),
                 STR_ARG(other));
        s->failed = true;
        break;
    case REPAIR_FAILED:
        log_warn("%.*s: %.*s", STR_ARG(path), STR_ARG(other));
        s->failed = true;
        break;
    }
}

static void repair(struct super *s, unsigned what, char **directories) {
    static const char *const all[] = { "defer",  "bounce",   "trace", "maildrop", "incoming",
                                       "active", "deferred", "hold",  NULL };
    struct spool_options o = spool_options_from(s->conf, SPOOL_LISTER);
    struct spool *spool;
    error e = spool_open(&o, s->arena, &spool);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    for (size_t i = 0; *directories ? directories[i] != NULL : all[i] != NULL; i++) {
        struct str dir = str_c(*directories ? directories[i] : all[i]);
        log_debug("queue: %.*s", STR_ARG(dir));
        if (queue_repair_knows(dir))
            queue_repair(spool, dir, what, repaired, s);
    }
    spool_close(spool);
}

/* --- the command line --- */

static const char usage[] =
    "usage: postsuper [-c config_dir] [-d queue_id (delete)] [-e queue_id (expire)] [-f queue_id (expire and/or "
    "un-hold)] [-h queue_id (hold)] [-H queue_id (un-hold)] [-p (purge temporary files)] [-r queue_id (requeue)] "
    "[-s (structure fix)] [-S (redundant structure fix)] [-v (verbose)] [--sender address] [--recipient address] "
    "[--domain name] [--reason text] [--older time] [queue...]";

static void want_id(struct super *s, struct wanted *w, struct str text) {
    struct queue_id id;
    if (queue_id_from(text, &id))
        *vec_add(s->arena, &w->ids) = id;
    else
        log_warn("invalid mail queue id: %.*s", STR_ARG(str_sub(text, 0, LINE_MAX_BYTES)));
}

static void want_from_input(struct super *s, struct wanted *w) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    while ((n = getline(&line, &room, stdin)) >= 0)
        want_id(s, w, str_trim_right(str_n(line, (size_t)n)));
    free(line);
}

static void want(struct super *s, struct wanted *w, const char *text) {
    w->given = true;
    if (strcmp(text, "ALL") == 0)
        w->all = true;
    else if (strcmp(text, "-") == 0)
        want_from_input(s, w);
    else
        want_id(s, w, str_c(text));
}

/* The queues named on the command line; none: all. */
static void take_queues(struct super *s, char **names) {
    static const char *const others[] = { "flush" };
    for (; *names; names++) {
        struct str name = str_c(*names);
        bool known = queue_repair_knows(name);
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            known = known || strcmp(*names, others[i]) == 0;
        if (!known)
            log_fatal("invalid directory name: %.*s", STR_ARG(name));
        for (enum spool_state st = 0; st < SPOOL_CORRUPT; st++)
            if (str_eq(name, spool_state_name(st)))
                s->queues |= queue_states(st);
        if (str_eq(name, STR("maildrop")))
            s->queues |= SHOWQ_MAILDROP;
    }
}

static void tell(bool wanted, const char *what, size_t n) {
    if (wanted)
        log_info("%s: %zu message%s", what, n, n == 1 ? "" : "s");
}

static void wake_pickup(const struct super *s) {
    error e = trigger_send(s->conf, STR("public"), STR("pickup"), STR("W"));
    if (e) /* it looks by itself, once it runs */
        log_debug("wake pickup: %.*s", STR_ARG(e->text));
}

int main(int argc, char **argv) {
    static const struct option long_options[] = { SELECT_OPTIONS };
    struct super s = { .arena = arena_new() };
    struct wanted wants[OPS] = { 0 };
    const char *directory = NULL;
    struct { /* -d id ...: the ids are read when everything is set up */
        enum op op;
        const char *text;
    } *asked = calloc((size_t)argc + 1, sizeof *asked);
    size_t asked_count = 0;
    unsigned structure = 0;
    int verbose = 0;
    bool bad = !asked;
    signal(SIGPIPE, SIG_IGN);
    static char name[] = "postsuper";
    argv[0] = name; /* for getopt's complaints */
    logging_start_early(str_c(name), LOGGING_COMMAND);
    for (int c; (c = getopt_long(argc, argv, "c:d:e:f:h:H:pr:sSv", long_options, NULL)) != -1;) {
        const char *why = NULL;
        if (selection_option(&s.selection, c, optarg, &why)) {
            if (why)
                log_fatal("%s", why);
            continue;
        }
        switch (c) {
        case 'c':
            directory = optarg;
            break;
        case 'p':
            structure |= QUEUE_REPAIR_PURGE;
            break;
        case 's':
        case 'S': /* names are not made of inodes here, so there is nothing to be stricter about */
            structure |= QUEUE_REPAIR_STRUCTURE;
            break;
        case 'v':
            verbose++;
            break;
        default: {
            enum op op = 0;
            while (op < OPS && ops[op].option != c)
                op++;
            bad = bad || op == OPS;
            if (!bad) {
                asked[asked_count].op = op;
                asked[asked_count++].text = optarg;
            }
        }
        }
    }
    if (bad)
        log_fatal(usage);
    log_set_verbose(verbose);
    s.conf = queue_command_conf(directory, "postsuper", s.arena, true);
    if (!queue_is_ours(s.conf))
        log_fatal("use of this command is reserved for the superuser");
    char **names = argv + optind;
    take_queues(&s, names);
    if (!*names)
        s.queues = QUEUE_STATES_ALL | SHOWQ_MAILDROP;
    if (!asked_count && selection_is_set(&s.selection))
        log_fatal("--sender and the like choose for -d, -e, -f, -h, -H and -r: say which, for example -h ALL");
    if (!structure && !asked_count)
        structure = QUEUE_REPAIR_STRUCTURE | QUEUE_REPAIR_PURGE;
    queue_become_owner(s.conf);
    if (structure)
        repair(&s, structure, names);
    for (size_t i = 0; i < asked_count; i++)
        want(&s, &wants[asked[i].op], asked[i].text);
    for (enum op op = 0; op < OPS; op++)
        if (wants[op].given)
            run(&s, op, &wants[op]);
    leave_queue(&s);
    if (s.requeued)
        wake_pickup(&s);
    tell(wants[OP_REQUEUE].given, "Requeued", s.requeued);
    tell(wants[OP_DELETE].given, "Deleted", s.deleted);
    tell(wants[OP_EXPIRE].given || wants[OP_FORCE].given, "Force-expired", s.expired);
    tell(wants[OP_HOLD].given, "Placed on hold", s.held);
    tell(wants[OP_RELEASE].given || wants[OP_FORCE].given, "Released from hold", s.released);
    conf_free(s.conf);
    arena_free(s.arena);
    free(asked);
    return s.failed ? 1 : 0;
}
