/* mailbox.h - put one message into an mbox file or a Maildir: what local(8) and virtual(8) have in common.
 *
 * Done in a thread under the owner's rights (user_thread.h). Success is reported only after fsync. An mbox that could
 * not take the whole message is cut back to its old length. A Maildir message is written in tmp/ and renamed into new/
 * under the name TIME.V<device>I<inode>M<microseconds>.<host>; missing directories are made with mode 0700. */
#ifndef ANGARIUM_DELIVER_MAILBOX_H
#define ANGARIUM_DELIVER_MAILBOX_H

#include "base/map.h"
#include "deliver/agent.h"
#include "deliver/mbox_file.h"

enum mailbox_open {
    MAILBOX_AS_OWNER, /* everything under uid and gid */
    MAILBOX_AS_ROOT,  /* opened, created and dot-locked by root, written by the owner: a spool only root may write to */
};

struct mailbox {
    struct str path; /* absolute; one that ends in '/' is a Maildir */
    uid_t uid;       /* owner */
    gid_t gid;
    enum mailbox_open open; /* matters only when we are root */
    unsigned locks;         /* enum mailbox_lock mask */
    int lock_attempts;
    int64_t lock_delay, stale_lock; /* seconds */
    uint64_t limit;                 /* bytes of the mbox, or of one Maildir file; 0: none */
    bool strict_owner;              /* an mbox of somebody else is left alone: 4.2.0 */
    bool file;                      /* a destination /file/name: may be a device such as /dev/null */
    const char *dsn;                /* for errors that say nothing of their own: "5.2.0" or "4.2.0" */
    const struct str *sender;       /* for the From_ line of an mbox; NULL: the request's */
    struct str head;                /* header lines to go in front, each with its LF */
};

struct mailbox_result {
    bool ok;
    bool denied;    /* EACCES in a Maildir: the administrator may have to make it */
    struct str dsn; /* "2.0.0"; after a failure class 4 or 5 */
    struct str why; /* "error writing message: No space left on device" */
    uint64_t start; /* of the message in an mbox */
};

void mailbox_deliver(struct agent_request *r, const struct mailbox *m, struct mailbox_result *ret);

/* The header lines of a final delivery: Return-Path, X-Original-To (enable_original_recipient), and Delivered-To when
 * `delivered_to` is not empty. All addresses quoted as RFC 5322 wants them. */
struct str mailbox_head(struct agent_request *r, struct arena *a, struct str orig, struct str delivered_to);
/* The same with another sender. */
struct str mailbox_head_of(struct agent_request *r, struct arena *a, struct str sender, struct str orig,
                           struct str delivered_to);

/* "From sender  Sat Nov 21 09:00:00 2026\n" in local time; the null sender is MAILER-DAEMON. */
struct str mailbox_from_line(struct arena *a, struct str sender, int64_t when);

/* --- loop detection: the Delivered-To: headers of the message ---
 * `{0}` is filled from the header of the content; free with map_free(). Keys are in the arena of the request. */
void delivered_to_read(struct agent_request *r, struct map *set);
bool delivered_to_has(const struct map *set, struct arena *a, struct str address); /* case ignored, as Postfix does */

/* --- mbox form (RFC 4155 with the quoting of mboxo): a filter over the content in pieces of any size --- */
struct mbox_quote {
    unsigned matched; /* bytes of "From " matched at the start of this line; over 5: not at a start */
    bool started, at_line_start;
};
/* Append `in` to `out` with '>' in front of lines that begin with "From ". `{0}` starts. */
void mbox_quote_add(struct mbox_quote *q, struct buf *out, struct str in);
/* The held back bytes of a last line that is a beginning of "From ", and an LF when the last line has none. */
void mbox_quote_end(struct mbox_quote *q, struct buf *out);
#endif
