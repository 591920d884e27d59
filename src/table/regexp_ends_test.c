/* What a pattern's matches begin and end with, beside what regexec() says of random patterns and keys. */
#include "base/buf.h"
#include "table/regexp_ends.h"
#include "test/test.h"
#include <regex.h>

static void table(void **state) {
    (void)state;
    static const struct {
        const char *pattern;
        int options;
        const char *head, *tail;
    } rows[] = {
        { "^host1\\.bad\\.example$", REG_EXTENDED, "host1.bad.example", "host1.bad.example" },
        { "\\.dyn\\.example$", REG_EXTENDED, "", ".dyn.example" },
        { "^user@", REG_EXTENDED | REG_ICASE, "user@", "" },
        { "^abc*d", REG_EXTENDED, "ab", "" },
        { "^ab{0,3}cd$", REG_EXTENDED, "a", "cd" },
        { "^ab?$", REG_EXTENDED, "a", "" },
        { "^a(bc)?d$", REG_EXTENDED, "a", "d" },
        { "^a(b|c)d$", REG_EXTENDED, "", "" },
        { "^ab[c]d$", REG_EXTENDED, "ab", "" },
        { "^a\\wb\\$", REG_EXTENDED, "a", "" },
        { "^ab\\b", REG_EXTENDED, "ab", "" },
        { "ab", REG_EXTENDED, "", "" },
        { "", REG_EXTENDED, "", "" },
        { "^$", REG_EXTENDED, "", "" },
        { "^ab$", 0, "", "" },
        { "^ab$", REG_EXTENDED | REG_NEWLINE, "", "" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct regexp_ends e = regexp_ends(str_c(rows[i].pattern), rows[i].options, a);
        if (!str_eq(e.head, str_c(rows[i].head)) || !str_eq(e.tail, str_c(rows[i].tail)))
            fail_msg("%s: \"%.*s\" \"%.*s\"", rows[i].pattern, STR_ARG(e.head), STR_ARG(e.tail));
    }
    arena_free(a);
}

static unsigned number(unsigned below) {
    static uint32_t seed = 12345;
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 16) % below;
}

static struct str random_text(const char *alphabet, unsigned most, char *to) {
    unsigned n = number(most + 1);
    for (unsigned i = 0; i < n; i++)
        to[i] = alphabet[number((unsigned)strlen(alphabet))];
    to[n] = '\0';
    return str_n(to, n);
}

/* No match is ever missed; and that this holds says something, for many keys are sent away and many match. */
static void beside_regexec(void **state) {
    (void)state;
    unsigned matches = 0, sent_away = 0;
    for (unsigned i = 0; i < 20000; i++) {
        char p[20], k[20];
        struct arena *a = arena_new();
        int options = (number(8) ? REG_EXTENDED : 0) | (number(2) ? REG_ICASE : 0) | (number(8) ? 0 : REG_NEWLINE);
        p[0] = '^';
        bool anchored = number(2);
        struct str pattern = random_text("aaabbB..\\-@*?+(){}[]1,^$$|w", 8, p + anchored);
        if (anchored)
            pattern = str_n(p, pattern.n + 1);
        regex_t regex;
        if (!regcomp(&regex, pattern.p, options | REG_NOSUB)) {
            struct regexp_ends e = regexp_ends(pattern, options, a);
            for (unsigned j = 0; j < 20; j++) {
                struct str key = random_text("aaabbAB.@-1\n", 6, k);
                regmatch_t m[1] = { { 0, (regoff_t)key.n } };
                bool fits = regexp_ends_fit(&e, key);
                bool matched = regexec(&regex, key.p, 0, m, REG_STARTEND) == 0;
                if (matched && !fits)
                    fail_msg("pattern \"%s\", key \"%s\": sent away", pattern.p, key.p);
                matches += matched;
                sent_away += !fits;
            }
            regfree(&regex);
        }
        arena_free(a);
    }
    assert_true(matches > 10000 && sent_away > 10000);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(table), cmocka_unit_test(beside_regexec) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
