/* mbox_file.h - open and lock an mbox file in the ways mailbox_delivery_lock names: what mailbox deliveries and
 * postlock(1) must agree on. Results are 0 or an errno value; nothing is logged. Waiting for a lock blocks. */
#ifndef ANGARIUM_DELIVER_MBOX_FILE_H
#define ANGARIUM_DELIVER_MBOX_FILE_H

#include "base/str.h"

enum mailbox_lock { MAILBOX_FCNTL = 1, MAILBOX_FLOCK = 2, MAILBOX_DOTLOCK = 4 };

/* How long to try: deliver_lock_attempts, deliver_lock_delay, stale_lock_time (seconds). */
struct mbox_wait {
    int attempts;
    int64_t delay, stale;
};

/* A *_lock parameter: "fcntl, dotlock". False: an unknown word. */
bool mailbox_locks_parse(struct str list, unsigned *ret);
/* The words it knows, one by one; empty behind the last. */
struct str mailbox_lock_name(size_t i);

/* Open for appending, and for reading where that is allowed; a file that is not there is made with mode 0600. A
 * symbolic link is followed only where nobody but root can have made it. -1 with errno; `*ret_new`: when it was to be
 * made. */
int mbox_open(const char *path, bool *ret_new);

/* Make the lock file `lock` ("<mailbox>.lock"); one that nothing has been done to for wait->stale is removed. EEXIST:
 * somebody holds it. */
int mbox_dotlock(const char *lock, const struct mbox_wait *wait);
/* The other kinds, one or both of MAILBOX_FCNTL and MAILBOX_FLOCK. EAGAIN: somebody holds it. The lock ends with the
 * descriptor. */
int mbox_lock(int fd, unsigned kinds, const struct mbox_wait *wait);
#endif
