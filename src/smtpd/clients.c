#include "smtpd/clients.h"

#include "base/die.h"
#include <stdlib.h>

enum { KEY_MAX = 1 + 16 /* family, address */ };

struct client_count {
    uint32_t sessions;
    size_t key_length;
    char key[KEY_MAX];
};

static void mask(unsigned char *p, size_t bytes, unsigned bits) {
    for (size_t i = 0; i<bytes; i++, bits = bits> 8 ? bits - 8 : 0)
        if (bits < 8)
            p[i] = (unsigned char)(p[i] & (0xff00u >> bits));
}

/* An IPv4 client seen through an IPv6 socket is an IPv4 client. */
static size_t make_key(const struct endpoint *client, unsigned ipv4_bits, unsigned ipv6_bits, char key[KEY_MAX]) {
    char text[INET6_ADDRSTRLEN];
    struct endpoint plain;
    memset(key, 0, KEY_MAX);
    if (!endpoint_ip(endpoint_address(client, text), 0, &plain))
        return 1;
    unsigned char address[16];
    size_t n = plain.u.sa.sa_family == AF_INET ? 4 : 16;
    if (n == 4)
        memcpy(address, &plain.u.in.sin_addr, n);
    else
        memcpy(address, &plain.u.in6.sin6_addr, n);
    mask(address, n, n == 4 ? ipv4_bits : ipv6_bits);
    key[0] = (char)n;
    memcpy(key + 1, address, n);
    return 1 + n;
}

struct client_count *client_enter(struct clients *c, const struct endpoint *client, unsigned ipv4_bits,
                                  unsigned ipv6_bits, uint32_t *ret) {
    char key[KEY_MAX];
    size_t n = make_key(client, ipv4_bits, ipv6_bits, key);
    struct client_count *count = map_get(&c->map, str_n(key, n));
    if (!count) {
        count = calloc(1, sizeof *count);
        if (!count)
            die_no_memory(sizeof *count);
        memcpy(count->key, key, n);
        count->key_length = n;
        map_put(&c->map, str_n(count->key, n), count);
    }
    *ret = ++count->sessions;
    return count;
}

void client_leave(struct clients *c, struct client_count *n) {
    if (!n || --n->sessions > 0)
        return;
    map_remove(&c->map, str_n(n->key, n->key_length));
    free(n);
    if (c->map.n == 0)
        map_free(&c->map);
}
