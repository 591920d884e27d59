/* service.h - the skeleton of a daemon: what main() of each master.cf program calls.
 *
 * service_main() reads the arguments master gives (the internal ones of daemons(8): -n service, -t type, -s sockets,
 * -o name=value, -v, -c chroot, -u unprivileged, ...), loads main.cf with the -o overrides, sets up logging, calls
 * init() while the process still has its privileges, confines it (run/worker.h) as the row says, reports READY to
 * master, and then runs session() in a coroutine per connection, never more than maxproc at a time. At a reload or
 * stop, master says DRAIN: no more connections are taken, sessions end in their own time, the process exits.
 *
 * Without master (a daemon started by hand, or `sendmail -bs` with -S) the session runs on standard input/output. */
#ifndef ANGARIUM_SERVICE_SERVICE_H
#define ANGARIUM_SERVICE_SERVICE_H

#include "conf/conf.h"
#include "run/io.h"
#include "run/ipc.h"
#include "run/worker.h"

struct service_ctx {
    struct conf *conf;
    struct str name;        /* $service_name: "smtp", "127.0.0.1:10025", "cleanup" */
    struct str program;     /* "smtpd" */
    const struct str *args; /* the master.cf arguments that are not options: pipe's flags= user= argv= */
    size_t arg_count;
    const struct conf_override *overrides; /* the -o of master.cf */
    size_t override_count;
    uint32_t session_limit; /* this worker's part of maxproc; 0: none */
    uint32_t sessions;      /* running now */
    struct group work;      /* background work that must end before a draining process may: group_enter/leave() */
    int64_t stress_until;   /* new sessions begin with stress = yes until then: master has said so; 0: never */
    bool draining;          /* no new work; end after the current piece */
    bool standalone;        /* no master */
    bool stay_root;         /* we are root and stay it: switch to the user before acting for one */
    uid_t mail_uid;         /* mail_owner, or who we are when not root */
    gid_t mail_gid;
    unsigned confine_off; /* init() may take some of service.confine away, where the configuration asks for it */
    void *state;          /* the program's own */
};

struct service {
    const char *program; /* "smtpd": the log tag is $syslog_name/smtpd */
    unsigned confine;    /* enum confine_flags */
    bool root;           /* stays root when started as root (local, virtual, pipe) */
    bool empty_chroot;   /* chrooted to an empty directory whatever master.cf says (smtpd, smtp) */
    bool no_chroot;  /* reads tables for services that are chrooted (what proxy: asks for): whatever master.cf says, it
                        sees the whole file system, as proxymap does (trivial-rewrite) */
    bool own_rights; /* without master it keeps the rights of whoever runs it (a command's own look-up process) */
    bool opens_tables; /* it is the look-up process: opens tables itself instead of asking for them */
    bool multi_client; /* one process serves any number of clients (rewrite, anvil, proxymap): maxproc counts processes,
                          so sessions are not limited. A service with wakeup() is like that, too. */
    bool resident; /* has state in memory: max_idle does not end it (anvil, scache). A service with start() or wakeup()
                      is like that, too. */
    bool drain_cancels; /* sessions are conversations that clients keep open and can begin anew: cancelled on DRAIN */
    const char *const *writable; /* with CONFINE_WRITE_FILES: directories, relative to queue_directory or absolute, NULL
                                    at the end, that files may be written in where the kernel has Landlock; NULL: any */
    /* Before privileges go: open tables, read files. An error is fatal. May be NULL. */
    error (*init)(struct service_ctx *ctx, struct arena *err_arena);
    /* First coroutine, before any session: background work; cancelled when a draining process has no session and no
     * `work` left. May be NULL. */
    void (*start)(struct service_ctx *ctx);
    /* One connection; `io` is closed by the skeleton after it returns. For services that speak frames, take it over
     * with service_ipc(). NULL: the service has no connections. */
    void (*session)(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local);
    /* One datagram (unix-dgram services). */
    void (*datagram)(struct service_ctx *ctx, struct str data);
    /* Called after some datagrams, when no more are there or others must have their turn. Says for how many
     * microseconds those that come next may stay in the socket; it is called again then, datagrams or not. 0: they are
     * read as they come. May be NULL. */
    int64_t (*datagrams_read)(struct service_ctx *ctx);
    /* Called when the service is woken: its wakeup time, or bytes written to its trigger socket (pickup, qmgr). */
    void (*wakeup)(struct service_ctx *ctx, struct str request);
    /* Asked about every half second: the name of a file that has changed and that only a new process can read, or NULL.
     * As with tables, the process then ends its sessions in their own time, and another takes the new ones. May be
     * NULL. */
    const char *(*outdated)(struct service_ctx *ctx);
    /* Before all else in the loop: what the last process of the service gave to service_keep(); empty: nothing. Only
     * for programs that master/roles.c lists. It must not wait. May be NULL. */
    void (*kept)(struct service_ctx *ctx, struct str bytes);
    /* Draining has begun. May be NULL. */
    void (*drain)(struct service_ctx *ctx);
};

/* The current directory is queue_directory, before and after confinement with chroot = y in master.cf: name files in it
 * by relative paths. A program chrooted to an empty directory must have opened everything in init(). */
int service_main(int argc, char **argv, const struct service *s);

/* For a process that hands connections to a pass service: the payload of the frame with the descriptor, when the ends
 * of the connection are not the client's and ours (a proxy is in front). */
void service_pack_handover(struct buf *b, const struct endpoint *peer, const struct endpoint *local);

/* Frames over the connection of a session: call it before anything was read. The skeleton closes both. */
struct ipc *service_ipc(struct io *io);

/* For a service with both session() and wakeup() (qmgr): has this connection been made to write trigger bytes? Looks at
 * the first byte (upper case letter: yes) without taking it from a framed connection. If so the bytes are read, handed
 * to wakeup(), and true is returned: the session has nothing left to do. */
bool service_trigger_session(struct service_ctx *ctx, struct io *io);

/* Who made a connection to a unix socket, as the kernel says; false for others. Connections that master made for
 * another service have master's user id. */
bool service_peer_uid(struct io *io, uid_t *ret);

/* Was it made by master, for whatever service? Then its user id says nothing. */
bool service_peer_is_master(struct io *io);

/* A new connection to another internal service: "public/cleanup", "private/rewrite", ... Master makes it (a confined
 * process cannot) and allows only what the table in master/roles.c lists for this program. ERR_TEMP when it cannot be
 * had now, with why in `text`; ERR_PERM when it is not allowed. Keep connections: each costs a round trip to master. */
error service_connect(struct service_ctx *ctx, struct str endpoint, int64_t deadline, struct ipc **ret);
/* In init(): main.cf and the -o of master.cf as they read with stress = yes. ERR_CONFIG as conf_load(). */
error service_stressed_conf(const struct service_ctx *ctx, struct arena *a, struct conf **ret);
/* For a program that master/roles.c lists: a file without a name below queue_directory, for reading and writing, gone
 * when it is closed. Errors as with service_connect(); not for a process without a master. */
error service_scratch_file(struct service_ctx *ctx, int64_t deadline, int *ret_fd);
/* For a program that master/roles.c lists: master keeps these bytes (at most CONTROL_KEEP_MAX, in place of those
 * before) in its memory for the next process of the service, and forgets them when it ends itself. */
void service_keep(struct service_ctx *ctx, struct str bytes);
/* Wake a service: `request` bytes to its trigger ("W", "I", "F"). Best effort. */
void service_trigger(struct service_ctx *ctx, struct str endpoint, struct str request);
#endif
