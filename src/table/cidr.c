#include "table/cidr.h"

#include <arpa/inet.h>
#include <sys/socket.h>

bool cidr_parse_address(struct str s, struct cidr *ret) {
    if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
        s = str_sub(s, 1, s.n - 2);
    char text[INET6_ADDRSTRLEN];
    if (s.n == 0 || s.n >= sizeof text || str_index(s, 0) >= 0)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    *ret = (struct cidr){ .family = str_index(s, ':') >= 0 ? AF_INET6 : AF_INET };
    ret->bits = ret->family == AF_INET6 ? 128 : 32;
    return inet_pton(ret->family, text, ret->address) == 1;
}

/* Clears the bits of the host; returns whether one was set. */
static bool clear_host_bits(struct cidr *c) {
    bool was_set = false;
    unsigned bytes = c->family == AF_INET6 ? 16 : 4;
    for (unsigned i = 0; i < bytes; i++) {
        unsigned keep = c->bits > i * 8 ? c->bits - i * 8 : 0;
        unsigned mask = keep >= 8 ? 0xff : (0xff00u >> keep) & 0xff;
        was_set = was_set || (c->address[i] & ~mask);
        c->address[i] = (unsigned char)(c->address[i] & mask);
    }
    return was_set;
}

/* Both "[2001:db8::]/32" and "[2001:db8::/32]" are written. */
const char *cidr_parse(struct arena *a, struct str s, struct cidr *ret) {
    struct str text = s;
    if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']')
        text = str_sub(text, 1, text.n - 2);
    ptrdiff_t slash = str_index(text, '/');
    struct str address = slash < 0 ? text : str_sub(text, 0, (size_t)slash);
    if (!cidr_parse_address(address, ret)) {
        if (slash < 0)
            return arena_printf(a, "bad address pattern: \"%.*s\"", STR_ARG(s)).p;
        return arena_printf(a, "bad network value in \"%.*s\"", STR_ARG(s)).p;
    }
    if (slash < 0)
        return NULL;
    uint32_t bits;
    if (!str_to_u32(str_from(text, (size_t)slash + 1), ret->bits, &bits))
        return arena_printf(a, "bad mask value in \"%.*s\"", STR_ARG(s)).p;
    ret->bits = bits;
    if (clear_host_bits(ret)) {
        char right[INET6_ADDRSTRLEN] = "";
        inet_ntop(ret->family, ret->address, right, sizeof right);
        return arena_printf(a, "non-null host address bits in \"%.*s\", perhaps you should use \"%s/%u\" instead",
                            STR_ARG(s), right, ret->bits)
            .p;
    }
    return NULL;
}

bool cidr_contains(const struct cidr *network, const struct cidr *address) {
    if (network->family != address->family)
        return false;
    size_t bytes = network->bits / 8;
    unsigned rest = network->bits % 8;
    if (memcmp(network->address, address->address, bytes) != 0)
        return false;
    return rest == 0 || ((network->address[bytes] ^ address->address[bytes]) & (0xff00u >> rest) & 0xff) == 0;
}
