#include "dns/internal.h"

bool dns_same_address(const struct endpoint *a, const struct endpoint *b) {
    char x[INET6_ADDRSTRLEN], y[INET6_ADDRSTRLEN];
    return str_eq(endpoint_address(a, x), endpoint_address(b, y));
}

static bool next_line(struct str *text, struct str *ret_line) {
    if (!str_next(text, STR("\n"), ret_line))
        return false;
    ptrdiff_t hash = str_index_any(*ret_line, STR("#;"));
    if (hash >= 0)
        *ret_line = str_sub(*ret_line, 0, (size_t)hash);
    return true;
}

static void add_server(struct dns *d, const struct endpoint *at) {
    if (d->server_count < DNS_SERVERS_MAX)
        d->servers[d->server_count++] = *at;
}

void dns_read_resolv_conf(struct dns *d, struct str text) {
    struct str line, word;
    while (next_line(&text, &line)) {
        if (!str_word(&line, STR_SPACE, &word))
            continue;
        if (str_eq(word, STR("nameserver"))) {
            struct endpoint at;
            if (str_word(&line, STR_SPACE, &word) && endpoint_ip(word, 53, &at))
                add_server(d, &at);
        } else if (str_eq(word, STR("options"))) {
            uint32_t n;
            while (str_word(&line, STR_SPACE, &word)) {
                if (str_starts(word, STR("timeout:")) && str_to_u32(str_from(word, 8), 30, &n) && n > 0)
                    d->timeout_us = n * US_PER_S;
                else if (str_starts(word, STR("attempts:")) && str_to_u32(str_from(word, 9), 5, &n) && n > 0)
                    d->tries = n;
            }
        }
    }
}

void dns_read_hosts(struct dns *d, struct str text) {
    struct str line, word;
    struct dns_host **tail = &d->hosts;
    for (size_t lines = 0; lines < DNS_HOSTS_MAX && next_line(&text, &line); lines++) {
        struct endpoint at;
        if (!str_word(&line, STR_SPACE, &word) || !endpoint_ip(word, 0, &at))
            continue;
        while (str_word(&line, STR_SPACE, &word)) {
            struct dns_host *h = ARENA_NEW(d->arena, struct dns_host);
            *h = (struct dns_host){ .name = arena_str(d->arena, word), .addr = at };
            *tail = h;
            tail = &h->next;
        }
    }
}

error dns_read_servers(struct dns *d, struct str list, struct arena *err_arena) {
    struct str item, rest = list;
    while (str_word(&rest, STR_COMMA_SPACE, &item)) {
        struct str host = item, port = STR("53");
        ptrdiff_t colon = str_rindex(item, ':');
        if (item.n && item.p[0] == '[') { /* [::1]:5300 or [::1] */
            ptrdiff_t close = str_index(item, ']');
            if (close > 0) {
                host = str_sub(item, 1, (size_t)close - 1);
                if (colon > close)
                    port = str_from(item, (size_t)colon + 1);
            }
        } else if (colon >= 0 && str_index(item, ':') == colon) {
            host = str_sub(item, 0, (size_t)colon);
            port = str_from(item, (size_t)colon + 1);
        }
        struct endpoint at;
        uint32_t number;
        if (!str_to_u32(port, 65535, &number) || number == 0 || !endpoint_ip(host, (uint16_t)number, &at))
            return err_make(
                err_arena, ERR_CONFIG,
                "parameter dns_resolvers: bad entry \"%.*s\": write address:port, as in 127.0.0.1:53 or [::1]:53",
                STR_ARG(item));
        add_server(d, &at);
    }
    return NULL;
}
