#include "cmd/submit_users.h"

#include "base/log.h"
#include "table/match.h"

#include <pwd.h>
#include <unistd.h>

void submit_users_check(const struct conf *c) {
    const struct passwd *user = getpwuid(getuid());
    const char *name = user ? user->pw_name : "unknown";
    struct match *m = match_open(c, STR("authorized_submit_users"), conf_str(c, PARAM_authorized_submit_users),
                                 MATCH_STRING, TABLE_FOLD);
    enum match_result found = match_find(m, str_c(name), STR(""));
    if (found == MATCH_ERROR)
        log_fatal("authorized_submit_users lookup error for %s: %.*s", name, STR_ARG(match_error(m)->text));
    match_close(m);
    if (found == MATCH_NO)
        log_fatal("User %s(%ld) is not allowed to submit mail", name, (long)getuid());
}
