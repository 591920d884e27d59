/* Queue ids of the log: no two messages have the same, ever, whatever the clock does.
 *
 * A message in a file of its own has the inode to itself, which makes its id unique (spool.c). Messages of the log have
 * nothing but the time, so each writer takes microseconds that no other can take: it holds one of LANES lanes (a lock
 * on log/lane.K, dropped by the kernel when it dies), and its times are K modulo LANES, each later than the one before.
 * The file of the lane keeps an upper bound of all ids made in it: i64 microseconds, u32 CRC32C. It is on stable
 * storage before a message with an id below it is acknowledged, and the next holder of the lane begins above it. The
 * bound is somewhat ahead, so that it is written now and then and not for each message; it is exact when a writer ends
 * in peace. One sector holds it, so it does not tear; a lane whose file is damaged is not used any more. */
#include "queue/log.h"

#include "base/pack.h"
#include "queue/crc32c.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

enum {
    LANES = 16, /* 62,500 ids a second in each */
    LANE_SIZE = 12,
    AHEAD_S = 5,      /* the bound is ahead of the clock, */
    AHEAD_IDS = 1000, /* or, when the clock is behind, of the latest id */
};

const struct log_ids log_ids_none = { .fd = -1 };

/* False: damaged. An empty file is a lane nobody has used. */
static bool read_lane(int fd, int64_t *ret) {
    char bytes[LANE_SIZE];
    struct stat st;
    *ret = 0;
    if (sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0 || !S_ISREG(st.st_mode))
        return false;
    if (st.st_size == 0)
        return true;
    if (st.st_size != LANE_SIZE || !spool_pread_all(fd, bytes, sizeof bytes, 0))
        return false;
    struct unpack u = unpack_from(str_n(bytes, sizeof bytes));
    int64_t bound = unpack_i64(&u);
    if (unpack_u32(&u) != crc32c(0, str_n(bytes, LANE_SIZE - 4)))
        return false;
    *ret = bound;
    return true;
}

static error write_lane(int fd, int64_t bound) {
    struct buf b = { 0 };
    pack_i64(&b, bound);
    pack_u32(&b, crc32c(0, buf_str(&b)));
    error e = spool_pwrite_all(fd, buf_str(&b), 0);
    buf_free(&b);
    return e;
}

error log_ids_open(struct log_ids *ids, int dir) {
    for (unsigned i = 0; i < LANES; i++) {
        unsigned lane = (ids->first_lane + i) % LANES;
        char name[LOG_NAME_MAX];
        int64_t bound;
        snprintf(name, sizeof name, "log/lane.%u", lane);
        int fd = sys->openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (fd < 0 && errno != ELOOP && errno != EISDIR)
            return err_errno(errno);
        if (fd < 0)
            continue;
        if (sys->flock(fd, LOCK_EX | LOCK_NB) == 0 && read_lane(fd, &bound)) {
            ids->fd = fd;
            ids->lane = lane;
            ids->kept_us = bound;
            if (ids->last_us < bound)
                ids->last_us = bound;
            return NULL;
        }
        sys->close(fd);
    }
    return err_errno(EUSERS);
}

void log_ids_next(struct log_ids *ids, bool long_form, struct queue_id *ret) {
    int64_t us = sys->wall_us();
    if (us <= ids->last_us)
        us = ids->last_us + 1;
    us += (LANES + ids->lane - us % LANES) % LANES;
    ids->last_us = us;
    queue_id_make_of_time(ret, us, ids->lane, long_form);
}

int64_t log_ids_to_keep(const struct log_ids *ids) {
    if (ids->fd < 0 || ids->last_us <= ids->kept_us)
        return 0;
    int64_t in_time = sys->wall_us() + AHEAD_S * US_PER_S, in_ids = ids->last_us + (int64_t)AHEAD_IDS * LANES;
    return in_time > in_ids ? in_time : in_ids;
}

error log_ids_keep(int fd, int64_t bound) {
    error e = write_lane(fd, bound);
    return !e && sys->fdatasync(fd) < 0 ? err_errno(errno) : e;
}

void log_ids_give_up(struct log_ids *ids) {
    if (ids->fd >= 0)
        sys->close(ids->fd);
    ids->fd = -1;
    ids->first_lane = (ids->lane + 1) % LANES;
}

void log_ids_close(struct log_ids *ids) {
    if (ids->fd >= 0 && ids->kept_us != ids->last_us)
        write_lane(ids->fd, ids->last_us); /* not synced: until it is, the old bound holds */
    log_ids_give_up(ids);
}
