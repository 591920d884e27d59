#include "table/match.h"

#include "base/buf.h"
#include "base/log.h"
#include "table/cidr.h"
#include "table/fold.h"
#include "table/table_impl.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum {
    ITEMS_MAX = 1000 * 1000,
    FILE_NESTING_MAX = 8, /* a file that names a file ... */
    LIST_FILE_MAX = 64 * 1024 * 1024,
};

enum item_kind { ITEM_TEXT, ITEM_CIDR, ITEM_TABLE };

struct item {
    enum item_kind kind;
    bool negate;
    struct str text; /* in one case */
    struct cidr cidr;
    struct table *table;
};

struct match {
    struct arena *arena;
    enum match_kind kind;
    struct match *parents_list; /* NULL where parents play no part */
    bool parents_known;
    bool parents; /* "example.com" stands for its sub-domains too */
    bool utf8;    /* letters beyond ASCII are folded */
    unsigned table_flags;
    const struct conf *conf;
    struct str parameter;
    VEC(struct item) items;
    error error;         /* of the list */
    error look_up_error; /* of the last question */
};

static error list_fault(struct match *m, const char *fault) {
    return err_make(m->arena, ERR_CONFIG, "%.*s: %s", STR_ARG(m->parameter), fault);
}

static error add_list(struct match *m, struct str list, bool negate, unsigned nesting);

/* The items of a file; lines that begin with '#' are comments. */
static error add_file(struct match *m, struct str path, bool negate, unsigned nesting) {
    if (nesting == FILE_NESTING_MAX)
        return list_fault(m, "files nested too deeply");
    struct buf content = { 0 };
    if (!buf_read_file(&content, arena_cstr(m->arena, path), LIST_FILE_MAX)) {
        error e = err_make(m->arena, ERR_SYS, "%.*s: open file %.*s: %s", STR_ARG(m->parameter), STR_ARG(path),
                           strerror(errno));
        buf_free(&content);
        return e;
    }
    struct str rest = buf_str(&content), line;
    error e = NULL;
    while (!e && str_next(&rest, STR("\n"), &line))
        if (!str_starts(str_trim_left(line), STR("#")))
            e = add_list(m, line, negate, nesting + 1);
    buf_free(&content);
    return e;
}

/* "type:name"; an IPv6 address must stand in brackets, or its colons would make it one. */
static bool is_table(struct str word) {
    ptrdiff_t colon = str_index(word, ':');
    return colon > 0 && word.p[0] != '[';
}

static bool is_address(struct str word) {
    if (word.n && word.p[0] == '[')
        return true;
    for (size_t i = 0; i < word.n; i++)
        if (!byte_is_digit(word.p[i]) && word.p[i] != '.' && word.p[i] != '/')
            return false;
    return word.n > 0;
}

static error add_item(struct match *m, struct str word, bool negate) {
    if (m->items.n == ITEMS_MAX)
        return list_fault(m, "too many items");
    struct item it = { .kind = ITEM_TEXT, .negate = negate };
    if (is_table(word)) {
        it.kind = ITEM_TABLE;
        it.table = table_open(m->conf, word, m->table_flags | TABLE_FOLD);
        it.text = table_name(it.table);
    } else if (m->kind == MATCH_ADDRESS && is_address(word)) {
        it.kind = ITEM_CIDR;
        const char *fault = cidr_parse(m->arena, word, &it.cidr);
        if (fault)
            return list_fault(m, fault);
    } else {
        it.text = arena_fold(m->arena, word, m->utf8);
    }
    *vec_add(m->arena, &m->items) = it;
    return NULL;
}

/* The nesting here is that of files, and add_file() counts it. */
static error add_list(struct match *m, struct str list, bool negate, unsigned nesting) {
    struct str word;
    error e = NULL;
    while (!e && str_word_braced(&list, STR_COMMA_SPACE, &word)) {
        bool not = negate;
        for (; str_starts(word, STR("!")); word = str_from(word, 1))
            not = !not ;
        if (word.n == 0)
            e = list_fault(m, "no pattern after '!'");
        else if (word.p[0] == '/')
            e = add_file(m, word, not, nesting);
        else
            e = add_item(m, word, not );
    }
    if (!e && list.n)
        e = list_fault(m, "unbalanced braces");
    return e;
}

/* parent_domain_matches_subdomains itself is a plain list of names, files and tables. It is asked with the first
 * question, not here: a table on a server cannot answer before the service is up. */
static error open_parents(struct match *m) {
    if (!m->conf || m->kind == MATCH_STRING)
        return NULL;
    m->parents_list = match_open(m->conf, STR("parent_domain_matches_subdomains"),
                                 conf_str(m->conf, PARAM_parent_domain_matches_subdomains), MATCH_STRING, 0);
    error e = match_error(m->parents_list);
    return e ? list_fault(m, arena_cstr(m->arena, e->text)) : NULL;
}

/* False: a table failed; the next question asks it again. */
static bool know_parents(struct match *m) {
    if (!m->parents_list || m->parents_known)
        return true;
    enum match_result r = match_find(m->parents_list, m->parameter, STR(""));
    m->look_up_error = match_error(m->parents_list);
    m->parents = r == MATCH_YES;
    m->parents_known = r != MATCH_ERROR;
    return m->parents_known;
}

struct match *match_open(const struct conf *c, struct str parameter, struct str list, enum match_kind kind,
                         unsigned table_flags) {
    struct arena *a = arena_new();
    struct match *m = ARENA_NEW(a, struct match);
    m->arena = a;
    m->kind = kind;
    m->conf = c;
    m->utf8 = !c || conf_bool(c, PARAM_smtputf8_enable);
    m->table_flags = table_flags;
    m->parameter = arena_str(a, parameter);
    m->error = open_parents(m);
    if (!m->error)
        m->error = add_list(m, list, false, 0);
    return m;
}

void match_close(struct match *m) {
    if (!m)
        return;
    match_close(m->parents_list); /* a plain list, without one of its own */
    for (size_t i = 0; i < m->items.n; i++)
        table_close(m->items.at[i].table);
    arena_free(m->arena);
}

error match_error(const struct match *m) {
    return m->error ? m->error : m->look_up_error;
}

/* --- questions --- */

struct question {
    struct str name; /* in one case */
    struct str address_text;
    bool has_address;
    struct cidr address;
    struct arena *arena;
};

static bool text_matches(const struct match *m, struct str pattern, struct str name) {
    if (str_eq(pattern, name))
        return true;
    if (m->kind == MATCH_STRING || !str_ends(name, pattern) || name.n == pattern.n)
        return false;
    /* only whole labels: "example.com" is no parent of "badexample.com" */
    return pattern.p[0] == '.' || (m->parents && name.p[name.n - pattern.n - 1] == '.');
}

static enum match_result ask(struct match *m, struct table *t, struct question *q, struct str key) {
    struct str value;
    if (key.n == 0)
        return MATCH_NO;
    enum table_result r = table_get(t, key, q->arena, &value);
    if (r == TABLE_ERROR) {
        m->look_up_error = table_error(t);
        struct str why = m->look_up_error ? m->look_up_error->text : STR("unknown");
        log_warn("%.*s: %.*s: table lookup problem: %.*s", STR_ARG(m->parameter), STR_ARG(table_name(t)), STR_ARG(why));
    }
    return r == TABLE_FOUND ? MATCH_YES : r == TABLE_ERROR ? MATCH_ERROR : MATCH_NO;
}

/* The name, its parents where the kind has any, the address. */
static enum match_result table_matches(struct match *m, struct table *t, struct question *q) {
    enum match_result r = ask(m, t, q, q->name);
    struct str parent = q->name;
    while (r == MATCH_NO && m->kind != MATCH_STRING && !table_is_pattern(t) && parent.n) {
        ptrdiff_t dot = str_index(str_from(parent, 1), '.');
        if (dot < 0)
            break;
        parent = str_from(parent, (size_t)dot + 1);
        r = ask(m, t, q, m->parents ? str_from(parent, 1) : parent);
    }
    return r == MATCH_NO && m->kind == MATCH_ADDRESS ? ask(m, t, q, q->address_text) : r;
}

static enum match_result item_matches(struct match *m, struct item *it, struct question *q) {
    switch (it->kind) {
    case ITEM_TABLE:
        return table_matches(m, it->table, q);
    case ITEM_CIDR:
        return q->has_address && cidr_contains(&it->cidr, &q->address) ? MATCH_YES : MATCH_NO;
    case ITEM_TEXT:
        break;
    }
    return q->name.n && text_matches(m, it->text, q->name) ? MATCH_YES : MATCH_NO;
}

enum match_result match_find(struct match *m, struct str name, struct str address) {
    m->look_up_error = NULL;
    if (m->error || (m->items.n && !know_parents(m)))
        return MATCH_ERROR;
    if (m->items.n == 0)
        return MATCH_NO;
    struct arena *a = arena_new();
    struct question q = { .name = arena_fold(a, name, m->utf8), .address_text = address, .arena = a };
    q.has_address = m->kind == MATCH_ADDRESS && cidr_parse_address(address, &q.address);
    enum match_result r = MATCH_NO;
    for (size_t i = 0; i < m->items.n; i++) {
        r = item_matches(m, &m->items.at[i], &q);
        if (r == MATCH_YES && m->items.at[i].negate)
            r = MATCH_NO;
        else if (r == MATCH_NO)
            continue;
        break;
    }
    arena_free(a);
    return r;
}
