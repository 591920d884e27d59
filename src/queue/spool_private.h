/* spool_private.h - what the files of the spool share; nobody else includes it. */
#ifndef ANGARIUM_QUEUE_SPOOL_PRIVATE_H
#define ANGARIUM_QUEUE_SPOOL_PRIVATE_H

#include "queue/spool.h"
#include "run/coro.h"

enum {
    SPOOL_PATH_MAX = 80, /* "deferred/A/B/C/ID" */
    SPOOL_HASH_DEPTH_MAX = QUEUE_ID_HASH_MAX,
    SPOOL_MODE_WRITING = 0600,         /* a file that is not finished */
    SPOOL_MODE_READY = 0700,           /* a finished one: the mark of an accepted message */
    SPOOL_LOG_MAX = 512 * 1024 * 1024, /* bytes of one log of failures, or of reasons, that are read */
};

/* The directories: the states first, in their order. */
enum spool_dir { SPOOL_DIR_DEFER = SPOOL_STATES, SPOOL_DIR_BOUNCE, SPOOL_DIR_TRACE, SPOOL_DIRS };

/* Sessions that need a directory synced at the same time share one call. */
struct dir_sync_batch;
struct dir_sync {
    struct dir_sync_batch *next; /* not started: whoever comes now joins it */
    bool running;
    struct cond idle;
};

struct spool {
    int fd; /* queue_directory */
    enum spool_access access;
    bool long_queue_ids;
    uint64_t min_free;
    unsigned hash_depth;
    bool hashed[SPOOL_DIRS];
    struct dir_sync dir_sync[SPOOL_DIRS];
    unsigned next_temporary;
    int64_t room_looked_us;        /* when room_short was found; 0: never */
    bool room_short;               /* less than min_free */
    size_t gathered;               /* bytes of messages being written into files, in memory */
    int reader_fd;                 /* active/, locked by the READER in office; -1: not we */
    struct log_writer *log_writer; /* NULL: queue_log = no, or not the WRITER */
    struct log_reader *log_reader; /* of a READER */
    struct log_walk *log_walk;     /* of the scan that goes on, of a LISTER; borrowed */
    void (*news)(void *ctx, const struct spool_news *news);
    void *news_ctx;
};

struct str spool_dir_name(unsigned dir);
/* "active/ID", or with the hash directories. */
void spool_path(const struct spool *s, unsigned dir, const struct queue_id *id, char ret[SPOOL_PATH_MAX]);
/* Make the hash directories above `path`. */
error spool_make_parents(const struct spool *s, const char *path);
/* openat below the spool; with O_CREAT, missing hash directories are made. -1 with errno. */
int spool_openat(const struct spool *s, unsigned dir, const struct queue_id *id, int flags, mode_t mode);
/* NULL also when there is none. */
error spool_unlink(const struct spool *s, unsigned dir, const struct queue_id *id);
/* Make the names in the directory of `id` durable. */
error spool_dir_sync(struct spool *s, unsigned dir, const struct queue_id *id);
/* offload() in a coroutine, a plain call elsewhere. */
void spool_offload(void (*fn)(void *arg), void *arg);
/* fsync, fdatasync or syncfs of the seam, as above. */
error spool_sync(int fd, int (*call)(int fd));
/* All of it, or an error; `at` is an offset in the file. */
error spool_pwrite_all(int fd, struct str bytes, uint64_t at);
/* Exactly `n` bytes; false with errno (EIO at the end of the file). */
bool spool_pread_all(int fd, void *p, size_t n, uint64_t at);
struct spool_head;
error spool_read_head(int fd, struct spool_head *ret);
/* The envelope of a message with more than SPOOL_RCPTS_WHOLE recipients; they are checked, and not read. */
error spool_front_unpack(int fd, const struct spool_head *h, struct arena *a, struct envelope *ret,
                         struct spool_rest *ret_rest);
/* Is the queue file whole? ERR_SYNTAX: no; ERR_SYS EAGAIN: not finished. */
error spool_check_file(const struct spool *s, const struct queue_id *id, enum spool_state state,
                       struct spool_head *ret);
/* Append whole records (spool_record_pack()). */
error spool_log_append(struct spool *s, const struct queue_id *id, enum spool_log log, struct str records);
/* The whole records of a log; strings are borrowed from `bytes`. */
void spool_log_parse(struct str bytes, struct arena *a, struct spool_failure **ret, size_t *ret_count);
#endif
