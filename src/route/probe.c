#include "route/probe.h"

#include "mail/address.h"

static struct str sender_of_epoch(const struct conf *c, struct arena *a, uint64_t epoch) {
    static const char digits[] = "0123456789bcdfghjklmnpqrstvwxyz"; /* no words */
    struct str configured = conf_str(c, PARAM_address_verify_sender);
    if (configured.n == 0 || str_eq(configured, STR("<>")))
        return STR("");
    struct address_parts p = address_split(configured);
    struct str domain = p.has_domain ? p.domain : conf_str(c, PARAM_myorigin);
    char suffix[20];
    size_t n = sizeof suffix;
    for (; epoch; epoch /= sizeof digits - 1)
        suffix[--n] = digits[epoch % (sizeof digits - 1)];
    return arena_printf(a, "%.*s%.*s@%.*s", STR_ARG(p.local), (int)(sizeof suffix - n), suffix + n, STR_ARG(domain));
}

static uint64_t epoch_at(const struct conf *c, int64_t now) {
    int64_t ttl = conf_time(c, PARAM_address_verify_sender_ttl);
    return ttl > 0 && now > 0 ? (uint64_t)(now / ttl) : 0;
}

struct str verify_sender(const struct conf *c, struct arena *a, int64_t now) {
    return sender_of_epoch(c, a, epoch_at(c, now));
}

bool verify_is_sender(const struct conf *c, struct str address, int64_t now) {
    struct arena *a = arena_new();
    uint64_t epoch = epoch_at(c, now);
    bool is = false;
    for (uint64_t back = 0; back <= (epoch ? 1 : 0) && !is; back++) {
        struct str sender = sender_of_epoch(c, a, epoch - back);
        is = sender.n && (str_eq_icase(sender, address) ||
                          (!address_split(address).has_domain && str_eq_icase(address_split(sender).local, address)));
    }
    arena_free(a);
    return is;
}
