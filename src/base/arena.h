/* arena.h - memory whose lifetime ends in one call: one arena per session, per message, per queue scan.
 *
 * An arena is not shared between threads. Out of memory ends the process (base/die.h): input limits have said no
 * long before, and the queue survives any death. A zero-length request gives a valid pointer. */
#ifndef ANGARIUM_BASE_ARENA_H
#define ANGARIUM_BASE_ARENA_H

#include "base/str.h"
#include <stdarg.h>

struct arena;

struct arena *arena_new(void);
/* NULL is allowed. */
void arena_free(struct arena *a);
/* Everything given out so far is gone; the first block is kept. For each round of a long loop. */
void arena_reset(struct arena *a);
/* Bytes handed out since the start or the last reset: for limits per session. */
size_t arena_used(const struct arena *a);

void *arena_alloc(struct arena *a, size_t n);                  /* 16-byte aligned, not cleared */
void *arena_zalloc(struct arena *a, size_t n);                 /* cleared */
void *arena_array(struct arena *a, size_t count, size_t size); /* cleared; the product is checked */
/* A copy with a NUL behind it (not counted), so that `.p` may go to C functions. */
struct str arena_str(struct arena *a, struct str s);
char *arena_cstr(struct arena *a, struct str s);
/* The copy in ASCII lower case. */
struct str arena_lower(struct arena *a, struct str s);
struct str arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct str arena_vprintf(struct arena *a, const char *format, va_list ap) __attribute__((format(printf, 2, 0)));
/* `a` followed by `b`. */
struct str arena_cat(struct arena *ar, struct str a, struct str b);

#define ARENA_NEW(arena, type) ((type *)arena_zalloc((arena), sizeof(type)))

/* A growing array in an arena: `VEC(struct rcpt *) v = {0}; *vec_add(arena, &v) = r;` Old storage stays in the
 * arena until it is freed, which doubling keeps below the size of the last one. */
#define VEC(type)                                                                                                      \
    struct {                                                                                                           \
        type *at;                                                                                                      \
        size_t n, room;                                                                                                \
    }
#define vec_add(arena, v)                                                                                              \
    ((v)->n == (v)->room ? (void)((v)->at = vec_grow((arena), (v)->at, &(v)->room, (v)->n, sizeof(*(v)->at)))          \
                         : (void)0,                                                                                    \
     &(v)->at[(v)->n++])
void *vec_grow(struct arena *a, void *old, size_t *room, size_t used, size_t size);
#endif
