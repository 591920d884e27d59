#include "table/cidr.h"

#include <arpa/inet.h>
#include <endian.h>
#include <sys/socket.h>

bool cidr_parse_address(struct str s, struct cidr *ret) {
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

/* "[2001:db8::]/32" and "[2001:db8::/32]" are both written. NULL, or the fault. */
static const char *strip_brackets(struct arena *a, struct str *s) {
    if (s->n == 0 || s->p[0] != '[')
        return NULL;
    ptrdiff_t close = str_index(*s, ']');
    if (close < 0)
        return arena_printf(a, "missing ']' character after \"%.*s\"", STR_ARG(*s)).p;
    struct str inside = str_sub(*s, 1, (size_t)close - 1), rest = str_from(*s, (size_t)close + 1);
    if (rest.n && (rest.p[0] != '/' || str_index(inside, '/') >= 0))
        return arena_printf(a, "garbage after \"%.*s\"", STR_ARG(str_sub(*s, 0, (size_t)close + 1))).p;
    *s = arena_cat(a, inside, rest);
    return NULL;
}

const char *cidr_parse(struct arena *a, struct str s, struct cidr *ret) {
    const char *fault = strip_brackets(a, &s);
    if (fault)
        return fault;
    ptrdiff_t slash = str_index(s, '/');
    struct str address = slash < 0 ? s : str_sub(s, 0, (size_t)slash);
    if (!cidr_parse_address(address, ret)) {
        if (slash < 0)
            return arena_printf(a, "bad address pattern: \"%.*s\"", STR_ARG(s)).p;
        return arena_printf(a, "bad network value in \"%.*s\"", STR_ARG(s)).p;
    }
    if (slash < 0)
        return NULL;
    uint32_t bits;
    if (!str_to_u32(str_from(s, (size_t)slash + 1), UINT32_MAX, &bits))
        return arena_printf(a, "bad mask value in \"%.*s\"", STR_ARG(s)).p;
    if (bits > ret->bits)
        return arena_printf(a, "bad mask length in \"%.*s\"", STR_ARG(s)).p;
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

static uint64_t big_endian(const unsigned char *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return be64toh(word);
}

bool cidr_contains(const struct cidr *network, const struct cidr *address) {
    if (network->family != address->family)
        return false;
    unsigned bits = network->bits;
    uint64_t differ = big_endian(network->address) ^ big_endian(address->address);
    if (bits <= 64)
        return bits == 0 || differ >> (64 - bits) == 0;
    return differ == 0 && (big_endian(network->address + 8) ^ big_endian(address->address + 8)) >> (128 - bits) == 0;
}
