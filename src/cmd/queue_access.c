#include "cmd/queue_access.h"

#include "base/log.h"
#include "service/logging.h"
#include "service/owner.h"
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

bool queue_is_ours(const struct conf *c) {
    struct stat st;
    return getuid() == 0 ||
           (stat(conf_str(c, PARAM_queue_directory).p, &st) == 0 && st.st_uid == getuid() && getuid() == geteuid());
}

void queue_become_owner(const struct conf *c) {
    struct arena *a = arena_new();
    struct owner o;
    error e = owner_lookup(c, a, &o);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    if (o.root && (setgroups(1, &o.mail_gid) < 0 || setresgid(o.mail_gid, o.mail_gid, o.mail_gid) < 0 ||
                   setresuid(o.mail_uid, o.mail_uid, o.mail_uid) < 0))
        log_fatal("become the user %.*s: %s", STR_ARG(conf_str(c, PARAM_mail_owner)), strerror(errno));
    arena_free(a);
}

struct str queue_socket(const struct conf *c, struct arena *a, struct str service) {
    return arena_printf(a, "%.*s/public/%.*s", STR_ARG(conf_str(c, PARAM_queue_directory)), STR_ARG(service));
}

struct conf *queue_command_conf(const char *directory, const char *program, struct arena *a, bool log) {
    const char *wanted = directory ? directory : getenv("MAIL_CONFIG");
    struct conf_source source = { .process_name = str_c(program) };
    struct conf *c = NULL;
    if (wanted && *wanted)
        source.config_directory = str_c(wanted);
    error e = conf_load(&source, a, &c);
    if (!e && log)
        e = logging_start(c, str_c(program), LOGGING_COMMAND, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    return c;
}
