#include "cmd/submit_users.h"

#include "base/log.h"
#include "mail/address.h"
#include "table/match.h"
#include "table/table.h"

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

static struct str without_extension(struct arena *a, struct str address, struct str delimiters) {
    struct address_parts p = address_split(address);
    ptrdiff_t at = str_index_any(p.local, delimiters);
    if (at <= 0)
        return address;
    p.local.n = (size_t)at;
    return p.has_domain ? arena_printf(a, "%.*s@%.*s", STR_ARG(p.local), STR_ARG(p.domain)) : p.local;
}

static bool covers(struct str pattern, struct str sender) {
    if (str_eq(pattern, STR("*")) || str_eq_icase(pattern, sender))
        return true;
    struct address_parts p = address_split(sender);
    return pattern.n > 1 && pattern.p[0] == '@' && p.has_domain && str_eq_icase(str_from(pattern, 1), p.domain);
}

error submit_sender_check(const struct conf *c, struct str sender, struct arena *a, bool *ret_allowed) {
    const struct passwd *user = getpwuid(getuid());
    struct str login = user ? str_c(user->pw_name) : arena_printf(a, "uid:%ld", (long)getuid());
    struct str list = conf_str(c, PARAM_local_login_sender_maps), found = STR(""), pattern;
    struct maps *maps = maps_open(c, list, 0);
    enum table_result r = maps_get(maps, login, a, &found, NULL);
    maps_close(maps);
    *ret_allowed = false;
    if (r == TABLE_ERROR)
        return err_make(a, ERR_TEMP, "local_login_sender_maps lookup error for %.*s", STR_ARG(login));
    if (r == TABLE_NOT_FOUND)
        return NULL;
    sender = sender.n ? without_extension(a, sender, conf_str(c, PARAM_recipient_delimiter))
                      : conf_str(c, PARAM_empty_address_local_login_sender_maps_lookup_key);
    while (!*ret_allowed && str_word(&found, STR_COMMA_SPACE, &pattern))
        *ret_allowed = covers(pattern, sender);
    return NULL;
}
