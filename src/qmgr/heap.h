/* heap.h - a binary heap of nodes that live in their owners, smallest key first. A node is in one heap at a time, and
 * `{0}` is in none; so is an empty heap. Nothing is owned but the array of pointers. */
#ifndef ANGARIUM_QMGR_HEAP_H
#define ANGARIUM_QMGR_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct heap_node {
    int64_t key;
    uint64_t tie; /* smaller first among equal keys */
    size_t at;    /* place in the heap + 1; 0: in none */
};

struct heap {
    struct heap_node **nodes;
    size_t n, room;
};

void heap_free(struct heap *h);
/* `node` is in no heap; key and tie are set. */
void heap_in(struct heap *h, struct heap_node *node);
/* `node` is in this heap. */
void heap_out(struct heap *h, struct heap_node *node);
/* Its key or tie has changed. */
void heap_moved(struct heap *h, struct heap_node *node);
static inline struct heap_node *heap_first(const struct heap *h) { /* NULL: empty */
    /* The analyser cannot know that heap_out() has taken out what was freed. */
    return h->n ? h->nodes[0] : NULL; // NOLINT(clang-analyzer-unix.Malloc)
}
/* The smallest but for `node`, which may be in any heap or none. */
struct heap_node *heap_first_but(const struct heap *h, const struct heap_node *node);

/* The struct that `node` is the member `member` of. */
#define HEAP_OWNER(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))
#endif
