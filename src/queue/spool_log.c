/* The logs of failures: bounce/ID; of what senders asked to be told, trace/ID; and of a message in the log that is
 * being delivered, defer/ID (spool_reasons.c).
 *
 * A log is records one after the other: the bytes "\nREC", u32 payload length, u32 CRC32C of the payload, payload
 * (spool_failure_pack). A record cut by a crash or a full disk is passed over: reading looks for the next marker. */
#include "queue/spool_private.h"

#include "queue/crc32c.h"
#include "queue/log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

enum {
    RECORD_HEAD = 12,
    RECORD_MAX = 64 * 1024, /* payload bytes: addresses and texts are far below */
    DAMAGE_MAX = 16,        /* places of damage after which the rest is not looked at: bounds the work */
};

#define MARKER STR("\nREC")

void spool_failure_pack(struct buf *b, const struct spool_failure *f) {
    pack_u64(b, f->rcpt_index);
    pack_i64(b, f->when_us);
    pack_u32(b, f->dsn_notify);
    pack_str(b, f->address);
    pack_str(b, f->orig);
    pack_str(b, f->dsn_orcpt);
    pack_str(b, f->status);
    pack_str(b, f->action);
    pack_str(b, f->reason);
    pack_str(b, f->diagnostic_type);
    pack_str(b, f->diagnostic);
    pack_str(b, f->remote_type);
    pack_str(b, f->remote_mta);
}

void spool_failure_unpack(struct unpack *u, struct spool_failure *ret) {
    ret->rcpt_index = unpack_u64(u);
    ret->when_us = unpack_i64(u);
    ret->dsn_notify = unpack_u32(u);
    ret->address = unpack_str(u);
    ret->orig = unpack_str(u);
    ret->dsn_orcpt = unpack_str(u);
    ret->status = unpack_str(u);
    ret->action = unpack_str(u);
    ret->reason = unpack_str(u);
    ret->diagnostic_type = unpack_str(u);
    ret->diagnostic = unpack_str(u);
    ret->remote_type = unpack_str(u);
    ret->remote_mta = unpack_str(u);
}

static unsigned log_dir(enum spool_log log) {
    static const unsigned dirs[] = {
        [SPOOL_LOG_DEFER] = SPOOL_DIR_DEFER, [SPOOL_LOG_BOUNCE] = SPOOL_DIR_BOUNCE, [SPOOL_LOG_TRACE] = SPOOL_DIR_TRACE
    };
    return dirs[log];
}

/* A message that came through the log in this life of the queue manager has the logs we know of. */
static struct log_message *in_log(struct spool *s, const struct queue_id *id) {
    return s->log_reader ? map_get(&s->log_reader->messages, queue_id_str(id)) : NULL;
}

bool spool_record_pack(struct buf *b, const struct spool_failure *f) {
    size_t start = b->n;
    buf_add(b, MARKER);
    pack_u64(b, 0); /* overwritten below */
    spool_failure_pack(b, f);
    struct str payload = str_from(buf_str(b), start + RECORD_HEAD);
    if (payload.n > RECORD_MAX) {
        buf_truncate(b, start);
        return false;
    }
    struct buf sums = { 0 };
    pack_u32(&sums, (uint32_t)payload.n);
    pack_u32(&sums, crc32c(0, payload));
    memcpy(b->p + start + MARKER.n, sums.p, sums.n);
    buf_free(&sums);
    return true;
}

error spool_log_append(struct spool *s, const struct queue_id *id, enum spool_log log, struct str records) {
    struct log_message *m = in_log(s, id);
    if (m)
        m->has_logs = true;
    error e = NULL;
    struct stat st;
    int fd = spool_openat(s, log_dir(log), id, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0)
        e = err_errno(errno);
    else /* one process writes logs, so the end stays where it is */
        e = spool_pwrite_all(fd, records, (uint64_t)st.st_size);
    if (fd >= 0)
        sys->close(fd);
    return e;
}

error spool_log_add(struct spool *s, const struct queue_id *id, enum spool_log log, const struct spool_failure *f) {
    struct buf record = { 0 };
    error e = spool_record_pack(&record, f) ? spool_log_append(s, id, log, buf_str(&record)) : err_errno(EMSGSIZE);
    buf_free(&record);
    return e;
}

error spool_log_sync(struct spool *s, const struct queue_id *id, enum spool_log log) {
    int fd = spool_openat(s, log_dir(log), id, O_WRONLY, 0);
    if (fd < 0)
        return err_errno(errno);
    error e = spool_sync(fd, sys->fsync);
    sys->close(fd);
    return e ? e : spool_dir_sync(s, log_dir(log), id);
}

void spool_log_parse(struct str bytes, struct arena *a, struct spool_failure **ret, size_t *ret_count) {
    VEC(struct spool_failure) found = { 0 };
    for (int damage = 0; bytes.n >= RECORD_HEAD && damage < DAMAGE_MAX;) {
        if (str_starts(bytes, MARKER)) {
            struct unpack u = unpack_from(str_from(bytes, MARKER.n));
            uint32_t n = unpack_u32(&u), crc = unpack_u32(&u);
            struct str payload = str_sub(u.rest, 0, n);
            if (n <= RECORD_MAX && payload.n == n && crc32c(0, payload) == crc) {
                struct unpack inner = unpack_from(payload);
                struct spool_failure f;
                spool_failure_unpack(&inner, &f);
                if (unpack_done(&inner))
                    *vec_add(a, &found) = f;
                bytes = str_from(u.rest, n);
                continue;
            }
        }
        damage++;
        const char *next = memmem(bytes.p + 1, bytes.n - 1, MARKER.p, MARKER.n);
        bytes = next ? str_n(next, bytes.n - (size_t)(next - bytes.p)) : STR("");
    }
    *ret = found.at;
    *ret_count = found.n;
}

error spool_log_read(struct spool *s, const struct queue_id *id, enum spool_log log, struct arena *a,
                     struct spool_failure **ret, size_t *ret_count) {
    *ret = NULL;
    *ret_count = 0;
    int fd = spool_openat(s, log_dir(log), id, O_RDONLY, 0);
    if (fd < 0)
        return errno == ENOENT ? NULL : err_errno(errno);
    struct stat st;
    error e = NULL;
    if (sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0) {
        e = err_errno(errno);
    } else if (S_ISREG(st.st_mode)) {
        size_t n = st.st_size < SPOOL_LOG_MAX ? (size_t)st.st_size : (size_t)SPOOL_LOG_MAX;
        char *bytes = arena_alloc(a, n);
        if (spool_pread_all(fd, bytes, n, 0))
            spool_log_parse(str_n(bytes, n), a, ret, ret_count);
        else
            e = err_errno(errno);
    }
    sys->close(fd);
    return e;
}

bool spool_has_logs(struct spool *s, enum spool_log log) {
    struct arena *a = arena_new();
    struct str name = spool_dir_name(log_dir(log));
    char *path = arena_cstr(a, name);
    int fd = sys->openat(s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    bool some = fd < 0 && errno != ENOENT; /* not known: then each message is looked at */
    while (d && !some && (e = readdir(d)))
        some = e->d_name[0] != '.'; /* a hash directory counts, too */
    if (d)
        closedir(d);
    else if (fd >= 0)
        sys->close(fd);
    arena_free(a);
    return some;
}

error spool_log_clear(struct spool *s, const struct queue_id *id, enum spool_log log) {
    const struct log_message *m = in_log(s, id);
    if (m && !m->has_logs)
        return NULL;
    return spool_unlink(s, log_dir(log), id);
}
