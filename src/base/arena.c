#include "base/arena.h"

#include "base/die.h"
#include "base/format.h"
#include <stdlib.h>

enum {
    FIRST_SIZE = 1024, /* an arena with its first block: what C libraries give out and take back the fastest */
    BLOCK_MIN = 2048,
    BLOCK_MAX = 256 * 1024,
    ALIGN = 16,
};

struct block {
    struct block *next;
    size_t size, used; /* of data[] */
    _Alignas(ALIGN) char data[];
};

struct arena {
    struct block *head; /* the one being filled */
    size_t used, next_size;
    struct block first; /* the last in the list; goes with the arena */
};

static struct block *block_new(size_t size) {
    if (size > SIZE_MAX - sizeof(struct block))
        die_no_memory(size);
    struct block *b = malloc(sizeof *b + size);
    if (!b)
        die_no_memory(size);
    b->next = NULL;
    b->size = size;
    b->used = 0;
    return b;
}

struct arena *arena_new(void) {
    struct arena *a = malloc(FIRST_SIZE);
    if (!a)
        die_no_memory(FIRST_SIZE);
    a->head = &a->first;
    a->used = 0;
    a->next_size = BLOCK_MIN;
    a->first.next = NULL;
    a->first.size = FIRST_SIZE - offsetof(struct arena, first.data);
    a->first.used = 0;
    return a;
}

static void free_all_but_first(struct arena *a) {
    while (a->head != &a->first) {
        struct block *b = a->head;
        a->head = b->next;
        free(b);
    }
}

void arena_free(struct arena *a) {
    if (!a)
        return;
    free_all_but_first(a);
    free(a);
}

void arena_reset(struct arena *a) {
    free_all_but_first(a);
    a->first.used = 0;
    a->used = 0;
    a->next_size = BLOCK_MIN;
}

size_t arena_used(const struct arena *a) {
    return a->used;
}

void *arena_alloc(struct arena *a, size_t n) {
    if (n > SIZE_MAX / 2)
        die_no_memory(n);
    size_t need = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    struct block *b = a->head;
    if (b->size - b->used < need) {
        size_t size = a->next_size;
        if (size < need)
            size = need;
        b = block_new(size);
        b->next = a->head;
        a->head = b;
        if (a->next_size < BLOCK_MAX)
            a->next_size *= 2;
    }
    void *p = b->data + b->used;
    b->used += need;
    a->used += n;
    return p;
}

void *arena_zalloc(struct arena *a, size_t n) {
    void *p = arena_alloc(a, n);
    memset(p, 0, n);
    return p;
}

void *arena_array(struct arena *a, size_t count, size_t size) {
    size_t n;
    if (__builtin_mul_overflow(count, size, &n))
        die_no_memory(SIZE_MAX);
    return arena_zalloc(a, n);
}

char *arena_cstr(struct arena *a, struct str s) {
    char *p = arena_alloc(a, s.n + 1);
    if (s.n) /* a zeroed struct str has no pointer */
        memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return p;
}

struct str arena_str(struct arena *a, struct str s) {
    return (struct str){ arena_cstr(a, s), s.n };
}

struct str arena_lower(struct arena *a, struct str s) {
    char *p = arena_cstr(a, s);
    for (size_t i = 0; i < s.n; i++)
        p[i] = byte_lower(p[i]);
    return (struct str){ p, s.n };
}

struct str arena_cat(struct arena *ar, struct str a, struct str b) {
    char *p = arena_alloc(ar, a.n + b.n + 1);
    if (a.n)
        memcpy(p, a.p, a.n);
    if (b.n)
        memcpy(p + a.n, b.p, b.n);
    p[a.n + b.n] = 0;
    return (struct str){ p, a.n + b.n };
}

struct str arena_vprintf(struct arena *a, const char *format, va_list ap) {
    va_list again;
    va_copy(again, ap);
    char *there = a->head->data + a->head->used; /* mostly there is room: formatted once */
    int n = format_v(there, a->head->size - a->head->used, format, again);
    va_end(again);
    if (n < 0)
        die("arena_printf: bad format or over-long result");
    char *p = arena_alloc(a, (size_t)n + 1);
    if (p != there)
        format_v(p, (size_t)n + 1, format, ap);
    return (struct str){ p, (size_t)n };
}

struct str arena_printf(struct arena *a, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    struct str s = arena_vprintf(a, format, ap);
    va_end(ap);
    return s;
}

void *vec_grow(struct arena *a, void *old, size_t *room, size_t used, size_t size) {
    size_t want = *room ? *room : 4, bytes;
    if (__builtin_mul_overflow(want, 2, &want) || __builtin_mul_overflow(want, size, &bytes))
        die_no_memory(SIZE_MAX);
    void *p = arena_alloc(a, bytes);
    if (used)
        memcpy(p, old, used * size);
    *room = want;
    return p;
}
