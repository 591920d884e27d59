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
    struct str name;           /* $service_name: "smtp", "127.0.0.1:10025", "cleanup" */
    struct str program;        /* "smtpd" */
    const struct str *args;    /* the master.cf arguments that are not options: pipe's flags= user= argv= */
    size_t arg_count;
    uint32_t session_limit;    /* maxproc; 0: none */
    uint32_t sessions;         /* running now */
    bool draining;             /* no new work; end after the current piece */
    bool standalone;           /* no master */
    uid_t mail_uid;            /* mail_owner, or who we are when not root */
    gid_t mail_gid;
    void *state;               /* the program's own */
};

struct service {
    const char *program; /* "smtpd": the log tag is $syslog_name/smtpd */
    unsigned confine;    /* enum confine_flags */
    bool root;           /* stays root when started as root (local, virtual, pipe) */
    bool empty_chroot;   /* chrooted to an empty directory whatever master.cf says (smtpd, smtp) */
    /* Before privileges go: open tables, read files. An error is fatal. May be NULL. */
    error (*init)(struct service_ctx *ctx, struct arena *err_arena);
    /* First coroutine, before any session: background work. May be NULL. */
    void (*start)(struct service_ctx *ctx);
    /* One connection; `io` is closed by the skeleton after it returns. For services that speak frames, take it over with
     * service_ipc(). NULL: the service has no connections. */
    void (*session)(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local);
    /* One datagram (unix-dgram services). */
    void (*datagram)(struct service_ctx *ctx, struct str data);
    /* Called when the service is woken: its wakeup time, or bytes written to its trigger socket (pickup, qmgr). */
    void (*wakeup)(struct service_ctx *ctx, struct str request);
    /* Draining has begun. May be NULL. */
    void (*drain)(struct service_ctx *ctx);
};

int service_main(int argc, char **argv, const struct service *s);

/* Frames over the connection of a session. The ipc borrows: the skeleton still closes the connection. */
struct ipc *service_ipc(struct io *io);

/* A new connection to another internal service: "public/cleanup", "private/rewrite", ... Master makes it (a confined
 * process cannot) and allows only what services_may_connect() lists for this program. */
error service_connect(struct service_ctx *ctx, struct str endpoint, int64_t deadline, struct ipc **ret);
/* Wake a service: `request` bytes to its trigger ("W", "I", "F"). Best effort. */
void service_trigger(struct service_ctx *ctx, struct str endpoint, struct str request);
#endif
