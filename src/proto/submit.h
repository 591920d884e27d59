/* submit.h - a message on its way into the queue: smtpd, pickup, bounce, local -> cleanup.
 *
 * client                              cleanup
 * OPEN(flags)                     ->
 *                                 <-  OPENED(queue id) | RESULT(refused: no space, ...)
 * ENVELOPE(without recipients)    ->
 * [FULL_NAME]                     ->
 * RCPT ...                        ->                            also between and after CONTENT
 * CONTENT ... (LF line endings)   ->
 * END                             ->
 *                                 <-  RESULT(status, queue id, size, text)
 * A closed connection before END cancels: nothing is kept. After RESULT the connection takes the next OPEN. RESULT with
 * SUBMIT_OK means on stable storage. */
#ifndef ANGARIUM_PROTO_SUBMIT_H
#define ANGARIUM_PROTO_SUBMIT_H

#include "mail/envelope.h"
#include "queue/queue_id.h"
#include "run/ipc.h"

enum submit_flags {
    SUBMIT_FILTER = 1,        /* header and body checks, milters apply (not for mail made by ourselves) */
    SUBMIT_MAP = 2,           /* canonical, virtual alias, bcc maps apply */
    SUBMIT_LOCAL_HEADERS = 8, /* rewrite headers as for local mail; add missing ones */
    SUBMIT_BOUNCE = 16,       /* refused content is returned to the sender instead of refused (pickup) */
};
enum submit_status {
    SUBMIT_OK = 0,
    SUBMIT_TEMP,      /* 451 4.3.0 */
    SUBMIT_NO_SPACE,  /* 452 4.3.1 */
    SUBMIT_TOO_LARGE, /* 552 5.3.4 */
    SUBMIT_HOPS,      /* 554 5.4.0 too many hops */
    SUBMIT_CONTENT,   /* 550 5.7.1 refused by checks; text says */
    SUBMIT_NO_RCPT,   /* 550 5.1.3? no recipients (sendmail -t without any) */
    SUBMIT_BAD,       /* the client broke the protocol */
};
struct submit_result {
    enum submit_status status;
    struct queue_id id;
    uint64_t size;        /* content bytes as queued */
    struct str dsn, text; /* "2.0.0", "Ok: queued as ..."; borrowed from the connection until its next use */
};
/* SMTP reply code for a status. */
int submit_status_code(enum submit_status s);

/* --- client --- */
error submit_open(struct ipc *ipc, unsigned flags, int64_t deadline, struct queue_id *ret_id,
                  struct submit_result *ret_refused /* status not OK: refused, the connection stays usable */);
void submit_envelope(struct ipc *ipc, const struct envelope *e);
/* Of a local submitter, for a From: field that is missing; after the envelope, before content. */
void submit_full_name(struct ipc *ipc, struct str name);
void submit_rcpt(struct ipc *ipc, const struct rcpt *r);
/* Gathers small pieces into frames; flushes by itself when much is buffered. The error is the connection's. */
error submit_content(struct ipc *ipc, struct str bytes, int64_t deadline);
error submit_end(struct ipc *ipc, int64_t deadline, struct submit_result *ret);

/* --- cleanup's side --- */
enum submit_type {
    SUBMIT_MSG_OPEN = 1,
    SUBMIT_MSG_OPENED,
    SUBMIT_MSG_ENVELOPE,
    SUBMIT_MSG_RCPT,
    SUBMIT_MSG_CONTENT,
    SUBMIT_MSG_END,
    SUBMIT_MSG_RESULT,
    SUBMIT_MSG_FULL_NAME,
};
void submit_reply_opened(struct ipc *ipc, const struct queue_id *id);
void submit_reply_result(struct ipc *ipc, const struct submit_result *r);
#endif
