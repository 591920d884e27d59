/* spool.h - where accepted mail is kept until it is delivered or returned.
 *
 * One process writes (cleanup), one reads and moves (qmgr), any number may list (showq, postcat). The promise: once
 * spool_commit() has returned NULL the message survives any crash, and stays until spool_remove(). The state table
 * (where a message can be, what a crash leaves) is at the top of the implementation.
 *
 * Calls may block on the disk: they use the offload threads (run/coro.h) when called inside a coroutine, so that other
 * sessions go on. All file access goes through run/sys.h. */
#ifndef ANGARIUM_QUEUE_SPOOL_H
#define ANGARIUM_QUEUE_SPOOL_H

#include "base/err.h"
#include "conf/conf.h"
#include "mail/envelope.h"
#include "queue/queue_id.h"

enum spool_state { SPOOL_INCOMING, SPOOL_ACTIVE, SPOOL_DEFERRED, SPOOL_HOLD, SPOOL_CORRUPT, SPOOL_STATES };
struct str spool_state_name(enum spool_state s); /* "incoming", ...: also the directory */

enum spool_access { SPOOL_WRITER, SPOOL_READER, SPOOL_LISTER };

struct spool_options {
    struct str queue_directory;
    enum spool_access access;
    bool log;              /* queue_log: mail up to SEGMENT_CONTENT_MAX goes into the log, not into files of its own */
    uint64_t segment_size; /* queue_log_segment_size; 0: the default */
    bool long_queue_ids;
    uint64_t min_free;   /* queue_minfree: spool_create() refuses below it; bytes, 0: no check */
    uint64_t size_limit; /* message_size_limit: the min_free rule wants 1.5 times it */
    /* hash_queue_names, hash_queue_depth: the same for all who open the spool. NULL and 0: the defaults. */
    struct str hash_names;
    unsigned hash_depth;
};
/* All of the above as main.cf has it. The strings live as long as `c`. */
struct spool_options spool_options_from(const struct conf *c, enum spool_access access);
struct spool;
/* Opens the directory, and makes those below it that are missing (not for a LISTER). Every later call goes through the
 * descriptor, so the caller may be confined after this. */
error spool_open(const struct spool_options *o, struct arena *err_arena, struct spool **ret);
void spool_close(struct spool *s);

/* One READER at a time takes messages up. False: another process does, ask again. It ends with the process, or with
 * spool_hand_over(): from then on the caller only finishes what it has locked (spool_content_open()). */
bool spool_take_over(struct spool *s);
void spool_hand_over(struct spool *s);

/* --- writer --- */
struct spool_new; /* a message being written; nobody else sees it */
/* Gives the message its queue id. ERR_SYS with ENOSPC (also for min_free): 452 4.3.1; other: 451 4.3.0. */
error spool_create(struct spool *s, struct spool_new **ret);
/* spool_create() would touch nothing but memory, nor would spool_abort() after it: messages may be begun ahead. */
bool spool_create_is_free(const struct spool *s);
const struct queue_id *spool_new_id(const struct spool_new *m);
/* Content, LF line endings. Buffered; waits now and then for the disk to begin with what is there. The first failure is
 * kept and given by spool_commit(). */
void spool_write(struct spool_new *m, struct str bytes);
uint64_t spool_new_size(const struct spool_new *m); /* content bytes so far */
/* What has been written so far, for those who look at a message before it is accepted: exactly `n` bytes from `at`. */
error spool_new_read(struct spool_new *m, uint64_t at, void *p, size_t n);
/* The content begins anew, under the same name. What was written before can be read with spool_old_read() until the
 * message is committed or aborted, or this is called again. */
error spool_new_again(struct spool_new *m);
error spool_old_read(struct spool_new *m, uint64_t at, void *p, size_t n);
/* Replace content bytes 0..n with `head` at the end of writing (a header that can be made only when all is known):
 * not needed by most. The envelope and all recipients are written here, then everything is made durable.
 * The message is in `state` (INCOMING or HOLD) after NULL; gone after an error. `m` is gone in either case. */
error spool_commit(struct spool_new *m, const struct envelope *e, enum spool_state state);
void spool_abort(struct spool_new *m);

/* Where a segment of the log is on stable storage up to. segment 0: nowhere. */
struct spool_position {
    uint64_t segment, end; /* its number (which is its name); offset behind the last whole record */
};
/* The WRITER tells of what was committed: once for all messages that shared a sync of the log (`position`), or once for
 * a message with a file of its own (`id`; not for HOLD). Called in a coroutine, before spool_commit() returns; must not
 * wait. */
struct spool_news {
    struct spool_position position; /* segment 0: a file */
    struct queue_id id;
};
void spool_on_news(struct spool *s, void (*fn)(void *ctx, const struct spool_news *news), void *ctx);

/* --- reader --- */
struct spool_entry {
    struct queue_id id;
    enum spool_state state;
    int64_t next_try_us; /* DEFERRED: not before this wall-clock time (the file's modification time) */
    int64_t size;        /* bytes on disk */
    bool fresh;          /* from spool_log_next(): nobody has had it before, there is nothing else of it */
};
/* The scan of INCOMING by the READER also removes what writers left unfinished when they died.
 * Walk one state, in no order, a bounded number of entries a call so that others get their turn. Messages that come or
 * go meanwhile may be seen or not. Files that are not messages are skipped. `{0}` starts; free with spool_scan_end().
 */
struct spool_scan {
    void *impl;
    bool files_only; /* not the messages of the log */
    bool names_only; /* of a LISTER: id and state are enough; what is not finished or no file is given, too */
};
bool spool_scan_next(struct spool *s, struct spool_scan *scan, enum spool_state state, struct spool_entry *ret);
void spool_scan_end(struct spool *s, struct spool_scan *scan);

/* The content of a stored message, in one of two forms: a descriptor of its own file, read-only, which may be passed to
 * another process, or, of a message in the log, a copy of the bytes (a segment's descriptor would show other mail). */
struct spool_content {
    int fd;                /* -1: inline, or none */
    uint64_t offset, size; /* offset: with fd */
    struct str bytes;      /* inline: all of it, at most SEGMENT_CONTENT_MAX, own memory; otherwise p is NULL */
};
/* Closes or frees it; it is empty then. One that is empty already is allowed. */
void spool_content_close(struct spool_content *c);
static inline bool spool_content_is_open(const struct spool_content *c) {
    return c->fd >= 0 || c->bytes.p;
}
/* Envelope with recipient states, the content, and the log of failures. ERR_SYNTAX: damaged (move it to CORRUPT).
 * ERR_SYS ENOENT: it has gone. `ret_content` may be NULL. Recipient order and indices are fixed for the life of a
 * message. */
error spool_load(struct spool *s, const struct queue_id *id, enum spool_state state, struct arena *a,
                 struct envelope *ret, struct spool_content *ret_content);
/* The same, but a message of more than SPOOL_RCPTS_WHOLE recipients comes without them (`ret->rcpts` is NULL,
 * `rcpt_count` says how many there are): spool_rcpts_next() reads those that are to do a part at a time. rest.todo 0:
 * it has come whole, or nothing is left to do. */
enum { SPOOL_RCPTS_WHOLE = 1000 };
struct spool_rest {
    uint64_t at;    /* private: where the next recipient begins */
    uint32_t index; /* private: which it is */
    size_t todo;    /* so many are to be read */
};
error spool_load_front(struct spool *s, const struct queue_id *id, enum spool_state state, struct arena *a,
                       struct envelope *ret, struct spool_content *ret_content, struct spool_rest *ret_rest);
/* The next recipients that are to do, at most `max`, and their indices in the message. Fewer only at the end or with an
 * error, after which nothing more is to be read. */
error spool_rcpts_next(struct spool *s, const struct queue_id *id, enum spool_state state,
                       struct spool_rest *inout_rest, size_t max, struct arena *a, struct rcpt **ret,
                       uint32_t **ret_index, size_t *ret_count);
/* The content again, without the rest and unchecked. A READER that has the content of a message, by this call or by
 * spool_load(), has it locked until the last copy of the descriptor is closed, also those in other processes. ERR_SYS
 * EWOULDBLOCK: another has; the writer before its commit is done, an older reader, or who got the content from one. */
error spool_content_open(struct spool *s, const struct queue_id *id, enum spool_state state, struct spool_content *ret);
/* ERR_SYS EEXIST when a message of that name is there already (a queue restored from elsewhere): nothing is moved. */
error spool_move(struct spool *s, const struct queue_id *id, enum spool_state from, enum spool_state to);
/* From ACTIVE to DEFERRED, with the time of the next try. Of a message in the log the file may be written later, in the
 * background; it is DEFERRED from now on for its READER, and active in lists until then. */
error spool_defer(struct spool *s, const struct queue_id *id, int64_t next_try_us);
/* The time of the next try, for DEFERRED; also used with a time in the past to make a message due. */
error spool_set_next_try(struct spool *s, const struct queue_id *id, enum spool_state state, int64_t wall_us);
/* Recipient `index` needs no more work. Not synced: a crash may undo it (one duplicate, never a loss). */
error spool_mark_done(struct spool *s, const struct queue_id *id, enum spool_state state, size_t index);
/* The sender has been told of the delay: the next spool_load() sets ENVELOPE_WARNED. Not synced either. */
error spool_mark_warned(struct spool *s, const struct queue_id *id, enum spool_state state);
/* The administrator wants it returned: spool_load() gives ENVELOPE_EXPIRED from now on. ERR_SYS ENOENT: it has no file
 * of its own there. ERR_SYS EEXIST: it has that mark already. */
error spool_mark_expired(struct spool *s, const struct queue_id *id, enum spool_state state);
/* The message and its failure log are gone when this returns NULL. */
error spool_remove(struct spool *s, const struct queue_id *id, enum spool_state state);

/* --- the log, for the READER in office --- */
/* A segment is on stable storage up to there, says the WRITER. */
void spool_log_committed(struct spool *s, struct spool_position position);
/* The WRITER's words may have been lost: look what is there. */
void spool_log_look(struct spool *s);
/* The next message of the log, now ACTIVE: take it up, or it stays so. What was left from before and what is new take
 * turns. False: none now. */
bool spool_log_next(struct spool *s, struct spool_entry *ret);
/* A coroutine's work until it is cancelled: writes marks once a turn of the loop, makes durable what has moved into
 * files, gives segments back. Without it (a command) call spool_settle() at the end. */
void spool_log_run(struct spool *s);
void spool_log_flush(struct spool *s); /* marks, at once */
/* All that has moved from the log into files is on stable storage, and its place in the log is free. Waits. */
error spool_settle(struct spool *s);
/* Where is the message of that name? False: nowhere. */
bool spool_find(struct spool *s, const struct queue_id *id, enum spool_state *ret);

/* --- what happened to recipients: why deferred (mailq), why bounced (the notice) --- */
/* DEFER: only of messages in the log while they are delivered, by spool_reasons_add(). TRACE: what a report of delivery
 * will say (NOTIFY=SUCCESS, sendmail -v and -bv); not synced. */
enum spool_log { SPOOL_LOG_DEFER, SPOOL_LOG_BOUNCE, SPOOL_LOG_TRACE };
struct spool_failure {
    uint64_t rcpt_index;
    struct str address, orig, dsn_orcpt;
    unsigned dsn_notify;
    struct str status;                      /* "4.4.1" */
    struct str action;                      /* "delayed", "failed" */
    struct str reason;                      /* text of the log line */
    struct str diagnostic_type, diagnostic; /* "smtp", "550 5.1.1 ..." or empty (RFC 3464, 2.3.6) */
    struct str remote_type, remote_mta;     /* "dns", "mx.example", or empty (RFC 3464, 2.3.5) */
    int64_t when_us;
};
/* The binary form of a failure: in logs, and in what is said to bounce. Unpacked strings are borrowed from the input.
 */
void spool_failure_pack(struct buf *b, const struct spool_failure *f);
void spool_failure_unpack(struct unpack *u, struct spool_failure *ret);

error spool_log_add(struct spool *s, const struct queue_id *id, enum spool_log log, const struct spool_failure *f);
/* Is there a log of any message? */
bool spool_has_logs(struct spool *s, enum spool_log log);
/* BOUNCE entries are synced before the recipient is marked done (otherwise a crash loses the notice): this does it. */
error spool_log_sync(struct spool *s, const struct queue_id *id, enum spool_log log);
error spool_log_read(struct spool *s, const struct queue_id *id, enum spool_log log, struct arena *a,
                     struct spool_failure **ret, size_t *ret_count); /* none: NULL, count 0 */
error spool_log_clear(struct spool *s, const struct queue_id *id, enum spool_log log);

/* Why recipients wait (mailq): in the message's own file; of one in the log in memory, until it becomes a file. Nothing
 * of it is synced: a crash may lose the latest. */
/* Appends a record. False: too large, nothing is appended. */
bool spool_record_pack(struct buf *b, const struct spool_failure *f);
/* Records of recipients of this attempt. `goes_on`: it is not over yet, and lists show them meanwhile. */
error spool_reasons_add(struct spool *s, const struct queue_id *id, enum spool_state state, struct str records,
                        bool goes_on);
error spool_reasons_read(struct spool *s, const struct queue_id *id, enum spool_state state, struct arena *a,
                         struct spool_failure **ret, size_t *ret_count); /* none: NULL, count 0 */
/* A new attempt begins. */
error spool_reasons_clear(struct spool *s, const struct queue_id *id, enum spool_state state);

/* --- for a LISTER of many messages: few calls for each --- */
struct spool_peek;
struct spool_peek *spool_peek_new(struct spool *s);
void spool_peek_free(struct spool_peek *p); /* NULL is allowed */
/* The envelope and, unless `ret` is NULL, why recipients wait. Strings are borrowed until the next call, the rest is in
 * `a`. Errors as of spool_load(). One thread at a time; several, each with its own, may go through one spool as long as
 * they ask for what is not in the log (DEFERRED). */
error spool_peek(struct spool_peek *p, const struct queue_id *id, enum spool_state state, struct arena *a,
                 struct envelope *ret_env, struct spool_failure **ret, size_t *ret_count);
#endif
