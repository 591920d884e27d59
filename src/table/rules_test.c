/* Unit tests of tables that are rules, text or other tables: what corpus_rules/ of the black-box tests cannot show. */
#include "base/buf.h"
#include "base/log.h"
#include "table/fold.h"
#include "table/table.h"
#include "test/test.h"
#include <malloc.h>

static struct buf logged;

static void log_to_buf(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)tag, (void)level;
    buf_add(&logged, text);
    buf_byte(&logged, '\n');
}

/* "value", "-" when not found, "!" on an error */
static const char *get(struct table *t, struct str key, struct arena *a) {
    struct str value;
    switch (table_get(t, key, a, &value)) {
    case TABLE_FOUND:
        return value.p;
    case TABLE_NOT_FOUND:
        return "-";
    default:
        assert_non_null(table_error(t));
        return "!";
    }
}

static void check(const char *spec, unsigned flags, struct str key, const char *want) {
    struct arena *a = arena_new();
    struct table *t = table_open(NULL, str_c(spec), flags);
    const char *got = get(t, key, a);
    if (strcmp(got, want) != 0)
        fail_msg("%s %.*s: %s", spec, STR_ARG(key), got);
    table_close(t);
    arena_free(a);
}

static void folding(void **state) {
    (void)state;
    static const struct {
        const char *in, *utf8, *ascii;
    } rows[] = {
        { "", "", "" },
        { "Joe@EXAMPLE", "joe@example", "joe@example" },
        { "STRASSE", "strasse", "strasse" },
        { "Stra\u00dfe", "strasse", "stra\u00dfe" },
        { "M\u00dcLLER", "m\u00fcller", "m\u00dcller" },
        { "\u03a3\u03c2", "\u03c3\u03c3", "\u03a3\u03c2" },
        { "\u0130", "i\u0307", "\u0130" }, /* and not what a Turkish host makes of it */
        { "A\xff\u00dc", "a\xff\u00dc", "a\xff\u00dc" },
    };
    struct buf b = { 0 };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fold_key(&b, str_c(rows[i].in), true);
        assert_str(buf_str(&b), rows[i].utf8);
        assert_str(arena_fold(a, str_c(rows[i].in), true), rows[i].utf8);
        fold_key(&b, str_c(rows[i].in), false);
        assert_str(buf_str(&b), rows[i].ascii);
        assert_str(arena_fold(a, str_c(rows[i].in), false), rows[i].ascii);
    }
    buf_free(&b);
    arena_free(a);
    check("inline:{M\u00dcller=x}", TABLE_FOLD, STR("m\u00fcLLER"), "x");
    check("inline:{M\u00dcller=x}", TABLE_FOLD | TABLE_ASCII, STR("m\u00fcLLER"), "-");
    check("inline:{M\u00dcller=x}", TABLE_FOLD | TABLE_ASCII, STR("m\u00dcLLER"), "x");
}

static void random_picks(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct table *t = table_open(NULL, STR("randmap:{a, b c {d e},a}"), 0);
    int counts[128] = { 0 };
    enum { PICKS = 5000 };
    for (int i = 0; i < PICKS; i++) {
        const char *v = get(t, STR("x"), a);
        if (v[0] == '{')
            assert_string_equal(v, "{d e}");
        counts[v[0] & 127]++;
    }
    assert_false(table_is_pattern(t));
    table_close(t);
    /* 1000 each expected, a twice; five standard deviations are 141 */
    assert_int_equal(counts['a'] + counts['b'] + counts['c'] + counts['{'], PICKS);
    assert_in_range(counts['a'], 2000 - 200, 2000 + 200);
    assert_in_range(counts['b'], 1000 - 200, 1000 + 200);
    assert_in_range(counts['c'], 1000 - 200, 1000 + 200);
    assert_in_range(counts['{'], 1000 - 200, 1000 + 200);
    arena_free(a);
}

static void debug_tables(void **state) {
    (void)state;
    struct arena *a = arena_new();
    buf_clear(&logged);
    struct table *t = table_open(NULL, STR("debug:inline:{a=b}"), TABLE_FOLD);
    assert_string_equal(get(t, STR("A"), a), "b");
    assert_string_equal(get(t, STR("c"), a), "-");
    assert_false(table_is_pattern(t));
    table_close(t);
    t = table_open(NULL, STR("debug:fail:x"), TABLE_FOLD | TABLE_WRITE);
    assert_string_equal(get(t, STR("c"), a), "!");
    assert_int_equal(table_put(t, STR("k"), STR("v")), TABLE_ERROR);
    assert_non_null(table_error(t));
    assert_int_equal(table_delete(t, STR("k")), TABLE_ERROR);
    struct str key, value;
    assert_int_equal(table_next(t, STR(""), a, &key, &value), TABLE_ERROR);
    table_close(t);
    assert_string_equal(logged.p, "inline:{a=b} lookup: \"A\" = \"b\"\n"
                                  "inline:{a=b} lookup: \"c\" = \"not_found\"\n"
                                  "fail:x lookup: \"c\" = \"error\"\n"
                                  "fail:x update: \"k\" = \"v\": failed\n"
                                  "fail:x delete: \"k\" = \"failed\"\n"
                                  "fail:x sequence: \"\" = \"error\"\n");
    t = table_open(NULL, STR("debug:regexp:{{/a/ b}}"), 0);
    assert_true(table_is_pattern(t));
    table_close(t);
    t = table_open(NULL, STR("debug:static"), 0);
    assert_str(table_error(t)->text, "bad syntax: \"debug:static\"; need \"debug:type:name\"");
    table_close(t);
    arena_free(a);
}

/* Patterns with back-references are PCRE2's: that they match what the C library's matcher would. */
static void back_references(void **state) {
    (void)state;
    static const struct {
        const char *rule, *key, *want;
    } rows[] = {
        { "/^(a*)x\\1$/ <$1>", "aaxaa", "<aa>" },
        { "/^(a*)x\\1$/ <$1>", "aaxa", "-" },
        { "/^(.)\\10$/ $1", "aa0", "a" }, /* one digit only */
        { "/^([[:alpha:]]+)[]^x\\]+\\1$/ $1", "ab]\\ab", "ab" },
        { "/^(ab|a)(c|bcd)\\1$/ $1", "abcab", "ab" },
        { "/^\\(a*\\)x\\1$/x $1", "aaxaa", "aa" },
        { "/^\\(a\\{2\\}\\)+\\1$/x $1", "aa+aa", "aa" },
        { "/^*\\(a\\)\\1$/x $1", "*aa", "a" },
        { "/^(a{,2})\\1b$/ $1", "aaaab", "aa" },
        { "/\\<(a)\\1\\>/ $1", "x aa y", "a" },
        { "/\\<(a)\\1\\>/ $1", "xaay", "-" },
        { "/^(a)\\1$/i $1", "aA", "-" },
        { "/^(a)\\1$/ $1", "aA", "a" },
        { "/^(.)\\1$/ dot", "\n\n", "dot" },
        { "/^(.)\\1$/m dot", "\n\n", "-" },
        { "/^(a)\\1$/m line", "x\naa\ny", "line" },
        { "/^(a)\\1$/ line", "aa\n", "-" },
        { "/^(\\d)\\1$/ letter", "dd", "letter" }, /* glibc: an escaped letter is itself */
        { "/^(a)\\1+\\.$/ $1", "aaa.", "a" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct arena *a = arena_new();
        check(arena_printf(a, "regexp:{{%s}}", rows[i].rule).p, 0, str_c(rows[i].key), rows[i].want);
        arena_free(a);
    }
}

static void limits(void **state) {
    (void)state;
    struct arena *a = arena_new();
    char key[2001];
    memset(key, 'a', 2000);
    key[2000] = 'b';
    /* glibc takes minutes for this */
    check("regexp:{{/(.*)(.*)(.*)(.*)\\4\\3\\2\\1b./ y}}", 0, str_n(key, 2001), "!");
    check("regexp:{{/^(a*)*\\1$/ y}}", 0, str_n(key, 2001), "!");
    check("pcre:{{/^(a+)+$/ y}}", 0, str_n(key, 2001), "!");
    check("pcre:{{/^(a|a)*$/ y}}", 0, str_n(key, 2001), "!");
    /* a pattern that would take all memory is skipped, the rest of the table stays */
    buf_clear(&logged);
    check("regexp:{{/((a{1,200}){1,200}){1,200}/ x} {/a/ y}}", 0, STR("a"), "y");
    check("regexp:{{/a++++++++++++++++++++++++/ x} {/a/ y}}", 0, STR("a"), "y");
    check("regexp:{{/\\(\\(a\\{200\\}\\)\\{200\\}\\)/x x} {/a/ y}}", 0, STR("a"), "y");
    assert_string_equal(logged.p, "warning: regexp map {{/((a{1,200}){1,200}){1,200}/ x} {/a/ y}}, line 1: the repeats "
                                  "multiply to too large a pattern: skipping this rule\n"
                                  "warning: regexp map {{/a++++++++++++++++++++++++/ x} {/a/ y}}, line 1: the repeats "
                                  "multiply to too large a pattern: skipping this rule\n"
                                  "warning: regexp map {{/\\(\\(a\\{200\\}\\)\\{200\\}\\)/x x} {/a/ y}}, line 1: the "
                                  "repeats multiply to too large a pattern: skipping this rule\n");
    check("regexp:{{/^a{255}b/ x}}", 0, str_n(key + 2000 - 255, 256), "x");
    arena_free(a);
}

/* Keys make the automaton of such a pattern grow, 9 KiB a byte; a later key must not find it all still there. */
static void growth(void **state) {
    (void)state;
    struct arena *a = arena_new();
    char key[1000];
    unsigned seed = 1;
    struct table *t = table_open(NULL, STR("regexp:{{/^.*a.{20}b/ x} {/^(c+|a+)$/ <$1>}}"), 0);
    size_t most = 0, before = mallinfo2().uordblks;
    for (int i = 0; i < 40; i++) {
        for (size_t k = 0; k < sizeof key; k++) {
            seed = seed * 1103515245 + 12345;
            key[k] = seed & 0x10000 ? 'a' : 'c';
        }
        assert_string_equal(get(t, str_n(key, sizeof key), a), "-");
        assert_string_equal(get(t, STR("aaa"), a), "<aaa>");
        size_t now = mallinfo2().uordblks;
        most = now > before && now - before > most ? now - before : most;
    }
    table_close(t);
    arena_free(a);
    if (most > 50 * 1024 * 1024) /* over 80 MiB if it is never thrown away */
        fail_msg("%zu bytes", most);
}

/* What is asked often is made machine code: the same answers, the same limits. */
static void machine_code(void **state) {
    (void)state;
    struct arena *a = arena_new();
    char key[3001];
    memset(key, 'a', 3000);
    key[3000] = 'b';
    struct table *t =
        table_open(NULL, STR("pcre:{{/^x(a|a)*$/ evil} {/^y(?:(.)(.))*$/ <$1$2>} {/^z(a)?(b)?/ <$1$2>}}"), 0);
    for (int i = 0; i < 300; i++) {
        assert_string_equal(get(t, STR("xaa"), a), "evil");
        assert_string_equal(get(t, STR("yabcd"), a), "<cd>");
        assert_string_equal(get(t, STR("zb"), a), "<b>");
        assert_string_equal(get(t, STR("q"), a), "-");
    }
    key[0] = 'x';
    assert_string_equal(get(t, str_n(key, 3001), a), "!");
    key[0] = 'y';
    assert_string_equal(get(t, str_n(key, 3001), a), "<ab>");
    table_close(t);
    arena_free(a);
}

static void nesting(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct buf b = { 0 };
    buf_add(&b, STR("regexp:{"));
    for (int i = 0; i < 1000; i++)
        buf_add(&b, STR("{if /a/} "));
    buf_add(&b, STR("{/b/ x} "));
    size_t open = b.n;
    buf_byte(&b, '}');
    buf_clear(&logged);
    check(b.p, 0, STR("ab"), "x");
    check(b.p, 0, STR("b"), "-");
    buf_truncate(&b, open);
    for (int i = 0; i < 99 * 1000; i++)
        buf_add(&b, STR("{if /a/} "));
    buf_byte(&b, '}');
    buf_clear(&logged);
    struct table *t = table_open(NULL, buf_str(&b), 0);
    assert_true(str_ends(table_error(t)->text, STR("line 1002: IF nested too deeply")));
    table_close(t);
    buf_free(&b);
    arena_free(a);
}

/* $1 is not for results that the sender of the key should not choose: such a rule is left out, and said so. */
static void no_substitution(void **state) {
    (void)state;
    buf_clear(&logged);
    check("regexp:{{/(a)/ x$1} {/a/ $$y}}", TABLE_NO_REGSUB, STR("a"), "$y");
    check("pcre:{{/(a)/ x$1} {/a/ $$y}}", TABLE_NO_REGSUB, STR("a"), "$y");
    check("unionmap:{static:s,pcre:{{/(a)/ x$1} {/b/ y}}}", TABLE_NO_REGSUB, STR("a"), "s");
    assert_true(
        str_contains(buf_str(&logged), STR("line 1: regular expression substitution is not allowed: skipping")));
}

static int set_up(void **state) {
    (void)state;
    log_set_sink(log_to_buf, NULL);
    buf_byte(&logged, 0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    buf_free(&logged);
    return 0;
}

/* What a pattern begins with is looked at before it is asked: that must not change what matches. */
static void prefixes(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *key;
        bool matches;
    } rows[] = {
        { "/^Subject: x/", "subject: X", true },
        { "/^Subject: x/", "subject:x", false },
        { "/^Subject: x/", "Subject", false },
        { "/^Subject: x/i", "subject: x", false },
        { "/^Subject: x/i", "Subject: x", true },
        { "/^ab?c/", "ac", true },
        { "/^ab*$/", "a", true },
        { "/^ab{0,1}c/", "ac", true },
        { "/^ab+c/", "abbc", true },
        { "/^a?/", "", true },
        { "/^abc|x/", "x", true },
        { "/^a[(]b|x/", "x", true },
        { "/^a[])]b|x/", "x", true },
        { "/^a[[:alpha:](]|x/", "x", true },
        { "/^a[\\](]|x/", "x", true },
        { "/^a\\(|x/", "x", true },
        { "/^a\\Q(\\E|x/", "x", true },
        { "/^a(?#()|x/", "x", true },
        { "/^a(b|x)/", "x", false },
        { "/^a(b|x)/", "AX", true },
        { "/^b/m", "a\nb", true },
        { "/^a b/x", "ab", true },
        { "/^abcdefghijklmnopqrstuvwxyz0123456789$/", "abcdefghijklmnopqrstuvwxyz0123456789", true },
        { "/^abcdefghijklmnopqrstuvwxyz0123456789$/", "abcdefghijklmnopqrstuvwxyz01234567890", false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char spec[200];
        snprintf(spec, sizeof spec, "pcre:{{%s yes}}", rows[i].pattern);
        check(spec, 0, str_c(rows[i].key), rows[i].matches ? "yes" : "-");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefixes),     cmocka_unit_test(folding),         cmocka_unit_test(random_picks),
        cmocka_unit_test(debug_tables), cmocka_unit_test(limits),          cmocka_unit_test(back_references),
        cmocka_unit_test(nesting),      cmocka_unit_test(no_substitution), cmocka_unit_test(growth),
        cmocka_unit_test(machine_code),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
