#include "qmgr/heap.h"

#include "base/die.h"
#include <stdbool.h>
#include <stdlib.h>

void heap_free(struct heap *h) {
    free(h->nodes);
    *h = (struct heap){ 0 };
}

static bool before(const struct heap_node *a, const struct heap_node *b) {
    return a->key < b->key || (a->key == b->key && a->tie < b->tie);
}

static void put(struct heap *h, size_t at, struct heap_node *node) {
    h->nodes[at] = node;
    node->at = at + 1;
}

/* To where it belongs, from place `at`, which is free. */
static void settle(struct heap *h, size_t at, struct heap_node *node) {
    while (at > 0 && before(node, h->nodes[(at - 1) / 2])) {
        put(h, at, h->nodes[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (size_t child; (child = 2 * at + 1) < h->n; at = child) {
        if (child + 1 < h->n && before(h->nodes[child + 1], h->nodes[child]))
            child++;
        if (!before(h->nodes[child], node))
            break;
        put(h, at, h->nodes[child]);
    }
    put(h, at, node);
}

void heap_in(struct heap *h, struct heap_node *node) {
    if (h->n == h->room) {
        size_t room = h->room ? 2 * h->room : 4;
        struct heap_node **grown = realloc(h->nodes, room * sizeof *grown);
        if (!grown)
            die_no_memory(room * sizeof *grown);
        h->nodes = grown;
        h->room = room;
    }
    settle(h, h->n++, node);
}

void heap_out(struct heap *h, struct heap_node *node) {
    size_t at = node->at - 1;
    struct heap_node *last = h->nodes[--h->n];
    node->at = 0;
    if (last != node)
        settle(h, at, last);
}

void heap_moved(struct heap *h, struct heap_node *node) {
    settle(h, node->at - 1, node);
}

struct heap_node *heap_first_but(const struct heap *h, const struct heap_node *node) {
    if (h->n == 0 || h->nodes[0] != node)
        return heap_first(h);
    if (h->n < 3)
        return h->n == 2 ? h->nodes[1] : NULL;
    return before(h->nodes[2], h->nodes[1]) ? h->nodes[2] : h->nodes[1];
}
