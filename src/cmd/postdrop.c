/* postdrop(1): takes a local submission (queue/maildrop.h) on standard input and leaves it in maildrop/ for pickup.
 * Set-gid in an installation; works while the mail system is down. A file is there whole or not at all.
 *
 * With -r what became of it is said on standard output, in one line for sendmail: "OK QUEUE_ID", or "ERR TEXT". */
#include "base/log.h"
#include "cmd/setgid.h"
#include "cmd/submit_users.h"
#include "cmd/trigger.h"
#include "queue/maildrop.h"
#include "queue/queue_id.h"
#include "run/sys.h"
#include "service/logging.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

enum {
    WRITE_SIZE = 64 * 1024,
    NAME_TRIES = 1000,
    SENDER_SHOWN = 200,              /* bytes of an address in the reply */
    RECORD_BYTES = 8,                /* what a record counts beside its bytes */
    ENVELOPE_MAX = 64 * 1024 * 1024, /* bytes beside the content: cleanup takes no more */
};

/* Read by the signal handler: in place before the file is made, emptied before it is given to pickup. */
static char unfinished[sizeof "maildrop/" + QUEUE_ID_MAX];

static void remove_and_die(int signo) {
    if (unfinished[0])
        unlink(unfinished);
    signal(signo, SIG_DFL);
    raise(signo);
    _exit(EX_TEMPFAIL);
}

static const int deadly[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };

static void watch_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++) {
        struct sigaction old, mine = { .sa_handler = remove_and_die, .sa_flags = (int)SA_RESETHAND };
        if (sigaction(deadly[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(deadly[i], &mine, NULL);
        sigaddset(&set, deadly[i]);
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void hold_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++)
        sigaddset(&set, deadly[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static bool reporting;

static _Noreturn void give_up(int status, const char *log_text, const char *reply) {
    int why = errno;
    if (unfinished[0])
        unlink(unfinished);
    unfinished[0] = 0;
    errno = why;
    log_warn("uid=%ld: %s", (long)getuid(), log_text);
    if (reporting) {
        printf("ERR %s\n", reply);
        fflush(stdout);
    }
    exit(status);
}

static _Noreturn void write_failed(void) {
    give_up(EX_TEMPFAIL, strerror(errno), "queue file write error");
}

static int create(const struct conf *c, struct queue_id *ret) {
    bool long_form = conf_bool(c, PARAM_enable_long_queue_ids);
    for (int i = 0; i < NAME_TRIES; i++) {
        queue_id_make(ret, sys->wall_us(), (uint64_t)getpid(), long_form);
        char path[sizeof unfinished];
        snprintf(path, sizeof path, "maildrop/%s", ret->text);
        /* a signal between the two would leave the file: so no signal between the two */
        sigset_t all, old;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, &old);
        int fd = sys->openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, MAILDROP_UNFINISHED);
        int why = errno;
        if (fd >= 0)
            memcpy(unfinished, path, sizeof path);
        sigprocmask(SIG_SETMASK, &old, NULL);
        if (fd >= 0)
            return fd;
        errno = why;
        if (errno != EEXIST) {
            log_warn("create file %s: %s", path, strerror(errno));
            give_up(EX_TEMPFAIL, strerror(why), "queue file write error");
        }
    }
    errno = EEXIST;
    write_failed();
}

static void write_all(int fd, struct buf *b) {
    for (size_t at = 0; at < b->n;) {
        ssize_t n = write(fd, b->p + at, b->n - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            write_failed();
        at += (size_t)n;
    }
    buf_clear(b);
}

static void check_sender(const struct conf *c, struct str sender) {
    struct arena *a = arena_new();
    bool allowed;
    error e = submit_sender_check(c, sender, a, &allowed);
    if (e)
        give_up(EX_TEMPFAIL, arena_cstr(a, e->text), "sender address lookup error");
    struct buf shown = { 0 };
    buf_printable(&shown, sender, SENDER_SHOWN);
    const char *why = arena_printf(a, "not authorized to use sender='%.*s'", STR_ARG(buf_str(&shown))).p;
    buf_free(&shown);
    if (!allowed)
        give_up(EX_NOPERM, why, why);
    arena_free(a);
}

static void copy(const struct conf *c, int fd) {
    int64_t limit = conf_int(c, PARAM_message_size_limit);
    uint64_t size = 0, envelope = 0;
    struct maildrop_reader r = { 0 };
    struct maildrop_record m;
    struct buf out = { 0 };
    do {
        error e = maildrop_read(&r, STDIN_FILENO, &m);
        if (e && e->kind == ERR_SYNTAX) {
            give_up(EX_DATAERR, "malformed input", "malformed input");
        } else if (e) {
            errno = e->sys;
            write_failed();
        }
        size += m.type == MAILDROP_CONTENT ? m.bytes.n : 0;
        envelope += m.type == MAILDROP_CONTENT ? 0 : RECORD_BYTES + m.bytes.n;
        if (envelope > ENVELOPE_MAX)
            give_up(EX_DATAERR, "too many recipients", "too many recipients");
        if (limit > 0 && size > (uint64_t)limit)
            give_up(EX_DATAERR, "File too large", "message file too big");
        if (m.type == MAILDROP_SENDER)
            check_sender(c, m.bytes);
        if (m.type == MAILDROP_RCPT)
            maildrop_put_rcpt(&out, m.value, m.bytes);
        else if (m.type == MAILDROP_RET)
            maildrop_put_u8(&out, m.type, m.value);
        else if (m.type == MAILDROP_FLAGS)
            maildrop_put_flags(&out, m.value, m.bytes);
        else
            maildrop_put(&out, m.type, m.bytes);
        if (out.n >= WRITE_SIZE)
            write_all(fd, &out);
    } while (m.type != MAILDROP_END);
    write_all(fd, &out);
    buf_free(&out);
    maildrop_reader_free(&r);
}

/* On disk, then whole, then on disk as whole; the name too. */
static void finish(int fd) {
    if (sys->fsync(fd) < 0)
        write_failed();
    hold_signals(); /* from here on it may be taken at any moment: it is no longer ours to remove */
    if (sys->fchmod(fd, MAILDROP_READY) < 0)
        write_failed();
    unfinished[0] = 0;
    int dir = open("maildrop", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* a set-gid group may make files in the directory and still not be let read it: then it is the file system's to
     * keep */
    bool kept = sys->fsync(fd) == 0 && (dir < 0 || sys->fsync(dir) == 0);
    if (dir >= 0)
        close(dir);
    if (!kept)
        log_warn("uid=%ld: sync: %s", (long)getuid(), strerror(errno));
    close(fd);
}

int main(int argc, char **argv) {
    const char *directory = NULL;
    int verbose = 0;
    bool bad = false;
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    logging_start_early(STR("postdrop"), LOGGING_COMMAND);
    for (int c; (c = getopt(argc, argv, "+c:rv")) != -1;) {
        if (c == 'c')
            directory = optarg;
        else if (c == 'r')
            reporting = true;
        else if (c == 'v')
            verbose++;
        else
            bad = true;
    }
    if (bad)
        log_fatal("usage: postdrop [-c config_dir] [-v]");
    struct arena *a = arena_new();
    struct conf_source source = { .process_name = STR("postdrop") };
    setgid_begin(directory, a, &source);
    if (!setgid_elevated())
        log_set_verbose(verbose);
    struct conf *c;
    error e = conf_load(&source, a, &c);
    if (!e)
        e = logging_start(c, STR("postdrop"), LOGGING_COMMAND, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    struct str queue = conf_str(c, PARAM_queue_directory);
    if (chdir(queue.p) < 0)
        log_fatal("chdir %.*s: %s", STR_ARG(queue), strerror(errno));
    log_set_fatal_status(EX_NOPERM);
    submit_users_check(c);
    log_set_fatal_status(1);

    struct queue_id id;
    watch_signals();
    int fd = create(c, &id);
    copy(c, fd);
    finish(fd);
    if (reporting) {
        printf("OK %s\n", id.text);
        fflush(stdout);
    }
    /* nobody there: pickup finds the file when it comes up */
    trigger_send(c, STR("public"), conf_str(c, PARAM_pickup_service_name), STR("W"));
    logging_end();
    conf_free(c);
    arena_free(a);
    return 0;
}
