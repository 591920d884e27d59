/* internal: - a table in the memory of this process, empty at its start. The name is for the log only: two tables of
 * one name are two tables. */
#include "base/die.h"
#include "table/table_impl.h"
#include <stdlib.h>

struct internal {
    struct entry **at; /* in the order of the keys, for table_next() */
    size_t n, room;
};
struct entry {
    struct str key, value; /* behind the struct, each with a NUL byte */
};

/* What is kept must outlive a reopening, which this type never has: no file is watched. */
static error internal_open(struct table *t) {
    t->state = ARENA_NEW(t->gen, struct internal);
    return NULL;
}

static void internal_close(struct table *t) {
    struct internal *s = t->state;
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++)
        free(s->at[i]);
    free(s->at);
}

/* The first entry whose key is not below `key`. */
static size_t position(const struct internal *s, struct str key, bool *ret_equal) {
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (str_cmp(s->at[middle]->key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_equal = low < s->n && str_eq(s->at[low]->key, key);
    return low;
}

static enum table_result internal_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    const struct internal *s = t->state;
    bool equal;
    size_t i = position(s, key, &equal);
    if (!equal)
        return TABLE_NOT_FOUND;
    *ret_value = arena_str(a, s->at[i]->value);
    return TABLE_FOUND;
}

static struct entry *entry_new(struct str key, struct str value) {
    struct entry *e = malloc(sizeof *e + key.n + value.n + 2);
    if (!e)
        die_no_memory(sizeof *e + key.n + value.n + 2);
    char *p = (char *)(e + 1);
    memcpy(p, key.p, key.n);
    p[key.n] = 0;
    e->key = str_n(p, key.n);
    p += key.n + 1;
    if (value.n)
        memcpy(p, value.p, value.n);
    p[value.n] = 0;
    e->value = str_n(p, value.n);
    return e;
}

static enum table_result internal_put(struct table *t, struct str key, struct str value) {
    struct internal *s = t->state;
    bool equal;
    size_t i = position(s, key, &equal);
    struct entry *e = entry_new(key, value);
    if (equal) {
        free(s->at[i]);
        s->at[i] = e;
        return TABLE_FOUND;
    }
    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 64;
        s->at = reallocarray(s->at, s->room, sizeof(struct entry *));
        if (!s->at)
            die_no_memory(s->room * sizeof(struct entry *));
    }
    memmove(s->at + i + 1, s->at + i, (s->n - i) * sizeof(struct entry *));
    s->at[i] = e;
    s->n++;
    return TABLE_FOUND;
}

static enum table_result internal_delete(struct table *t, struct str key) {
    struct internal *s = t->state;
    bool equal;
    size_t i = position(s, key, &equal);
    if (!equal)
        return TABLE_NOT_FOUND;
    free(s->at[i]);
    s->n--;
    memmove(s->at + i, s->at + i + 1, (s->n - i) * sizeof(struct entry *));
    return TABLE_FOUND;
}

static enum table_result internal_next(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                                       struct str *ret_value) {
    const struct internal *s = t->state;
    bool equal;
    size_t i = position(s, after, &equal);
    i += equal;
    if (i >= s->n)
        return TABLE_NOT_FOUND;
    *ret_key = arena_str(a, s->at[i]->key);
    *ret_value = arena_str(a, s->at[i]->value);
    return TABLE_FOUND;
}

const struct table_type table_type_internal = {
    .name = STR_INIT("internal"),
    .fixed = true,
    .listable = true,
    .open = internal_open,
    .get = internal_get,
    .close = internal_close,
    .put = internal_put,
    .del = internal_delete,
    .next = internal_next,
};
