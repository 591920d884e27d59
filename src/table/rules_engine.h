/* rules_engine.h - the patterns of rule tables: regexp, pcre, cidr. What stands around a pattern (if, !, the result)
 * is rules.c's. */
#ifndef ANGARIUM_TABLE_RULES_ENGINE_H
#define ANGARIUM_TABLE_RULES_ENGINE_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include "table/cidr.h"
#include "table/table_impl.h"
#include <pcre2.h>
#include <regex.h>

enum { GROUPS_MAX = 100 /* $1 to $99 */ };

enum rule_kind { RULE_RESULT, RULE_IF, RULE_ENDIF };

struct piece { /* of a result: text, or the text of a group */
    struct str text;
    unsigned group; /* 0: text */
};

struct rule {
    enum rule_kind kind;
    bool negate;
    size_t line;
    size_t end; /* RULE_IF: index of its endif, or the number of rules */
    unsigned groups;
    struct piece *pieces;
    size_t piece_count;
    bool substitutes;
    struct regexp *regexp;
    pcre2_code *pcre; /* also of a regexp with back-references */
    unsigned asked;   /* how often, up to when it is made machine code */
    bool machine;     /* it has been */
    char prefix[32];  /* pcre: what a key begins with that matches, in lower case without regard to case, or */
    unsigned char prefix_length; /* 0: nothing that can be said */
    struct cidr cidr;
};

struct group {
    size_t from, to; /* from > to: took no part */
};

struct rules;

struct engine {
    struct str name;
    bool delimited; /* /pattern/flags, and $1 in the result */
    /* Compile; false with a fault (skip the rule) or with *ret_error (give up the table). Both in s->arena. */
    bool (*compile)(struct rules *s, struct rule *r, struct str pattern, struct str flags, const char **ret_fault,
                    error *ret_error);
    /* 1 match, 0 none, -1 failed with s->fault. `groups` NULL: not wanted; else [1..r->groups] are set. The key has a
     * NUL behind it. */
    int (*match)(struct rules *s, struct rule *r, struct str key, struct group *groups);
    void (*free)(struct rule *r);
};

enum { IF_NESTING_MAX = 1000 };

struct rules {
    struct arena *arena;
    struct str map_name; /* "regexp map /etc/x" */
    const struct engine *engine;
    bool no_substitution;
    VEC(struct rule *) list;
    size_t open_ifs[IF_NESTING_MAX];
    size_t if_depth;
    pcre2_match_data *match_data;
    pcre2_match_context *match_context;
    pcre2_jit_stack *jit_stack;
    size_t regexp_fed, heap_least; /* bytes */
    unsigned regexp_build;         /* grows when automata are to be thrown away */
    struct cidr key_address;       /* cidr: the key, read once per look-up */
    char fault[256];
};

extern const struct engine regexp_engine, pcre_engine, cidr_engine;

/* "regexp map /etc/x, line 5: text" as a warning. */
void rules_warn(const struct rules *s, size_t line, const char *text);
void rules_engine_end(struct rules *s);
#endif
