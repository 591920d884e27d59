/* Fuzz: match lists, lists of tables and inline tables. Name and address are the first two lines. Lists that name
 * files or the environment are left alone. */
#include "base/log.h"
#include "table/match.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void no_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag, (void)text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    log_set_sink(no_log, NULL);
    struct str in = str_n((const char *)data, size), name, address, value;
    if (!str_next(&in, STR("\n"), &name) || !str_next(&in, STR("\n"), &address))
        return 0;
    static const struct str outside[] = {
        STR_INIT("hash"),  STR_INIT("lmdb"), STR_INIT("tree"),  STR_INIT("regexp"),
        STR_INIT("pcre"),  STR_INIT("cidr"), STR_INIT("unix"),  STR_INIT("nviron"),
        STR_INIT("btree"), STR_INIT("cdb"),  STR_INIT("proxy"), STR_INIT("internal")
    };
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++)
        if (str_contains(in, outside[i]))
            return 0;
    bool file = false;
    for (size_t i = 0; i < in.n; i++) /* an item that begins with '/' is a file */
        file = file || (in.p[i] == '/' && (i == 0 || str_index(STR(", \t\r\n!"), in.p[i - 1]) >= 0));
    struct arena *a = arena_new();
    for (int kind = MATCH_STRING; kind <= MATCH_ADDRESS && !file; kind++) {
        struct match *m = match_open(NULL, STR("fuzz"), in, (enum match_kind)kind, 0);
        match_find(m, name, address);
        match_close(m);
    }
    /* a word without a type would be a file of the default type */
    static const struct str types[] = { STR_INIT("inline:{"),  STR_INIT("unionmap:{"), STR_INIT("pipemap:{"),
                                        STR_INIT("randmap:{"), STR_INIT("static:"),    STR_INIT("debug:static:") };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (!str_starts(in, types[i]) || !str_ends(in, STR("}")))
            continue;
        struct maps *maps = maps_open(NULL, in, TABLE_FOLD);
        addr_find(maps, name, true, 31, (struct extension_rules){ STR("+"), true }, a, &value, NULL);
        addr_find(maps, name, true, ADDR_FIND_EXTERNAL, (struct extension_rules){ STR("+-"), true }, a, &value, NULL);
        name_find(maps, name, ADDR_FIND_PARENT_NO_DOT, a, &value);
        ip_find(maps, address, a, &value);
        maps_close(maps);
    }
    arena_free(a);
    return 0;
}
