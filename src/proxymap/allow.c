#include "proxymap/allow.h"

#include "base/die.h"
#include "base/map.h"
#include "conf/settings.h"
#include <stdlib.h>

struct allow {
    struct arena *arena;
    struct map read, write, direct, caches; /* spec -> itself; `caches`: those of `direct` that may be written */
};

#define PROXY STR("proxy:")

static void add(struct allow *a, struct map *m, struct str spec) {
    if (map_get(m, spec))
        return;
    spec = arena_str(a->arena, spec);
    map_put(m, spec, (void *)(uintptr_t)spec.p); /* any pointer that is not NULL */
}

/* Is there a table in this word? proxy:spec, or the spec of a server. */
static void look_at(struct allow *a, struct map *proxied, bool is_cache, struct str word) {
    bool by_proxy = false;
    while (str_starts(word, PROXY)) {
        word = str_from(word, PROXY.n);
        by_proxy = true;
    }
    if (by_proxy && proxied)
        add(a, proxied, word);
    ptrdiff_t colon = str_index(word, ':');
    if (colon <= 0 || !table_type_is_server(str_sub(word, 0, (size_t)colon)))
        return;
    add(a, &a->direct, word);
    if (is_cache)
        add(a, &a->caches, word);
}

/* All words of a value, and those inside braces: unionmap:{proxy:mysql:/a, ldap:/b}. An outer word counts whole, too.
 */
static void collect(struct allow *a, struct map *proxied, bool is_cache, struct str value) {
    struct str rest = value, word;
    while (str_word_braced(&rest, STR_COMMA_SPACE, &word)) {
        look_at(a, proxied, is_cache, word);
        ptrdiff_t open = str_index(word, '{');
        if (open < 0)
            continue;
        struct str inside = str_from(word, (size_t)open), piece;
        while (str_word(&inside, STR("{}, \t\r\n"), &piece))
            look_at(a, proxied, is_cache, piece);
    }
}

/* Tables that daemons write to. In any other they would write what all believe. */
static bool is_cache_parameter(struct str name) {
    return str_ends(name, STR("_cache_database")) || str_ends(name, STR("_cache_map")) ||
           str_ends(name, STR("_cache_name")) || str_eq(name, STR("address_verify_map"));
}

static void collect_setting(struct allow *a, const struct conf *c, struct str name, struct str value) {
    struct arena *scratch = arena_new();
    struct str expanded;
    if (!conf_expand(c, value, scratch, &expanded))
        collect(a, NULL, is_cache_parameter(name), expanded);
    arena_free(scratch);
}

struct allow *allow_new(const struct conf *c, const struct master_cf *services) {
    struct allow *a = calloc(1, sizeof *a);
    if (!a)
        die_no_memory(sizeof *a);
    a->arena = arena_new();
    collect(a, &a->read, false, conf_str(c, PARAM_proxy_read_maps));
    collect(a, &a->write, false, conf_str(c, PARAM_proxy_write_maps));
    struct arena *scratch = arena_new();
    const struct setting **settings;
    size_t n = conf_settings(c, scratch, &settings);
    for (size_t i = 0; i < n; i++)
        collect_setting(a, c, settings[i]->name, settings[i]->value);
    for (size_t i = 0; services && i < services->count; i++)
        for (size_t o = 0; o < services->entries[i].override_count; o++)
            collect_setting(a, c, services->entries[i].overrides[o].name, services->entries[i].overrides[o].value);
    arena_free(scratch);
    return a;
}

void allow_free(struct allow *a) {
    if (!a)
        return;
    map_free(&a->read);
    map_free(&a->write);
    map_free(&a->direct);
    map_free(&a->caches);
    arena_free(a->arena);
    free(a);
}

bool allow_question(const struct allow *a, const struct table_question *q) {
    bool writes = q->flags & TABLE_WRITE;
    if (q->what != TABLE_ASK_GET && !writes)
        return false;
    if (q->proxied)
        return map_get(writes ? &a->write : &a->read, q->spec);
    if (writes)
        return map_get(&a->caches, q->spec);
    return map_get(&a->direct, q->spec) || str_eq(q->spec, STR("unix:passwd.byname")) ||
           str_eq(q->spec, STR("unix:group.byname"));
}
