#include "smtp/tls_policy_text.h"

#include "mail/address.h"
#include <stddef.h>

enum attribute_rule {
    NOT_EMPTY = 1, /* an empty value is an error */
    MATCHES = 2,   /* of levels that look at the certificate's names or fingerprints */
};

struct parse {
    struct arena *a;
    struct policy_text *p;
    struct str *why;
};

static bool fail(struct parse *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct parse *s, const char *format, ...) {
    va_list ap;
    struct buf b = { 0 };
    va_start(ap, format);
    buf_vprintf(&b, format, ap);
    va_end(ap);
    *s->why = arena_str(s->a, buf_str(&b));
    buf_free(&b);
    return false;
}

static bool set_sni(struct parse *s, struct str value) {
    s->p->sni = value;
    if (str_eq_icase(value, STR("nexthop")) || str_eq_icase(value, STR("hostname")) || hostname_valid(value))
        return true;
    return fail(s, "\"servername=%.*s\" specifies an invalid hostname", STR_ARG(value));
}

static bool set_reuse(struct parse *s, struct str value) {
    s->p->reuse = str_eq_icase(value, STR("yes"));
    if (s->p->reuse || str_eq_icase(value, STR("no")))
        return true;
    return fail(s, "attribute \"connection_reuse\" has bad value: \"%.*s\"", STR_ARG(value));
}

static bool add_match(struct parse *s, struct str value) {
    if (s->p->match_count == POLICY_MATCH_MAX)
        return fail(s, "attribute \"match\" is specified more than %d times", POLICY_MATCH_MAX);
    s->p->match[s->p->match_count++] = value;
    return true;
}

/* Without a function the value is copied to `text`. */
static const struct attribute {
    struct str name;
    unsigned rules;
    size_t given, text; /* in struct policy_text; 0: no such field, and so as often as one likes */
    bool (*set)(struct parse *s, struct str value);
} attributes[] = {
    { STR_INIT("protocols"), 0, offsetof(struct policy_text, protocols_given), offsetof(struct policy_text, protocols),
      NULL },
    { STR_INIT("ciphers"), NOT_EMPTY, offsetof(struct policy_text, grade_given), offsetof(struct policy_text, grade),
      NULL },
    { STR_INIT("exclude"), 0, offsetof(struct policy_text, exclude_given), offsetof(struct policy_text, exclude),
      NULL },
    { STR_INIT("servername"), 0, offsetof(struct policy_text, sni_given), 0, set_sni },
    { STR_INIT("connection_reuse"), 0, offsetof(struct policy_text, reuse_given), 0, set_reuse },
    { STR_INIT("match"), NOT_EMPTY | MATCHES, 0, 0, add_match },
};

static bool set_attribute(struct parse *s, const struct attribute *t, struct str value) {
    struct policy_text *p = s->p;
    bool *given = t->given ? (bool *)((char *)p + t->given) : NULL;
    bool matching = p->level == TLS_LEVEL_FINGERPRINT || p->level == TLS_LEVEL_VERIFY || p->level == TLS_LEVEL_SECURE;
    if ((t->rules & MATCHES) && !matching)
        return fail(s, "attribute \"%.*s\" invalid at security level \"%.*s\"", STR_ARG(t->name),
                    STR_ARG(tls_level_name(p->level)));
    if ((t->rules & NOT_EMPTY) && value.n == 0)
        return fail(s, "attribute \"%.*s\" has empty value", STR_ARG(t->name));
    if (given && *given)
        return fail(s, "attribute \"%.*s\" is specified multiple times", STR_ARG(t->name));
    if (given)
        *given = true;
    if (t->set)
        return t->set(s, value);
    *(struct str *)((char *)p + t->text) = value;
    return true;
}

static bool take_attribute(struct parse *s, struct str word) {
    ptrdiff_t equals = str_index(word, '=');
    if (equals <= 0)
        return fail(s, "malformed attribute/value pair \"%.*s\": missing '=' after attribute name", STR_ARG(word));
    struct str name = str_sub(word, 0, (size_t)equals), value = str_from(word, (size_t)equals + 1);
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (str_eq_icase(name, attributes[i].name))
            return set_attribute(s, &attributes[i], value);
    return fail(s, "invalid attribute name: \"%.*s\"", STR_ARG(name));
}

bool policy_text_parse(struct arena *a, struct str value, struct policy_text *ret, struct str *ret_why) {
    struct parse s = { a, ret, ret_why };
    struct str word = STR("");
    *ret = (struct policy_text){ .ignored = STR("") };
    if (value.n > POLICY_TEXT_MAX)
        return fail(&s, "policy of more than %d bytes", POLICY_TEXT_MAX);
    if (!str_word(&value, STR_COMMA_SPACE, &word) || !tls_level_parse(word, &ret->level))
        return fail(&s, "invalid security level \"%.*s\"", STR_ARG(word));
    while (str_word(&value, STR_COMMA_SPACE, &word)) {
        if (ret->level == TLS_LEVEL_NONE) {
            ret->ignored = word;
            return true;
        }
        if (!take_attribute(&s, word))
            return false;
    }
    return true;
}
