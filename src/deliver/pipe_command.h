/* pipe_command.h - run a command of an administrator or a user with a message as its standard input, and say what its
 * end means: what pipe(8) and local(8) have in common. */
#ifndef ANGARIUM_DELIVER_PIPE_COMMAND_H
#define ANGARIUM_DELIVER_PIPE_COMMAND_H

#include "deliver/agent.h"
#include "deliver/child.h"

enum {
    PIPE_COMMAND_OUTPUT = 4096,     /* bytes of what it says that go into a log line or a report */
    PIPE_COMMAND_SENT_OUTPUT = 100, /* of those, after success */
    PIPE_COMMAND_BUFFERED = 32768,  /* a message up to this size is in the pipe before the command starts */
};

/* Where the message goes, piece by piece. False: there is no point in more. */
typedef bool pipe_command_put(void *to, struct str piece);

struct pipe_command {
    char **argv, **envp;   /* argv[0] is looked up in the PATH of envp */
    const char *program;   /* who speaks when it cannot be started: "pipe" */
    uint64_t file_limit;   /* bytes that it may make a file grow to; 0: no limit */
    const char *chroot;    /* root only; NULL: none */
    const char *directory; /* inside chroot; looked at with the command's rights */
    uid_t uid;             /* the command's rights; not as root: ours */
    gid_t gid;
    int64_t deadline;
    /* Hand the message to `put`, all of it, unless that says false. False: it cannot be read; the command is killed
     * then, and must not take half a message for a whole one. Runs in a child for a `size` over PIPE_COMMAND_BUFFERED.
     */
    bool (*message)(void *arg, pipe_command_put *put, void *to);
    void *arg;
    uint64_t size;  /* about how long it is */
    int message_fd; /* a descriptor that `message` needs, or -1 */
};

/* As child_run(). What keeps it from starting (rights, directory, no such program) is in its output, with EX_TEMPFAIL.
 */
error pipe_command_run(const struct pipe_command *c, struct arena *a, struct child_result *ret);

/* What an exit status of sysexits.h says. False: it is none of them. */
bool pipe_command_status(int status, struct str *ret_dsn, struct str *ret_text);

/* What the exit status (sysexits.h), the signal or the time limit mean: dsn, reason and diagnostic of `*ret`. A status
 * code at the front of what a command said that failed counts more than its exit status. `name` is how the command is
 * called to people. After success `reason` is empty and `*ret_output` what it said, for who wants to show it. */
void pipe_command_verdict(struct arena *a, const struct child_result *result, struct str name, struct agent_status *ret,
                          struct str *ret_output);
#endif
