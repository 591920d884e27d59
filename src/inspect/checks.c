#include "inspect/checks.h"

#include "mail/address.h"
#include "mail/dsn.h"
#include "mail/header.h"

struct asked {
    struct str parameter;
    bool is_header;
    struct arena *arena;
};

/* --- what must stand behind an action: an empty result says that it does --- */
typedef struct str need(const struct asked *q, struct str value);

static struct str header_or_text(const struct asked *q, const char *action, struct str value) {
    struct str name, rest;
    if (value.n == 0)
        return arena_printf(q->arena, "%s action without text in %.*s map", action, STR_ARG(q->parameter));
    if (q->is_header && !header_split(value, &name, &rest))
        return arena_printf(q->arena, "bad %s header text \"%.*s\" in %.*s map -- need \"headername: headervalue\"",
                            action, STR_ARG(value), STR_ARG(q->parameter));
    return STR("");
}
static struct str need_prepend(const struct asked *q, struct str value) {
    return header_or_text(q, "PREPEND", value);
}
static struct str need_replace(const struct asked *q, struct str value) {
    return header_or_text(q, "REPLACE", value);
}
static struct str need_transport(const struct asked *q, struct str value) {
    if (str_index(value, ':') > 0 && value.n <= ADDRESS_MAX)
        return STR("");
    return arena_printf(q->arena, "bad FILTER command %.*s in %.*s -- need transport:destination", STR_ARG(value),
                        STR_ARG(q->parameter));
}
static bool is_mailbox(struct str value) {
    struct address_parts p = address_split(value);
    return p.has_domain && p.local.n && p.domain.n && value.n <= ADDRESS_MAX;
}
static struct str need_target(const struct asked *q, struct str value) {
    if (is_mailbox(value))
        return STR("");
    return arena_printf(q->arena, "bad REDIRECT target \"%.*s\" in %.*s map -- need user@domain", STR_ARG(value),
                        STR_ARG(q->parameter));
}
static struct str need_bcc(const struct asked *q, struct str value) {
    if (is_mailbox(value))
        return STR("");
    return arena_printf(q->arena, "bad BCC address \"%.*s\" in %.*s map -- need user@domain", STR_ARG(value),
                        STR_ARG(q->parameter));
}

static const struct {
    struct str name;
    enum check_action action;
    struct str log;
    need *need; /* NULL: anything or nothing */
} rows[] = {
    { STR_INIT("BCC"), CHECK_BCC, STR_INIT("bcc"), need_bcc },
    { STR_INIT("DISCARD"), CHECK_DISCARD, STR_INIT("discard"), NULL },
    { STR_INIT("DUNNO"), CHECK_NONE, STR_INIT(""), NULL },
    { STR_INIT("FILTER"), CHECK_FILTER, STR_INIT("filter"), need_transport },
    { STR_INIT("HOLD"), CHECK_HOLD, STR_INIT("hold"), NULL },
    { STR_INIT("IGNORE"), CHECK_IGNORE, STR_INIT(""), NULL },
    { STR_INIT("INFO"), CHECK_INFO, STR_INIT("info"), NULL },
    { STR_INIT("OK"), CHECK_NONE, STR_INIT(""), NULL }, /* older than DUNNO */
    { STR_INIT("PASS"), CHECK_PASS, STR_INIT("pass"), NULL },
    { STR_INIT("PREPEND"), CHECK_PREPEND, STR_INIT("prepend"), need_prepend },
    { STR_INIT("REDIRECT"), CHECK_REDIRECT, STR_INIT("redirect"), need_target },
    { STR_INIT("REJECT"), CHECK_REJECT, STR_INIT("reject"), NULL },
    { STR_INIT("REPLACE"), CHECK_REPLACE, STR_INIT("replace"), need_replace },
    { STR_INIT("STRIP"), CHECK_STRIP, STR_INIT("strip"), NULL },
    { STR_INIT("WARN"), CHECK_WARN, STR_INIT("warning"), NULL },
};

static void apply(const struct asked *q, struct str answer, struct check *ret) {
    struct str value = answer, verb = STR("");
    (void)str_word(&value, STR_SPACE, &verb);
    value = str_trim(value);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!str_eq_icase(verb, rows[i].name))
            continue;
        struct str fault = rows[i].need ? rows[i].need(q, value) : STR("");
        if (fault.n) {
            ret->fault = fault;
            return;
        }
        ret->action = rows[i].action;
        ret->log = rows[i].log;
        ret->value = value;
        if (ret->action == CHECK_REJECT)
            dsn_split(value, STR("5.7.1"), &ret->dsn, &ret->value);
        if (ret->action == CHECK_REJECT && ret->value.n == 0)
            ret->value = STR("message content rejected");
        return;
    }
    ret->fault =
        arena_printf(q->arena, "unknown command in %.*s map: %.*s", STR_ARG(q->parameter), STR_ARG(str_trim(answer)));
}

enum table_result check_find(struct maps *tables, struct str parameter, bool is_header, struct str text,
                             struct arena *a, struct check *ret) {
    const struct asked q = { parameter, is_header, a };
    struct str answer;
    *ret = (struct check){ .log = STR(""), .value = STR(""), .dsn = STR(""), .fault = STR("") };
    if (text.n == 0 || !tables)
        return TABLE_NOT_FOUND;
    enum table_result found = maps_get(tables, text, a, &answer, NULL);
    if (found == TABLE_FOUND)
        apply(&q, answer, ret);
    return found;
}
