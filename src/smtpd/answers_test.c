#include "test/test.h"

#include "smtpd/answers.h"
#include "test/fake_sys.h"

static struct arena *a;
static struct answers answers;

static const struct route_question user = { .want = ROUTE_WANT_CLASS,
                                            .sender = STR_INIT("s@x"),
                                            .address = STR_INIT("user@here.example") };

static int set_up(void **state) {
    (void)state;
    a = arena_new();
    fake_sys_install();
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    answers_free(&answers);
    fake_sys_remove();
    arena_free(a);
    return 0;
}

/* What differs in anything is another question. */
static void test_questions(void **state) {
    (void)state;
    struct route_check c;
    assert_false(answers_get(&answers, &user, a, &c));
    answers_put(&answers, &user, &(struct route_check){ .class = CLASS_RELAY, .routed = true });
    assert_true(answers_get(&answers, &user, a, &c));
    assert_true(c.class == CLASS_RELAY && c.routed && !c.unlisted && !c.unroutable);
    struct route_question others[] = { user, user, user, user, user };
    others[0].is_sender = true;
    others[1].want = ROUTE_WANT_LISTED;
    others[2].sender = STR("");
    others[3].address = STR("User@here.example");
    others[4].sender = STR("s@xu"); /* the same bytes in all */
    others[4].address = STR("ser@here.example");
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_false(answers_get(&answers, &others[i], a, &c));
}

/* No answer is older than ANSWERS_LIFE_US, whatever came after it. */
static void test_age(void **state) {
    (void)state;
    struct route_check c, answer = { .class = CLASS_LOCAL };
    struct route_question other = user;
    other.address = STR("other@here.example");
    answers_put(&answers, &user, &answer);
    fake_sys_advance(ANSWERS_LIFE_US - 1);
    assert_true(answers_get(&answers, &user, a, &c));
    answers_put(&answers, &other, &answer);
    assert_true(answers_get(&answers, &other, a, &c));
    fake_sys_advance(1);
    assert_false(answers_get(&answers, &user, a, &c));
    answers_put(&answers, &other, &answer);
    assert_true(answers_get(&answers, &other, a, &c));
    assert_false(answers_get(&answers, &user, a, &c));
}

/* A refusal is kept whole, with memory of its own; what may be otherwise in a moment is not kept. */
static void test_errors(void **state) {
    (void)state;
    struct arena *mine = arena_new();
    struct route_check c,
        refused = { .class = CLASS_LOCAL,
                    .unlisted = err_smtp(mine, 550, "5.1.1", "User unknown in %s table", "local recipient") };
    answers_put(&answers, &user, &refused);
    arena_free(mine);
    assert_true(answers_get(&answers, &user, a, &c) && c.unlisted);
    answers_free(&answers); /* while somebody has the answer */
    assert_int_equal(c.unlisted->code, 550);
    assert_true(str_eq(c.unlisted->dsn, STR("5.1.1")));
    assert_true(str_eq(c.unlisted->text, STR("User unknown in local recipient table")));

    error temporary = err_smtp(a, 451, "4.3.0", "Temporary lookup failure");
    answers_put(&answers, &user, &(struct route_check){ .class = CLASS_LOCAL, .unlisted = temporary });
    assert_false(answers_get(&answers, &user, a, &c));
    answers_put(&answers, &user, &(struct route_check){ .class = CLASS_LOCAL, .unroutable = temporary });
    assert_false(answers_get(&answers, &user, a, &c));
}

/* Who asks about a million addresses does not fill the memory. */
static void test_bound(void **state) {
    (void)state;
    struct route_check c;
    for (int i = 0; i < 3 * ANSWERS_MAX; i++) {
        struct route_question q = user;
        q.address = arena_printf(a, "u%d@here.example", i);
        answers_put(&answers, &q, &(struct route_check){ .class = CLASS_LOCAL });
        assert_true(answers_get(&answers, &q, a, &c));
        assert_true(answers.map.n <= ANSWERS_MAX);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_questions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_age, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bound, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
