/* Addresses from anywhere, through a router with every kind of rule: it ends, and what it gives is complete. */
#include "route/route.h"

#include "base/log.h"
#include "mail/address.h"

#include <stdlib.h>

static const struct conf_override settings[] = {
    { STR_INIT("compatibility_level"), STR_INIT("3.6") },
    { STR_INIT("myhostname"), STR_INIT("mx.example.com") },
    { STR_INIT("mydomain"), STR_INIT("example.com") },
    { STR_INIT("myorigin"), STR_INIT("example.com") },
    { STR_INIT("mydestination"), STR_INIT("example.com, localhost") },
    { STR_INIT("inet_interfaces"), STR_INIT("127.0.0.1") },
    { STR_INIT("recipient_delimiter"), STR_INIT("+-") },
    { STR_INIT("relay_domains"), STR_INIT(".r") },
    { STR_INIT("virtual_alias_domains"), STR_INIT("v") },
    { STR_INIT("local_recipient_maps"), STR_INIT("inline:{ {a=1} }") },
    { STR_INIT("canonical_maps"), STR_INIT("inline:{ {c=a}, {@c=@v}, {l=l2}, {l2=l} }") },
    { STR_INIT("virtual_alias_maps"), STR_INIT("inline:{ {a=a, b, c@v}, {@v=x@r}, {b=b2 b3}, {b2=b} }") },
    { STR_INIT("virtual_alias_recursion_limit"), STR_INIT("20") },
    { STR_INIT("transport_maps"), STR_INIT("inline:{ {a@r=error:no}, {.r=:n}, {*=} }") },
};

static void quiet(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx;
    (void)level;
    (void)tag;
    (void)text;
}

static struct router *router(void) {
    static struct router *r;
    if (r)
        return r;
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = settings,
                                  .override_count = sizeof settings / sizeof settings[0],
                                  .process_name = STR("fuzz"),
                                  .service_name = STR("fuzz"),
                                  .missing_is_empty = true };
    struct arena *a = arena_new();
    struct conf *c;
    log_set_sink(quiet, NULL);
    if (conf_load(&source, a, &c))
        abort();
    arena_free(a);
    r = router_new(c);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str in = { (const char *)data, size };
    if (size > ADDRESS_MAX || str_index(in, 0) >= 0)
        return 0; /* no address, by the contract */
    struct router *r = router();
    struct arena *a = arena_new();
    struct str whole = route_rewrite(r, a, in, STR("example.com")), mapped, *list;
    if (whole.n > 0 && str_index(whole, '@') < 0)
        abort();
    struct route route;
    size_t n;
    if (!route_resolve(r, a, in, in, &route) && (route.transport.n == 0 || str_index(route.recipient, '@') < 0))
        abort();
    struct route_check check;
    const unsigned both = ROUTE_WANT_CLASS | ROUTE_WANT_LISTED;
    route_check(r, a, &(struct route_question){ .want = both, .sender = in, .address = in }, &check);
    route_check(r, a, &(struct route_question){ .is_sender = true, .want = both, .sender = in, .address = in }, &check);
    if (!route_expand_virtual(r, a, whole, &list, &n) && n == 0)
        abort();
    route_canonical(r, a, whole, STR("envelope_recipient"), &mapped);
    arena_free(a);
    return 0;
}
