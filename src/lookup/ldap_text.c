#include "lookup/ldap_text.h"

static void escape(struct buf *b, char c) {
    static const char digits[] = "0123456789abcdef";
    unsigned char byte = (unsigned char)c;
    buf_byte(b, '\\');
    buf_byte(b, digits[byte >> 4]);
    buf_byte(b, digits[byte & 15]);
}

bool ldap_quote_filter(void *ctx, struct buf *b, struct str text) {
    (void)ctx;
    for (size_t i = 0; i < text.n; i++) {
        if (!byte_is_print(text.p[i]) || str_index(STR("*()\\"), text.p[i]) >= 0)
            escape(b, text.p[i]);
        else
            buf_byte(b, text.p[i]);
    }
    return true;
}

bool ldap_quote_dn(void *ctx, struct buf *b, struct str text) {
    (void)ctx;
    for (size_t i = 0; i < text.n; i++) {
        /* blanks count at the ends of a value only, but what stands beside the key is not known here */
        bool end = i == 0 || i + 1 == text.n;
        if (!byte_is_print(text.p[i]) || str_index(STR("\"+,;<>\\=#"), text.p[i]) >= 0 || (end && text.p[i] == ' '))
            escape(b, text.p[i]);
        else
            buf_byte(b, text.p[i]);
    }
    return true;
}

struct str ldap_server_uri(struct arena *a, struct str word, int64_t port) {
    if (str_contains(word, STR("://")))
        return arena_str(a, word);
    ptrdiff_t bracket = str_rindex(word, ']'), colon = str_rindex(word, ':');
    if (colon > bracket)
        return arena_printf(a, "ldap://%.*s", STR_ARG(word));
    return arena_printf(a, "ldap://%.*s:%d", STR_ARG(word), (int)port);
}

bool ldap_attribute_is(struct str returned, struct str wanted) {
    return wanted.n && str_starts_icase(returned, wanted) && (returned.n == wanted.n || returned.p[wanted.n] == ';');
}

struct str ldap_attribute_common(struct str selected, struct str listed) {
    if (str_eq_icase(selected, listed))
        return listed;
    if (str_index(selected, ';') >= 0 && str_index(listed, ';') >= 0)
        return STR("");
    if (ldap_attribute_is(selected, listed))
        return selected;
    return ldap_attribute_is(listed, selected) ? listed : STR("");
}
