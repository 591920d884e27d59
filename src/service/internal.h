/* internal.h - shared by the files of this room. */
#ifndef ANGARIUM_SERVICE_INTERNAL_H
#define ANGARIUM_SERVICE_INTERNAL_H

#include "service/control.h"
#include "service/service.h"

/* connect.c: the worker's end of the control socket. One per process. */
struct link_events {
    void (*drain)(void *arg);                      /* DRAIN, or master is gone */
    void (*wakeup)(void *arg, struct str request); /* must not wait */
    void (*accept)(void *arg);                     /* take what waits at the listening sockets */
    void (*kept)(void *arg, struct str bytes);     /* KEPT; must not wait */
    void (*stress)(void *arg, uint32_t seconds);   /* must not wait */
    void *arg;
};
/* Take over WORKER_FD_CONTROL and read it in a coroutine. */
void link_start(const struct link_events *events);
void link_ready(void);
/* Before link_ready(): link_dial() will name this. */
void link_may_dial(struct str path);
/* As service_connect(), to a unix socket that is no service of ours. */
error link_dial(struct str path, int64_t deadline, int *ret_fd);
/* dial.c: tells master what dial_declare() has gathered. */
void dial_tell(void);
void link_sessions(uint32_t n, bool full);
void link_leaving(void);
/* stdio.c */
struct io *io_stdio(void);

/* Stop reading; waiting service_connect() calls fail. */
void link_stop(void);
#endif
