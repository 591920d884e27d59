#include "proto/haproxy.h"

enum { IPV4_SIZE = 2 * 4 + 2 * 2, IPV6_SIZE = 2 * 16 + 2 * 2 };

static const char signature[] = { '\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n' };

/* --- version 1 --- */
static bool take_word(struct str *line, struct str *ret) {
    return str_word(line, STR(" "), ret);
}

static bool valid_port(struct str s, uint16_t *ret) {
    uint32_t v;
    if (s.n > 5 || (s.n > 1 && s.p[0] == '0') || !str_to_u32(s, UINT16_MAX, &v))
        return false;
    *ret = (uint16_t)v;
    return true;
}

/* A numeric address of the family; IPv4 in IPv6 is IPv4 from here on. */
static bool valid_address(struct str s, int family, struct endpoint *ret) {
    struct endpoint as_written;
    char text[INET6_ADDRSTRLEN];
    if (!endpoint_ip(s, 0, &as_written) || as_written.u.sa.sa_family != family)
        return false;
    return endpoint_ip(endpoint_address(&as_written, text), 0, ret);
}

static void set_port(struct endpoint *e, uint16_t port) {
    if (e->u.sa.sa_family == AF_INET6)
        e->u.in6.sin6_port = htons(port);
    else
        e->u.in.sin_port = htons(port);
}

static const char *parse_text(struct str line, struct haproxy *ret) {
    struct str word = STR(""), from = STR(""), to = STR("");
    uint16_t port;
    if (line.n > HAPROXY_LINE_MAX || !str_ends(line, STR("\n")))
        return "missing protocol header terminator";
    line.n--;
    if (str_ends(line, STR("\r")))
        line.n--;
    if (!take_word(&line, &word) || !str_eq(word, STR("PROXY")))
        return "unrecognized protocol header";
    if (!take_word(&line, &word))
        return "bad or missing protocol type";
    if (str_eq(word, STR("UNKNOWN"))) /* whatever follows */
        return NULL;
    bool ipv6 = str_eq(word, STR("TCP6"));
    if (!ipv6 && !str_eq(word, STR("TCP4")))
        return "bad or missing protocol type";
    int family = ipv6 ? AF_INET6 : AF_INET;
    if (!take_word(&line, &from) || !valid_address(from, family, &ret->client))
        return "bad or missing client address";
    if (!take_word(&line, &to) || !valid_address(to, family, &ret->server))
        return "bad or missing server address";
    if (!take_word(&line, &word) || !valid_port(word, &port))
        return "bad or missing client port";
    set_port(&ret->client, port);
    if (!take_word(&line, &word) || !valid_port(word, &port))
        return "bad or missing server port";
    set_port(&ret->server, port);
    if (take_word(&line, &word))
        return "text behind the server port";
    ret->proxied = true;
    return NULL;
}

/* --- version 2 --- */
static unsigned byte_at(struct str s, size_t i) {
    return (unsigned char)s.p[i];
}

static uint16_t u16_at(struct str s, size_t i) {
    return (uint16_t)(byte_at(s, i) << 8 | byte_at(s, i + 1));
}

static void binary_address(struct str s, size_t at, size_t size, uint16_t port, struct endpoint *ret) {
    struct endpoint raw = { .len = size == 4 ? sizeof raw.u.in : sizeof raw.u.in6 };
    char text[INET6_ADDRSTRLEN];
    if (size == 4) {
        raw.u.in.sin_family = AF_INET;
        memcpy(&raw.u.in.sin_addr, s.p + at, size);
    } else {
        raw.u.in6.sin6_family = AF_INET6;
        memcpy(&raw.u.in6.sin6_addr, s.p + at, size);
    }
    (void)endpoint_ip(endpoint_address(&raw, text), port, ret);
}

int haproxy_length(struct str fixed) {
    if (fixed.n < HAPROXY_FIXED_SIZE || !str_starts(fixed, str_n(signature, sizeof signature)))
        return -1;
    unsigned n = u16_at(fixed, HAPROXY_FIXED_SIZE - 2);
    return n <= HAPROXY_LENGTH_MAX ? (int)n : -1;
}

static const char *parse_binary(struct str s, struct haproxy *ret) {
    int length = haproxy_length(s);
    if (s.n < HAPROXY_FIXED_SIZE || !str_starts(s, str_n(signature, sizeof signature)))
        return "unrecognized protocol header";
    unsigned version = byte_at(s, 12) >> 4, command = byte_at(s, 12) & 15, family = byte_at(s, 13);
    if (version != 2)
        return "unrecognized protocol version";
    if (length < 0)
        return "version 2 protocol header too long";
    if (s.n != HAPROXY_FIXED_SIZE + (size_t)length)
        return "short version 2 protocol header";
    if (command == 0) /* LOCAL */
        return NULL;
    if (command != 1)
        return "bad command in proxy header";
    if (family == 0) /* AF_UNSPEC: not known to the proxy */
        return NULL;
    size_t size = family == 0x11 ? 4 : family == 0x21 ? 16 : 0;
    if (size == 0)
        return "unsupported network protocol";
    if ((size_t)length < (size == 4 ? IPV4_SIZE : IPV6_SIZE))
        return "short address field";
    size_t at = HAPROXY_FIXED_SIZE;
    binary_address(s, at, size, u16_at(s, at + 2 * size), &ret->client);
    binary_address(s, at + size, size, u16_at(s, at + 2 * size + 2), &ret->server);
    ret->proxied = true;
    return NULL;
}

const char *haproxy_parse(struct str header, struct haproxy *ret) {
    *ret = (struct haproxy){ 0 };
    const char *fault = str_starts(header, STR("\r")) ? parse_binary(header, ret) : parse_text(header, ret);
    if (fault)
        *ret = (struct haproxy){ 0 };
    return fault;
}

/* --- reading --- */
static const char *broken(error e) {
    return e->kind == ERR_TIMEOUT ? "timeout error" : e->kind == ERR_EOF ? "lost connection" : "read error";
}

/* Up to `n` more bytes; false with the error. What came is in `seen` either way. */
static bool read_more(struct io *io, size_t n, int64_t deadline, char *seen, size_t *count, error *ret) {
    *ret = NULL;
    while (n > 0 && !*ret) {
        struct str some;
        *ret = io_some(io, n, deadline, &some);
        memcpy(seen + *count, some.p, some.n);
        *count += some.n;
        n -= some.n;
    }
    return !*ret;
}

const char *haproxy_read(struct io *io, int64_t deadline, struct haproxy *ret, char seen[HAPROXY_MAX],
                         size_t *ret_seen) {
    size_t n = 0;
    error e;
    *ret = (struct haproxy){ 0 };
    *ret_seen = 0;
    if (!read_more(io, 1, deadline, seen, &n, &e))
        return broken(e);
    if (seen[0] == '\r') {
        bool ok = read_more(io, HAPROXY_FIXED_SIZE - 1, deadline, seen, &n, &e);
        int more = ok ? haproxy_length(str_n(seen, n)) : -1;
        if (more > 0)
            ok = read_more(io, (size_t)more, deadline, seen, &n, &e);
        *ret_seen = n;
        if (!ok)
            return broken(e);
    } else {
        struct str line;
        e = io_line(io, HAPROXY_LINE_MAX - 1, deadline, &line);
        memcpy(seen + n, line.p, line.n);
        *ret_seen = n += line.n;
        if (e && e->kind != ERR_LIMIT)
            return broken(e);
    }
    return haproxy_parse(str_n(seen, n), ret);
}
