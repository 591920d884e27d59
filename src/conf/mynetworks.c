#include "conf/mynetworks.h"
#include "base/buf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>

enum mask_style { MASK_HOST = 1, MASK_SUBNET, MASK_CLASS };

static const struct {
    struct str name;
    enum mask_style style;
} styles[] = { { STR_INIT("host"), MASK_HOST },
               { STR_INIT("subnet"), MASK_SUBNET },
               { STR_INIT("class"), MASK_CLASS } };

static const struct {
    struct str name;
    bool ipv4, ipv6;
} protocols[] = { { STR_INIT("all"), true, true },
                  { STR_INIT("ipv4"), true, false },
                  { STR_INIT("ipv6"), false, true } };

error inet_protocols_parse(struct str value, struct arena *a, bool *ret_ipv4, bool *ret_ipv6) {
    *ret_ipv4 = *ret_ipv6 = false;
    struct str rest = value, word;
    while (str_word(&rest, STR_COMMA_SPACE, &word)) {
        size_t i = 0, n = sizeof protocols / sizeof protocols[0];
        while (i < n && !str_eq_icase(protocols[i].name, word))
            i++;
        if (i == n)
            return err_make(a, ERR_CONFIG, "unknown inet_protocols value \"%.*s\" in \"%.*s\"", STR_ARG(word),
                            STR_ARG(value));
        *ret_ipv4 |= protocols[i].ipv4;
        *ret_ipv6 |= protocols[i].ipv6;
    }
    return NULL;
}

error interfaces_list(struct str inet_protocols, struct arena *a, const struct interface_address **ret,
                      size_t *ret_count) {
    bool ipv4, ipv6;
    error e = inet_protocols_parse(inet_protocols, a, &ipv4, &ipv6);
    if (e)
        return e;
    struct ifaddrs *list;
    if (getifaddrs(&list) != 0)
        return err_make(a, ERR_CONFIG, "getifaddrs: %s", strerror(errno));
    VEC(struct interface_address) found = { 0 };
    for (struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || !i->ifa_netmask || !(i->ifa_flags & IFF_UP))
            continue;
        struct interface_address one = { .family = i->ifa_addr->sa_family,
                                         .loopback = (i->ifa_flags & IFF_LOOPBACK) != 0 };
        if (one.family == AF_INET && ipv4) {
            struct sockaddr_in sin;
            memcpy(&sin, i->ifa_addr, sizeof sin);
            memcpy(one.address, &sin.sin_addr, sizeof sin.sin_addr);
            memcpy(&sin, i->ifa_netmask, sizeof sin);
            memcpy(one.mask, &sin.sin_addr, sizeof sin.sin_addr);
        } else if (one.family == AF_INET6 && ipv6) {
            struct sockaddr_in6 sin6;
            memcpy(&sin6, i->ifa_addr, sizeof sin6);
            memcpy(one.address, &sin6.sin6_addr, sizeof sin6.sin6_addr);
            memcpy(&sin6, i->ifa_netmask, sizeof sin6);
            memcpy(one.mask, &sin6.sin6_addr, sizeof sin6.sin6_addr);
        } else {
            continue;
        }
        *vec_add(a, &found) = one;
    }
    freeifaddrs(list);
    *ret = found.at;
    *ret_count = found.n;
    return NULL;
}

static size_t address_length(int family) {
    return family == AF_INET ? 4 : 16;
}

/* Bits of the historical class of an IPv4 address. */
static unsigned class_bits(unsigned char first) {
    return first < 128 ? 8 : first < 192 ? 16 : first < 224 ? 24 : 32;
}

static unsigned mask_bits(const struct interface_address *i, enum mask_style style) {
    size_t n = address_length(i->family);
    if (style == MASK_HOST)
        return (unsigned)n * 8;
    if (style == MASK_CLASS && i->family == AF_INET)
        return class_bits(i->address[0]);
    unsigned bits = 0;
    for (size_t at = 0; at < n; at++)
        bits += (unsigned)__builtin_popcount(i->mask[at]);
    return bits;
}

/* " 192.0.2.0/24", unless the list has it already. */
static void add_network(struct buf *list, const struct interface_address *i, enum mask_style style) {
    unsigned bits = mask_bits(i, style);
    unsigned char network[16];
    for (unsigned at = 0; at < 16; at++) {
        unsigned left = bits > at * 8 ? bits - at * 8 : 0;
        unsigned keep = left >= 8 ? 0xffU : (0xff00U >> left) & 0xffU;
        network[at] = (unsigned char)(i->address[at] & keep);
    }
    char text[INET6_ADDRSTRLEN];
    if (!inet_ntop(i->family, network, text, sizeof text))
        return;
    struct buf one = { 0 };
    if (i->family == AF_INET)
        buf_printf(&one, "%s/%u", text, bits);
    else
        buf_printf(&one, "[%s]/%u", text, bits);
    struct str rest = buf_str(list), word;
    bool known = false;
    while (str_word(&rest, STR_SPACE, &word))
        known |= str_eq(word, buf_str(&one));
    if (!known)
        buf_printf(list, "%s%.*s", list->n ? " " : "", STR_ARG(buf_str(&one)));
    buf_free(&one);
}

static const struct interface_address *find_address(const struct interface_address *all, size_t count, int family,
                                                    const void *address) {
    for (size_t i = 0; i < count; i++)
        if (all[i].family == family && memcmp(all[i].address, address, address_length(family)) == 0)
            return &all[i];
    return NULL;
}

static bool has_family(const struct interface_address *all, size_t count, int family) {
    for (size_t i = 0; i < count; i++)
        if (all[i].family == family)
            return true;
    return false;
}

/* One name or address of inet_interfaces. */
static error add_host(struct buf *list, struct str host, enum mask_style style, const struct interface_address *all,
                      size_t count, struct arena *a) {
    struct str bare = host;
    if (bare.n > 2 && bare.p[0] == '[' && bare.p[bare.n - 1] == ']')
        bare = str_sub(bare, 1, bare.n - 2);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    if (getaddrinfo(arena_cstr(a, bare), NULL, &hints, &found) != 0)
        return err_make(a, ERR_CONFIG, "config variable inet_interfaces: host not found: %.*s", STR_ARG(host));
    error e = NULL;
    for (struct addrinfo *r = found; r && !e; r = r->ai_next) {
        struct sockaddr_in sin;
        struct sockaddr_in6 sin6;
        const void *address;
        if (r->ai_family == AF_INET) {
            memcpy(&sin, r->ai_addr, sizeof sin);
            address = &sin.sin_addr;
        } else if (r->ai_family == AF_INET6) {
            memcpy(&sin6, r->ai_addr, sizeof sin6);
            address = &sin6.sin6_addr;
        } else {
            continue;
        }
        if (!has_family(all, count, r->ai_family))
            continue; /* inet_protocols, or the kernel, has switched it off */
        const struct interface_address *i = find_address(all, count, r->ai_family, address);
        if (i)
            add_network(list, i, style);
        else
            e = err_make(a, ERR_CONFIG, "parameter inet_interfaces: no local interface found for %.*s", STR_ARG(host));
    }
    freeaddrinfo(found);
    return e;
}

error mynetworks_default(struct str style, struct str inet_interfaces, const struct interface_address *all,
                         size_t count, struct arena *a, struct str *ret) {
    enum mask_style mask = 0;
    for (size_t i = 0; i < sizeof styles / sizeof styles[0]; i++)
        if (str_eq_icase(str_trim(style), styles[i].name))
            mask = styles[i].style;
    if (!mask)
        return err_make(a, ERR_CONFIG, "unknown mynetworks mask style value \"%.*s\" in \"%.*s\"", STR_ARG(style),
                        STR_ARG(style));
    struct buf list = { 0 };
    struct str value = str_trim(inet_interfaces);
    bool everything = str_eq_icase(value, STR("all")), loopback = str_eq_icase(value, STR("loopback-only"));
    error e = NULL;
    if (everything || loopback) {
        for (size_t i = 0; i < count; i++)
            if (everything || all[i].loopback)
                add_network(&list, &all[i], mask);
    } else {
        struct str word;
        while (!e && str_word(&value, STR_COMMA_SPACE, &word))
            e = add_host(&list, word, mask, all, count, a);
    }
    if (!e)
        *ret = arena_str(a, buf_str(&list));
    buf_free(&list);
    return e;
}
