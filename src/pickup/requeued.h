/* requeued.h - a message of the queue that postsuper -r has put into maildrop/ (queue/queue_edit.h): handed to cleanup
 * with its own envelope, arrival time and recipients that are not done, and gets a new name, another Received: field
 * and the rewriting of today. Only a file of the mail system's own user is taken for one. */
#ifndef ANGARIUM_PICKUP_REQUEUED_H
#define ANGARIUM_PICKUP_REQUEUED_H

#include "pickup/pickup.h"
#include "proto/submit.h"
#include "queue/queue_file.h"
#include <sys/stat.h>

struct requeued {
    const char *name; /* its id in the queue */
    int fd;           /* borrowed */
    uid_t uid;
    struct queue_file file;
    size_t left; /* recipients to do; 0: there is nothing to hand over */
};
/* Is `fd`, whose first bytes have been looked at by nobody, such a message? Its envelope is in `a`. ERR_SYNTAX: it is
 * one, and damaged. `*ret_is` false: it is none. */
error requeued_open(int fd, const char *name, const struct stat *st, struct arena *a, bool *ret_is,
                    struct requeued *ret);
/* The error is the connection's, or of reading. Texts of the result live in `a`. */
error requeued_submit(struct pickup *p, struct requeued *r, struct arena *a, struct submit_result *ret);

/* One message on its way to cleanup. */
struct sending {
    struct submit *to;
    struct queue_id id;
    int64_t deadline;
};
/* pickup.c: the Received: field of what did not come by SMTP. */
error pickup_send_received(struct pickup *p, uid_t uid, int64_t when_us, const struct sending *out);
#endif
