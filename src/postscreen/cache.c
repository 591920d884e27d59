#include "postscreen/cache.h"

#include "base/log.h"

struct cache {
    const struct settings *set;
    struct table *table; /* NULL: none */
};

enum { CLEAN_BATCH = 64 /* entries between two turns of the others */ };

struct cache *cache_open(const struct settings *s) {
    struct cache *c = arena_zalloc(s->arena, sizeof *c);
    c->set = s;
    if (s->cache_map.n == 0)
        return c;
    c->table = table_open(s->conf, s->cache_map, TABLE_WRITE);
    error e = table_error(c->table);
    if (e)
        log_warn("postscreen_cache_map: %.*s: %.*s -- clients are tested each time they come", STR_ARG(s->cache_map),
                 STR_ARG(e->text));
    return c;
}

void cache_close(struct cache *c) {
    if (c && c->table)
        table_close(c->table);
}

/* "1;2;3;4;5": an older process may have known fewer tests. */
static bool parse(struct str text, struct passes *ret) {
    struct str field;
    struct passes p = { 0 };
    for (int i = 0; i < TESTS && str_next(&text, STR(";"), &field); i++)
        if (!str_to_i64(field, 0, INT64_MAX, &p.until[i]))
            return false;
    *ret = p;
    return true;
}

void cache_get(struct cache *c, struct str address, struct passes *ret) {
    *ret = (struct passes){ 0 };
    if (!c->table)
        return;
    struct arena *a = arena_new();
    struct str value;
    if (table_get(c->table, address, a, &value) == TABLE_FOUND && !parse(value, ret))
        log_warn("postscreen_cache_map: malformed entry for %.*s is ignored", STR_ARG(address));
    arena_free(a);
}

void cache_put(struct cache *c, struct str address, const struct passes *p) {
    if (!c->table)
        return;
    struct buf b = { 0 };
    for (int i = 0; i < TESTS; i++)
        buf_printf(&b, i ? ";%lld" : "%lld", (long long)p->until[i]);
    if (table_put(c->table, address, buf_str(&b)) == TABLE_ERROR) {
        error e = table_error(c->table);
        log_warn("postscreen_cache_map: %.*s: %.*s", STR_ARG(c->set->cache_map),
                 STR_ARG(e ? e->text : STR("cannot be written")));
    }
    buf_free(&b);
}

static bool outlived(struct str value, int64_t limit) {
    struct passes p;
    if (!parse(value, &p))
        return true;
    for (int i = 0; i < TESTS; i++)
        if (p.until[i] > limit)
            return false;
    return true;
}

void cache_clean(struct cache *c, int64_t now) {
    if (!c->table)
        return;
    struct buf last = { 0 };
    unsigned retained = 0, dropped = 0;
    for (unsigned n = 1; !coro_cancelled(); n++) {
        struct arena *a = arena_new();
        struct str key, value;
        bool more = table_next(c->table, buf_str(&last), a, &key, &value) == TABLE_FOUND;
        if (more) {
            buf_clear(&last);
            buf_add(&last, key);
            if (outlived(value, now - c->set->cache_retention) && table_delete(c->table, key) == TABLE_FOUND)
                dropped++;
            else
                retained++;
        }
        arena_free(a);
        if (!more)
            break;
        if (n % CLEAN_BATCH == 0)
            coro_yield();
    }
    buf_free(&last);
    log_info("cache %.*s full cleanup: retained=%u dropped=%u entries", STR_ARG(c->set->cache_map), retained, dropped);
}
