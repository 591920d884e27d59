#include "test/test.h"

#include "proto/rewrite.h"

#include <sys/socket.h>

/* Both ends of the conversation with a router made up for the purpose (these stand before the real functions when the
 * test is linked): the questions and answers matter here, not what a router thinks. */

struct str route_rewrite(struct router *r, struct arena *a, struct str address, struct str origin) {
    (void)r;
    return arena_cat(a, arena_cat(a, address, STR("@")), origin);
}

error route_resolve(struct router *r, struct arena *a, struct str sender, struct str recipient, struct route *ret) {
    (void)r;
    if (str_eq(recipient, STR("bad")))
        return err_smtp(a, 501, "5.1.3", "bad address syntax");
    *ret = (struct route){ .class = CLASS_RELAY,
                           .transport = STR("relay"),
                           .nexthop = arena_str(a, sender),
                           .recipient = arena_str(a, recipient),
                           .routed = str_eq(recipient, STR("a%b@c")) };
    return NULL;
}

error route_validate_recipient(struct router *r, struct arena *a, struct str recipient) {
    (void)r;
    return str_eq(recipient, STR("nobody")) ? err_smtp(a, 550, "5.1.1", "User unknown") : NULL;
}

error route_validate_sender(struct router *r, struct arena *a, struct str sender) {
    (void)r;
    return err_smtp(a, 451, "4.3.0", "%.*s", STR_ARG(sender));
}

static int failed;
#define CHECK_COUNT failed
#include "test/check.h"
#include "test/pair.h"

static struct arena *arena;

static void run_with_arena(void (*near)(void *), void (*far)(void *), void *arg) {
    arena = arena_new();
    run_pair(near, far, arg);
    arena_free(arena);
}

static void serve(void *arg) {
    (void)arg;
    struct ipc_msg m;
    while (ipc_recv(server, DEADLINE, &m) == NULL)
        if (rewrite_serve(server, NULL, arena, &m))
            break;
    ipc_close(server);
    server = NULL;
}

static void ask(void *arg) {
    (void)arg;
    struct str s;
    CHECK(rewrite_address(client, arena, STR("u\0v"), STR("origin.example"), DEADLINE, &s) == NULL);
    CHECK(str_eq(s, STR("u\0v@origin.example")));

    struct route r;
    error refused;
    CHECK(rewrite_resolve(client, arena, STR("from@x"), STR("a%b@c"), DEADLINE, &r, &refused) == NULL);
    CHECK(refused == NULL && r.class == CLASS_RELAY && r.routed && str_eq(r.transport, STR("relay")) &&
          str_eq(r.nexthop, STR("from@x")) && str_eq(r.recipient, STR("a%b@c")));
    CHECK(rewrite_resolve(client, arena, STR(""), STR("bad"), DEADLINE, &r, &refused) == NULL);
    CHECK(refused && refused->code == 501 && refused->kind == ERR_PERM && str_eq(refused->dsn, STR("5.1.3")) &&
          str_eq(refused->text, STR("bad address syntax")));

    CHECK(rewrite_validate(client, arena, false, STR("somebody"), DEADLINE, &refused) == NULL && refused == NULL);
    CHECK(rewrite_validate(client, arena, false, STR("nobody"), DEADLINE, &refused) == NULL);
    CHECK(refused && refused->code == 550);
    CHECK(rewrite_validate(client, arena, true, STR("me"), DEADLINE, &refused) == NULL);
    CHECK(refused && refused->code == 451 && refused->kind == ERR_TEMP && str_eq(refused->text, STR("me")));
    ipc_close(client);
    client = NULL;
}

static void test_questions(void **state) {
    (void)state;
    run_with_arena(ask, serve, NULL);
}

/* --- hostile frames, in both directions --- */

struct frame {
    uint8_t type;
    const char *bytes;
    size_t n;
};
#define BYTES(literal) literal, sizeof(literal) - 1

static const struct frame bad_questions[] = {
    { 0, BYTES("") },
    { REWRITE_MSG_REPLY, BYTES("\1\0\0\0a\1\0\0\0b") },
    { REWRITE_MSG_REWRITE, BYTES("") },
    { REWRITE_MSG_REWRITE, BYTES("\1\0\0\0a") },
    { REWRITE_MSG_REWRITE, BYTES("\377\377\377\377a") },
    { REWRITE_MSG_REWRITE, BYTES("\1\0\0\0a\1\0\0\0bc") },
    { REWRITE_MSG_RESOLVE, BYTES("\1\0\0\0a\5\0\0\0b") },
    { REWRITE_MSG_VALIDATE, BYTES("x\1\0\0\0a") },
    { REWRITE_MSG_VALIDATE, BYTES("r") },
};

static void ask_badly(void *arg) {
    const struct frame *f = arg;
    struct ipc_msg m;
    ipc_send(client, f->type, (struct str){ f->bytes, f->n }, -1);
    error e = ipc_recv(client, DEADLINE, &m);
    CHECK(e && e->kind == ERR_EOF);
}

static void ask_too_long(void *arg) {
    (void)arg;
    char *big = arena_zalloc(arena, 100000);
    struct str s;
    CHECK(rewrite_address(client, arena, (struct str){ big, 100000 }, STR("x"), DEADLINE, &s) != NULL);
}

static void test_hostile_questions(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_questions / sizeof bad_questions[0]; i++) {
        struct frame f = bad_questions[i];
        run_with_arena(ask_badly, serve, &f);
    }
    run_with_arena(ask_too_long, serve, NULL);
}

/* Answers that fit none of the three questions. */
static const struct frame bad_answers[] = {
    { REWRITE_MSG_REWRITE, BYTES("\1\0\0\0a") },
    { REWRITE_MSG_REPLY, BYTES("") },
    { REWRITE_MSG_REPLY, BYTES("\2") },
    { REWRITE_MSG_REPLY, BYTES("\1") },
    { REWRITE_MSG_REPLY, BYTES("\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0") },                          /* kind 0 */
    { REWRITE_MSG_REPLY, BYTES("\1\11\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0") }, /* rest */
    { REWRITE_MSG_REPLY, BYTES("\1\11\377\377\0\0\0\0\0\0\0\0\0\0\0\0\0\0") },                     /* code */
    { REWRITE_MSG_REPLY, BYTES("\0\6\0\0\0\0\0\0\0\0\0\0\0\0\0") },                                /* class */
    { REWRITE_MSG_REPLY, BYTES("\0\0\0\0\0\0\0\0\0\0\0\0\0\0") },
};

static void expect_malformed(void *arg) {
    (void)arg;
    struct str s;
    struct route r;
    error refused;
    CHECK(rewrite_address(client, arena, STR("a"), STR("b"), DEADLINE, &s) != NULL);
    CHECK(rewrite_resolve(client, arena, STR("a"), STR("b"), DEADLINE, &r, &refused) != NULL);
    CHECK(rewrite_validate(client, arena, true, STR("a"), DEADLINE, &refused) != NULL);
}

static void answer_badly(void *arg) {
    const struct frame *f = arg;
    struct ipc_msg m;
    for (int i = 0; i < 3; i++) {
        CHECK(ipc_recv(server, DEADLINE, &m) == NULL);
        ipc_send(server, f->type, (struct str){ f->bytes, f->n }, -1);
        CHECK(ipc_flush(server, DEADLINE) == NULL);
    }
}

static void test_hostile_answers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_answers / sizeof bad_answers[0]; i++) {
        struct frame f = bad_answers[i];
        run_with_arena(expect_malformed, answer_badly, &f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_hostile_questions),
        cmocka_unit_test(test_hostile_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
