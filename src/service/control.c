#include "service/control.h"

#include "base/die.h"
#include <stdlib.h>

struct control {
    struct ipc *ipc;
    struct coro *writer; /* only while there is something to send */
    bool failed, closed;
};

struct control *control_new(int fd) {
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        die_no_memory(sizeof *c);
    c->ipc = ipc_new(fd);
    return c;
}

static void control_free(struct control *c) {
    ipc_close(c->ipc);
    free(c);
}

static void write_all(void *arg) {
    struct control *c = arg;
    while (ipc_unsent(c->ipc) && !c->failed && !c->closed)
        /* The reader learns of a dead peer by itself; what is left to say has no listener. */
        c->failed = ipc_flush(c->ipc, deadline_in(CONTROL_SEND_SECONDS)) != NULL;
    c->writer = NULL;
    if (c->closed)
        control_free(c);
}

void control_send(struct control *c, uint8_t type, struct str payload, int fd) {
    if (!c->failed)
        ipc_send(c->ipc, type, payload, fd);
    if (fd >= 0)
        sys->close(fd);
    if (!c->writer && !c->failed)
        c->writer = coro_spawn(write_all, c, "control"); /* no stack to be had: the next frame tries again */
}

bool control_is_jammed(const struct control *c) {
    return !c->failed && (ipc_unsent(c->ipc) > CONTROL_UNSENT_MAX || ipc_unsent_fds(c->ipc) > CONTROL_UNSENT_FDS_MAX);
}

error control_recv(struct control *c, int64_t deadline, struct ipc_msg *ret) {
    return ipc_recv(c->ipc, deadline, ret);
}

void control_close(struct control *c) {
    if (!c)
        return;
    c->closed = true;
    if (c->writer)
        coro_cancel(c->writer); /* it frees */
    else
        control_free(c);
}
