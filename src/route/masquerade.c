/* Masquerading (ADDRESS_REWRITING_README): hosts of ours are hidden behind their domain. */
#include "route/router.h"

#include "mail/address.h"

/* The first of masquerade_domains that `domain` is, or is below. "!name": names below it stay as they are. */
static struct str hidden_behind(const struct router *r, struct str domain) {
    for (size_t i = 0; i < r->masquerade_domains.n; i++) {
        struct str name = r->masquerade_domains.at[i].name;
        if (!str_ends_icase(domain, name))
            continue;
        if (domain.n == name.n)
            break;
        if (domain.p[domain.n - name.n - 1] != '.')
            continue;
        return r->masquerade_domains.at[i].keep ? domain : name;
    }
    return domain;
}

enum match_result router_masquerade(struct router *r, struct arena *a, struct str address, struct str *ret) {
    *ret = address;
    struct address_parts p = address_split(address);
    if (!p.has_domain || r->masquerade_domains.n == 0)
        return MATCH_NO;
    struct str shown = hidden_behind(r, p.domain);
    if (shown.n == p.domain.n)
        return MATCH_NO;
    if (r->masquerade_exceptions) {
        enum match_result found = match_find(r->masquerade_exceptions, p.local, STR(""));
        if (found != MATCH_NO)
            return found == MATCH_ERROR ? MATCH_ERROR : MATCH_NO;
    }
    *ret = arena_printf(a, "%.*s@%.*s", STR_ARG(p.local), STR_ARG(shown));
    return MATCH_YES;
}

void router_open_masquerade(struct router *r) {
    struct str list = conf_str(r->c, PARAM_masquerade_domains), word;
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        struct masquerade_domain d = { .keep = false };
        for (; word.n > 0 && word.p[0] == '!'; word = str_from(word, 1))
            d.keep = !d.keep;
        d.name = arena_lower(r->arena, word);
        *vec_add(r->arena, &r->masquerade_domains) = d;
    }
    struct str exceptions = conf_str(r->c, PARAM_masquerade_exceptions);
    if (exceptions.n > 0)
        r->masquerade_exceptions = match_open(r->c, STR("masquerade_exceptions"), exceptions, MATCH_STRING, TABLE_FOLD);
}
