/* logging.h - where a program's log lines go (base/log.h hands them over).
 *
 * maillog_file empty: syslog, by /dev/log, in the form of RFC 3164, 4.1. Set: to postlogd by the datagram socket
 * public/postlog, or straight into the file by those who must not wait for it (master, postlogd itself).
 *
 * The sockets are opened by logging_start(), so a program confines itself after it. A daemon that finds its socket dead
 * cannot open another: logging_on_lost() tells it to ask master, which calls logging_socket() and passes the result on.
 */
#ifndef ANGARIUM_SERVICE_LOGGING_H
#define ANGARIUM_SERVICE_LOGGING_H

#include "base/buf.h"
#include "conf/conf.h"

enum logging_role {
    LOGGING_DAEMON,  /* the log alone */
    LOGGING_DIRECT,  /* master, postlogd: the log alone, and maillog_file is written without postlogd */
    LOGGING_COMMAND, /* standard error and the log */
    LOGGING_SCRIPT,  /* the same, with the whole tag on standard error (postlog, postfix) */
};

/* Before main.cf can be read: the log that $POSTLOG_SERVICE names, else syslog; commands also standard error. */
void logging_start_early(struct str program, enum logging_role role);
/* The tag becomes $syslog_name/`program`. ERR_CONFIG: syslog_facility, maillog_file, its permissions or prefixes.
 * Relative paths inside are below queue_directory. May be called again with a new configuration. */
error logging_start(const struct conf *c, struct str program, enum logging_role role, struct arena *err_arena);
/* For a daemon around its loop_run(): lines are sent many at a time (service/log_send.h says when). Whatever way the
 * process ends but by SIGKILL, what it has logged goes out. */
void logging_gather_start(void);
void logging_gather_end(void);
void logging_flush(void);
/* Back to nothing but standard error; descriptors are closed. */
void logging_end(void);

/* A connected datagram socket to the log that `c` asks for; -1 with errno. */
int logging_socket(const struct conf *c);
/* Replace a dead one; takes over `fd`. */
void logging_set_socket(int fd);
/* Called when a line could not be sent; not again before logging_set_socket(). It must not log or wait. */
void logging_on_lost(void (*fn)(void *arg), void *arg);

/* The file of maillog_file for appending (made with maillog_file_permissions; "/dev/stdout" is our own standard
 * output). ERR_CONFIG for a bad permission or prefix, ERR_SYS when it cannot be opened. */
error logging_open_file(const struct conf *c, struct arena *err_arena, int *ret_fd);
/* "Nov  2 09:20:47 host tag: text": what a line of the file looks like. No line end. */
void logging_format(struct buf *b, int64_t wall_s, struct str host, struct str tag, struct str text);
/* $POSTLOG_HOSTNAME or the first label of myhostname. */
struct str logging_host(const struct conf *c);
#endif
