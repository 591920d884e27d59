/* Fuzz: SMTP paths. What is accepted must survive the way out and in again. */
#include "base/die.h"
#include "mail/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena *a = arena_new();
    struct str in = str_n((const char *)data, size), address, rest, back;
    for (int strict = 0; strict < 2; strict++) {
        if (!address_parse_path(a, in, strict ? ADDRESS_STRICT : 0, &address, &rest))
            continue;
        if (address.n > ADDRESS_MAX || str_index_any(address, STR("\0\r\n")) >= 0)
            die("bad address accepted");
        struct address_parts p = address_split(address);
        address_domain_is_literal(p.domain);
        hostname_valid(p.domain);
        struct str user, extension;
        address_split_extension(p.local, (struct extension_rules){ STR("+-"), true }, &user, &extension);
        struct str quoted = address_quote(a, address);
        /* the domain goes out as it is, so only a clean one must come back the same */
        if ((!p.has_domain || hostname_valid(p.domain)) && address.n &&
            (!address_unquote(a, quoted, &back) || !str_eq(back, address)))
            die("\"%.*s\" is not the same after quoting", STR_ARG(address));
    }
    address_unquote(a, in, &back);
    arena_free(a);
    return 0;
}
