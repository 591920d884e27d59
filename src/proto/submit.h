/* submit.h - messages on their way into the queue: smtpd, pickup, bounce, local -> cleanup.
 *
 * One connection carries many messages, each a stream of its own: what is said about several of them is gathered and
 * written at once. Frames, each with the u32 number of a stream first:
 *
 * client                              cleanup
 * BEGIN(bytes)                    ->                            the first bytes of a new stream
 * DATA(bytes)                     ->                            more of them
 * DESCRIPTOR(), with a descriptor ->                            for the next MILTERS record; at most SUBMIT_FDS_MAX
 * CANCEL                          ->                            before END: nothing is kept
 *                                 <-  OPENED(queue id)
 *                                 <-  CREDIT(n)                 n bytes more may be sent
 *                                 <-  RESULT(...)               the end of the stream
 *                                 <-  CLOSING                   cleanup is about to end: begin no more (no stream
 * number)
 *
 * The bytes of a stream are records, cut into frames anywhere: u32 payload length, u8 type, payload.
 *
 * OPEN(flags)                         answered by OPENED, or by RESULT: refused (no space, ...)
 * ENVELOPE(without recipients)
 * [FULL_NAME]
 * RCPT ...                            this and ACTION also between and after CONTENT
 * [ACTION ...]                        what access tables want done with it
 * CONTENT ... (LF line endings)
 * [MILTERS(...)]                      mail filters that smtpd has talked to, and cleanup goes on with
 * END                                 answered by RESULT(status, queue id, size, text): SUBMIT_OK means on stable
 * storage
 *
 * Limits. Of each stream at most SUBMIT_WINDOW bytes are under way, that is: not yet credited; a record has at most
 * SUBMIT_RECORD_MAX bytes of payload; a connection has at most SUBMIT_STREAMS_MAX streams. Stream numbers are the
 * client's choice; no two of a connection at a time are the same modulo SUBMIT_STREAMS_MAX. A stream ends with RESULT
 * or CANCEL; what still comes for it then is ignored by either side. A closed connection cancels all streams that have
 * not had END. */
#ifndef ANGARIUM_PROTO_SUBMIT_H
#define ANGARIUM_PROTO_SUBMIT_H

#include "mail/envelope.h"
#include "queue/queue_id.h"
#include "run/ipc.h"

enum {
    SUBMIT_WINDOW = 128 * 1024,
    SUBMIT_RECORD_MAX = 32 * 1024,
    SUBMIT_STREAMS_MAX = 512,
    SUBMIT_FDS_MAX = 16, /* descriptors of one stream */
};

enum submit_flags {
    SUBMIT_FILTER = 1,        /* header and body checks apply (not for mail made by ourselves) */
    SUBMIT_MAP = 2,           /* canonical, virtual alias, bcc maps apply */
    SUBMIT_LOCAL_HEADERS = 8, /* rewrite headers as for local mail; add missing ones */
    SUBMIT_DETECT_UTF8 = 32,  /* without being told, SMTPUTF8 mail is known by its header and addresses */
    SUBMIT_MILTER = 64,       /* non_smtpd_milters apply */
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
    SUBMIT_REPLY,     /* a mail filter has refused it: text is the whole reply, "\n" between its lines */
};
enum submit_action {
    SUBMIT_ACTION_HOLD = 1, /* into the hold queue */
    SUBMIT_ACTION_DISCARD,  /* answered with SUBMIT_OK and thrown away */
    SUBMIT_ACTION_FILTER,   /* value transport:nexthop, in place of content_filter */
    SUBMIT_ACTION_REDIRECT, /* value user@domain: goes there, in place of all recipients */
};
struct submit_result {
    enum submit_status status;
    struct queue_id id;
    uint64_t size;        /* content bytes as queued */
    struct str dsn, text; /* "2.0.0", "Ok: queued as ..." */
};
/* SMTP reply code for a status. */
int submit_status_code(enum submit_status s);

/* --- client --- */

/* A connection to cleanup (proto/mux.h). Takes `ipc` over. */
struct submit_link *submit_link_new(struct ipc *ipc);
/* No message may be under way. NULL is allowed. */
void submit_link_close(struct submit_link *l);
/* May another message be begun? Not when the connection is broken, cleanup is about to end, or it is full. */
bool submit_link_usable(const struct submit_link *l);
size_t submit_link_count(const struct submit_link *l); /* messages under way */

struct submit; /* one message; no longer than its link */
/* An error is the connection's, and there is no message: ERR_EOF when cleanup has gone or is about to, so that another
 * connection may do. NULL with ret_refused->status not SUBMIT_OK: refused, and there is none either. Texts live in `a`.
 */
error submit_open(struct submit_link *l, unsigned flags, int64_t deadline, struct arena *a, struct submit **ret,
                  struct queue_id *ret_id, struct submit_result *ret_refused);
/* These gather, send when much is there, and wait then when cleanup is behind. A failure is kept: submit_end() has it,
 * too. */
error submit_envelope(struct submit *m, const struct envelope *e, int64_t deadline);
/* Of a local submitter, for a From: field that is missing; after the envelope, before content. */
error submit_full_name(struct submit *m, struct str name, int64_t deadline);
error submit_rcpt(struct submit *m, const struct rcpt *r, int64_t deadline);
error submit_action(struct submit *m, enum submit_action action, struct str value, int64_t deadline);
error submit_content(struct submit *m, struct str bytes, int64_t deadline);
/* Behind the content: what milters_pack() has made. The descriptors stay the caller's; nothing may be said over them
 * until submit_end() has returned, and nothing more at all when it fails. */
error submit_milters(struct submit *m, struct str packed, const int *fds, size_t n, int64_t deadline);
/* The message is gone after either of these; nobody may be waiting in the others. */
error submit_end(struct submit *m, int64_t deadline, struct arena *a, struct submit_result *ret);
void submit_cancel(struct submit *m); /* NULL is allowed */

/* --- cleanup's side --- */
enum submit_frame {
    SUBMIT_FRAME_BEGIN = 1,
    SUBMIT_FRAME_DATA,
    SUBMIT_FRAME_CANCEL,
    SUBMIT_FRAME_OPENED,
    SUBMIT_FRAME_CREDIT,
    SUBMIT_FRAME_RESULT,
    SUBMIT_FRAME_CLOSING,
    SUBMIT_FRAME_DESCRIPTOR,
};
enum submit_type {
    SUBMIT_MSG_OPEN = 1,
    SUBMIT_MSG_ENVELOPE,
    SUBMIT_MSG_RCPT,
    SUBMIT_MSG_CONTENT,
    SUBMIT_MSG_END,
    SUBMIT_MSG_FULL_NAME,
    SUBMIT_MSG_ACTION, /* u8 enum submit_action, value */
    SUBMIT_MSG_MILTERS,
};
struct submit_record {
    uint8_t type;
    struct str payload; /* borrowed until the next submit_in_next() */
};

struct submit_in;      /* one stream, seen by cleanup */
struct submit_server { /* as long as the process; set `message`, `ctx` and `held_max`, zero the rest */
    /* One message, in a coroutine of its own, from OPEN on. Returning without a result says SUBMIT_BAD. */
    void (*message)(void *ctx, struct submit_in *m);
    void *ctx;
    size_t
        held_max; /* bytes received and not yet read by their message, over all streams: more is left in the sockets */
    /* its own */
    size_t held;
    struct cond room;
    struct submit_conn *conns;
    bool draining;
};
/* Serve one client until it goes away (NULL), breaks the protocol (ERR_SYNTAX), or, draining, has nothing under way:
 * what it begins at that moment has not been answered, and it will ask another. All its messages have ended then. In a
 * coroutine; `ipc` stays the caller's. */
error submit_serve(struct submit_server *s, struct ipc *ipc);
/* From now on clients are asked to begin no more messages; those under way are finished. */
void submit_drain(struct submit_server *s);

/* The next record. &err_eof: cancelled, or the client has gone; ERR_SYNTAX: malformed. */
error submit_in_next(struct submit_in *m, struct submit_record *ret);
/* The descriptors that have come; they belong to the caller. */
size_t submit_in_descriptors(struct submit_in *m, int ret[SUBMIT_FDS_MAX]);
void submit_in_opened(struct submit_in *m, const struct queue_id *id);
void submit_in_result(struct submit_in *m, const struct submit_result *r);
/* What is left of `bytes`, cut off its front: the next record. 1: set; 0: not whole yet; -1: can never become one. */
int submit_record_next(struct str *bytes, struct submit_record *ret);
#endif
