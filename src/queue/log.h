/* log.h - the log of the spool: segments (segment.h) below queue_directory/log. Only the files of the spool include it.
 *
 * Names: log/N is a live segment, N sixteen hexadecimal digits, never used twice; log/free.N one that has been used up
 * and waits for its next use; log/new.N one that is being made ready. Only live ones are read. log/lane.K belong to the
 * writers: queue ids (log_ids.c).
 *
 * A life of a segment:
 *   writer  takes a free one (renameat free.N -> new.M: one of several writers wins) or makes one, locks it (flock,
 *           held until it is sealed), makes the name durable, writes the head of a new generation and zeros over the
 *           marks (over all of it when it is new, so that no later write changes metadata), fdatasync, renames it to
 *           log/M and makes the name durable: all before the first record. Then batches: one pwrite, one fdatasync;
 *           the next is gathered meanwhile. Sealed: the writer lets the lock go. It goes to the next segment when
 *           records or marks do not fit, after a failed write or sync (what was written of that batch is overwritten
 *           with zeros as far as possible: nobody has a 250 for it), and at its end.
 *   reader  reads forward from the first record to the committed end the writer has told, or, of a segment without a
 *           writer (at the start, or when one has died), to the first record that is not whole. Messages are delivered
 *           from here, their marks written within one turn of the loop. One that is deferred is written into a file
 *           (spool_file.h) under deferred/, soon (log_move.c) and without a sync; it stays in the segment, undone,
 *           until log_settle(): syncfs, then their marks. Until then nobody touches the file. Held ones stay where they
 *           are as long as they fill half of their segment: the log takes at most twice their size; what is left of
 * other segments, and of the oldest when there are very many, goes into files under hold/ in the same way, a few at a
 * time and when no mail comes. When all messages of a sealed segment are done: fdatasync (the marks), renamed to
 * log/free.N; more than LOG_FREE_MAX are removed.
 *
 * What a crash leaves, in addition to the table in spool.c (kill -9: the page cache survives; power: what was not
 * synced is lost or kept, in any combination):
 *
 *   state       where                     a crash leaves
 *   ----------  ------------------------  ---------------------------------------------------------------------------
 *   gathering   memory of the writer      nothing; the client has no answer
 *   written     record behind the         all, part or nothing of a batch nobody has a 250 for. Whole records are
 *               committed end             delivered (the client sends again: a duplicate); the first that is not whole
 *                                         ends the segment
 *   accepted    record, synced            the whole record, and all before it: batches are written one after the other
 *   active      the same; mark A          the record; the mark may be lost: it is only for lists
 *   rcpt done   mark D of the recipient   D, or not: one recipient is served twice. Power can lose what was marked
 *                                         since the last sync of the segment (each batch, or LOG_SYNC_S)
 *   moving      the same; in memory       the record: delivered again, before its time. A file that is not whole goes
 *   moved       record undone, and a      kill -9: both; the file wins, it is whole. Power: the record; the file whole
 *               file, not synced          (it wins), torn or missing (removed; the record is delivered again)
 *   settled     file synced, mark D       the file; the mark may be lost: then the file wins again, as long as it is
 *                                         there, and a file is not touched before its mark has been synced
 *   done        message mark D            D, or not: recipients without their marks are served twice
 *   recycled    free.N                    under either name, all marks D and synced: nothing is read twice
 *   made ready  new.N                     nothing in it counts; removed by the reader once it is unlocked */
#ifndef ANGARIUM_QUEUE_LOG_H
#define ANGARIUM_QUEUE_LOG_H

#include "base/map.h"
#include "queue/segment.h"
#include "queue/spool_private.h"
#include <dirent.h>

enum {
    LOG_NAME_MAX = 32, /* "log/free.0123456789abcdef" and NUL */
    LOG_FREE_MAX = 8,
    LOG_SYNC_S = 1,
    LOG_SETTLE_S = 5,                         /* from a move to its sync */
    LOG_MOVING_MAX = 20000,                   /* messages that wait to be moved; more are moved at once, */
    LOG_MOVING_BYTES_MAX = 128 * 1024 * 1024, /* and so are those above these bytes of the log */
};
/* "log/N", with "free." or "new." in front of N, or "". */
void log_name(const char *prefix, uint64_t number, char ret[LOG_NAME_MAX]);
/* N of a name below log/ ("free.0123..." with prefix "free."). False: not such a name. */
bool log_number(const char *name, const char *prefix, uint64_t *ret);
/* All names of segments, in no order: `prefix` and `number` are those of the last one. */
struct log_names {
    DIR *dir;
    const char *prefix;
    uint64_t number;
};
/* Below log/ of the directory `dir`. After an error there are none. */
error log_names_open(int dir, struct log_names *ret);
bool log_names_next(struct log_names *n);
void log_names_close(struct log_names *n);
/* The numbers of those with `prefix`, ascending; malloc'ed. */
uint64_t *log_numbers(const struct spool *s, const char *prefix, size_t *ret_count);

/* --- log_write.c: the WRITER --- */
struct log_writer;
/* Nothing is made until the first message needs it, or log_prepare(). */
struct log_writer *log_writer_new(struct spool *s, uint64_t segment_size);
void log_writer_free(struct log_writer *w); /* seals */
/* Has a number of its own in its time (log_ids.c). ERR_SYS EUSERS: there are as many writers already as may be. */
error log_next_id(struct log_writer *w, struct queue_id *ret);
bool log_next_id_is_free(const struct log_writer *w); /* it will not wait, nor ask the disk */
/* Does a message of this size have its place in the log? All others get files of their own. */
bool log_takes(const struct log_writer *w, const struct segment_record *r);
/* A message that was begun and will be committed soon, as far as one can know: a batch may wait for it. */
struct log_coming {
    struct log_coming *older, *newer;
    int64_t since_us; /* mono_us */
    bool listed;
};
void log_comes(struct log_writer *w, struct log_coming *c);
void log_comes_not(struct log_writer *w, struct log_coming *c); /* also one that is not listed */
/* Content and envelope on stable storage when this returns NULL; `r`, which log_takes(), has everything but its mark.
 * Waits for the batch (a plain call outside a coroutine: a batch of one). */
error log_commit(struct log_writer *w, struct log_coming *c, struct segment_record *r, struct str content,
                 struct str envelope);
/* The same for a message that got its id from here and is in a file of its own: NULL when no later process can give
 * that id again. */
error log_commit_id(struct log_writer *w);

/* --- log_ids.c: queue ids that no other message has --- */
struct log_ids {
    int fd; /* of the lane, locked; -1: none yet */
    unsigned lane, first_lane;
    int64_t last_us; /* time in the latest id */
    int64_t kept_us; /* no later one is given by another process: on stable storage */
};
extern const struct log_ids log_ids_none;
static inline bool log_ids_are_open(const struct log_ids *ids) {
    return ids->fd >= 0;
}
/* Finds a lane that nobody has, below log/ of the directory `dir`. ERR_SYS EUSERS: there is none. Blocks on the disk.
 */
error log_ids_open(struct log_ids *ids, int dir);
void log_ids_next(struct log_ids *ids, bool long_form, struct queue_id *ret);
/* 0, or: ids have been given that are above what is kept. Before a message with one is acknowledged this bound has to
 * be, by log_ids_keep(); who did that sets `kept_us`. */
int64_t log_ids_to_keep(const struct log_ids *ids);
error log_ids_keep(int fd, int64_t bound); /* blocks on the disk */
/* After a failure: the lane is left, log_ids_open() goes to the next one. */
void log_ids_give_up(struct log_ids *ids);
void log_ids_close(struct log_ids *ids);

/* --- log_read.c, log_message.c: the READER --- */
struct log_mark { /* `n` bytes of `value` from mark `at` on, not yet written */
    uint32_t at, n;
    uint8_t value;
};

struct log_segment {
    struct log_segment *next; /* in the order of their numbers */
    uint64_t number;
    int fd;
    struct segment_head head;
    uint64_t at;         /* of the next record to read */
    uint64_t end;        /* told by the writer to be on stable storage */
    uint64_t fresh_from; /* records from here on were written while we read: no marks, no files of theirs */
    uint64_t held_at;    /* of the next held message to move into a file; its first record: none is moved yet */
    uint64_t held_bytes; /* of the records of those in log_reader.held, */
    size_t held;         /* and their number */
    int64_t sealed_at;   /* mono_us when it was seen that no writer has it; 0: not yet */
    bool read_all;       /* sealed, and no record is left to read */
    bool marks_lost;     /* some could not be written since the last sync */
    bool unsynced;       /* marks were written since the last sync */
    bool damaged;        /* some of it passes no check: not to be used again, kept in corrupt/ at its end */
    bool unreadable;     /* a read failed at `at`: tried again at the next look */
    unsigned syncing;    /* calls under way: it must stay */
    size_t live;         /* messages read and not yet done */
    VEC(struct log_mark) marks;
    struct arena *marks_arena;
    char *chunk; /* bytes read ahead: `chunk_n` from `chunk_at` on; NULL when there is nothing to read */
    uint64_t chunk_at;
    size_t chunk_n, chunk_room;
};

enum log_state {
    LOG_ACTIVE,
    LOG_HELD,
    LOG_MOVING, /* deferred, and still to be written into its file */
    LOG_MOVED,  /* into a file that is not known to be synced */
    LOG_BUSY,   /* an older qmgr is finishing it */
    LOG_GONE,   /* done before its record was read */
};
struct log_message {
    struct log_segment *segment;
    uint64_t at;
    struct segment_record record; /* its id is the key in the map */
    enum log_state state;
    bool fresh;    /* no marks to be read */
    bool ahead;    /* its record is still to be read in its turn */
    bool warned;   /* spool_mark_warned() */
    bool has_logs; /* there may be failure logs of it */
    int64_t next_try_us;
    struct buf reasons; /* of the file that it becomes */
    struct log_message *moving_next, *moving_prev;
    bool in_hands;  /* MOVING: the thread writes it just now */
    uint64_t moved; /* number of the move, for log_settle() */
};

/* Where the held messages are that nobody asks for (log_held.c). */
struct log_held_table {
    struct log_held *slots;
    size_t n, used, room; /* messages, slots that are not free, slots (a power of two) */
};

struct log_reader {
    struct spool *spool;
    struct log_segment *segments;
    uint64_t *left; /* numbers of segments found at the start and not opened yet, ascending */
    size_t left_count, left_at;
    struct map messages; /* queue id -> struct log_message */
    struct log_held_table held;
    size_t held_taken; /* log_held_take() since log_held_put_back() */
    int64_t heard_us;  /* mono_us when a writer was last heard of */
    size_t unsettled, busy;
    uint64_t moves;        /* made so far */
    VEC(uint64_t) refused; /* segments that were reported and left as they are */
    struct arena *refused_arena;
    bool reconciled; /* files that won over their records at the last crash are known */
    bool old_turn;   /* who is asked next: what was left, or what has come since */
    bool handed_over;
    int64_t settle_at, busy_at, sync_at; /* mono_us of the next; 0: none */
    struct cond work;                    /* for log_run() */
    bool stop, settling;
    struct cond settled;
    struct log_message *moving_first, *moving_last; /* MOVING and not in hands */
    size_t moving_count;
    uint64_t moving_bytes; /* of the log */
    size_t moving_max;     /* LOG_MOVING_MAX, except in tests */
    uint64_t moving_bytes_max;
    size_t moving_in_hands;
    bool mover;                            /* its coroutine runs */
    struct cond moving_done, moving_again; /* a batch has ended; what could not be moved has been */
};

struct log_reader *log_reader_new(struct spool *s);
void log_reader_free(struct log_reader *r);
/* The READER is in office: find what is there. */
void log_take_over(struct log_reader *r);
/* Before a file is touched for the first time: which of them have their record undone in the log, after a crash? They
 * are in MOVED from now on. (Later than that a file may be gone when its record comes up, and be delivered twice.) */
void log_reconcile(struct log_reader *r);
/* What is still being delivered is locked for the next READER. */
void log_hand_over(struct log_reader *r);
/* NULL: not in the log (any more): look for a file. A message that has moved is settled first. `state` is where it has
 * to be: HOLD, ACTIVE, or INCOMING, which stands for one that is still ahead. */
struct log_message *log_find(struct spool *s, const struct queue_id *id, enum spool_state state);
struct log_walk_entry;
/* An older qmgr still holds the record of that name: a file of it is not to be touched before it has let go. */
bool log_is_busy(const struct spool *s, const struct queue_id *id);
/* A message whose record the reader has not come to yet, found by log_walk_next(), is in its hands from now on. */
void log_adopt(struct log_reader *r, const struct log_walk_entry *found);
error log_load(struct log_message *m, struct arena *a, struct envelope *ret, struct spool_content *ret_content);
error log_content(struct log_message *m, struct spool_content *ret);
error log_mark_done(struct spool *s, struct log_message *m, size_t index);
error log_move(struct spool *s, struct log_message *m, enum spool_state to);
/* To DEFERRED, when there is time. */
error log_move_later(struct spool *s, struct log_message *m);
/* One that is MOVING now (or when the thread is done with it). What is there then, as from the map. */
struct log_message *log_move_now(struct spool *s, const struct queue_id *id);
/* All that wait to be moved. Not those that the thread has in its hands when the spool has been handed over. */
void log_move_all(struct spool *s);
/* The bytes of its file. A damaged record is saved as it is (CORRUPT); any other becomes a queue file. */
error log_move_bytes(struct log_message *m, enum spool_state to, struct buf *ret);
/* In the order of their places. */
void log_sort(struct log_message **list, size_t n);
error log_remove(struct spool *s, struct log_message *m);
/* syncfs, and what has moved before it is done. Waits. */
error log_settle(struct spool *s);

/* Of an open file; SEGMENT_UNREADABLE: errno says why. */
enum segment_front log_read_front(int fd, struct segment_head *ret);
/* The segment of a record that its turn has not come to and that nobody else has, opened if need be; or NULL. */
struct log_segment *log_segment_ahead(struct log_reader *r, const struct log_walk_entry *found);
/* For the files of the reader. `*ret_repaired`: by the second head. */
error log_open_head(struct spool *s, uint64_t number, int *ret_fd, struct segment_head *ret_head, bool *ret_repaired);
struct log_message *log_message_new(struct log_reader *r, struct log_segment *seg, uint64_t at,
                                    const struct segment_record *rec, enum log_state state);
/* The held message whose record is at `at` is in the table from now on. */
void log_hold(struct log_reader *r, struct log_segment *seg, uint64_t at, const struct segment_record *rec);
/* The held message of that name, HELD, no longer in the table; NULL: none. */
struct log_message *log_held_take(struct log_reader *r, const struct queue_id *id);
/* What was taken and not changed goes back. */
void log_held_put_back(struct log_reader *r);
void log_held_free(struct log_held_table *t);
/* Remove log/`prefix`N, unless a writer is just making it ready. */
void log_drop(const struct spool *s, const char *prefix, uint64_t number);
/* The lock that says to the next READER which message is still being delivered: `command` with a lock of `type`, which
 * F_OFD_GETLK changes. False: errno says why. */
bool log_lock(const struct log_segment *seg, uint64_t at, int command, short *inout_type);
/* `n` bytes at `at`, when they have been read ahead; otherwise empty. */
struct str log_chunk(const struct log_segment *seg, uint64_t at, size_t n);
/* A segment nobody holds the lock of has no writer, now or ever. */
bool log_sealed(struct log_segment *seg);
void log_mark(struct log_reader *r, struct log_segment *seg, uint32_t at, uint32_t n, uint8_t value);
void log_flush_marks(struct log_segment *seg);
void log_message_free(struct log_message *m);
/* The message has left the segment; `m` is gone, or GONE when its record is still to be read. */
void log_message_done(struct log_reader *r, struct log_message *m);
void log_segment_free(struct log_reader *r, struct log_segment *seg);
/* `n` bytes at `at`, borrowed until the next call for this segment; empty when they cannot be read. */
struct str log_bytes(struct log_segment *seg, uint64_t at, size_t n, uint64_t limit);

/* --- log_form.c: a record as a queue file --- */
extern const struct err log_damaged; /* ERR_SYNTAX */
/* `whole` has passed segment_record_whole(). `marks`: as in the segment, the message's first; empty: nothing is done.
 * `reasons`: records. */
void log_file_form(struct buf *b, struct str whole, const struct segment_record *rec, struct str marks, bool warned,
                   struct str reasons);
void log_copy_content(struct str whole, const struct segment_record *rec, struct spool_content *ret);
error log_unpack(struct str whole, const struct segment_record *rec, struct str marks, bool warned, struct arena *a,
                 struct envelope *ret, struct spool_content *ret_content);

/* --- log_walk.c: all messages of all segments as they are on the disk, for lists --- */
struct log_walk;
struct log_walk_entry {
    uint64_t segment, at;
    struct segment_record record;
    struct str marks; /* the message's and its recipients'; borrowed until the next call */
    enum spool_state state;
};
struct log_walk *log_walk_new(struct spool *s);
/* The next that is not done; nor moved, unless `with_moved` was said. */
void log_walk_with_moved(struct log_walk *w);
bool log_walk_next(struct log_walk *w, struct log_walk_entry *ret);
/* The record of the entry given last, whole; ERR_SYNTAX when it does not pass its checks. Borrowed like the marks. */
error log_walk_bytes(struct log_walk *w, struct str *ret);
void log_walk_free(struct log_walk *w);
/* Go on to the message of that name. */
bool log_walk_find(struct log_walk *w, const struct queue_id *id, struct log_walk_entry *ret);
/* For a LISTER: envelope and content of a message by its id; ERR_SYS ENOENT: not in the log. The message a scan of this
 * spool has just given is found at once. */
error log_list_load(struct spool *s, const struct queue_id *id, struct arena *a, struct envelope *ret,
                    struct spool_content *ret_content);
#endif
