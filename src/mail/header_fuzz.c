/* Fuzz: header lines and the address lists in them. */
#include "base/die.h"
#include "mail/address.h"
#include "mail/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena *a = arena_new();
    struct str in = str_n((const char *)data, size), name, value;
    if (header_split(in, &name, &value))
        header_find(name);
    else
        value = in;
    header_unfold(a, value);
    struct header_addresses l = header_addresses_parse(a, value);
    for (size_t i = 0; i < l.n; i++) {
        struct header_address h = l.at[i];
        if (h.address.n == 0 || h.address.n > ADDRESS_MAX || str_index_any(h.address, STR("\0\r\n")) >= 0)
            die("bad address");
        if (h.source.n && (h.source.p < value.p || h.source.p + h.source.n > value.p + value.n))
            die("source is not part of the header");
        address_quote(a, h.address);
    }
    arena_free(a);
    return 0;
}
