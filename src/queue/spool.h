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
const struct queue_id *spool_new_id(const struct spool_new *m);
/* Content, LF line endings. Buffered; the first failure is kept and given by spool_commit(). */
void spool_write(struct spool_new *m, struct str bytes);
uint64_t spool_new_size(const struct spool_new *m); /* content bytes so far */
/* Replace content bytes 0..n with `head` at the end of writing (a header that can be made only when all is known):
 * not needed by most. The envelope and all recipients are written here, then everything is made durable.
 * The message is in `state` (INCOMING or HOLD) after NULL; gone after an error. `m` is gone in either case. */
error spool_commit(struct spool_new *m, const struct envelope *e, enum spool_state state);
void spool_abort(struct spool_new *m);

/* --- reader --- */
struct spool_entry {
    struct queue_id id;
    enum spool_state state;
    int64_t next_try_us; /* DEFERRED: not before this wall-clock time (the file's modification time) */
    int64_t size;        /* bytes on disk */
};
/* The scan of INCOMING by the READER also removes what writers left unfinished when they died.
 * Walk one state, in no order, a bounded number of entries a call so that others get their turn. Messages that come or
 * go meanwhile may be seen or not. Files that are not messages are skipped. `{0}` starts; free with spool_scan_end().
 */
struct spool_scan {
    void *impl;
};
bool spool_scan_next(struct spool *s, struct spool_scan *scan, enum spool_state state, struct spool_entry *ret);
void spool_scan_end(struct spool_scan *scan);

struct spool_content { /* the content of a stored message: read-only, may be passed to another process */
    int fd;            /* owned by the caller of spool_load(); close it. -1: `bytes` is the content */
    uint64_t offset, size;
    struct str bytes; /* all of it, at most 128 KiB, as old as the arena of spool_load(); p is NULL when in a file */
};
/* Envelope with recipient states, the content, and the log of failures. ERR_SYNTAX: damaged (move it to CORRUPT).
 * ERR_SYS ENOENT: it has gone. `ret_content` may be NULL. Recipient order and indices are fixed for the life of a
 * message. */
error spool_load(struct spool *s, const struct queue_id *id, enum spool_state state, struct arena *a,
                 struct envelope *ret, struct spool_content *ret_content);
/* The content again, without the rest and unchecked. A READER that has the content of a message, by this call or by
 * spool_load(), has it locked until the last copy of the descriptor is closed, also those in other processes. ERR_SYS
 * EWOULDBLOCK: another has; the writer before its commit is done, an older reader, or who got the content from one. */
error spool_content_open(struct spool *s, const struct queue_id *id, enum spool_state state, struct spool_content *ret);
/* ERR_SYS EEXIST when a message of that name is there already (a queue restored from elsewhere): nothing is moved. */
error spool_move(struct spool *s, const struct queue_id *id, enum spool_state from, enum spool_state to);
/* The time of the next try, for DEFERRED; also used with a time in the past to make a message due. */
error spool_set_next_try(struct spool *s, const struct queue_id *id, enum spool_state state, int64_t wall_us);
/* Recipient `index` needs no more work. Not synced: a crash may undo it (one duplicate, never a loss). */
error spool_mark_done(struct spool *s, const struct queue_id *id, enum spool_state state, size_t index);
/* The sender has been told of the delay: the next spool_load() sets ENVELOPE_WARNED. Not synced either. */
error spool_mark_warned(struct spool *s, const struct queue_id *id, enum spool_state state);
/* The message and its failure log are gone when this returns NULL. */
error spool_remove(struct spool *s, const struct queue_id *id, enum spool_state state);

/* --- what happened to recipients: why deferred (mailq), why bounced (the notice) --- */
enum spool_log { SPOOL_LOG_DEFER, SPOOL_LOG_BOUNCE };
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
/* BOUNCE entries are synced before the recipient is marked done (otherwise a crash loses the notice): this does it. */
error spool_log_sync(struct spool *s, const struct queue_id *id, enum spool_log log);
error spool_log_read(struct spool *s, const struct queue_id *id, enum spool_log log, struct arena *a,
                     struct spool_failure **ret, size_t *ret_count); /* none: NULL, count 0 */
error spool_log_clear(struct spool *s, const struct queue_id *id, enum spool_log log);
#endif
