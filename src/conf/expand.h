/* expand.h - $name and its relatives in parameter values (postconf(5)). Knows no parameters: names are looked up
 * through a callback. Never for text a peer had a hand in.
 *
 *     text       = *( literal / "$$" / reference )             ; "$$" is one "$"
 *     reference  = "$" name / "${" body "}" / "$(" body ")"
 *     body       = name [cond] / comparison [cond] / function "{" text "}"
 *     comparison = "{" text "}" op "{" text "}"
 *     op         = ( "==" / "!=" / "<" / "<=" / ">" / ">=" ) ["level"]
 *     cond       = "?" then [ ":" else ] / ":" else            ; a missing branch is empty
 *     then, else = "{" text "}" / text up to the closing brace ; then needs its braces when an else follows
 *     name       = 1*( ALPHA / DIGIT / "_" )
 *     function   = "domain_to_ascii" / "domain_to_utf8"        ; IDNA (RFC 5891); white space at the ends goes
 *
 * `name?` asks whether the value, unexpanded, is not empty. A comparison is by number when both sides are digits
 * only, else by byte; with "level" the sides are compatibility levels, major[.minor[.patch]]. Without cond a true
 * comparison gives "true", a false one nothing. Values are expanded in turn. */
#ifndef ANGARIUM_CONF_EXPAND_H
#define ANGARIUM_CONF_EXPAND_H

#include "base/arena.h"
#include "base/err.h"

enum {
    EXPAND_DEPTH = 100,    /* references inside the values of references */
    EXPAND_STEPS = 100000, /* references in one expansion */
    EXPAND_SIZE = 4 << 20, /* bytes of a result */
};

struct expand_value {
    struct str text;
    bool literal; /* goes in as it is: a RAW parameter, whose $names belong to somebody else */
};

/* False: not defined; it then counts as empty. `ret->text` must live until expand() returns. */
typedef bool expand_lookup(void *ctx, struct str name, struct expand_value *ret);

/* The result is NUL-terminated and lives in `a`, as do errors. ERR_CONFIG: "truncated macro reference: ...",
 * "unreasonable macro call nesting: NAME" (NAME refers to itself) and so on. */
error expand(struct str text, expand_lookup *lookup, void *ctx, struct arena *a, struct str *ret);

/* domain_to_ascii and its like, which stand where a name could. */
bool is_expand_function(struct str name);

/* -1, 0, 1 in `*ret` for a < b, a == b, a > b. False: one of them is malformed, `*ret_bad` says which. */
bool level_compare(struct str a, struct str b, int *ret, struct str *ret_bad);
#endif
