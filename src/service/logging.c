#include "service/logging.h"

#define SYSLOG_NAMES
#include "service/log_send.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

static bool to_stderr;
static char stderr_name[128]; /* "postmap" */

static void sink(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx;
    int why = errno;
    if (to_stderr)
        fprintf(stderr, "%s: %.*s\n", stderr_name, STR_ARG(text));
    if (!log_send(level, tag, text) && !to_stderr)
        fprintf(stderr, "%.*s: %.*s\n", STR_ARG(tag), STR_ARG(text));
    errno = why;
}

static int socket_to(struct str path) {
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    if (path.n >= sizeof at.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(at.sun_path, path.p, path.n);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct timeval timeout = { .tv_sec = LOG_SEND_TIMEOUT_MS / 1000, .tv_usec = LOG_SEND_TIMEOUT_MS % 1000 * 1000 };
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (const struct sockaddr *)&at, sizeof at) < 0) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

static int socket_to_postlog(const struct conf *c) {
    struct str dir = conf_str(c, PARAM_queue_directory), name = conf_str(c, PARAM_postlog_service_name);
    struct buf path = { 0 };
    buf_printf(&path, "%.*s/public/%.*s", STR_ARG(dir), STR_ARG(name));
    int fd = socket_to(buf_str(&path));
    int why = errno;
    buf_free(&path);
    errno = why;
    return fd;
}

int logging_socket(const struct conf *c) {
    return conf_str(c, PARAM_maillog_file).n ? socket_to_postlog(c) : socket_to(STR(_PATH_LOG));
}

void logging_set_socket(int fd) {
    if (log_send_target() == LOG_TO_FILE)
        close(fd);
    else
        log_send_to(log_send_target(), fd);
}

void logging_end(void) {
    log_send_to(LOG_TO_NOTHING, -1);
    log_set_sink(NULL, NULL);
}

/* --- what the configuration says --- */
static bool facility_of(struct str name, int *ret) {
    for (const CODE *c = facilitynames; c->c_name; c++)
        if (str_eq(name, str_c(c->c_name))) {
            *ret = c->c_val;
            return true;
        }
    return false;
}

/* What stands in front of a line on standard error: the command's name; in scripts the whole tag, as in the log. */
static void set_role(struct str prefix, struct str program, enum logging_role role) {
    if (role == LOGGING_SCRIPT)
        snprintf(stderr_name, sizeof stderr_name, "%.*s/%.*s", STR_ARG(prefix), STR_ARG(program));
    else
        snprintf(stderr_name, sizeof stderr_name, "%.*s", STR_ARG(program));
    to_stderr = role == LOGGING_COMMAND || role == LOGGING_SCRIPT;
}

/* A set-gid command does not connect with its group's rights wherever its caller's environment says. */
static const char *trusted_env(const char *name) {
    bool elevated = getuid() != 0 && (getuid() != geteuid() || getgid() != getegid());
    return elevated ? NULL : getenv(name);
}

void logging_start_early(struct str program, enum logging_role role) {
    const char *tag = trusted_env("MAIL_LOGTAG"), *postlog = trusted_env("POSTLOG_SERVICE"),
               *host = trusted_env("POSTLOG_HOSTNAME");
    struct buf name = { 0 };
    struct str prefix = tag && *tag ? str_c(tag) : STR("postfix");
    set_role(prefix, program, role == LOGGING_SCRIPT ? LOGGING_COMMAND : role); /* no script speaks yet */
    buf_printf(&name, "%.*s/%.*s", STR_ARG(prefix), STR_ARG(program));
    log_set_name(buf_str(&name));
    buf_free(&name);
    log_send_host(host && *host ? str_c(host) : STR("localhost"));
    if (postlog && *postlog == '/')
        log_send_to(LOG_TO_POSTLOG, socket_to(str_c(postlog)));
    else
        log_send_to(LOG_TO_SYSLOG, socket_to(STR(_PATH_LOG)));
    log_set_sink(sink, NULL);
}

struct str logging_host(const struct conf *c) {
    const char *given = getenv("POSTLOG_HOSTNAME");
    struct str host = given && *given ? str_c(given) : conf_str(c, PARAM_myhostname);
    ptrdiff_t dot = str_index(host, '.');
    return dot > 0 ? str_sub(host, 0, (size_t)dot) : host;
}

/* A path of maillog_file may only be below a listed prefix, so that a typing error cannot overwrite just anything. */
static error check_prefix(const struct conf *c, struct arena *a) {
    struct str file = conf_str(c, PARAM_maillog_file), list = conf_str(c, PARAM_maillog_file_prefixes), prefix;
    while (str_word(&list, STR_COMMA_SPACE, &prefix)) {
        while (prefix.n > 1 && prefix.p[prefix.n - 1] == '/')
            prefix.n--;
        if (str_eq(file, prefix) || (str_starts(file, prefix) && (file.p[prefix.n] == '/' || prefix.n == 1)))
            return NULL;
    }
    return err_make(a, ERR_CONFIG, "maillog_file value '%.*s' does not match any prefix in maillog_file_prefixes",
                    STR_ARG(file));
}

static error file_mode(const struct conf *c, struct arena *a, mode_t *ret) {
    struct str text = conf_str(c, PARAM_maillog_file_permissions);
    unsigned mode = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '7' || mode > 0777)
            return err_make(a, ERR_CONFIG, "bad maillog_file_permissions value: '%.*s'", STR_ARG(text));
        mode = mode * 8 + (unsigned)(text.p[i] - '0');
    }
    if (mode > 0777 || !(mode & S_IWUSR))
        return err_make(a, ERR_CONFIG, "bad maillog_file_permissions value: '%.*s'", STR_ARG(text));
    *ret = (mode_t)mode;
    return NULL;
}

static error open_file(const struct conf *c, struct arena *a, bool create, int *ret_fd) {
    error e;
    mode_t mode = 0;
    struct str file = conf_str(c, PARAM_maillog_file);
    if ((e = check_prefix(c, a)) || (e = file_mode(c, a, &mode)))
        return e;
    if (str_eq(file, STR("/dev/stdout")))
        /* not open(): standard output may be a socket or belong to another user (su, containers) */
        *ret_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    else
        *ret_fd = open(file.p, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | (create ? O_CREAT : 0), mode);
    if (*ret_fd < 0)
        return err_errno(errno);
    return NULL;
}

error logging_open_file(const struct conf *c, struct arena *err_arena, int *ret_fd) {
    struct str file = conf_str(c, PARAM_maillog_file);
    mode_t old = umask(0);
    error e = open_file(c, err_arena, true, ret_fd);
    umask(old);
    if (e && e->kind == ERR_SYS)
        return err_make(err_arena, ERR_SYS, "open logfile '%.*s': %.*s", STR_ARG(file), STR_ARG(e->text));
    return e;
}

/* A command: through postlogd when it is there, else into the file when we may; standard error has it in any case. */
static error command_file(const struct conf *c, struct arena *a) {
    error e = check_prefix(c, a);
    if (e)
        return e;
    int fd = socket_to_postlog(c);
    if (fd >= 0) {
        log_send_to(LOG_TO_POSTLOG, fd);
        return NULL;
    }
    struct stat st;
    bool ours = geteuid() == 0 || (stat(conf_str(c, PARAM_queue_directory).p, &st) == 0 && st.st_uid == geteuid());
    if (str_eq(conf_str(c, PARAM_maillog_file), STR("/dev/stdout")) || !ours || logging_open_file(c, a, &fd)) {
        log_send_to(LOG_TO_NOTHING, -1);
        return NULL;
    }
    log_send_to(LOG_TO_FILE, fd);
    return NULL;
}

error logging_start(const struct conf *c, struct str program, enum logging_role role, struct arena *err_arena) {
    struct str prefix = conf_str(c, PARAM_syslog_name);
    set_role(prefix, program, role);
    struct buf name = { 0 };
    buf_printf(&name, "%.*s/%.*s", STR_ARG(prefix), STR_ARG(program));
    log_set_name(buf_str(&name));
    buf_free(&name);
    log_send_host(logging_host(c));
    log_set_sink(sink, NULL);
    struct str facility = conf_str(c, PARAM_syslog_facility);
    int number = LOG_MAIL;
    if (!facility_of(facility, &number))
        return err_make(err_arena, ERR_CONFIG, "file %.*s/main.cf: parameter syslog_facility: unrecognized value: %.*s",
                        STR_ARG(conf_directory(c)), STR_ARG(facility));
    log_send_facility(number);
    if (conf_str(c, PARAM_maillog_file).n == 0) {
        log_send_to(LOG_TO_SYSLOG, socket_to(STR(_PATH_LOG)));
        return NULL;
    }
    if (role == LOGGING_COMMAND || role == LOGGING_SCRIPT)
        return command_file(c, err_arena);
    if (role == LOGGING_DIRECT) {
        int fd = -1;
        error e = logging_open_file(c, err_arena, &fd);
        if (!e)
            log_send_to(LOG_TO_FILE, fd);
        return e;
    }
    error e = check_prefix(c, err_arena);
    if (!e)
        log_send_to(LOG_TO_POSTLOG, socket_to_postlog(c));
    return e;
}
