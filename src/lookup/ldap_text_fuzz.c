/* Fuzz: a key in a filter and in a name. The library's own parser of names must find one component with the key in it,
 * and what a filter's escapes mean must be the key; neither may hold a byte that is special. Also: the words of
 * server_host, and attribute descriptions. */
#include "base/die.h"
#include "lookup/ldap_text.h"
#include "lookup/query.h"
#include <ldap.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 2000 };

static void check_dn(struct str key) {
    struct buf b = { 0 };
    LDAPDN dn = NULL;
    if (query_expand(STR("cn=%s,dc=x"), key, ldap_quote_dn, NULL, &b) != QUERY_OK)
        die("the key does not fit");
    if (ldap_str2dn(b.p, &dn, LDAP_DN_FORMAT_LDAPV3) != LDAP_SUCCESS)
        die("no name: %s", b.p);
    if (!dn[0] || !dn[1] || dn[2] || dn[0][1])
        die("the key has changed the shape of the name: %s", b.p);
    if (!str_eq(str_n(dn[0][0]->la_value.bv_val, dn[0][0]->la_value.bv_len), key))
        die("the name has another key: %s", b.p);
    ldap_dnfree(dn);
    buf_free(&b);
}

static char digit(char c) {
    return (char)(byte_is_digit(c) ? c - '0' : c - 'a' + 10);
}

static void check_filter(struct str key) {
    struct buf b = { 0 }, back = { 0 };
    if (query_expand(STR("%s"), key, ldap_quote_filter, NULL, &b) != QUERY_OK)
        die("the key does not fit");
    for (size_t i = 0; i < b.n; i++) {
        if (!byte_is_print(b.p[i]) || str_index(STR("()*"), b.p[i]) >= 0)
            die("special in a filter: %s", b.p);
        if (b.p[i] == '\\') {
            buf_byte(&back, (char)(digit(b.p[i + 1]) * 16 + digit(b.p[i + 2])));
            i += 2;
        } else
            buf_byte(&back, b.p[i]);
    }
    if (!str_eq(buf_str(&back), key))
        die("the filter has another key");
    buf_free(&b);
    buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str key = str_n((const char *)data, size < INPUT_MAX ? size : INPUT_MAX);
    struct arena *a = arena_new();
    if (key.n) {
        check_dn(key);
        check_filter(key);
        struct str left = str_sub(key, 0, key.n / 2), right = str_from(key, key.n / 2);
        struct str common = ldap_attribute_common(left, right);
        if (common.n && (!ldap_attribute_is(common, left) || !ldap_attribute_is(common, right)))
            die("an attribute that was not asked for");
        struct str uri = ldap_server_uri(a, key, 389);
        if (!str_contains(uri, STR("://")))
            die("not a URI");
    }
    arena_free(a);
    return 0;
}
