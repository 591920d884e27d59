/* Both ends of the conversation with the look-up process. */
#include "test/test.h"

#include "proto/lookup.h"

#include <stdlib.h>
#include <sys/socket.h>

static int failed;
#define CHECK_COUNT failed
#include "test/check.h"
#include "test/pair.h"

static void asks_and_hears(void *arg) {
    (void)arg;
    struct arena *a = arena_new();
    enum table_result r;
    struct str key, value, why;
    struct table_question q = { .what = TABLE_ASK_GET, .spec = STR("mysql:/a"), .proxied = true, .flags = TABLE_FOLD };
    q.key = STR("K\0ey");
    CHECK(!lookup_ask(client, &q, DEADLINE, a, &r, &key, &value, &why));
    CHECK(r == TABLE_FOUND && str_eq(value, STR("V")) && key.n == 0 && why.n == 0);
    q.what = TABLE_ASK_NEXT;
    CHECK(!lookup_ask(client, &q, DEADLINE, a, &r, &key, &value, &why));
    CHECK(r == TABLE_ERROR && str_eq(why, STR("down")) && str_eq(key, STR("k2")));
    CHECK(!lookup_ask(client, &q, DEADLINE, a, &r, &key, &value, &why)); /* a value over the limit */
    CHECK(r == TABLE_ERROR && value.n == 0 && why.n > 0);
    char *big = calloc(1, LOOKUP_KEY_MAX + 1);
    q.key = str_n(big, LOOKUP_KEY_MAX + 1);
    error e = lookup_ask(client, &q, DEADLINE, a, &r, &key, &value, &why); /* not even sent */
    CHECK(e && e->kind == ERR_LIMIT);
    q.key = STR("k");
    e = lookup_ask(client, &q, DEADLINE, a, &r, &key, &value, &why);
    CHECK(e && e->kind == ERR_SYNTAX);
    free(big);
    arena_free(a);
}

static void hears_and_answers(void *arg) {
    (void)arg;
    struct ipc_msg m = { .fd = -1 };
    struct table_question q;
    CHECK(!ipc_recv(server, DEADLINE, &m) && !lookup_read(&m, &q));
    CHECK(q.what == TABLE_ASK_GET && q.proxied && q.flags == TABLE_FOLD && str_eq(q.spec, STR("mysql:/a")));
    CHECK(str_eq(q.key, STR("K\0ey")) && q.value.n == 0);
    CHECK(!lookup_answer(server, DEADLINE, TABLE_FOUND, STR(""), STR("V"), STR("")));
    CHECK(!ipc_recv(server, DEADLINE, &m) && !lookup_read(&m, &q) && q.what == TABLE_ASK_NEXT);
    CHECK(!lookup_answer(server, DEADLINE, TABLE_ERROR, STR("k2"), STR(""), STR("down")));
    CHECK(!ipc_recv(server, DEADLINE, &m) && !lookup_read(&m, &q));
    char *big = calloc(1, LOOKUP_VALUE_MAX + 1);
    CHECK(!lookup_answer(server, DEADLINE, TABLE_FOUND, STR(""), str_n(big, LOOKUP_VALUE_MAX + 1), STR("")));
    free(big);
    CHECK(!ipc_recv(server, DEADLINE, &m) && !lookup_read(&m, &q) && str_eq(q.key, STR("k")));
    ipc_send(server, LOOKUP_ANSWER, STR("\7rubbish"), -1);
    CHECK(!ipc_flush(server, DEADLINE));
    ipc_msg_drop(&m);
}

static void conversation(void **state) {
    (void)state;
    run_pair(asks_and_hears, hears_and_answers, NULL);
}

static void malformed_questions(void **state) {
    (void)state;
    struct table_question q;
    struct buf b = { 0 };
    for (unsigned what = 0; what < 8; what++) {
        for (unsigned proxied = 0; proxied < 3; proxied++) {
            buf_clear(&b);
            pack_u8(&b, (uint8_t)what);
            pack_u8(&b, (uint8_t)proxied);
            pack_u32(&b, 0);
            for (int i = 0; i < 3; i++)
                pack_str(&b, STR("x"));
            struct ipc_msg m = { .type = LOOKUP_ASK, .payload = buf_str(&b), .fd = -1 };
            bool good = what >= TABLE_ASK_GET && what <= TABLE_ASK_NEXT && proxied < 2;
            assert_int_equal(lookup_read(&m, &q) == NULL, good);
            m.payload = str_sub(m.payload, 0, m.payload.n - 1);
            assert_non_null(lookup_read(&m, &q));
            m.payload = buf_str(&b);
            m.type = LOOKUP_ANSWER;
            assert_non_null(lookup_read(&m, &q));
        }
    }
    buf_free(&b);
}

/* Who has broken into a worker must not choose how a table is opened: TABLE_FILES would have files read for it, and
 * each set of flags is another open table. */
static void flags(void **state) {
    (void)state;
    struct table_question q;
    for (unsigned bit = 0; bit < 32; bit++) {
        struct buf b = { 0 };
        pack_u8(&b, TABLE_ASK_GET);
        pack_u8(&b, true);
        pack_u32(&b, 1u << bit);
        for (int i = 0; i < 3; i++)
            pack_str(&b, STR("x"));
        struct ipc_msg m = { .type = LOOKUP_ASK, .payload = buf_str(&b), .fd = -1 };
        bool good = (1u << bit) & (TABLE_FOLD | TABLE_ASCII | TABLE_NO_REGSUB | TABLE_ALIASES | TABLE_WRITE);
        if ((lookup_read(&m, &q) == NULL) != good)
            fail_msg("flag %u", 1u << bit);
        buf_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversation),
        cmocka_unit_test(malformed_questions),
        cmocka_unit_test(flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
