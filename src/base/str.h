/* str.h - borrowed byte strings that carry their length.
 *
 * A `struct str` never owns memory and may hold any byte, NUL included. The empty string is { "", 0 };
 * `p` is never NULL in a value made here;
 * { NULL, 0 } out of a zeroed struct is read as the empty string everywhere. Case folding is ASCII only (RFC 5321, 2.4:
 * commands and domains). Nothing here allocates, logs or fails. */
#ifndef ANGARIUM_BASE_STR_H
#define ANGARIUM_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

/* A literal, and the two arguments of "%.*s". Lengths over INT_MAX never occur: every input limit is far below. */
#define STR(literal) ((struct str){ "" literal, sizeof(literal) - 1 })
#define STR_INIT(literal)                                                                                              \
    { "" literal, sizeof(literal) - 1 }
#define STR_ARG(s) (int)(s).n, (s).p

static inline struct str str_c(const char *c) {
    return c ? (struct str){ c, strlen(c) } : STR("");
}
static inline struct str str_n(const char *p, size_t n) {
    return p ? (struct str){ p, n } : STR("");
}

bool str_eq(struct str a, struct str b);
bool str_eq_icase(struct str a, struct str b);
/* memcmp order, the shorter first among equals. */
int str_cmp(struct str a, struct str b);
int str_cmp_icase(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_starts_icase(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
bool str_ends_icase(struct str s, struct str suffix);

/* Index of the first/last `c`, or -1. */
ptrdiff_t str_index(struct str s, char c);
ptrdiff_t str_rindex(struct str s, char c);
/* Index of the first byte of `s` that is in `set`, or -1. */
ptrdiff_t str_index_any(struct str s, struct str set);
bool str_contains(struct str s, struct str needle);

/* `from` and `n` are cut to what there is. */
struct str str_sub(struct str s, size_t from, size_t n);
struct str str_from(struct str s, size_t from);
/* Without white space (blank, tab, CR, LF, VT, FF) at the ends. */
struct str str_trim(struct str s);
struct str str_trim_left(struct str s);
struct str str_trim_right(struct str s);

/* Cut the front of `*s` at the first byte of `set`; that byte is dropped. At the end everything is taken.
 * False once `*s` is used up (an empty last piece after a separator is given). */
bool str_next(struct str *s, struct str set, struct str *ret_piece);
/* The next piece between runs of `set` bytes, never empty: words. False when none is left. */
bool str_word(struct str *s, struct str set, struct str *ret_word);
/* The same, but { ... } (nested) protects separators; the outer braces stay. False also on unbalanced braces,
 * with `*s` left non-empty. */
bool str_word_braced(struct str *s, struct str set, struct str *ret_word);

/* Decimal digits only, no sign, no space, whole string; false when empty, malformed or over `max`. */
bool str_to_u64(struct str s, uint64_t max, uint64_t *ret);
bool str_to_u32(struct str s, uint32_t max, uint32_t *ret);
/* An optional '-', then digits. */
bool str_to_i64(struct str s, int64_t min, int64_t max, int64_t *ret);

/* Overwrite bytes that the caller knows to be writable and its own: for secrets. */
void str_wipe(struct str s);

uint64_t str_hash(struct str s); /* not for hostile keys without a seed: see base/map.h */

/* What main.cf, master.cf and table lists separate words with. */
#define STR_SPACE STR(" \t\r\n")
#define STR_COMMA_SPACE STR(", \t\r\n")

static inline bool byte_is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}
static inline bool byte_is_digit(char c) {
    return c >= '0' && c <= '9';
}
static inline bool byte_is_alpha(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
static inline bool byte_is_alnum(char c) {
    return byte_is_digit(c) || byte_is_alpha(c);
}
static inline bool byte_is_print(char c) { /* ASCII, blank included */
    return c >= 0x20 && c < 0x7f;
}
static inline char byte_lower(char c) {
    return (c >= 'A' && c <= 'Z') ? (char)(c + ('a' - 'A')) : c;
}
static inline char byte_upper(char c) {
    return (c >= 'a' && c <= 'z') ? (char)(c - ('a' - 'A')) : c;
}
#endif
