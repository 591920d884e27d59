#include "sasl/server.h"

#include "base/buf.h"
#include "sasl/client.h"

static const struct {
    struct str word;
    unsigned forbids, requires;
} options[] = {
    { STR_INIT("noplaintext"), SASL_PLAINTEXT, 0 },           { STR_INIT("noactive"), SASL_ACTIVE, 0 },
    { STR_INIT("nodictionary"), SASL_DICTIONARY, 0 },         { STR_INIT("noanonymous"), SASL_ANONYMOUS, 0 },
    { STR_INIT("forward_secrecy"), 0, SASL_FORWARD_SECRECY }, { STR_INIT("mutual_auth"), 0, SASL_MUTUAL_AUTH },
};

bool sasl_policy_parse(struct str text, struct sasl_policy *ret, struct str *ret_word) {
    *ret = (struct sasl_policy){ 0 };
    struct str word;
    while (str_word(&text, STR_COMMA_SPACE, &word)) {
        size_t i = 0, n = sizeof options / sizeof *options;
        while (i < n && !str_eq_icase(word, options[i].word))
            i++;
        if (i == n) {
            *ret_word = word;
            return false;
        }
        ret->forbidden |= options[i].forbids;
        ret->required |= options[i].requires;
    }
    return true;
}

bool sasl_policy_allows(const struct sasl_policy *p, const struct sasl_mechanism *m) {
    return (m->properties & p->forbidden) == 0 && (m->properties & p->required) == p->required;
}

struct str sasl_policy_against(const struct sasl_policy *p, const struct sasl_mechanism *m) {
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if ((options[i].forbids & p->forbidden & m->properties) || (options[i].requires & p->required & ~m->properties))
            return options[i].word;
    return STR("");
}

void sasl_lost(struct arena *a, struct sasl_answer *ret, const char *reason, struct str detail) {
    *ret = (struct sasl_answer){ .outcome = LOGIN_TEMP, .reason = str_c(reason), .detail = arena_str(a, detail) };
}

struct str sasl_printable(struct arena *a, struct str text, size_t max) {
    struct buf b = { 0 };
    buf_printable(&b, text, max);
    struct str r = arena_str(a, buf_str(&b));
    buf_free(&b);
    return r;
}

bool sasl_base64_valid(struct str s) {
    if (s.n % 4)
        return false;
    size_t padding = 0;
    while (padding < 2 && padding < s.n && s.p[s.n - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < s.n - padding; i++)
        if (!byte_is_alnum(s.p[i]) && s.p[i] != '+' && s.p[i] != '/')
            return false;
    return true;
}
