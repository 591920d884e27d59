#include "milter/config.h"

static const struct {
    struct str word;
    enum milter_default what;
} default_actions[] = {
    { STR_INIT("accept"), MILTER_DEFAULT_ACCEPT },     { STR_INIT("reject"), MILTER_DEFAULT_REJECT },
    { STR_INIT("tempfail"), MILTER_DEFAULT_TEMPFAIL }, { STR_INIT("quarantine"), MILTER_DEFAULT_QUARANTINE },
    { STR_INIT("shutdown"), MILTER_DEFAULT_SHUTDOWN },
};

static error parse_default_action(struct arena *a, struct str text, enum milter_default *ret) {
    for (size_t i = 0; i < sizeof default_actions / sizeof *default_actions; i++)
        if (str_eq(text, default_actions[i].word)) {
            *ret = default_actions[i].what;
            return NULL;
        }
    return err_make(a, ERR_CONFIG,
                    "milter default_action \"%.*s\": specify accept, reject, tempfail, quarantine or shutdown",
                    STR_ARG(text));
}

/* A version, and words behind it. */
static error parse_protocol(struct arena *a, struct str text, struct milter_config *ret) {
    static const unsigned known[] = { 2, 3, 4, 6 };
    struct str rest = text, word;
    bool have = false;
    while (str_word(&rest, STR_COMMA_SPACE, &word)) {
        uint32_t version;
        bool good = false;
        if (str_eq(word, STR("no_header_reply"))) {
            ret->mute_header = good = true;
        } else if (str_to_u32(word, 6, &version)) {
            for (size_t i = 0; i < sizeof known / sizeof *known && !have; i++)
                good = good || known[i] == version;
            ret->version = version;
            have = true;
        }
        if (!good)
            return err_make(a, ERR_CONFIG, "milter protocol \"%.*s\": specify 2, 3, 4 or 6, and no_header_reply",
                            STR_ARG(text));
    }
    if (!have)
        return err_make(a, ERR_CONFIG, "milter protocol \"%.*s\" has no version", STR_ARG(text));
    return NULL;
}

static error parse_timeout(struct arena *a, struct str name, struct str text, int64_t *ret) {
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 } };
    int64_t factor = 1;
    struct str digits = text;
    for (size_t i = 0; i < sizeof units / sizeof *units && text.n > 0; i++)
        if (text.p[text.n - 1] == units[i].unit) {
            factor = units[i].seconds;
            digits.n--;
            break;
        }
    uint32_t n;
    if (!str_to_u32(digits, 1000000, &n) || n == 0)
        return err_make(a, ERR_CONFIG, "milter %.*s \"%.*s\" is no time: specify 30s, 5m ...", STR_ARG(name),
                        STR_ARG(text));
    *ret = n * factor;
    return NULL;
}

static error parse_setting(struct arena *a, struct str setting, struct milter_config *m) {
    if (setting.n > 1 && setting.p[0] == '{')
        setting = str_trim(str_sub(setting, 1, setting.n - 2));
    ptrdiff_t at = str_index(setting, '=');
    struct str name = at >= 0 ? str_trim(str_sub(setting, 0, (size_t)at)) : setting;
    struct str value = at >= 0 ? str_trim(str_from(setting, (size_t)at + 1)) : STR("");
    if (str_eq(name, STR("connect_timeout")))
        return parse_timeout(a, name, value, &m->connect_timeout);
    if (str_eq(name, STR("command_timeout")))
        return parse_timeout(a, name, value, &m->command_timeout);
    if (str_eq(name, STR("content_timeout")))
        return parse_timeout(a, name, value, &m->content_timeout);
    if (str_eq(name, STR("default_action")))
        return parse_default_action(a, value, &m->on_error);
    if (str_eq(name, STR("protocol")))
        return parse_protocol(a, value, m);
    return err_make(a, ERR_CONFIG, "unknown milter setting \"%.*s\"", STR_ARG(setting));
}

static error parse_one(struct arena *a, struct str item, struct milter_config *m) {
    bool braced = item.n > 1 && item.p[0] == '{';
    struct str rest = braced ? str_sub(item, 1, item.n - 2) : item, word;
    error e = NULL;
    bool have = false;
    while (!e && str_word_braced(&rest, STR_COMMA_SPACE, &word)) {
        if (have) {
            e = parse_setting(a, word, m);
            continue;
        }
        have = true;
        e = dial_parse(a, word, &m->target);
        if (e)
            e = err_make(a, ERR_CONFIG, "milter service: %.*s", STR_ARG(e->text));
    }
    if (!e && (!have || rest.n > 0))
        e = err_make(a, ERR_CONFIG, "milter service \"%.*s\": no service, or unbalanced braces", STR_ARG(item));
    return e;
}

error milter_configs_parse(struct arena *a, const struct conf *c, struct str text, struct milter_configs *ret) {
    VEC(struct milter_config) v = { 0 };
    struct milter_config like = { .connect_timeout = conf_time(c, PARAM_milter_connect_timeout),
                                  .command_timeout = conf_time(c, PARAM_milter_command_timeout),
                                  .content_timeout = conf_time(c, PARAM_milter_content_timeout) };
    struct str rest = text, item;
    *ret = (struct milter_configs){ 0 };
    error e = parse_protocol(a, conf_str(c, PARAM_milter_protocol), &like);
    if (!e)
        e = parse_default_action(a, conf_str(c, PARAM_milter_default_action), &like.on_error);
    while (!e && str_word_braced(&rest, STR_COMMA_SPACE, &item)) {
        struct milter_config m = like;
        e = v.n < MILTERS_MAX ? parse_one(a, item, &m)
                              : err_make(a, ERR_CONFIG, "more than %d milters: \"%.*s\"", MILTERS_MAX, STR_ARG(text));
        if (!e)
            *vec_add(a, &v) = m;
    }
    if (!e && rest.n > 0)
        e = err_make(a, ERR_CONFIG, "unbalanced braces in milter list \"%.*s\"", STR_ARG(text));
    if (e)
        return e;
    *ret = (struct milter_configs){ v.at, v.n };
    return NULL;
}

error milter_configs_declare(struct service_ctx *ctx, const struct milter_configs *list) {
    error e = NULL;
    for (size_t i = 0; i < list->n && !e; i++)
        e = dial_declare(ctx, &list->at[i].target);
    return e;
}

/* --- macros --- */
error milter_macros_parse(struct arena *a, const struct conf *c, struct milter_macros *ret) {
    *ret = (struct milter_macros){
        .lists = { [MILTER_AT_CONNECT] = conf_str(c, PARAM_milter_connect_macros),
                   [MILTER_AT_HELO] = conf_str(c, PARAM_milter_helo_macros),
                   [MILTER_AT_MAIL] = conf_str(c, PARAM_milter_mail_macros),
                   [MILTER_AT_RCPT] = conf_str(c, PARAM_milter_rcpt_macros),
                   [MILTER_AT_DATA] = conf_str(c, PARAM_milter_data_macros),
                   [MILTER_AT_EOM] = conf_str(c, PARAM_milter_end_of_data_macros),
                   [MILTER_AT_EOH] = conf_str(c, PARAM_milter_end_of_header_macros),
                   [MILTER_AT_UNKNOWN] = conf_str(c, PARAM_milter_unknown_command_macros) },
    };
    struct str list = conf_str(c, PARAM_milter_macro_defaults), item;
    while (str_word_braced(&list, STR_COMMA_SPACE, &item)) {
        struct str pair = item;
        /* "{name}=value" also begins with a brace */
        if (pair.p[0] == '{' && pair.p[pair.n - 1] == '}' && str_index(str_sub(pair, 1, pair.n - 2), '=') >= 0)
            pair = str_trim(str_sub(pair, 1, pair.n - 2));
        ptrdiff_t at = str_index(pair, '=');
        if (at <= 0)
            return err_make(a, ERR_CONFIG, "milter_macro_defaults: \"%.*s\" is not name=value", STR_ARG(item));
        *vec_add(a, &ret->defaults) =
            (struct milter_macro){ str_trim(str_sub(pair, 0, (size_t)at)), str_trim(str_from(pair, (size_t)at + 1)) };
    }
    if (list.n > 0)
        return err_make(a, ERR_CONFIG, "milter_macro_defaults: unbalanced braces");
    return NULL;
}

bool milter_macro_next(struct str *list, struct str *ret) {
    return str_word(list, STR_COMMA_SPACE, ret);
}

static struct str bare(struct str name) {
    return name.n > 2 && name.p[0] == '{' && name.p[name.n - 1] == '}' ? str_sub(name, 1, name.n - 2) : name;
}

bool milter_macro_is(struct str macro, struct str name) {
    return str_eq(bare(macro), bare(name));
}
