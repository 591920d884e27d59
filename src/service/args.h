/* args.h - the command line of a daemon: what master writes and service_main() reads (the internal options of
 * daemons(8)).
 *
 * -n service -t type -c (chroot) -u (drop privileges) -o name=value -v -s sockets -S (session on standard input) -l
 * (only one such process: take the lock) -x sessions (at a time; 0 or absent: no limit), then the arguments of
 * master.cf. */
#ifndef ANGARIUM_SERVICE_ARGS_H
#define ANGARIUM_SERVICE_ARGS_H

#include "conf/conf.h"

enum { SERVICE_SOCKETS_MAX = 256 /* listening sockets of one service: inet_interfaces times addresses */ };

struct service_args {
    struct str name, type;
    bool chroot, unprivileged, stdio, single, debug;
    uint32_t sockets, sessions;
    int verbose;
    const struct conf_override *overrides;
    size_t override_count;
    const struct str *args;
    size_t arg_count;
};

/* Everything lives in `a` or in argv. ERR_CONFIG with the text for the log. */
error service_args_parse(int argc, char **argv, struct arena *a, struct service_args *ret);
/* argv for execve(), NULL at the end: argv[0] is `program`, the rest is what service_args_parse() reads as `args`. */
char **service_args_make(const struct service_args *args, struct str program, struct arena *a);

/* "name=value" or "{ name = value }" (blanks around name and value are dropped in the second form only). */
bool service_override_parse(struct str text, struct arena *a, struct conf_override *ret);
#endif
