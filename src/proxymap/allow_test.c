/* Which tables may be asked through the look-up process. */
#include "test/test.h"

#include "proxymap/allow.h"

static struct conf *load(const struct conf_override *o, size_t n) {
    struct arena *a = arena_new();
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = o,
                                  .override_count = n,
                                  .process_name = STR("proxymap"),
                                  .service_name = STR("proxymap"),
                                  .missing_is_empty = true };
    struct conf *c;
    assert_null(conf_load(&source, a, &c));
    arena_free(a);
    return c;
}

static void rows(void **state) {
    (void)state;
    static const struct conf_override o[] = {
        { STR_INIT("virtual_alias_maps"), STR_INIT("proxy:tcp:127.0.0.1:1, hash:/etc/b, $mine") },
        { STR_INIT("mine"), STR_INIT("proxy:ldap:/etc/mine.cf") },
        { STR_INIT("transport_maps"), STR_INIT("unionmap:{proxy:pgsql:/etc/u.cf, tcp:127.0.0.1:9}") },
        { STR_INIT("relocated_maps"), STR_INIT("tcp:[::1]:2") },
        { STR_INIT("not_listed"), STR_INIT("proxy:hash:/etc/shadow") },
        { STR_INIT("address_verify_map"), STR_INIT("proxy:lmdb:/var/verify") },
        { STR_INIT("canonical_maps"), STR_INIT("memcache:/etc/canonical.cf") },
        { STR_INIT("postscreen_cache_map"), STR_INIT("memcache:/etc/cache.cf") },
    };
    struct conf *c = load(o, sizeof o / sizeof o[0]);
    static const struct conf_override of_service[] = { { STR_INIT("alias_maps"),
                                                         STR_INIT("socketmap:inet:127.0.0.1:7:aliases") } };
    static const struct master_entry entry = { .overrides = of_service, .override_count = 1 };
    struct master_cf services = { .entries = &entry, .count = 1 };
    struct allow *allow = allow_new(c, &services);
    static const struct {
        const char *spec;
        bool proxied, write, want;
        enum table_ask what;
    } asked[] = {
        { "tcp:127.0.0.1:1", true, false, true, TABLE_ASK_GET },
        { "tcp:127.0.0.1:1", false, false, true, TABLE_ASK_GET }, /* it stands in main.cf, so a daemon may use it */
        { "ldap:/etc/mine.cf", true, false, true, TABLE_ASK_GET },
        { "pgsql:/etc/u.cf", true, false, true, TABLE_ASK_GET },
        { "tcp:127.0.0.1:9", false, false, true, TABLE_ASK_GET },
        { "tcp:127.0.0.1:9", true, false, false, TABLE_ASK_GET },
        { "tcp:[::1]:2", false, false, true, TABLE_ASK_GET },
        { "tcp:[::1]:2", true, false, false, TABLE_ASK_GET },
        { "socketmap:inet:127.0.0.1:7:aliases", false, false, true, TABLE_ASK_GET },
        { "hash:/etc/b", true, false, false, TABLE_ASK_GET },      /* not written as proxy: */
        { "hash:/etc/b", false, false, false, TABLE_ASK_GET },     /* a file: opened by who asks */
        { "hash:/etc/shadow", true, false, false, TABLE_ASK_GET }, /* not in a parameter of proxy_read_maps */
        { "tcp:127.0.0.1:3", false, false, false, TABLE_ASK_GET },
        { "unix:passwd.byname", true, false, true, TABLE_ASK_GET }, /* local_recipient_maps */
        { "unix:group.byname", false, false, true, TABLE_ASK_GET },
        { "lmdb:/var/verify", true, true, true, TABLE_ASK_PUT },
        { "lmdb:/var/verify", true, true, true, TABLE_ASK_GET },
        { "lmdb:/var/verify", true, false, false, TABLE_ASK_GET },
        { "lmdb:/var/verify", false, true, false, TABLE_ASK_PUT },
        { "tcp:127.0.0.1:1", true, true, false, TABLE_ASK_PUT },
        { "tcp:127.0.0.1:1", true, false, false, TABLE_ASK_FIRST }, /* readers do not list */
        { "memcache:/etc/canonical.cf", false, false, true, TABLE_ASK_GET },
        { "memcache:/etc/canonical.cf", false, true, false,
          TABLE_ASK_PUT }, /* what others believe is not to be written */
        { "memcache:/etc/canonical.cf", false, true, false, TABLE_ASK_GET }, /* nor its backup opened to write */
        { "memcache:/etc/cache.cf", false, true, true, TABLE_ASK_PUT },      /* a cache is there to be */
        { "memcache:/etc/cache.cf", false, true, true, TABLE_ASK_NEXT },
        { "unix:passwd.byname", false, true, false, TABLE_ASK_PUT },
        { "", true, false, false, TABLE_ASK_GET },
    };
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        struct table_question q = { .what = asked[i].what,
                                    .spec = str_c(asked[i].spec),
                                    .proxied = asked[i].proxied,
                                    .flags = asked[i].write ? TABLE_WRITE : 0 };
        if (allow_question(allow, &q) != asked[i].want)
            fail_msg("row %zu: %s", i, asked[i].spec);
    }
    allow_free(allow);
    conf_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(rows) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
