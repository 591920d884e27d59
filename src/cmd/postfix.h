/* postfix.h - the commands of postfix(1), one function each; the table of them is in postfix.c. Each returns the exit
 * status; what cannot be done ends the program with a `fatal: ` line (status 1). */
#ifndef ANGARIUM_CMD_POSTFIX_H
#define ANGARIUM_CMD_POSTFIX_H

#include "conf/conf.h"

struct postfix_command {
    const struct conf *c;
    const char *name;
    char *const *args; /* behind the command's name; NULL-terminated */
    int verbose;
    bool debug;  /* -D */
    bool shared; /* this instance also looks after the files that all instances share */
};

/* postfix_run.c: the running mail system */
int postfix_start(const struct postfix_command *m);
int postfix_start_fg(const struct postfix_command *m);
int postfix_stop(const struct postfix_command *m);
int postfix_quick_stop(const struct postfix_command *m);
int postfix_abort(const struct postfix_command *m);
int postfix_drain(const struct postfix_command *m);
int postfix_reload(const struct postfix_command *m);
int postfix_status(const struct postfix_command *m);
int postfix_flush(const struct postfix_command *m);

/* postfix_files.c: checks and repairs */
int postfix_check(const struct postfix_command *m);
int postfix_check_fatal(const struct postfix_command *m);
int postfix_check_warn(const struct postfix_command *m);
int postfix_check_alias_maps(const struct postfix_command *m);
int postfix_set_permissions(const struct postfix_command *m);
int postfix_upgrade(const struct postfix_command *m);
int postfix_post_install(const struct postfix_command *m);

int postfix_logrotate(const struct postfix_command *m); /* logrotate.c */
int postfix_tls(const struct postfix_command *m);       /* postfix_tls.c */
int postfix_non_bdb(const struct postfix_command *m);   /* non_bdb.c */
#endif
