/* master_cf.h - master.cf (master(5)): one entry per service. Continuation lines, comments, "-" for defaults,
 * -o name=value, -o { name = value }, { argument with blanks }. Errors are ERR_CONFIG: file, line, what, what to do. */
#ifndef ANGARIUM_CONF_MASTER_CF_H
#define ANGARIUM_CONF_MASTER_CF_H

#include "conf/conf.h"

enum service_type { SERVICE_INET = 1, SERVICE_UNIX, SERVICE_UNIX_DGRAM, SERVICE_FIFO, SERVICE_PASS };

struct master_entry {
    struct str name; /* the first column as written: "smtp", "127.0.0.1:10025", "cleanup" */
    enum service_type type;
    bool is_private, unprivileged, chroot; /* with the defaults put in */
    int wakeup;                            /* seconds; 0: none */
    bool wakeup_if_used;                   /* "1000?": only once somebody has used the service */
    int maxproc;                           /* 0: no limit; the default is default_process_limit */
    struct str command;                    /* program name relative to daemon_directory */
    const struct conf_override *overrides; /* -o in order */
    size_t override_count;
    int verbose;                           /* -v count */
    const struct str *args;                /* what is left: pipe's flags= user= argv= ... */
    size_t arg_count;
    size_t line; /* where the entry starts in master.cf */
};

struct master_cf {
    const struct master_entry *entries;
    size_t count;
};

/* `path` is the file. Everything lives in `a`. */
error master_cf_load(struct str path, const struct conf *c, struct arena *a, struct master_cf *ret);
struct str service_type_name(enum service_type type);
#endif
