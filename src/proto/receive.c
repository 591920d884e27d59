#include "proto/receive.h"

error receive_flags(const struct conf *c, struct arena *err_arena, unsigned *ret_flags, bool *ret_no_unknown_checks) {
    static const struct {
        struct str word;
        unsigned off;
    } words[] = {
        { STR_INIT("no_header_body_checks"), SUBMIT_FILTER },
        { STR_INIT("no_milters"), SUBMIT_MILTER },
        { STR_INIT("no_address_mappings"), SUBMIT_MAP },
        { STR_INIT("no_unknown_recipient_checks"), 0 },
    };
    struct str list = conf_str(c, PARAM_receive_override_options), word;
    *ret_flags = SUBMIT_FILTER | SUBMIT_MILTER | SUBMIT_MAP;
    *ret_no_unknown_checks = false;
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        size_t i = 0, n = sizeof words / sizeof *words;
        while (i < n && !str_eq_icase(word, words[i].word))
            i++;
        if (i == n)
            return err_make(err_arena, ERR_CONFIG, "unknown receive_override_options value \"%.*s\" in \"%.*s\"",
                            STR_ARG(word), STR_ARG(conf_str(c, PARAM_receive_override_options)));
        *ret_flags &= ~words[i].off;
        *ret_no_unknown_checks = *ret_no_unknown_checks || words[i].off == 0;
    }
    return NULL;
}

static bool has_class(struct str list, struct str class, struct str all) {
    struct str word;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        if (str_eq_icase(word, class) || (all.n && str_eq_icase(word, all)))
            return true;
    return false;
}

unsigned receive_detect_utf8(const struct conf *c, struct str class) {
    bool on = conf_bool(c, PARAM_smtputf8_enable) &&
              has_class(conf_str(c, PARAM_smtputf8_autodetect_classes), class, STR("all"));
    return on ? SUBMIT_DETECT_UTF8 : 0;
}

unsigned receive_internal_filter(const struct conf *c, struct str class) {
    bool on = has_class(conf_str(c, PARAM_internal_mail_filter_classes), class, STR(""));
    return on ? SUBMIT_FILTER | SUBMIT_MILTER : 0;
}
