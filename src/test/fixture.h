/* fixture.h - an arena for each test: cmocka_unit_test_setup_teardown(test, set_up, tear_down). */
#ifndef ANGARIUM_TEST_FIXTURE_H
#define ANGARIUM_TEST_FIXTURE_H

#include "base/arena.h"

static struct arena *arena;

static int set_up(void **state) {
    (void)state;
    arena = arena_new();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    arena_free(arena);
    return 0;
}

#endif
