/* check.h - checks where cmocka's cannot be used: they jump off the stack, and so out of a coroutine. A failed one is
 * printed and counted in CHECK_COUNT, which the test defines before it includes this, and looks at when all has
 * ended. */
#ifndef ANGARIUM_TEST_CHECK_H
#define ANGARIUM_TEST_CHECK_H

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print_error("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                \
            CHECK_COUNT++;                                                                                             \
        }                                                                                                              \
    } while (0)

#endif
