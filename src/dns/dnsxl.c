#include "dns/dnsxl.h"

/* --- answers that count --- */
struct parser {
    struct arena *a;
    struct str all, rest;
};

static error bad(struct parser *p, const char *what) {
    return err_make(p->a, ERR_SYNTAX, "bad DNS list filter \"%.*s\": %s", STR_ARG(p->all), what);
}

static bool skip(struct parser *p, const char *token) {
    if (!str_starts(p->rest, str_c(token)))
        return false;
    p->rest = str_from(p->rest, strlen(token));
    return true;
}

static error number(struct parser *p, uint32_t *ret) {
    size_t n = 0;
    while (n < p->rest.n && p->rest.p[n] >= '0' && p->rest.p[n] <= '9')
        n++;
    if (!str_to_u32(str_sub(p->rest, 0, n), UINT8_MAX, ret))
        return bad(p, "a number from 0 to 255 is wanted");
    p->rest = str_from(p->rest, n);
    return NULL;
}

static error range(struct parser *p, uint32_t allowed[8]) {
    uint32_t first, last;
    error e = number(p, &first);
    last = first;
    if (!e && skip(p, ".."))
        e = number(p, &last);
    if (!e && last < first)
        e = bad(p, "a range runs from the smaller to the larger number");
    for (uint32_t n = first; !e && n <= last; n++)
        allowed[n / 32] |= UINT32_C(1) << n % 32;
    return e;
}

static error element(struct parser *p, uint32_t allowed[8]) {
    if (!skip(p, "[")) {
        uint32_t n;
        error e = number(p, &n);
        if (!e)
            allowed[n / 32] |= UINT32_C(1) << n % 32;
        return e;
    }
    error e = range(p, allowed);
    while (!e && skip(p, ";"))
        e = range(p, allowed);
    return e || skip(p, "]") ? e : bad(p, "\"]\" is missing");
}

error dnsxl_filter_parse(struct arena *a, struct str text, struct dnsxl_filter *ret) {
    struct parser p = { a, text, text };
    *ret = (struct dnsxl_filter){ 0 };
    for (int i = 0; i < 4; i++) {
        if (i && !skip(&p, "."))
            return bad(&p, "four numbers with dots between them are wanted");
        error e = element(&p, ret->allowed[i]);
        if (e)
            return e;
    }
    return p.rest.n ? bad(&p, "something follows the fourth number") : NULL;
}

bool dnsxl_filter_match(const struct dnsxl_filter *f, struct in_addr answer) {
    uint32_t address = ntohl(answer.s_addr);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t n = address >> (24 - 8 * i) & UINT8_MAX;
        if (!(f->allowed[i][n / 32] >> n % 32 & 1))
            return false;
    }
    return true;
}

/* --- the name --- */
static struct str name_of_v4(struct arena *a, const uint8_t *p, struct str list) {
    return arena_printf(a, "%u.%u.%u.%u.%.*s", p[3], p[2], p[1], p[0], STR_ARG(list));
}

static struct str name_of_v6(struct arena *a, const uint8_t *p, struct str list) {
    struct buf b = { 0 };
    for (int i = 15; i >= 0; i--)
        buf_printf(&b, "%x.%x.", p[i] & 0xf, p[i] >> 4);
    buf_add(&b, list);
    struct str name = arena_str(a, buf_str(&b));
    buf_free(&b);
    return name;
}

bool dnsxl_name(struct arena *a, const struct endpoint *client, struct str list, struct str *ret) {
    const struct in6_addr *v6 = &client->u.in6.sin6_addr;
    if (client->u.sa.sa_family == AF_INET)
        *ret = name_of_v4(a, (const uint8_t *)&client->u.in.sin_addr, list);
    else if (client->u.sa.sa_family == AF_INET6)
        *ret = IN6_IS_ADDR_V4MAPPED(v6) ? name_of_v4(a, v6->s6_addr + 12, list) : name_of_v6(a, v6->s6_addr, list);
    else
        return false;
    return true;
}
