#include "route/router.h"

#include "mail/address.h"

bool route_is_routed(struct str local) {
    return str_index_any(local, STR("@%!")) >= 0;
}

bool route_has_routing(const struct router *r, struct str local) {
    return str_index(local, '@') >= 0 || (r->percent_hack && str_index(local, '%') >= 0) ||
           (r->swap_bangpath && str_index(local, '!') >= 0);
}

/* "@a,@b:user@c" without its route (RFC 5321, appendix C). */
static struct str drop_source_route(struct str address) {
    while (address.n > 0 && address.p[0] == '@') {
        ptrdiff_t colon = str_index(address, ':');
        if (colon < 0)
            break;
        address = str_from(address, (size_t)colon + 1);
    }
    return address;
}

struct str route_rewrite(struct router *r, struct arena *a, struct str address, struct str origin) {
    address = drop_source_route(address);
    if (address.n == 0)
        return STR("");
    struct address_parts p = address_split(address);
    if (!p.has_domain) {
        ptrdiff_t bang = r->swap_bangpath ? str_index(address, '!') : -1;
        ptrdiff_t percent = r->percent_hack ? str_rindex(address, '%') : -1;
        if (bang >= 0) {
            p.domain = str_sub(address, 0, (size_t)bang);
            p.local = str_from(address, (size_t)bang + 1);
        } else if (percent >= 0) {
            p.local = str_sub(address, 0, (size_t)percent);
            p.domain = str_from(address, (size_t)percent + 1);
        } else if (r->append_at_myorigin) {
            p.local = address;
            p.domain = origin;
        } else {
            return arena_str(a, address);
        }
    }
    /* what is broken (no domain at all) or an address literal stays as it is */
    struct str domain = p.domain;
    struct str suffix = str_eq_icase(origin, r->myorigin) ? r->mydomain : origin;
    if (r->append_dot_mydomain && domain.n > 0 && domain.p[0] != '[' && str_index(domain, '.') < 0 && suffix.n > 0)
        domain = arena_printf(a, "%.*s.%.*s", STR_ARG(domain), STR_ARG(suffix));
    if (domain.n > 1 && domain.p[domain.n - 1] == '.' && domain.p[domain.n - 2] != '.')
        domain.n--;
    return arena_printf(a, "%.*s@%.*s", STR_ARG(p.local), STR_ARG(domain));
}
