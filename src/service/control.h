/* control.h - what master and a worker say to each other over the worker's control socket (ipc frames, base/pack.h).
 *
 * The worker may have been broken into: master believes nothing but the process it came from. The end of the stream
 * means that the other side is gone; a worker then drains as if told to.
 *
 * type       payload                       meaning
 * READY      -                             init and confinement are done
 * SESSIONS   u32 sessions, u8 full         `full` has changed (sent only then): the session limit is reached, or no
 * more CONNECT    u32 id, str endpoint          connect me to "private/rewrite"; answered by CONNECTED or REFUSED
 * MAY_DIAL   str path                      before READY only: what DIAL may name later (service/dial.h)
 * DIAL       u32 id, str path              connect me to that unix socket; answered by CONNECTED or REFUSED
 * SCRATCH    u32 id, str empty              a file without a name; answered by CONNECTED or REFUSED (smtpd only)
 * TRIGGER    str endpoint, str bytes       wake that service; no answer
 * LOG        -                             my log socket is dead: answered by LOGGER
 * LEAVING    -                             only a new process can read what I need: answered by DRAIN
 * KEEP       bytes                         keep these for the next process of my service (tlsmgr only)
 * DRAIN      -                             no new work, end when the present work has ended
 * WAKEUP     str bytes                     the wakeup time has come, or somebody wrote these bytes
 * CONNECTED  u32 id, and the descriptor
 * REFUSED    u32 id, u8 denied, str why    denied: not allowed; else it failed, and may be tried again
 * LOGGER     the descriptor, or none: no log to be had
 * KEPT       bytes                         the first frame of all, to a program that may KEEP: what the last one left
 * STRESS     u32 seconds                   all sessions your service may have are there: those that begin within so
 *                                          long run with stress = yes
 * ACCEPT     -                             another worker of your service is full: look at the listening sockets now
 * (each new connection wakes one worker only) */
#ifndef ANGARIUM_SERVICE_CONTROL_H
#define ANGARIUM_SERVICE_CONTROL_H

#include "run/ipc.h"

enum control_type {
    CONTROL_READY = 1,
    CONTROL_SESSIONS,
    CONTROL_CONNECT,
    CONTROL_TRIGGER,
    CONTROL_LOG,
    CONTROL_LEAVING,
    CONTROL_MAY_DIAL,
    CONTROL_DIAL,
    CONTROL_KEEP,
    CONTROL_SCRATCH,
    CONTROL_DRAIN = 32,
    CONTROL_WAKEUP,
    CONTROL_CONNECTED,
    CONTROL_REFUSED,
    CONTROL_LOGGER,
    CONTROL_ACCEPT,
    CONTROL_KEPT,
    CONTROL_STRESS,
};
enum {
    /* master stops reading from a worker that does not take its answers: bytes, descriptors */
    CONTROL_UNSENT_MAX = 65536,
    CONTROL_UNSENT_FDS_MAX = 64,
    CONTROL_TRIGGER_MAX = 1024, /* bytes of a trigger request that are looked at */
    CONTROL_ENDPOINT_MAX = 256,
    CONTROL_KEEP_MAX = 1024,   /* bytes */
    CONTROL_DIALS_MAX = 256,   /* paths one worker may name with MAY_DIAL */
    CONTROL_SEND_SECONDS = 60, /* a peer that takes nothing for so long is given up */
};

struct control;

/* Takes over `fd`. The loop must be set up. */
struct control *control_new(int fd);
/* Queue a frame; a coroutine of its own sends it, in order. May be called outside coroutines. `fd` (or -1) is taken
 * over. */
void control_send(struct control *c, uint8_t type, struct str payload, int fd);
/* Has more been queued than a peer that reads would leave? */
bool control_is_jammed(const struct control *c);
/* As ipc_recv(); one reader at a time. */
error control_recv(struct control *c, int64_t deadline, struct ipc_msg *ret);
/* Frames not yet sent are dropped. No reader may be waiting. NULL is allowed. */
void control_close(struct control *c);
#endif
