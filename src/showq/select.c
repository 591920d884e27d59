#include "showq/select.h"

#include "conf/values.h"

bool selection_option(struct selection *s, int option, const char *value, const char **ret_error) {
    *ret_error = NULL;
    switch (option) {
    case SELECT_SENDER:
        s->sender = value;
        return true;
    case SELECT_RECIPIENT:
        s->recipient = value;
        return true;
    case SELECT_DOMAIN:
        s->domain = value;
        if (!*value || strcmp(value, ".") == 0)
            *ret_error = "--domain: a domain name is missing";
        return true;
    case SELECT_REASON:
        s->reason = value;
        return true;
    case SELECT_OLDER:
        s->by_age = true;
        if (!time_parse(str_c(value), 's', &s->older_s) || s->older_s < 0)
            *ret_error = "--older: not a time such as 90s, 30m, 4h or 2d";
        return true;
    default:
        return false;
    }
}

bool selection_is_set(const struct selection *s) {
    return s->sender || s->recipient || s->domain || s->reason || s->by_age;
}

/* '*' is any text. Works through the text once for each star: no recursion. */
static bool glob(struct str pattern, struct str text) {
    size_t p = 0, t = 0, star = SIZE_MAX, from = 0;
    while (t < text.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            from = t;
        } else if (p < pattern.n && byte_lower(pattern.p[p]) == byte_lower(text.p[t])) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++from;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

static bool address_is(const char *wanted, struct str address) {
    if (!*wanted || strcmp(wanted, "<>") == 0)
        wanted = "MAILER-DAEMON";
    return glob(str_c(wanted), address);
}

static bool contains_icase(struct str text, struct str needle) {
    for (size_t i = 0; i + needle.n <= text.n; i++)
        if (str_eq_icase(str_sub(text, i, needle.n), needle))
            return true;
    return false;
}

static bool domain_is(const char *wanted, struct str address) {
    ptrdiff_t at = str_rindex(address, '@');
    struct str domain = at < 0 ? STR("") : str_from(address, (size_t)at + 1), name = str_c(wanted);
    return *wanted == '.' ? str_ends_icase(domain, name) && domain.n > name.n : str_eq_icase(domain, name);
}

static bool takes_rcpt(const struct selection *s, const struct listing_rcpt *r) {
    if (s->recipient && !address_is(s->recipient, r->address) && !(r->orig.n && address_is(s->recipient, r->orig)))
        return false;
    if (s->domain && !domain_is(s->domain, r->address))
        return false;
    return !s->reason || contains_icase(r->delay_reason, str_c(s->reason)) ||
           contains_icase(r->bounce_reason, str_c(s->reason));
}

bool selection_takes(const struct selection *s, const struct listing_entry *e, int64_t now_s) {
    if (s->sender && !address_is(s->sender, e->sender))
        return false;
    if (s->by_age && now_s - e->arrival_s < s->older_s)
        return false;
    if (!s->recipient && !s->domain && !s->reason)
        return true;
    for (size_t i = 0; i < e->rcpt_count; i++)
        if (takes_rcpt(s, &e->rcpts[i]))
            return true;
    return false;
}
