/* Unit tests of table/: each type, text forms, the index, changes on disk. */
#include "base/buf.h"
#include "base/log.h"
#include "table/build.h"
#include "table/table.h"
#include "test/test.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char dir[] = "/tmp/table_test.XXXXXX";
static struct buf logged;

static void log_to_buf(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)tag, (void)level;
    buf_add(&logged, text);
    buf_byte(&logged, '\n');
}

static struct str path_of(struct arena *a, const char *name) {
    return arena_printf(a, "%s/%s", dir, name);
}

/* `age`: seconds the file is older than now. */
static void put_file(const char *name, const char *content, int age) {
    struct arena *a = arena_new();
    FILE *f = fopen(path_of(a, name).p, "w");
    assert_non_null(f);
    fputs(content, f);
    fclose(f);
    struct timespec now, times[2];
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec -= age;
    times[0] = times[1] = now;
    assert_int_equal(utimensat(AT_FDCWD, path_of(a, name).p, times, 0), 0);
    arena_free(a);
}

static void remove_file(const char *name) {
    struct arena *a = arena_new();
    unlink(path_of(a, name).p);
    arena_free(a);
}

/* "value", "-" when not found, "!" on an error */
static const char *get(struct table *t, struct str key, struct arena *a) {
    struct str value;
    switch (table_get(t, key, a, &value)) {
    case TABLE_FOUND:
        assert_int_equal(value.p[value.n], 0);
        return value.p;
    case TABLE_NOT_FOUND:
        return "-";
    default:
        assert_non_null(table_error(t));
        return "!";
    }
}

struct row {
    const char *spec, *key, *value;
};

static void check_rows(const struct row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct arena *a = arena_new();
        struct str spec = str_c(rows[i].spec);
        if (str_contains(spec, STR("@DIR@"))) {
            size_t at = 0;
            while (!str_starts(str_from(spec, at), STR("@DIR@")))
                at++;
            spec = arena_printf(a, "%.*s%s%s", (int)at, spec.p, dir, spec.p + at + 5);
        }
        struct table *t = table_open(NULL, spec, TABLE_FOLD);
        const char *got = get(t, str_c(rows[i].key), a);
        if (strcmp(got, rows[i].value) != 0)
            fail_msg("%s %s: %s", rows[i].spec, rows[i].key, got);
        table_close(t);
        arena_free(a);
    }
}

static const struct row simple_rows[] = {
    { "static:abc", "any", "abc" },
    { "static:{abc  def}", "any", "abc  def" },
    { "static:{abc", "any", "!" },
    { "static:{a} b", "any", "!" },
    { "static:", "any", "!" },
    { "inline:{a=b}", "a", "b" },
    { "inline:{a=b}", "A", "b" },
    { "inline:{A=b, b=x=y}", "a", "b" },
    { "inline:{A=b, b=x=y}", "b", "x=y" },
    { "inline:{ {a = b c}, b=d }", "a", "b c" },
    { "inline:{ {a = b c}, b=d }", "b", "d" },
    { "inline:{ {a = b c}, b=d }", "c", "-" },
    { "inline:{ {a = {b}} }", "a", "{b}" },
    { "inline:{ {a =\n b\n c} }", "a", "b\n c" },
    { "inline:{!a=b}", "!a", "b" },
    { "inline:{a=b,a=c}", "a", "b" },
    { "inline:{ a = b }", "a", "!" },
    { "inline:{a}", "a", "!" },
    { "inline:{}", "a", "!" },
    { "inline:{a=b", "a", "!" },
    { "inline:a=b", "a", "!" },
    { "inline:{a=b},", "a", "!" },
    { "inline:{ {a = b}x }", "a", "!" },
    { "inline:{ {x y = z} }", "x y", "!" },
    { "inline:{=b}", "", "!" },
    { "environ:x", "TABLE_TEST_variable", "set" },
    { "environ:x", "TABLE_TEST_ABSENT", "-" },
    { "unix:passwd.byname", "root", "root:x:0:0:root:/root:/bin/bash" },
    { "unix:passwd.byname", "no-such-user-here", "-" },
    { "unix:passwd.byname", "", "-" },
    { "unix:group.byname", "root", "root:x:0:" },
    { "unix:foo", "root", "!" },
    { "fail:abc", "x", "!" },
    { "nosuchtype:abc", "x", "!" },
    { ":abc", "x", "!" },
    { "", "x", "!" },
    { "proxy:static:abc", "x", "abc" },
    { "proxy:nosuchtype:abc", "x", "!" },
    { "proxy:proxy:proxy:proxy:proxy:proxy:proxy:proxy:static:a", "x", "a" },
    { "proxy:proxy:proxy:proxy:proxy:proxy:proxy:proxy:proxy:static:a", "x", "!" },
    { "unionmap:{static:x,static:y,inline:{a=q}}", "a", "x,y,q" },
    { "unionmap:{static:x,static:y,inline:{a=q}}", "b", "x,y" },
    { "unionmap:{inline:{a=q}}", "b", "-" },
    { "unionmap:{static:x,fail:y}", "a", "!" },
    { "unionmap:{static:x,nosuchtype:y}", "a", "!" },
    { "unionmap:{static:x, inline:{a}}", "a", "!" },
    { "unionmap:{}", "a", "!" },
    { "pipemap:{inline:{a=b},inline:{b=c}}", "a", "c" },
    { "pipemap:{inline:{a=b},inline:{x=c}}", "a", "-" },
    { "pipemap:{inline:{a=b},fail:x}", "a", "!" },
    { "texthash:@DIR@/nosuchfile", "x", "!" },
    { "hash:@DIR@/nosuchfile", "x", "!" },
    { "regexp:@DIR@/nosuchfile", "x", "!" },
};

static void simple_types(void **state) {
    (void)state;
    setenv("table_test_variable", "set", 1); /* keys are folded */
    check_rows(simple_rows, sizeof simple_rows / sizeof simple_rows[0]);
    struct arena *a = arena_new();
    struct table *t = table_open(NULL, STR("inline:{a=b}"), TABLE_FOLD);
    assert_string_equal(get(t, STR("a\0"), a), "-");
    table_close(t);
    t = table_open(NULL, STR("nosuchtype:abc"), 0);
    assert_str(table_error(t)->text, "unsupported dictionary type: nosuchtype");
    assert_str(table_name(t), "nosuchtype:abc");
    table_close(t);
    t = table_open(NULL, STR("inline:{ {A = b} }"), 0); /* without folding */
    assert_string_equal(get(t, STR("A"), a), "b");
    assert_string_equal(get(t, STR("a"), a), "-");
    table_close(t);
    arena_free(a);
}

static const char map_text[] = "# comment\n"
                               "key1 value1\n"
                               "Key2\tvalue 2   with spaces  \n"
                               " continued line\n"
                               "key3\n"
                               "# comment in\n"
                               "  continuation after comment\n"
                               "key1 dup\n"
                               "   \n"
                               " leading white\n"
                               "\"quoted key\" value\n"
                               "\"quo\\\"ted\" v\n"
                               "unq\"x y\" z\n"
                               "key5: val\n"
                               "key6,val\n"
                               "k10\\ x v\n"
                               "\"k8\"v8\n"
                               "\"k9 v9\n"
                               "bad \xff\n"
                               "last v\n";

static const struct row map_rows[] = {
    { "texthash:@DIR@/map", "key1", "value1" },
    { "texthash:@DIR@/map", "KEY2", "value 2   with spaces   continued line" },
    { "texthash:@DIR@/map", "key3", "continuation after comment" },
    { "texthash:@DIR@/map", "\"quoted key\"", "value" },
    { "texthash:@DIR@/map", "\"quo\\\"ted\"", "v" },
    { "texthash:@DIR@/map", "unq\"x y\"", "z" },
    { "texthash:@DIR@/map", "key5:", "val" },
    { "texthash:@DIR@/map", "key6,val", "-" },
    { "texthash:@DIR@/map", "k10\\ x", "v" },
    { "texthash:@DIR@/map", "\"k9", "-" },
    { "texthash:@DIR@/map", "bad", "-" },
    { "texthash:@DIR@/map", "last", "v" },
};

static void map_files(void **state) {
    (void)state;
    put_file("map", map_text, 10);
    buf_clear(&logged);
    check_rows(map_rows, 1);
    struct arena *a = arena_new();
    struct str m = path_of(a, "map");
    struct str want =
        arena_printf(a,
                     "warning: %1$s, line 14: record is in \"key: value\" format; is this an alias file?\n"
                     "warning: %1$s, line 15: expected format: key whitespace value -- ignoring this line\n"
                     "warning: %1$s, line 17: expected format: key whitespace value -- ignoring this line\n"
                     "warning: %1$s, line 18: unbalanced '\"' in '\"k9 v9' -- ignoring this line\n"
                     "warning: %1$s, line 19: non-UTF-8 input \"bad ?\" -- ignoring this line\n"
                     "warning: %1$s, line 8: duplicate entry: \"key1\"\n",
                     m.p);
    assert_string_equal(logged.p, want.p);
    check_rows(map_rows, sizeof map_rows / sizeof map_rows[0]);
    arena_free(a);
}

static const char alias_text[] = "# comment\n"
                                 "root: me\n"
                                 "Postmaster: root\n"
                                 "multi: a,b , c\n"
                                 "  d, \"e f\"\n"
                                 "\"quoted name\": x\n"
                                 "\"quo\\\"ted\": x\n"
                                 "cmd: |/bin/foo\n"
                                 "cmd2: \"|/bin/foo -a 'b c'\"\n"
                                 "inc: :include:/etc/x\n"
                                 "noval:\n"
                                 "novalcolon\n"
                                 "foo bar: baz\n"
                                 "a@b: c\n"
                                 "dup: 1\n"
                                 "dup: 2\n"
                                 "sp : x\n"
                                 "full: Foo Bar <a@b>\n"
                                 "tail: a,\n"
                                 "uni: ma\xc3\xb1"
                                 "ana\n"
                                 "\"open: x\n"
                                 "\"\": x\n";

static const struct row alias_rows[] = {
    { "hash:@DIR@/aliases", "ROOT", "me" },
    { "hash:@DIR@/aliases", "postmaster", "root" },
    { "hash:@DIR@/aliases", "multi", "a, b, c d, \"e f\"" },
    { "hash:@DIR@/aliases", "\"quoted name\"", "x" },
    { "hash:@DIR@/aliases", "\"quo\\\"ted\"", "x" },
    { "hash:@DIR@/aliases", "cmd", "|/bin/foo" },
    { "hash:@DIR@/aliases", "cmd2", "\"|/bin/foo -a 'b c'\"" },
    { "hash:@DIR@/aliases", "inc", ":include:/etc/x" },
    { "hash:@DIR@/aliases", "noval", "-" },
    { "hash:@DIR@/aliases", "novalcolon", "-" },
    { "hash:@DIR@/aliases", "\"foo bar\"", "baz" },
    { "hash:@DIR@/aliases", "a@b", "-" },
    { "hash:@DIR@/aliases", "dup", "1" },
    { "hash:@DIR@/aliases", "sp", "x" },
    { "hash:@DIR@/aliases", "full", "Foo Bar <a@b>" },
    { "hash:@DIR@/aliases", "tail", "a," },
    { "hash:@DIR@/aliases", "uni",
      "ma\xc3\xb1"
      "ana" },
    { "hash:@DIR@/aliases", "open", "-" },
};

static void alias_files(void **state) {
    (void)state;
    put_file("aliases", alias_text, 10);
    buf_clear(&logged);
    struct arena *a = arena_new();
    struct str p = path_of(a, "aliases");
    struct table *t = table_open(NULL, arena_printf(a, "hash:%s", p.p), TABLE_FOLD | TABLE_ALIASES);
    for (size_t i = 0; i < sizeof alias_rows / sizeof alias_rows[0]; i++) {
        const char *got = get(t, str_c(alias_rows[i].key), a);
        if (strcmp(got, alias_rows[i].value) != 0)
            fail_msg("%s: %s", alias_rows[i].key, got);
    }
    table_close(t);
    struct str want = arena_printf(a,
                                   "warning: %1$s, line 11: need name:value pair\n"
                                   "warning: %1$s, line 12: need name:value pair\n"
                                   "warning: %1$s, line 14: name must be local\n"
                                   "warning: %1$s, line 21: need name:value pair\n"
                                   "warning: %1$s, line 22: need name:value pair\n"
                                   "warning: %1$s, line 16: duplicate entry: \"dup\"\n"
                                   "table hash:%1$s: using the text file: index %1$s.lmdb is missing\n",
                                   p.p);
    assert_string_equal(logged.p, want.p);
    arena_free(a);
}

static error write_entries(struct str path, struct index_entries e, const struct index_options *o) {
    uint32_t *order = arena_array(o->arena, e.n, sizeof *order);
    index_settle(e, false, order);
    return index_write(path, e, order, o);
}

/* All entries, as "key=value " in the order of the file. */
static const char *listing(enum index_kind kind, const char *path, struct arena *a) {
    struct index_reader *r;
    assert_null(index_open(kind, path, a, &r));
    struct buf all = { 0 };
    struct index_cursor c = { 0 };
    struct str key, value;
    enum table_result result;
    while ((result = index_next(r, &c, a, &key, &value)) == TABLE_FOUND)
        buf_printf(&all, "%.*s=%.*s ", STR_ARG(str_sub(key, 0, 8)), STR_ARG(str_sub(value, 0, 8)));
    if (result == TABLE_ERROR)
        buf_printf(&all, "!%s", index_fault(r));
    const char *text = arena_cstr(a, buf_str(&all));
    buf_free(&all);
    index_cursor_free(&c);
    index_close(r);
    return text;
}

static void build(const char *name, const struct index_entry *entries, size_t n, bool no_nul) {
    struct arena *a = arena_new();
    struct index_entries e = { arena_array(a, n, sizeof *entries), n };
    for (size_t i = 0; i < n; i++)
        e.at[i] = entries[i];
    struct timespec past;
    clock_gettime(CLOCK_REALTIME, &past);
    past.tv_sec--; /* settled: not seen as being written */
    struct index_options o = { INDEX_LMDB, .map_size = 1, .no_nul = no_nul, .mode = 0640, .mtime = past, .arena = a };
    error failed = write_entries(index_path(a, INDEX_LMDB, path_of(a, name)), e, &o);
    if (failed)
        fail_msg("%.*s", STR_ARG(failed->text));
    arena_free(a);
}

static const char *list_table(struct table *t, struct arena *a) {
    struct str key = STR(""), value, all = STR("");
    enum table_result r;
    while ((r = table_next(t, key, a, &key, &value)) == TABLE_FOUND)
        all = arena_printf(a, "%.*s%.*s=%.*s ", STR_ARG(all), STR_ARG(str_sub(key, 0, 8)), STR_ARG(value));
    return r == TABLE_NOT_FOUND ? all.p : "!";
}

/* Caches: written and listed; lmdb by several processes, and begun anew when broken. */
static void writing(void **state) {
    (void)state;
    struct arena *a = arena_new();
    const char *const specs[] = { "internal:x", arena_printf(a, "btree:%s/cache", dir).p };
    char *big = arena_cstr(a, str_n(memset(arena_alloc(a, 700), 'k', 700), 700));
    for (size_t i = 0; i < 2; i++) {
        struct table *t = table_open(NULL, str_c(specs[i]), TABLE_FOLD | TABLE_WRITE);
        assert_null(table_error(t));
        assert_string_equal(list_table(t, a), "");
        assert_int_equal(table_delete(t, STR("a")), TABLE_NOT_FOUND);
        assert_int_equal(table_put(t, STR("B"), STR("2")), TABLE_FOUND);
        assert_int_equal(table_put(t, STR("a"), STR("1")), TABLE_FOUND);
        assert_int_equal(table_put(t, STR("a"), STR("one")), TABLE_FOUND);
        assert_int_equal(table_put(t, STR(""), STR("x")), TABLE_ERROR);
        assert_int_equal(table_put(t, STR("x\0y"), STR("x")), TABLE_ERROR);
        assert_int_equal(table_put(t, str_c(big), STR("long")), TABLE_FOUND);
        assert_string_equal(get(t, str_c(big), a), "long");
        assert_string_equal(get(t, STR("b"), a), "2");
        struct str key, value;
        assert_int_equal(table_next(t, STR("aa"), a, &key, &value), TABLE_FOUND); /* behind one that is not there */
        assert_str(key, "b");
        assert_int_equal(table_delete(t, STR("b")), TABLE_FOUND);
        assert_string_equal(get(t, STR("b"), a), "-");
        assert_true(strstr(list_table(t, a), "a=one ") && strstr(list_table(t, a), "kkkkkkkk=long "));
        assert_int_equal(table_delete(t, str_c(big)), TABLE_FOUND);
        assert_string_equal(list_table(t, a), "a=one ");
        /* more than the first map holds */
        struct str much = str_n(memset(arena_alloc(a, 3000), 'v', 3000), 3000);
        for (int k = 0; k < 300; k++)
            assert_int_equal(table_put(t, arena_printf(a, "k%d", k), much), TABLE_FOUND);
        assert_int_equal(strlen(get(t, STR("k299"), a)), 3000);
        if (i == 1) {
            struct table *other = table_open(NULL, str_c(specs[i]), TABLE_FOLD | TABLE_WRITE);
            assert_int_equal(table_put(other, STR("other"), STR("x")), TABLE_FOUND);
            assert_string_equal(get(t, STR("other"), a), "x");
            assert_int_equal(table_put(t, STR("mine"), STR("y")), TABLE_FOUND);
            assert_string_equal(get(other, STR("mine"), a), "y");
            table_close(other);
        }
        table_close(t);
    }
    put_file("cache.lmdb", "no database at all", 0);
    buf_clear(&logged);
    struct table *t = table_open(NULL, str_c(specs[1]), TABLE_FOLD | TABLE_WRITE);
    assert_null(table_error(t));
    assert_true(str_contains(buf_str(&logged), STR("not a sound LMDB file -- beginning with an empty one")));
    assert_int_equal(table_put(t, STR("a"), STR("1")), TABLE_FOUND);
    assert_string_equal(list_table(t, a), "a=1 ");
    remove_file("cache.lmdb"); /* it is opened anew by the next who asks */
    assert_int_equal(table_put(t, STR("a"), STR("2")), TABLE_ERROR);
    assert_int_equal(table_put(t, STR("a"), STR("3")), TABLE_FOUND);
    assert_string_equal(get(t, STR("a"), a), "3");
    table_close(t);
    /* reading tables are not written */
    put_file("th", "k 1\n", 1);
    t = table_open(NULL, arena_printf(a, "texthash:%s/th", dir), 0);
    assert_int_equal(table_put(t, STR("a"), STR("3")), TABLE_ERROR);
    table_close(t);
    arena_free(a);
}

static void index_files(void **state) {
    (void)state;
    static const struct index_entry entries[] = {
        { STR_INIT("b"), STR_INIT("2"), 0, false },   { STR_INIT("a.b"), STR_INIT("3"), 0, false },
        { STR_INIT("a"), STR_INIT("1"), 0, false },   { STR_INIT("a"), STR_INIT("second"), 0, false },
        { STR_INIT("\xff"), STR_INIT(""), 0, false },
    };
    struct arena *a = arena_new();
    for (int no_nul = 0; no_nul < 2; no_nul++) {
        build("idx", entries, sizeof entries / sizeof entries[0], no_nul);
        struct stat st;
        assert_int_equal(stat(path_of(a, "idx.lmdb").p, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0640);
        struct table *t = table_open(NULL, arena_printf(a, "lmdb:%s/idx", dir), TABLE_FOLD);
        assert_string_equal(get(t, STR("a"), a), "1");
        assert_string_equal(get(t, STR("A.B"), a), "3");
        assert_string_equal(get(t, STR("b"), a), "2");
        assert_string_equal(get(t, STR("c"), a), "-");
        assert_string_equal(get(t, STR(""), a), "-");
        assert_string_equal(get(t, STR("a\0"), a), "-");
        assert_string_equal(get(t, STR("\xff"), a), "");
        char long_key[2000];
        memset(long_key, 'a', sizeof long_key);
        assert_string_equal(get(t, str_n(long_key, sizeof long_key), a), "-");
        table_close(t);
        assert_string_equal(listing(INDEX_LMDB, path_of(a, "idx.lmdb").p, a), "a=1 a.b=3 b=2 \xff= ");
    }
    /* more than the map size at first: it grows */
    enum { MANY = 20000 };
    struct index_entry *many = arena_array(a, MANY, sizeof *many);
    for (int i = 0; i < MANY; i++)
        many[i] = (struct index_entry){ arena_printf(a, "key%d", i), arena_printf(a, "%0100d", i), 0, false };
    build("many", many, MANY, false);
    struct table *t = table_open(NULL, arena_printf(a, "btree:%s/many", dir), TABLE_FOLD);
    assert_string_equal(get(t, STR("key19999"), a) + 95, "19999");
    table_close(t);
    struct index_options o = { INDEX_LMDB, .map_size = 1, .mode = 0600, .arena = a };
    assert_null(write_entries(path_of(a, "empty.lmdb"), (struct index_entries){ 0 }, &o));
    assert_string_equal(listing(INDEX_LMDB, path_of(a, "empty.lmdb").p, a), "");
    arena_free(a);
}

/* Look-ups that were announced give what the others give. */
static void expected(void **state) {
    (void)state;
    enum { ENTRIES = 3000, ASKED = TABLE_EXPECT_MAX + 8 };
    static const char *const types[] = { "lmdb", "cdb" };
    static const enum index_kind kinds[] = { INDEX_LMDB, INDEX_CDB };
    struct arena *a = arena_new();
    struct index_entry *entries = arena_array(a, ENTRIES, sizeof *entries);
    for (int i = 0; i < ENTRIES; i++)
        entries[i] = (struct index_entry){ arena_printf(a, "key%d", i), arena_printf(a, "%0100d", i), 0, false };
    char long_key[1000];
    memset(long_key, 'k', sizeof long_key);
    entries[7].key = arena_str(a, str_n(long_key, sizeof long_key));
    for (size_t kind = 0; kind < 2; kind++) {
        if (index_kind_of(str_c(types[kind])) == INDEX_NONE)
            continue;
        struct index_options o = { kinds[kind], .map_size = 1, .mode = 0600, .arena = a };
        struct str path = index_path(a, kinds[kind], path_of(a, "exp"));
        assert_null(write_entries(path, (struct index_entries){ entries, ENTRIES }, &o));
        struct table *t = table_open(NULL, arena_printf(a, "%s:%s/exp", types[kind], dir), TABLE_FOLD);
        for (int from = 0; from < ENTRIES; from += ASKED) {
            struct str keys[ASKED];
            for (int i = 0; i < ASKED; i++)
                keys[i] = arena_printf(a, i % 2 ? "KEY%d" : "key%d", from + i);
            keys[3] = STR("");
            keys[4] = STR("no such key");
            keys[5] = str_n(long_key, sizeof long_key);
            keys[6] = STR("k\xc3\x84");
            table_expect(t, keys, ASKED);
            for (int i = 0; i < ASKED; i++)
                if (i < 3 || i > 6) {
                    bool there = from + i < ENTRIES && from + i != 7;
                    assert_string_equal(get(t, keys[i], a), there ? arena_printf(a, "%0100d", from + i).p : "-");
                }
            assert_string_equal(get(t, keys[3], a), "-");
            assert_string_equal(get(t, keys[4], a), "-");
            assert_string_equal(get(t, keys[5], a) + 99, "7");
            assert_string_equal(get(t, keys[6], a), "-");
        }
        table_close(t);
    }
    remove_file("exp.lmdb");
    remove_file("exp.cdb");
    struct table *none = table_open(NULL, arena_printf(a, "lmdb:%s/none", dir), TABLE_FOLD);
    const struct str key = STR_INIT("key1");
    table_expect(none, &key, 1);
    assert_string_equal(get(none, key, a), "!");
    table_close(none);
    arena_free(a);
}

/* Which of the two files counts, and that an edit is seen. */
static void changes(void **state) {
    (void)state;
    static const struct index_entry from_index[] = { { STR_INIT("k"), STR_INIT("index"), 0, false } };
    struct arena *a = arena_new();
    struct str spec = arena_printf(a, "hash:%s/ch", dir);
    put_file("ch", "k text\n", 100);
    struct table *t = table_open(NULL, spec, TABLE_FOLD);
    struct table *frozen = table_open(NULL, spec, TABLE_FOLD | TABLE_FROZEN);
    assert_string_equal(get(t, STR("k"), a), "text");
    assert_false(table_changed(t));
    build("ch", from_index, 1, false); /* newer than the source */
    assert_true(table_changed(t));
    assert_string_equal(get(t, STR("k"), a), "index");
    assert_false(table_changed(t));
    put_file("ch", "k edited\n", -100);
    assert_true(table_changed(t));
    assert_string_equal(get(t, STR("k"), a), "edited");
    assert_false(table_changed(frozen));
    assert_string_equal(get(frozen, STR("k"), a), "text");
    /* no index, no source: an error, not "not found"; and back again */
    remove_file("ch");
    remove_file("ch.lmdb");
    assert_true(table_changed(t));
    assert_string_equal(get(t, STR("k"), a), "!");
    put_file("ch", "k back\n", 0);
    assert_true(table_changed(t));
    assert_string_equal(get(t, STR("k"), a), "back");
    /* an index that is no index: the source counts */
    put_file("ch", "k text\n", 100);
    put_file("ch.lmdb", "this is not a database", 1);
    assert_true(table_changed(t));
    assert_string_equal(get(t, STR("k"), a), "text");
    remove_file("ch");
    assert_true(table_changed(t));
    assert_string_equal(get(t, STR("k"), a), "!");
    table_close(t);
    table_close(frozen);
    /* a .db is never read */
    put_file("old.db", "x", 0);
    t = table_open(NULL, arena_printf(a, "hash:%s/old", dir), TABLE_FOLD);
    assert_string_equal(get(t, STR("k"), a), "!");
    table_close(t);
    put_file("re", "/a/ 1\n", 0);
    t = table_open(NULL, arena_printf(a, "regexp:%s/re", dir), 0);
    assert_string_equal(get(t, STR("xax"), a), "1");
    put_file("re", "/a/ 22\n", 1);
    assert_true(table_changed(t));
    assert_string_equal(get(t, STR("xax"), a), "22");
    table_close(t);
    /* within a second without being asked */
    put_file("th", "k 1\n", 100);
    t = table_open(NULL, arena_printf(a, "texthash:%s/th", dir), 0);
    assert_string_equal(get(t, STR("k"), a), "1");
    put_file("th", "k 22\n", 0);
    const char *got = "1";
    for (int i = 0; i < 1000 && strcmp(got, "1") == 0; i++) {
        usleep(10 * 1000);
        got = get(t, STR("k"), a);
    }
    assert_string_equal(got, "22");
    table_close(t);
    arena_free(a);
}

static const char regexp_text[] = "# c\n"
                                  "/^Foo(.*)$/ bar $1 ${1}x $(1)y $$\n"
                                  "/UPPER/i casesens\n"
                                  "!/x/ negated $$\n"
                                  "/bad(/ z\n"
                                  "/nores/\n"
                                  "/unterminated\n"
                                  "/a+b/x basic\n"
                                  "/flag/q z\n"
                                  "noslash z\n"
                                  "if /^q/\n"
                                  "/^qq/ qq\n"
                                  "endif\n"
                                  "if !/^r/\n"
                                  "/s$/ s\n"
                                  "endif\n"
                                  "endif\n"
                                  "/$2(a)/ $2\n"
                                  "/dol(a)/ $a\n"
                                  "/dol2(a)/ ${2}\n"
                                  "/dol3(a)/ x$\n"
                                  "|alt/delim| yes\n"
                                  "/esc\\/aped/ es\n"
                                  "!/x(a)/ neg $1\n"
                                  "/multi\n"
                                  "  line/ x\n"
                                  "/opt(a)?z/ <$1>\n"
                                  "IF /unclosed/\n"
                                  "/^xu/ u\n";

static const struct row regexp_rows[] = {
    { "regexp:@DIR@/rx", "foobar", "bar bar barx bary $" },
    { "regexp:@DIR@/rx", "FOO", "bar  x y $" },
    { "regexp:@DIR@/rx", "upper", "negated $" },
    { "regexp:@DIR@/rx", "UPPER", "casesens" },
    { "regexp:@DIR@/rx", "xs", "s" },
    { "regexp:@DIR@/rx", "rxs", "-" },
    { "regexp:@DIR@/rx", "xdol(a)", "-" },
    { "regexp:@DIR@/rx", "xdola", "-" },
    { "regexp:@DIR@/rx", "xa+b", "basic" },
    { "regexp:@DIR@/rx", "xalt/delimx", "yes" },
    { "regexp:@DIR@/rx", "esc/aped x", "es" },
    { "regexp:@DIR@/rx", "xmulti  line", "x" },
    { "regexp:@DIR@/rx", "xnores", "" },
    { "regexp:@DIR@/rx", "xoptz", "<>" },
    { "regexp:@DIR@/rx", "xoptaz", "<a>" },
    { "regexp:@DIR@/rx", "xu", "-" },
    { "regexp:@DIR@/rx", "xu unclosed", "u" },
    { "regexp:{ {/a/ b}, {/c (d)/ $1 e} }", "xc d", "d e" },
    { "regexp:{ {/a/ b} {!/c/ d} }", "x", "d" },
    { "regexp:{ {/a/ b} ", "xa", "!" },
    { "regexp:{ /a/ b }", "xa", "!" },
    { "pcre:{ {/^(?<n>\\w+)@(\\S+)/ $2 $1} }", "joe@dom", "dom joe" },
    { "pcre:{ {/(a)?(b)/ <$1$2>} }", "b", "<b>" },
    { "pcre:{ {/(b)(a)?/ <$1$2>} }", "b", "<b>" },
    { "pcre:{ {/A/i x} }", "a", "-" },
    { "pcre:{ {/a(/ x} {/a/ y} }", "a", "y" },
    { "pcre:{ {/a/Q x} }", "a", "-" },
    { "pcre:{ {/^(a+)+$/ x} }", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "!" },
    { "cidr:{ {10.0.0.0/8 ten} {192.168.1.1 one} {!192.168.0.0/16 other} }", "10.1.2.3", "ten" },
    { "cidr:{ {10.0.0.0/8 ten} {192.168.1.1 one} {!192.168.0.0/16 other} }", "192.168.1.1", "one" },
    { "cidr:{ {10.0.0.0/8 ten} {192.168.1.1 one} {!192.168.0.0/16 other} }", "192.168.1.2", "-" },
    { "cidr:{ {10.0.0.0/8 ten} {192.168.1.1 one} {!192.168.0.0/16 other} }", "8.8.8.8", "other" },
    { "cidr:{ {::1 v6} {[2001:db8::]/32 $doc} }", "2001:DB8::5", "$doc" },
    { "cidr:{ {::1 v6} {[2001:db8::]/32 $doc} }", "::1", "v6" },
    { "cidr:{ {::1 v6} }", "foo", "-" },
    { "cidr:{ {!10.0.0.0/8 x} {::/0 y} }", "::1", "y" },
    { "cidr:{ {if !10.0.0.0/8} {::/0 x} {endif} {::/0 y} }", "::1", "y" },
    { "cidr:{ {if 10.0.0.0/8} {10.1.0.0/16 a} {0.0.0.0/0 b} {endif} {0.0.0.0/0 c} }", "10.2.0.1", "b" },
    { "cidr:{ {if 10.0.0.0/8} {10.1.0.0/16 a} {0.0.0.0/0 b} {endif} {0.0.0.0/0 c} }", "11.2.0.1", "c" },
    { "cidr:{ {10.1.1.1/8 bad} {1.2.3/24 bad} {foo bar} {10.0.0.0/33 x} {0.0.0.0/0 all} }", "10.1.1.1", "all" },
};

static void rule_files(void **state) {
    (void)state;
    put_file("rx", regexp_text, 10);
    buf_clear(&logged);
    check_rows(regexp_rows, 1);
    struct arena *a = arena_new();
    struct str want = arena_printf(
        a,
        "warning: regexp map %1$s/rx, line 5: Unmatched ( or \\(\n"
        "warning: regexp map %1$s/rx, line 6: no replacement text: using empty string\n"
        "warning: regexp map %1$s/rx, line 7: no closing regexp delimiter \"/\": skipping this rule\n"
        "warning: regexp map %1$s/rx, line 9: unknown regexp option \"q\": skipping this rule\n"
        "warning: regexp map %1$s/rx, line 10: ignoring unrecognized request\n"
        "warning: regexp map %1$s/rx, line 17: ignoring ENDIF without matching IF\n"
        "warning: regexp map %1$s/rx, line 18: out of range replacement index \"2\": skipping this rule\n"
        "warning: regexp map %1$s/rx, line 19: non-numeric replacement index \"a\": skipping this rule\n"
        "warning: regexp map %1$s/rx, line 20: out of range replacement index \"2\": skipping this rule\n"
        "warning: regexp map %1$s/rx, line 21: no number after '$' in the replacement text: skipping this rule\n"
        "warning: regexp map %1$s/rx, line 24: $number found in negative match replacement text: skipping this rule\n"
        "warning: regexp map %1$s/rx, line 28: IF has no matching ENDIF\n",
        dir);
    assert_string_equal(logged.p, want.p);
    check_rows(regexp_rows, sizeof regexp_rows / sizeof regexp_rows[0]);
    struct table *t = table_open(NULL, STR("regexp:{ {/x(a)/ $1} {/y/ y} }"), TABLE_NO_REGSUB);
    assert_true(table_is_pattern(t));
    assert_string_equal(get(t, STR("y"), a), "y");
    assert_string_equal(get(t, STR("xa"), a), "-");
    table_close(t);
    t = table_open(NULL, STR("proxy:regexp:{ {/x/ y} }"), 0);
    assert_true(table_is_pattern(t));
    table_close(t);
    char deep[4000] = "regexp:{ {/";
    size_t n = strlen(deep);
    memset(deep + n, '(', 1000);
    memcpy(deep + n + 1000, "a", 1);
    memset(deep + n + 1001, ')', 1000);
    memcpy(deep + n + 2001, "/ x} {/a/ y} }", 15);
    t = table_open(NULL, str_c(deep), 0);
    assert_string_equal(get(t, STR("a"), a), "y");
    table_close(t);
    t = table_open(NULL, STR("regexp:{ {/^a$/ whole} {/b$/ end} }"), 0);
    assert_string_equal(get(t, STR("a\0b"), a), "end");
    table_close(t);
    arena_free(a);
}

static int set_up(void **state) {
    (void)state;
    log_set_sink(log_to_buf, NULL);
    buf_byte(&logged, 0);
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    static const char *const files[] = { "map",     "aliases", "idx.lmdb", "many.lmdb", "empty.lmdb", "ch",
                                         "ch.lmdb", "old.db",  "re",       "th",        "rx",         "cache.lmdb" };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        remove_file(files[i]);
    buf_free(&logged);
    return rmdir(dir); /* nothing else was left behind, no temporary file either */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simple_types), cmocka_unit_test(map_files),  cmocka_unit_test(alias_files),
        cmocka_unit_test(index_files),  cmocka_unit_test(expected),   cmocka_unit_test(writing),
        cmocka_unit_test(changes),      cmocka_unit_test(rule_files),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
