/* files.h - the table of the mail system's files, owners and modes (packaging/postfix-files), with the parameters put
 * in: what check compares, start makes, set-permissions mends. */
#ifndef ANGARIUM_CMD_FILES_H
#define ANGARIUM_CMD_FILES_H

#include "conf/conf.h"
#include <sys/stat.h>
#include <sys/types.h>

enum { NO_GROUP = -1 };

struct file_row {
    struct str path; /* absolute; a pattern is expanded: one row per file that is there */
    bool directory;
    struct str owner_name, group_name; /* the latter empty: any group */
    uid_t uid;
    gid_t gid;
    mode_t mode;
    bool create, recursive;
    bool shared; /* by all instances */
};

struct files {
    const struct file_row *rows;
    size_t count;
};

/* `mail_owner` and `setgid_group` are taken from main.cf. Not root: everything is ours, and groups are not looked at.
 * Reads the built-in table and meta_directory/postfix-files.d/. Everything lives in `a`. ERR_CONFIG: unknown user or
 * group, a malformed row (with file and line). */
error files_load(const struct conf *c, struct arena *a, struct files *ret);

/* What is wrong with one row's file as it is (`st` from lstat). */
enum file_fault {
    FAULT_OWNER = 1,
    FAULT_GROUP = 2,
    FAULT_WRITABLE = 4, /* group or other may write and should not */
    FAULT_SETGID = 8,   /* the set-gid or an execute bit is missing */
    FAULT_TYPE = 16,
};
unsigned file_faults(const struct file_row *row, const struct stat *st);

/* Is this configuration directory listed in multi_instance_directories of the default one? Then the files all instances
 * share are not its business. */
bool files_is_secondary(const struct conf *c);

/* What is below a folder: `name` is an entry of `folder`, which is open; `path` is both, for messages. False: not into
 * this one. */
typedef bool file_visit(void *ctx, int folder, const char *name, struct str path, const struct stat *st);
/* Calls `fn` for every entry below `path`, a folder before what is in it, links as they are. Every step is relative to
 * an open folder and follows no link: whoever owns the folders may put links there meanwhile. Deeper than FILES_DEPTH
 * is not looked at. Below a folder that cannot be opened there is nothing. Names live in `a`. */
enum { FILES_DEPTH = 16 };
void files_walk(struct str path, struct arena *a, file_visit *fn, void *ctx);

/* Give `path`, relative to `folder` (or AT_FDCWD), this owner, group and mode (NO_GROUP: the group stays) without
 * following a link at its end, and only when it is of that type: 0, or errno. `mode` (mode_t)-1: stays. As an ordinary
 * user only the mode is set. */
int file_mend(int folder, const char *path, bool directory, uid_t uid, gid_t gid, mode_t mode);
#endif
