#include "smtpd/answers.h"

#include "run/sys.h"

static error err_copy(struct arena *a, error e) {
    if (!e)
        return NULL;
    struct err *copy = ARENA_NEW(a, struct err);
    *copy = *e;
    copy->dsn = arena_str(a, e->dsn);
    copy->text = arena_str(a, e->text);
    copy->detail = arena_str(a, e->detail);
    return copy;
}

static struct route_check check_copy(struct arena *a, const struct route_check *c) {
    struct route_check copy = *c;
    copy.unroutable = err_copy(a, c->unroutable);
    copy.unlisted = err_copy(a, c->unlisted);
    return copy;
}

static struct str key_of(struct arena *a, const struct route_question *q) {
    size_t sender = q->sender.n; /* in front, so that no two questions have the same key */
    char *p = arena_alloc(a, sizeof sender + 2 + sender + q->address.n);
    memcpy(p, &sender, sizeof sender);
    size_t n = sizeof sender;
    p[n++] = q->is_sender ? 's' : 'r';
    p[n++] = (char)('0' + q->want);
    if (sender)
        memcpy(p + n, q->sender.p, sender);
    n += sender;
    if (q->address.n)
        memcpy(p + n, q->address.p, q->address.n);
    return str_n(p, n + q->address.n);
}

void answers_free(struct answers *c) {
    arena_free(c->arena);
    map_free(&c->map);
    *c = (struct answers){ 0 };
}

/* Their time is over: also when a clock stood still and goes on from somewhere else. */
static bool stale(const struct answers *c) {
    int64_t age = sys->mono_us() - c->born;
    return age < 0 || age >= ANSWERS_LIFE_US;
}

bool answers_get(struct answers *c, const struct route_question *q, struct arena *a, struct route_check *ret) {
    if (c->map.n == 0 || stale(c))
        return false;
    const struct route_check *found = map_get(&c->map, key_of(a, q));
    if (found)
        *ret = check_copy(a, found);
    return found;
}

static bool sure(error e) {
    return !e || e->kind == ERR_PERM;
}

void answers_put(struct answers *c, const struct route_question *q, const struct route_check *answer) {
    if (!sure(answer->unroutable) || !sure(answer->unlisted))
        return;
    if (c->map.n >= ANSWERS_MAX || (c->map.n > 0 && stale(c)))
        answers_free(c);
    if (c->map.n == 0) {
        answers_free(c);
        c->arena = arena_new();
        c->born = sys->mono_us();
    }
    struct route_check *kept = ARENA_NEW(c->arena, struct route_check);
    *kept = check_copy(c->arena, answer);
    map_put(&c->map, key_of(c->arena, q), kept);
}
