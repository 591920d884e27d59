/* test.h - what unit tests include: cmocka and a comparison for struct str. */
#ifndef ANGARIUM_TEST_TEST_H
#define ANGARIUM_TEST_TEST_H

/* cmocka wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include <cmocka.h>
#include <stdio.h>

/* cmocka reports a skipped case as "not ok # SKIP", which TAP readers count as a failure: it passes with a remark. */
#undef skip
#define skip()                                                                                                         \
    do {                                                                                                               \
        print_message("# skipped at %s:%d\n", __FILE__, __LINE__);                                                     \
        return;                                                                                                        \
    } while (0)

#define assert_str(got, want) test_assert_str((got), str_c(want), __FILE__, __LINE__)

static inline void test_assert_str(struct str got, struct str want, const char *file, int line) {
    if (str_eq(got, want))
        return;
    print_error("%s:%d: got \"%.*s\", want \"%.*s\"\n", file, line, STR_ARG(got), STR_ARG(want));
    _fail(file, line);
}
#endif
