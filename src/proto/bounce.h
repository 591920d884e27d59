/* bounce.h - ask for a delivery status notification: qmgr -> bounce (private/bounce, defer, trace).
 *
 * MORE(recipients)* REQUEST with the original content, or a descriptor of it (proto/content.h) -> ; <- RESULT(status,
 * queue id of the first notice). The notices are in the queue when status is BOUNCE_OK; the caller removes the
 * recipients only then. */
#ifndef ANGARIUM_PROTO_BOUNCE_H
#define ANGARIUM_PROTO_BOUNCE_H

#include "mail/envelope.h"
#include "proto/content.h"

enum bounce_kind { BOUNCE_FAILED = 1, BOUNCE_DELAYED, BOUNCE_SUCCESS /* NOTIFY=SUCCESS reports, -v, -bv */ };
struct bounce_request {
    enum bounce_kind kind;
    struct queue_id id;
    struct envelope env;               /* of the original message, without recipients */
    const struct spool_failure *rcpts; /* what to report; status and action in each */
    size_t rcpt_count;
    struct spool_content content; /* for the receiver: content_release() */
};
enum bounce_status { BOUNCE_OK = 0, BOUNCE_TEMP, BOUNCE_NOTHING /* nobody to tell: a failed double bounce */ };
enum bounce_type { BOUNCE_MSG_REQUEST = 1, BOUNCE_MSG_RESULT, BOUNCE_MSG_MORE };

enum { BOUNCE_BYTES_MAX = 128 * 1024 * 1024 /* packed failures of one request; more are told of in further ones */ };
/* `*ret_notice` is the first notice. */
error bounce_send(struct ipc *ipc, const struct bounce_request *r, int64_t deadline, enum bounce_status *ret,
                  struct queue_id *ret_notice);
/* Failures that came ahead of their request; `{0}`. */
struct bounce_ahead {
    VEC(struct spool_failure) rcpts;
    size_t bytes;
};
/* Takes in a frame of type MORE; all is copied to the arena. False: it is not one, is malformed, or there are too many.
 */
bool bounce_unpack_more(const struct ipc_msg *m, struct arena *a, struct bounce_ahead *ahead);
/* Takes m->fd. Strings and content are borrowed from `m`; what came ahead stands in front. */
bool bounce_unpack_request(struct ipc_msg *m, struct arena *a, const struct bounce_ahead *ahead,
                           struct bounce_request *ret);
void bounce_reply(struct ipc *ipc, enum bounce_status status, const struct queue_id *notice_or_null);
#endif
