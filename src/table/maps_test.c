/* Unit tests of table/: lists of tables, address look-ups, match lists, networks. */
#include "base/log.h"
#include "table/cidr.h"
#include "table/match.h"
#include "table/remote.h"
#include "table/table.h"
#include "table/table_impl.h"
#include "test/test.h"
#include <stdlib.h>
#include <unistd.h>

static void no_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag, (void)text;
}

static struct conf *load(struct arena *a, const struct conf_override *o, size_t n) {
    struct conf *c;
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = o,
                                  .override_count = n,
                                  .process_name = STR("test"),
                                  .missing_is_empty = true };
    error e = conf_load(&source, a, &c);
    if (e)
        fail_msg("%.*s", STR_ARG(e->text));
    return c;
}

static void lists(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct str value, table;
    struct maps *m =
        maps_open(NULL, STR(" inline:{a=1, b=2} ,\n inline:{ {b = 3}, c=4 e= } regexp:{{/^d/ 5}}"), TABLE_FOLD);
    assert_false(maps_is_empty(m));
    assert_null(maps_error(m));
    assert_int_equal(maps_get(m, STR("A"), a, &value, &table), TABLE_FOUND);
    assert_str(value, "1");
    assert_str(table, "inline:{a=1, b=2}");
    assert_int_equal(maps_get(m, STR("b"), a, &value, &table), TABLE_FOUND);
    assert_str(value, "2");
    assert_int_equal(maps_get(m, STR("c"), a, &value, NULL), TABLE_FOUND);
    assert_str(value, "4");
    assert_int_equal(maps_get(m, STR("d"), a, &value, NULL), TABLE_FOUND);
    assert_int_equal(maps_get_partial(m, STR("d"), a, &value, NULL), TABLE_NOT_FOUND);
    assert_int_equal(maps_get(m, STR(""), a, &value, NULL), TABLE_NOT_FOUND);
    assert_int_equal(maps_get(m, STR("e"), a, &value, &table), TABLE_ERROR); /* empty result */
    maps_close(m);

    m = maps_open(NULL, STR(""), 0);
    assert_true(maps_is_empty(m));
    assert_int_equal(maps_get(m, STR("x"), a, &value, NULL), TABLE_NOT_FOUND);
    maps_close(m);

    m = maps_open(NULL, STR("inline:{a=1} fail:x static:y"), 0);
    assert_int_equal(maps_get(m, STR("a"), a, &value, NULL), TABLE_FOUND);
    assert_int_equal(maps_get(m, STR("b"), a, &value, &table), TABLE_ERROR);
    assert_str(table, "fail:x");
    maps_close(m);

    m = maps_open(NULL, STR("inline:{a=1 static:y"), 0); /* unbalanced */
    assert_non_null(maps_error(m));
    assert_int_equal(maps_get(m, STR("b"), a, &value, &table), TABLE_ERROR);
    maps_close(m);
    arena_free(a);
}

/* Each table answers with the key it was asked, so the order of the questions is seen. */
static const struct {
    const char *keys; /* what the table has */
    const char *address;
    bool local;
    unsigned flags;
    const char *delimiter, *found, *extension;
} finds[] = {
    { "u+e@d u@d u+e u @d", "u+e@d", true, ADDR_FIND_BARE_LOCAL | ADDR_FIND_AT_DOMAIN, "+", "u+e@d", "" },
    { "u@d u+e u @d", "u+e@d", true, ADDR_FIND_BARE_LOCAL | ADDR_FIND_AT_DOMAIN, "+", "u@d", "+e" },
    { "u+e u @d", "u+e@d", true, ADDR_FIND_BARE_LOCAL | ADDR_FIND_AT_DOMAIN, "+", "u+e", "" },
    { "u @d", "u+e@d", true, ADDR_FIND_BARE_LOCAL | ADDR_FIND_AT_DOMAIN, "+", "u", "+e" },
    { "u @d", "u+e@d", false, ADDR_FIND_BARE_LOCAL | ADDR_FIND_AT_DOMAIN, "+", "@d", "" },
    { "u @d", "u+e@d", true, ADDR_FIND_AT_DOMAIN, "+", "@d", "" },
    { "u @d", "u+e@d", true, 0, "+", NULL, NULL },
    { "u@d", "u+e@d", true, 0, "", NULL, NULL },
    { "u@d", "U@D", true, 0, "", "u@d", "" },
    { "d @d", "u@d", false, ADDR_FIND_DOMAIN, "+", "d", "" },
    { ".c.d .d", "u@b.c.d", false, ADDR_FIND_DOMAIN, "+", ".c.d", "" },
    { ".d", "u@b.c.d", false, ADDR_FIND_DOMAIN, "+", ".d", "" },
    { "c.d d", "u@b.c.d", false, ADDR_FIND_DOMAIN, "+", NULL, NULL },
    { "c.d d", "u@b.c.d", false, ADDR_FIND_DOMAIN | ADDR_FIND_PARENT_NO_DOT, "+", "c.d", "" },
    { ".2.3.4] 4]", "u@[1.2.3.4]", false, ADDR_FIND_DOMAIN, "+", NULL, NULL },
    { "u+e@ u@", "u+e@d", false, ADDR_FIND_LOCAL_AT, "+", "u+e@", "" },
    { "u@", "u+e@d", false, ADDR_FIND_LOCAL_AT, "+", "u@", "+e" },
    { "d u+e@", "u+e@d", false, ADDR_FIND_LOCAL_AT | ADDR_FIND_DOMAIN, "+", "d", "+e" },
    { "u", "u", false, ADDR_FIND_BARE_LOCAL, "+", "u", "" },
    { "u", "u+e", false, 0, "+", "u", "+e" },
    { "\"a b\"@d", "a b@d", false, 0, "+", "\"a b\"@d", "" },
    { "\"a@b\"@d", "a@b@d", false, 0, "+", "\"a@b\"@d", "" },
    { "a@b@d", "a@b@d", false, 0, "+", "a@b@d", "" },
    { "x", "", false, ADDR_FIND_AT_DOMAIN | ADDR_FIND_DOMAIN, "+", NULL, NULL },
    { "x", "@", true, 31, "+", NULL, NULL },
    { "x", "u@", true, 31, "+", NULL, NULL },
    { "x", "u@.", true, 31, "+", NULL, NULL },
    { "x", "u@..", true, 31, "+", NULL, NULL },
};

static void addresses(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof finds / sizeof finds[0]; i++) {
        struct arena *a = arena_new();
        struct str list = STR("inline:{"), rest = str_c(finds[i].keys), word;
        /* "a b"@d has a blank: its table is made by hand */
        if (str_contains(rest, STR("\"a b\"")))
            list = STR("regexp:{ {/^\"a b\"@d$/ \"a b\"@d} }");
        else {
            while (str_word(&rest, STR(" "), &word))
                list = arena_printf(a, "%.*s %.*s=%.*s", STR_ARG(list), STR_ARG(word), STR_ARG(word));
            list = arena_cat(a, list, STR("}"));
        }
        struct maps *m = maps_open(NULL, list, TABLE_FOLD);
        assert_null(maps_error(m));
        struct str value, extension;
        enum table_result r =
            addr_find(m, str_c(finds[i].address), finds[i].local, finds[i].flags,
                      (struct extension_rules){ str_c(finds[i].delimiter), true }, a, &value, &extension);
        if (r != (finds[i].found ? TABLE_FOUND : TABLE_NOT_FOUND) || !str_eq(value, str_c(finds[i].found)))
            fail_msg("row %zu: %d %.*s", i, r, STR_ARG(value));
        if (!str_eq(extension, str_c(finds[i].extension)))
            fail_msg("row %zu: extension %.*s", i, STR_ARG(extension));
        maps_close(m);
        arena_free(a);
    }
    /* patterns see the whole address only; an error ends the search */
    struct arena *a = arena_new();
    struct str value;
    struct maps *m = maps_open(NULL, STR("regexp:{ {/^u@d$/ x} {/^@d$/ y} }"), 0);
    assert_int_equal(addr_find(m, STR("u+e@d"), true, 31, (struct extension_rules){ STR("+"), true }, a, &value, NULL),
                     TABLE_NOT_FOUND);
    assert_int_equal(addr_find(m, STR("u@d"), true, 31, (struct extension_rules){ STR("+"), true }, a, &value, NULL),
                     TABLE_FOUND);
    maps_close(m);
    m = maps_open(NULL, STR("inline:{@d=x} fail:y"), 0);
    assert_int_equal(addr_find(m, STR("u@d"), true, 31, (struct extension_rules){ STR("+"), true }, a, &value, NULL),
                     TABLE_ERROR);
    maps_close(m);
    arena_free(a);
}

static const struct {
    enum match_kind kind;
    const char *parameter, *list, *name, *address;
    enum match_result want;
} matches[] = {
    { MATCH_STRING, "x", "a, B c", "b", "", MATCH_YES },
    { MATCH_STRING, "x", "a, B c", "C", "", MATCH_YES },
    { MATCH_STRING, "x", "a, b", "d", "", MATCH_NO },
    { MATCH_STRING, "x", "", "d", "", MATCH_NO },
    { MATCH_STRING, "x", "a", "", "", MATCH_NO },
    { MATCH_STRING, "x", "!a, static:all", "a", "", MATCH_NO },
    { MATCH_STRING, "x", "!a, static:all", "b", "", MATCH_YES },
    { MATCH_STRING, "x", "!!a", "a", "", MATCH_YES },
    { MATCH_STRING, "x", ".b", "a.b", "", MATCH_NO },
    { MATCH_STRING, "x", "inline:{a=b}", "A", "", MATCH_YES },
    { MATCH_STRING, "x", "b, fail:y", "a", "", MATCH_ERROR },
    { MATCH_STRING, "x", "a, fail:y", "a", "", MATCH_YES },
    { MATCH_STRING, "x", "nosuchtype:y", "a", "", MATCH_ERROR },
    { MATCH_STRING, "x", "a, !", "a", "", MATCH_ERROR },
    { MATCH_STRING, "x", "a {b", "a", "", MATCH_ERROR },
    { MATCH_STRING, "x", "/nonexistent/file", "a", "", MATCH_ERROR },
    { MATCH_DOMAIN, "mydestination", "example.com", "example.com", "", MATCH_YES },
    { MATCH_DOMAIN, "mydestination", "example.com", "a.example.com", "", MATCH_NO },
    { MATCH_DOMAIN, "mydestination", ".example.com", "a.example.com", "", MATCH_YES },
    { MATCH_DOMAIN, "mydestination", ".example.com", "example.com", "", MATCH_NO },
    { MATCH_DOMAIN, "relay_domains", "example.com", "A.b.Example.com", "", MATCH_YES },
    { MATCH_DOMAIN, "relay_domains", "example.com", "badexample.com", "", MATCH_NO },
    { MATCH_DOMAIN, "relay_domains", ".example.com", "a.example.com", "", MATCH_YES },
    { MATCH_DOMAIN, "relay_domains", "!a.example.com, example.com", "x.a.example.com", "", MATCH_NO },
    { MATCH_DOMAIN, "relay_domains", "!a.example.com, example.com", "b.example.com", "", MATCH_YES },
    { MATCH_DOMAIN, "relay_domains", "inline:{example.com=x}", "a.b.example.com", "", MATCH_YES },
    { MATCH_DOMAIN, "mydestination", "inline:{example.com=x}", "a.example.com", "", MATCH_NO },
    { MATCH_DOMAIN, "mydestination", "inline:{.example.com=x}", "a.b.example.com", "", MATCH_YES },
    { MATCH_DOMAIN, "relay_domains", "regexp:{{/^com$/ x}}", "a.com", "", MATCH_NO },
    { MATCH_DOMAIN, "relay_domains", "x", "..", "", MATCH_NO },
    { MATCH_ADDRESS, "mynetworks", "127.0.0.0/8 [::1]/128", "", "127.1.2.3", MATCH_YES },
    { MATCH_ADDRESS, "mynetworks", "127.0.0.0/8 [::1]/128", "unknown", "::1", MATCH_YES },
    { MATCH_ADDRESS, "mynetworks", "127.0.0.0/8 [::1]/128", "", "::2", MATCH_NO },
    { MATCH_ADDRESS, "mynetworks", "!10.1.0.0/16, 10.0.0.0/8", "", "10.1.0.1", MATCH_NO },
    { MATCH_ADDRESS, "mynetworks", "!10.1.0.0/16, 10.0.0.0/8", "", "10.2.0.1", MATCH_YES },
    { MATCH_ADDRESS, "mynetworks", "10.0.0.1", "", "10.0.0.1", MATCH_YES },
    { MATCH_ADDRESS, "mynetworks", "[2001:db8::/32]", "", "2001:DB8::7", MATCH_YES },
    { MATCH_ADDRESS, "mynetworks", "0.0.0.0/0", "", "::1", MATCH_NO },
    { MATCH_ADDRESS, "mynetworks", "host.example", "host.example", "1.2.3.4", MATCH_YES },
    { MATCH_ADDRESS, "mynetworks", "example", "host.example", "1.2.3.4", MATCH_YES },
    { MATCH_ADDRESS, "smtpd_authorized_xclient_hosts", "example", "host.example", "1.2.3.4", MATCH_NO },
    { MATCH_ADDRESS, "mynetworks", "inline:{1.2.3.4=x}", "host.example", "1.2.3.4", MATCH_YES },
    { MATCH_ADDRESS, "mynetworks", "cidr:{{1.0.0.0/8 x}}", "host.example", "1.2.3.4", MATCH_YES },
    { MATCH_ADDRESS, "mynetworks", "10.1.1.1/8", "", "10.1.1.1", MATCH_ERROR },
    { MATCH_ADDRESS, "mynetworks", "10.1.1/24", "", "10.1.1.1", MATCH_ERROR },
    { MATCH_ADDRESS, "mynetworks", "10.0.0.0/33", "", "10.1.1.1", MATCH_ERROR },
    { MATCH_ADDRESS, "mynetworks", "[::1", "", "::1", MATCH_ERROR },
    { MATCH_ADDRESS, "mynetworks", "1.2.3.4", "", "not an address", MATCH_NO },
};

static void match_lists(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct conf *c = load(a, NULL, 0);
    for (size_t i = 0; i < sizeof matches / sizeof matches[0]; i++) {
        struct match *m = match_open(c, str_c(matches[i].parameter), str_c(matches[i].list), matches[i].kind, 0);
        enum match_result r = match_find(m, str_c(matches[i].name), str_c(matches[i].address));
        if (r != matches[i].want)
            fail_msg("%s: %s [%s]: %d", matches[i].list, matches[i].name, matches[i].address, r);
        assert_int_equal(match_error(m) != NULL, r == MATCH_ERROR);
        match_close(m);
    }
    struct match *m = match_open(c, STR("mynetworks"), STR("10.1.1.1/8"), MATCH_ADDRESS, 0);
    assert_str(match_error(m)->text, "mynetworks: non-null host address bits in \"10.1.1.1/8\", perhaps you should use "
                                     "\"10.0.0.0/8\" instead");
    match_close(m);
    conf_free(c);
    arena_free(a);
}

static enum table_result when_up(void *ctx, const struct table_question *q, struct arena *a, struct str *ret_key,
                                 struct str *ret_value, struct str *ret_why) {
    const bool *up = ctx;
    (void)a;
    *ret_key = STR("");
    *ret_value = STR("x");
    *ret_why = STR("not up yet");
    return !*up ? TABLE_ERROR : str_eq(q->key, STR("relay_domains")) ? TABLE_FOUND : TABLE_NOT_FOUND;
}

/* parent_domain_matches_subdomains on a server: while it cannot answer nothing is known, afterwards all is. */
static void match_parents_of_a_server(void **state) {
    (void)state;
    struct arena *a = arena_new();
    bool up = false;
    const struct table_remote remote = { .ask = when_up, .ctx = &up };
    const struct conf_override o[] = { { STR("parent_domain_matches_subdomains"), STR("tcp:127.0.0.1:1") } };
    struct conf *c = load(a, o, 1);
    table_set_remote(&remote);
    struct match *relay = match_open(c, STR("relay_domains"), STR("example.com"), MATCH_DOMAIN, 0);
    struct match *mine = match_open(c, STR("mydestination"), STR("example.com"), MATCH_DOMAIN, 0);
    struct match *none = match_open(c, STR("mydestination"), STR(""), MATCH_DOMAIN, 0);
    assert_null(match_error(relay));
    assert_int_equal(match_find(none, STR("a.example.com"), STR("")), MATCH_NO);
    assert_int_equal(match_find(relay, STR("a.example.com"), STR("")), MATCH_ERROR);
    assert_non_null(match_error(relay));
    up = true;
    assert_int_equal(match_find(relay, STR("a.example.com"), STR("")), MATCH_YES);
    assert_null(match_error(relay));
    assert_int_equal(match_find(mine, STR("a.example.com"), STR("")), MATCH_NO);
    assert_int_equal(match_find(mine, STR("example.com"), STR("")), MATCH_YES);
    up = false; /* asked once */
    assert_int_equal(match_find(relay, STR("b.example.com"), STR("")), MATCH_YES);
    match_close(relay);
    match_close(mine);
    match_close(none);
    table_set_remote(NULL);
    conf_free(c);
    arena_free(a);
}

static void match_files(void **state) {
    (void)state;
    char path[] = "/tmp/match_test.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    struct arena *a = arena_new();
    struct str text = arena_printf(a, "# comment, 9.9.9.9\n10.0.0.0/8\n  !11.1.0.0/16\n11.0.0.0/8, host.example");
    assert_int_equal(write(fd, text.p, text.n), (ssize_t)text.n);
    struct match *m = match_open(NULL, STR("mynetworks"), arena_printf(a, "!%s 12.0.0.0/8", path), MATCH_ADDRESS, 0);
    struct match *p = match_open(NULL, STR("mynetworks"), str_c(path), MATCH_ADDRESS, 0);
    assert_int_equal(match_find(p, STR(""), STR("10.1.1.1")), MATCH_YES);
    assert_int_equal(match_find(p, STR(""), STR("11.1.1.1")), MATCH_NO);
    assert_int_equal(match_find(p, STR(""), STR("11.2.1.1")), MATCH_YES);
    assert_int_equal(match_find(p, STR("host.example"), STR("1.1.1.1")), MATCH_YES);
    assert_int_equal(match_find(p, STR(""), STR("9.9.9.9")), MATCH_NO);
    assert_int_equal(match_find(m, STR(""), STR("10.1.1.1")), MATCH_NO);
    assert_int_equal(match_find(m, STR(""), STR("12.1.1.1")), MATCH_YES);
    match_close(m);
    match_close(p);
    /* a file that names itself */
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, path, strlen(path), 0), (ssize_t)strlen(path));
    m = match_open(NULL, STR("mynetworks"), str_c(path), MATCH_ADDRESS, 0);
    assert_int_equal(match_find(m, STR(""), STR("10.1.1.1")), MATCH_ERROR);
    match_close(m);
    close(fd);
    unlink(path);
    arena_free(a);
}

/* local_recipient_maps may name the alias file too, and does not say that it is one. */
static void alias_tables(void **state) {
    (void)state;
    char path[] = "/tmp/alias_test.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "joe: x\n", 7), 7);
    struct arena *a = arena_new();
    struct str spec = arena_printf(a, "hash:%s", path);
    const struct conf_override o[] = { { STR("alias_maps"), arena_printf(a, "proxy:static:x, %s", spec.p) },
                                       { STR("default_database_type"), STR("hash") } };
    struct conf *c = load(a, o, 2);
    struct str value;
    const struct str specs[] = { spec, str_c(path), arena_printf(a, "proxy:%s", spec.p) };
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        struct table *t = table_open(c, specs[i], TABLE_FOLD);
        assert_int_equal(table_get(t, STR("joe"), a, &value), TABLE_FOUND);
        table_close(t);
    }
    struct table *t = table_open(NULL, spec, TABLE_FOLD);
    assert_int_equal(table_get(t, STR("joe"), a, &value), TABLE_NOT_FOUND);
    table_close(t);
    conf_free(c);
    close(fd);
    unlink(path);
    arena_free(a);
}

static void networks(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct cidr net, addr;
    for (unsigned bits = 0; bits <= 32; bits++) { /* the first address in, the one before it out */
        uint32_t first = bits ? 0x80000000u >> (bits - 1) : 0;
        assert_null(cidr_parse(
            a, arena_printf(a, "%u.%u.%u.%u/%u", first >> 24, first >> 16 & 255, first >> 8 & 255, first & 255, bits),
            &net));
        assert_true(cidr_parse_address(
            arena_printf(a, "%u.%u.%u.%u", first >> 24, first >> 16 & 255, first >> 8 & 255, first & 255), &addr));
        assert_true(cidr_contains(&net, &addr));
        if (first) {
            uint32_t before = first - 1;
            assert_true(cidr_parse_address(
                arena_printf(a, "%u.%u.%u.%u", before >> 24, before >> 16 & 255, before >> 8 & 255, before & 255),
                &addr));
            assert_false(cidr_contains(&net, &addr));
        }
    }
    static const struct {
        const char *net, *address;
        bool in;
    } edges[] = {
        { "10.0.0.0/8", "10.255.255.255", true },
        { "10.0.0.0/8", "11.0.0.0", false },
        { "0.0.0.0/0", "255.255.255.255", true },
        { "192.0.2.2/31", "192.0.2.3", true },
        { "192.0.2.2/31", "192.0.2.4", false },
        { "192.0.2.2/32", "192.0.2.3", false },
        { "2001:db8::/32", "2001:db8:ffff::", true },
        { "2001:db8::/32", "2001:db9::", false },
        { "1:2:3:4::/64", "1:2:3:4:ffff::1", true },
        { "1:2:3:4::/64", "1:2:3:5::", false },
        { "1:2:3:4::/65", "1:2:3:4:7fff::", true },
        { "1:2:3:4::/65", "1:2:3:4:8000::", false },
        { "::2/127", "::3", true },
        { "::2/127", "::4", false },
        { "::2/127", "1::2", false },
        { "::/0", "ffff::1", true },
    };
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        assert_null(cidr_parse(a, str_c(edges[i].net), &net));
        assert_true(cidr_parse_address(str_c(edges[i].address), &addr));
        if (cidr_contains(&net, &addr) != edges[i].in)
            fail_msg("%s %s", edges[i].net, edges[i].address);
    }
    const char *bad[] = { "",           "[]",     "1.2.3",     "1.2.3.4.5", "1.2.3.4/", "1.2.3.4/-1",
                          "1.2.3.4/33", "::/129", "1.2.3.4/8", "1::/15",    ":",        "[1.2.3.4" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (!cidr_parse(a, str_c(bad[i]), &net))
            fail_msg("%s", bad[i]);
    assert_non_null(cidr_parse(a, STR("1.2.3.4\0"), &net));
    arena_free(a);
}

/* round:x - a table with a list of domains, as those of databases have; it names itself there. */
static unsigned rounds;

static error round_open(struct table *t) {
    if (++rounds > 100)
        return err_make(t->gen, ERR_CONFIG, "there is no end");
    t->state = match_open(NULL, STR("domain"), STR("example.com, round:x"), MATCH_STRING, TABLE_FOLD);
    return NULL;
}
static void round_close(struct table *t) {
    if (t->state)
        match_close(t->state);
}
static enum table_result round_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    switch (match_find(t->state, key, STR(""))) {
    case MATCH_YES:
        *ret_value = arena_str(a, key);
        return TABLE_FOUND;
    case MATCH_NO:
        return TABLE_NOT_FOUND;
    default:
        return table_fail(t, "%.*s", STR_ARG(match_error(t->state)->text));
    }
}

static void tables_in_themselves(void **state) {
    (void)state;
    static const struct table_type round = {
        .name = STR_INIT("round"), .fixed = true, .open = round_open, .get = round_get, .close = round_close
    };
    static const struct table_type *const types[] = { &round };
    struct arena *a = arena_new();
    struct str value;
    table_register(types, 1);
    struct table *t = table_open(NULL, STR("round:x"), TABLE_FOLD);
    assert_int_equal(rounds, TABLE_NESTING_MAX + 1);
    assert_int_equal(table_get(t, STR("example.com"), a, &value), TABLE_FOUND);
    assert_int_equal(table_get(t, STR("other"), a, &value), TABLE_ERROR);
    assert_true(str_contains(table_error(t)->text, STR("nested too deeply")));
    table_close(t);
    rounds = 0; /* the next one begins anew */
    t = table_open(NULL, STR("round:y"), TABLE_FOLD);
    assert_int_equal(rounds, TABLE_NESTING_MAX + 1);
    table_close(t);
    table_register(NULL, 0);
    arena_free(a);
}

static int set_up(void **state) {
    (void)state;
    log_set_sink(no_log, NULL);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),       cmocka_unit_test(addresses),
        cmocka_unit_test(match_lists), cmocka_unit_test(match_parents_of_a_server),
        cmocka_unit_test(match_files), cmocka_unit_test(alias_tables),
        cmocka_unit_test(networks),    cmocka_unit_test(tables_in_themselves),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
