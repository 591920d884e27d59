/* pickup.h - mail from maildrop/ to cleanup: each whole file is checked, submitted, and removed once it is in the
 * queue.
 *
 * A file is trusted with nothing but its owner's user id (postdrop is set-gid, so a file belongs to its sender) and is
 * read in constant memory, twice: to check it, and to send it. */
#ifndef ANGARIUM_PICKUP_PICKUP_H
#define ANGARIUM_PICKUP_PICKUP_H

#include "conf/conf.h"
#include "proto/receive.h"

struct pickup {
    const struct conf *c;
    unsigned submit_flags;       /* receive_override_options and the like */
    int maildrop_fd, corrupt_fd; /* directories */
    struct submit_link *cleanup; /* kept between messages; NULL: none */
    error (*connect)(void *ctx, struct ipc **ret);
    void *ctx;
};

/* The directories below the current one, which is queue_directory. */
error pickup_open(struct pickup *p, const struct conf *c, struct arena *err_arena);
void pickup_close(struct pickup *p);
/* Everything in maildrop/, also what comes meanwhile. A message that cannot be taken now stays for the next time. In a
 * coroutine, one at a time. False: cleanup could not be had, or died: there is more to do. */
bool pickup_scan(struct pickup *p);
#endif
