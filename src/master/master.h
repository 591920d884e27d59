/* master.h - shared by the files of this room.
 *
 * For each entry of master.cf there is a `struct svc`: it owns the listening sockets for as long as the entry is there,
 * and so no connection is refused while workers come and go. A worker is started when somebody connects (or at the
 * wakeup time) and then takes the connections itself; master listens again when the last one has ended.
 *
 *   idle      watchers wait at the sockets
 *   running   workers of this generation have them
 *   waiting   a single-process service whose worker of the last generation has not ended yet
 *   throttled no start before `not_before`
 *   gone      no longer in master.cf: freed when its last worker has ended */
#ifndef ANGARIUM_MASTER_MASTER_H
#define ANGARIUM_MASTER_MASTER_H

#include "conf/master_cf.h"
#include "run/coro.h"
#include "service/args.h"
#include "service/control.h"
#include "service/owner.h"

enum {
    WORKERS_MAX = 64,          /* service_worker_limit */
    QUICK_DEATH_US = 5000000,  /* a worker that dies so soon after it was ready counts as crashing again */
    BACKOFF_FIRST_US = 100000, /* pause before the second restart in a row, doubled ... */
    BACKOFF_MAX_US = 10000000, /* ... up to this */
    LIMIT_WARN_SECONDS = 1000, /* between two warnings that a service has reached its process limit */
    REFUSALS_LOGGED = 20,      /* lines about one worker that asks for what it may not have; after that ... */
    REFUSAL_WARN_SECONDS = 60, /* ... one in a minute */
    CONNECT_SECONDS = 10,      /* to connect two services: the backlog of the second may be full */
    CONNECT_RETRY_US = 20000,
    CONNECTS_MAX = 4096,    /* under way for one worker */
    STOP_FRONT_SECONDS = 3, /* at stop: for sessions and deliveries to end ... */
    STOP_ALL_SECONDS = 5,   /* ... for all, from the first signal on; then SIGKILL */
    PENDING_WAKE_MAX = 64,
    STRESS_SECONDS = 1000,     /* new sessions run with stress = yes, from when the limit was last reached */
    STRESS_RENEW_SECONDS = 10, /* the workers hear of that no sooner again */
    SETTLE_US = 200000,        /* to read what a dead worker has sent */
    SETTLE_STEP_US = 5000,
};

struct svc;
struct svc_socket {
    struct svc *svc;
    struct endpoint at; /* inet */
    int fd;
    struct coro *watcher;
};
struct svc {
    struct svc *next;
    struct arena *arena; /* of the entry and the strings below */
    struct master_entry entry;
    struct str endpoint; /* "private/rewrite"; empty for inet */
    struct str path;     /* of the program */
    struct svc_socket *sockets;
    size_t socket_count;
    uint32_t worker_limit;
    size_t workers, old_workers; /* alive: of this generation, of older ones */
    bool used, gone, seen /* by the reload under way */;
    int64_t not_before; /* throttled until; 0: not */
    int64_t backoff_us;
    int64_t warned_us;    /* process limit; 0: never */
    int64_t stress_until; /* new sessions run with stress = yes until then; 0: they never did */
    struct cond changed;  /* may_start() may have a new answer */
    struct coro *waker, *starter;
    char pending[PENDING_WAKE_MAX]; /* trigger bytes for a worker that could not be started yet, or does not read */
    size_t pending_n;
    size_t kept_n;
    char kept[CONTROL_KEEP_MAX]; /* by its worker, for the next one; may be secret */
};

struct worker {
    struct worker *next;
    struct svc *svc;
    pid_t pid;
    unsigned generation;
    int64_t started_us;
    struct control *control;
    struct coro *reader;
    unsigned connects;  /* coroutines that connect for it */
    unsigned refusals;  /* of what it has asked for */
    int64_t refused_us; /* the last that was logged; after the first REFUSALS_LOGGED */
    char **may_dial;    /* paths it named before READY */
    size_t may_dial_count;
    bool ready, full, draining, reaped, settled, abnormal, killed /* by us */;
};

struct master {
    struct conf *conf;
    struct owner owner;
    struct svc *services;
    struct worker *workers;
    unsigned generation;
    bool stopping; /* nothing new from outside; what running sessions need may still be started */
    bool ending;   /* nothing new at all */
    int stop_signal;
    int verbose;
    bool debug;
    char **envp; /* of the workers */
    struct arena *env_arena;
    struct str queue_directory; /* of the first start: a reload does not move the queue */
};
extern struct master master;

/* --- services.c --- */
/* Read master.cf and bring sockets and services in line with it. `first`: an error is for the caller to die of; else
 * what works goes on. Workers are not touched. */
error services_load(const struct conf *c, bool first, struct arena *err_arena);
struct svc *service_at(struct str endpoint);
/* No more clients from outside: who comes is told at once instead of waiting in a socket that nobody reads. */
void services_close_ports(void);
/* Close everything, at the end of master. */
void services_end(void);
/* Free a service that is no longer in master.cf once its last worker has ended. */
void service_free_if_gone(struct svc *svc);
/* The watchers of all, and the wakeup timers (they begin anew). */
void services_watch(void);
/* Bytes for the service's worker, which is started for them if need be. */
void service_wake(struct svc *svc, struct str request);

/* --- listen.c --- */
/* Which sockets `entry` is to have. ERR_CONFIG. */
error listen_addresses(const struct conf *c, const struct master_entry *entry, struct arena *a, struct endpoint **ret,
                       size_t *ret_n);
/* Open one. For inet `at`, else `path` below the queue directory. */
error listen_inet(const struct endpoint *at, struct arena *err_arena, int *ret_fd);
error listen_local(enum service_type type, struct str path, struct arena *err_arena, int *ret_fd);
void unlisten_local(struct str path);
/* The port a name of known_tcp_ports or of the services database stands for; false: none. */
bool listen_port(const struct conf *c, struct str name, uint16_t *ret);

/* --- workers.c --- */
bool may_start(const struct svc *svc);
/* Start the service's workers. False: it is throttled now. */
bool workers_start(struct svc *svc);
struct worker *worker_of(const struct svc *svc); /* one of this generation, or NULL */
void worker_drain(struct worker *w);
void workers_reap(void); /* SIGCHLD */
/* Is this one of the services that bring work in or send it on, so that the others must end after it? */
bool service_is_front(const struct svc *svc);
#endif
