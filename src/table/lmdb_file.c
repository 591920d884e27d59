#include "table/lmdb_file.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE_MIN = 512,
    PAGE_MAX = 65536,
    PAGE_HEADER = 16,
    NODE_HEADER = 8,
    DEPTH_MAX = 32, /* LMDB's own */
    META_MAGIC_AT = 16,
    META_MAPSIZE_AT = 32,
    META_DBS_AT = 40,
    META_DB_SIZE = 48,
    META_LAST_PAGE_AT = META_DBS_AT + 2 * META_DB_SIZE,
    META_TXN_AT = META_LAST_PAGE_AT + 8,
    META_END = META_TXN_AT + 8,
    PAGE_BRANCH = 1,
    PAGE_LEAF = 2,
    PAGE_OVERFLOW = 4,
    PAGE_META = 8,
    NODE_BIG = 1, /* the value is in overflow pages */
    RETRIES_MAX = 1000,
    CACHE_LINE = 64,
};
static const uint32_t magic = 0xBEEFC0DE;
static const uint64_t no_page = UINT64_MAX;

static uint16_t get16(const unsigned char *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static uint32_t get32(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static uint64_t get64(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* --- the state a look-up reads --- */

struct state {
    uint64_t txn, root, free_root, last_page;
    size_t page_size;
    unsigned depth;
    bool special; /* duplicate or reversed keys: no table of ours */
};

static bool meta_read(const struct lmdb_file *f, size_t at, struct state *ret) {
    if (f->map.n < META_END || at > f->map.n - META_END)
        return false;
    unsigned char m[META_END];
    memcpy(m, f->map.p + at, sizeof m);
    if (!(get16(m + 10) & PAGE_META) || get32(m + META_MAGIC_AT) != magic || get32(m + META_MAGIC_AT + 4) != 1)
        return false;
    const unsigned char *db = m + META_DBS_AT + META_DB_SIZE;
    *ret = (struct state){
        .txn = get64(m + META_TXN_AT),
        .root = get64(db + 40),
        .free_root = get64(m + META_DBS_AT + 40),
        .last_page = get64(m + META_LAST_PAGE_AT),
        .page_size = get32(m + META_DBS_AT),
        .depth = get16(db + 6),
        .special = get16(db + 4) != 0,
    };
    return ret->page_size >= PAGE_MIN && ret->page_size <= PAGE_MAX && (ret->page_size & (ret->page_size - 1)) == 0;
}

static bool state_read(const struct lmdb_file *f, struct state *ret) {
    struct state first, second;
    /* Both, or the file was cut short: the older one is that of an empty table at first. */
    if (!meta_read(f, 0, &first) || !meta_read(f, first.page_size, &second) || second.page_size != first.page_size)
        return false;
    *ret = second.txn > first.txn ? second : first;
    return true;
}

/* --- pages --- */

struct page {
    const unsigned char *p;
    size_t count; /* nodes */
    bool leaf;
};

/* The file grows under its readers. */
static bool map_has(struct lmdb_file *f, uint64_t page, uint64_t count, size_t page_size) {
    uint64_t pages = f->map.n / page_size;
    return page < pages && count <= pages - page;
}

static const char *page_at(struct lmdb_file *f, const struct state *s, uint64_t number, struct page *ret) {
    if (number < 2 || number > s->last_page || !map_has(f, number, 1, s->page_size))
        return "a page lies outside of the file";
    const unsigned char *p = f->map.p + number * s->page_size;
    uint16_t flags = get16(p + 10), lower = get16(p + 12), upper = get16(p + 14);
    bool leaf = flags & PAGE_LEAF;
    if (leaf == ((flags & PAGE_BRANCH) != 0) || (flags & (PAGE_OVERFLOW | PAGE_META | 0x60)))
        return "a page is not of the kind expected";
    if (lower < PAGE_HEADER || lower > upper || upper > s->page_size || (lower & 1))
        return "a page is malformed";
    *ret = (struct page){ p, (size_t)(lower - PAGE_HEADER) / 2, leaf };
    if (ret->count < (leaf ? 1u : 2u))
        return "a page is empty";
    return NULL;
}

struct node {
    struct str key;
    uint64_t child;      /* of a branch */
    uint32_t value_size; /* of a leaf */
    unsigned flags;
    const unsigned char *value;
    size_t room; /* bytes of the page from `value` on */
};

static bool node_at(const struct state *s, const struct page *p, size_t i, struct node *ret) {
    size_t at = get16(p->p + PAGE_HEADER + 2 * i);
    if (at < PAGE_HEADER + 2 * p->count || at > s->page_size - NODE_HEADER)
        return false;
    const unsigned char *n = p->p + at;
    uint32_t low = get16(n), high = get16(n + 2), flags = get16(n + 4);
    size_t key_size = get16(n + 6), room = s->page_size - at - NODE_HEADER;
    if (key_size > room)
        return false;
    *ret = (struct node){ .key = str_n((const char *)n + NODE_HEADER, key_size),
                          .child = low | (uint64_t)high << 16 | (uint64_t)flags << 32,
                          .value_size = low | high << 16,
                          .flags = flags,
                          .value = n + NODE_HEADER + key_size,
                          .room = room - key_size };
    return true;
}

/* Where the first node is whose key is not below the one sought: at `low`, once `high` is the same. */
struct range {
    size_t low, high;
    bool equal; /* it is that key */
};

/* Of a branch the first key counts as lower than any. */
static struct range whole_page(const struct page *p) {
    return (struct range){ .low = p->leaf ? 0 : 1, .high = p->count };
}

static size_t middle_of(const struct range *r) {
    return (r->low + r->high) / 2;
}

/* One comparison. False: malformed. */
static bool narrow(const struct state *s, const struct page *p, struct str key, struct range *r) {
    size_t middle = middle_of(r);
    struct node n;
    if (!node_at(s, p, middle, &n))
        return false;
    int order = str_cmp(n.key, key);
    r->equal = order == 0;
    r->low = order < 0 ? middle + 1 : order == 0 ? middle : r->low;
    r->high = order < 0 ? r->high : middle;
    return true;
}

/* Index of the first node whose key is not below `key`; `*ret_equal`: it is that key. `count` when all are below; -1:
 * malformed. */
static ptrdiff_t page_search(const struct state *s, const struct page *p, struct str key, bool *ret_equal) {
    struct range r = whole_page(p);
    while (r.low < r.high)
        if (!narrow(s, p, key, &r))
            return -1;
    *ret_equal = r.equal;
    return (ptrdiff_t)r.low;
}

static const char *value_of(struct lmdb_file *f, const struct state *s, const struct node *n, struct str *ret) {
    if (n->flags & ~(unsigned)NODE_BIG)
        return "an entry is of a kind that tables do not have";
    if (!(n->flags & NODE_BIG)) {
        if (n->value_size > n->room)
            return "an entry is malformed";
        *ret = str_n((const char *)n->value, n->value_size);
        return NULL;
    }
    if (n->room < 8)
        return "an entry is malformed";
    uint64_t first = get64(n->value), pages = ((uint64_t)PAGE_HEADER + n->value_size + s->page_size - 1) / s->page_size;
    if (first < 2 || first > s->last_page || pages > s->last_page - first + 1 ||
        !map_has(f, first, pages, s->page_size))
        return "a long value lies outside of the file";
    const unsigned char *p = f->map.p + first * s->page_size;
    if (!(get16(p + 10) & PAGE_OVERFLOW) || get32(p + 12) < pages)
        return "a long value is malformed";
    *ret = str_n((const char *)p + PAGE_HEADER, n->value_size);
    return NULL;
}

/* --- one look-up in one state --- */

struct search {
    struct str key;
    bool next, from_start; /* instead of the key itself: what comes behind it; the first of all */
    struct node found;
    bool have;
};

static const char *search_state(struct lmdb_file *f, const struct state *s, struct search *q) {
    q->have = false;
    if (s->special)
        return "it is not a table";
    if (s->root == no_page)
        return NULL;
    uint64_t number = s->root, right = no_page; /* `right`: the nearest subtree behind the path taken */
    unsigned right_level = 0;
    bool leftmost = q->from_start;
    for (unsigned level = 1; level <= DEPTH_MAX; level++) {
        struct page p;
        const char *fault = page_at(f, s, number, &p);
        if (fault)
            return fault;
        bool equal = false;
        ptrdiff_t at = leftmost ? 0 : page_search(s, &p, q->key, &equal);
        if (at < 0)
            return "a page is malformed";
        size_t i = (size_t)at;
        if (!p.leaf) {
            if (!leftmost && !equal)
                i--;
            struct node n, behind;
            if (!node_at(s, &p, i, &n) || (i + 1 < p.count && !node_at(s, &p, i + 1, &behind)))
                return "a page is malformed";
            if (q->next && i + 1 < p.count) {
                right = behind.child;
                right_level = level;
            }
            number = n.child;
            continue;
        }
        if (q->next && !leftmost && equal)
            i++;
        if (i < p.count) {
            if (!node_at(s, &p, i, &q->found))
                return "a page is malformed";
            q->have = q->next || equal;
            if (q->next && !q->from_start && str_cmp(q->found.key, q->key) <= 0)
                return "the keys are not in order"; /* whoever lists them would go round for ever */
            return NULL;
        }
        if (!q->next || right == no_page)
            return NULL;
        number = right;
        right = no_page;
        leftmost = true;
        level = right_level; /* each time with one subtree less to the right, so this ends */
    }
    return "the tree is too deep";
}

/* A file that has got longer is mapped anew. */
static const char *map_anew(struct lmdb_file *f) {
    struct stat st;
    if (fstat(f->fd, &st) != 0)
        return strerror(errno);
    if ((uint64_t)st.st_size == f->map.n && !filemap_broken(&f->map))
        return NULL;
    filemap_end(&f->map);
    int rc = filemap_start(&f->map, f->fd, (size_t)st.st_size);
    return rc ? strerror(rc) : NULL;
}

static enum lmdb_file_result search(struct lmdb_file *f, struct search *q, struct arena *a, struct str *ret_key,
                                    struct str *ret_value) {
    for (int i = 0; i < RETRIES_MAX; i++) {
        struct state s, after;
        if (i > 0) {
            sched_yield();
            if ((f->fault = map_anew(f)))
                return LMDB_FILE_FAULT;
        }
        if (!state_read(f, &s)) {
            f->fault = "it has no valid header";
            continue; /* of a file that is being written: there is one soon */
        }
        f->fault = search_state(f, &s, q);
        struct str key = STR(""), value = STR("");
        if (!f->fault && q->have && !(f->fault = value_of(f, &s, &q->found, &value))) {
            if (ret_key)
                key = arena_str(a, q->found.key);
            value = arena_str(a, value);
        }
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        bool same = state_read(f, &after) && after.txn == s.txn && after.root == s.root;
        if (filemap_broken(&f->map)) {
            f->fault = "it was cut short while it was read";
            continue;
        }
        if (!same)
            continue;
        if (f->fault) {
            if (i < 2) /* longer than its map, perhaps */
                continue;
            return LMDB_FILE_FAULT;
        }
        if (!q->have)
            return LMDB_FILE_NOT_FOUND;
        if (ret_key)
            *ret_key = key;
        *ret_value = value;
        return LMDB_FILE_FOUND;
    }
    if (!f->fault)
        f->fault = "it changes too fast";
    return LMDB_FILE_FAULT;
}

enum lmdb_file_result lmdb_file_get(struct lmdb_file *f, struct str key, struct arena *a, struct str *ret_value) {
    struct search q = { .key = key };
    return search(f, &q, a, NULL, ret_value);
}

enum lmdb_file_result lmdb_file_next(struct lmdb_file *f, bool from_start, struct str after, struct arena *a,
                                     struct str *ret_key, struct str *ret_value) {
    struct search q = { .key = after, .next = true, .from_start = from_start };
    return search(f, &q, a, ret_key, ret_value);
}

/* --- look-ups announced --- */

/* One of several that go down the tree side by side, so that they wait for memory together. */
struct descent {
    struct str key;
    uint64_t number;
    struct page page;
    struct range range;
    bool over;
};

static void descent_prefetch_page(struct lmdb_file *f, const struct state *s, const struct descent *d) {
    if (!map_has(f, d->number, 1, s->page_size))
        return;
    const unsigned char *p = f->map.p + d->number * s->page_size;
    for (size_t i = 0; i < 4; i++) /* the numbers of its nodes, if they are not exceptionally many */
        __builtin_prefetch(p + i * CACHE_LINE);
}

static void descent_prefetch_node(const struct state *s, const struct descent *d, size_t i) {
    size_t at = i < d->page.count ? get16(d->page.p + PAGE_HEADER + 2 * i) : 0;
    if (at < s->page_size - CACHE_LINE) {
        __builtin_prefetch(d->page.p + at);
        __builtin_prefetch(d->page.p + at + CACHE_LINE);
    }
}

static void descents_narrow(const struct state *s, struct descent *all, size_t n) {
    for (bool more = true; more;) {
        more = false;
        for (struct descent *d = all; d < all + n; d++) {
            if (d->over || d->range.low >= d->range.high)
                continue;
            d->over = !narrow(s, &d->page, d->key, &d->range);
            descent_prefetch_node(s, d, middle_of(&d->range));
            more = true;
        }
    }
}

void lmdb_file_expect(struct lmdb_file *f, const struct str *keys, size_t n) {
    struct descent all[LMDB_FILE_EXPECT_MAX];
    struct state s;
    if (n > LMDB_FILE_EXPECT_MAX)
        n = LMDB_FILE_EXPECT_MAX;
    if (!state_read(f, &s) || s.special || s.root == no_page)
        return;
    for (size_t i = 0; i < n; i++)
        all[i] = (struct descent){ .key = keys[i], .number = s.root };
    for (unsigned level = 1; level <= s.depth && level <= DEPTH_MAX; level++) {
        for (size_t i = 0; i < n; i++)
            descent_prefetch_page(f, &s, &all[i]);
        for (struct descent *d = all; d < all + n; d++) {
            d->over = d->over || page_at(f, &s, d->number, &d->page) != NULL;
            if (d->over)
                continue;
            d->range = whole_page(&d->page);
            descent_prefetch_node(&s, d, middle_of(&d->range));
        }
        descents_narrow(&s, all, n);
        for (struct descent *d = all; d < all + n; d++) {
            struct node below;
            size_t i = d->range.low - !d->range.equal;
            d->over = d->over || d->page.leaf || !node_at(&s, &d->page, i, &below);
            if (!d->over)
                d->number = below.child;
        }
    }
}

/* --- */

const char *lmdb_file_open(struct lmdb_file *f, int fd) {
    *f = (struct lmdb_file){ .fd = fd };
    struct state s;
    f->fault = map_anew(f);
    if (!f->fault && f->map.n == 0)
        f->fault = "the file is empty";
    if (!f->fault && !state_read(f, &s))
        f->fault = "not an LMDB file";
    return f->fault;
}

void lmdb_file_close(struct lmdb_file *f) {
    filemap_end(&f->map);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

/* --- the whole tree --- */

struct walk {
    struct lmdb_file *f;
    const struct state *s;
    unsigned char *seen; /* a bit a page: none is reached twice, so a loop is found and the walk ends */
    uint64_t *todo;
    size_t todo_n;
};

static bool see(struct walk *w, uint64_t first, uint64_t count) {
    for (uint64_t i = first; i < first + count; i++) {
        if (w->seen[i / 8] & 1u << (i % 8))
            return false;
        w->seen[i / 8] = (unsigned char)(w->seen[i / 8] | 1u << (i % 8));
    }
    return true;
}

/* Of the tree of free pages: a count, and so many page numbers, which LMDB is going to write to. */
static bool free_list_is_good(const struct state *s, const struct node *n, struct str value) {
    const unsigned char *p = (const unsigned char *)value.p;
    if (n->key.n != 8 || value.n < 8 || get64(p) > value.n / 8 - 1)
        return false;
    for (uint64_t i = 1; i <= get64(p); i++)
        if (get64(p + 8 * i) < 2 || get64(p + 8 * i) > s->last_page)
            return false;
    return true;
}

static bool walk_page(struct walk *w, uint64_t number, bool free_pages) {
    struct page p;
    if (page_at(w->f, w->s, number, &p) || get64(p.p) != number)
        return false;
    for (size_t i = 0; i < p.count; i++) {
        struct node n;
        struct str value;
        if (!node_at(w->s, &p, i, &n))
            return false;
        if (!p.leaf) {
            if (n.child < 2 || n.child > w->s->last_page || !see(w, n.child, 1))
                return false;
            w->todo[w->todo_n++] = n.child;
        } else if (value_of(w->f, w->s, &n, &value) || (free_pages && !free_list_is_good(w->s, &n, value))) {
            return false;
        } else if (n.flags & NODE_BIG) {
            uint64_t pages = (PAGE_HEADER + (uint64_t)n.value_size + w->s->page_size - 1) / w->s->page_size;
            if (!see(w, get64(n.value), pages))
                return false;
        }
    }
    return true;
}

static bool walk_tree(struct walk *w, uint64_t root, bool free_pages) {
    if (root == no_page)
        return true;
    if (root < 2 || root > w->s->last_page || !see(w, root, 1))
        return false;
    w->todo[w->todo_n++] = root;
    while (w->todo_n)
        if (!walk_page(w, w->todo[--w->todo_n], free_pages))
            return false;
    return true;
}

bool lmdb_file_sound(struct lmdb_file *f) {
    struct state s;
    if (map_anew(f) || !state_read(f, &s) || s.special || s.last_page >= f->map.n / s.page_size)
        return false;
    struct walk w = { f, &s, calloc(s.last_page / 8 + 1, 1), calloc(s.last_page + 1, sizeof(uint64_t)), 0 };
    bool good = w.seen && w.todo && walk_tree(&w, s.root, false) && walk_tree(&w, s.free_root, true);
    free(w.seen);
    free(w.todo);
    return good && !filemap_broken(&f->map);
}
