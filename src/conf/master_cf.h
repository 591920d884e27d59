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
    int verbose;            /* -v count */
    const struct str *args; /* what is left: pipe's flags= user= argv= ... */
    size_t arg_count;
    size_t line; /* where the entry starts in master.cf */
};

struct master_cf {
    const struct master_entry *entries; /* of two for the same endpoint only the last, at the first one's place */
    size_t count;
    const struct str *warnings; /* for after "warning: ": duplicate entries, lines that continue nothing */
    size_t warning_count;
};

enum { MASTER_CF_ENTRIES_MAX = 10000, MASTER_CF_WORDS_MAX = 10000 };

/* `path` is the file. Everything lives in `a`. The defaults are those of `c` (default_process_limit; chroot is "y"
 * below compatibility_level 1). Errors: "PATH: line N: WHAT". */
error master_cf_load(struct str path, const struct conf *c, struct arena *a, struct master_cf *ret);
/* The same for text that is already in memory; `chroot` and `maxproc` are what "-" means. */
error master_cf_parse(struct str text, struct str path, bool chroot, int maxproc, struct arena *a,
                      struct master_cf *ret);
struct str service_type_name(enum service_type type);

/* The first column of an inet entry: [host:]port, host a name, an IPv4 address or an IPv6 address in brackets (they
 * are taken off); empty: none. Port: 1 to 65535 in digits, or a service name. NULL, or what is wrong. Points into
 * `name`. */
const char *inet_service_split(struct str name, struct str *ret_host, struct str *ret_port);
#endif
