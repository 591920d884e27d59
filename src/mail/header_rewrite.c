#include "mail/header_rewrite.h"

#include "mail/address.h"
#include "mail/header.h"
#include "mail/rfc822.h"

/* Where in `source` (one mailbox, with its display name and comments) the address itself stands: between the angle
 * brackets, or from the first token to the last. */
static struct str address_in(struct str source) {
    struct rfc822_cursor c = { .in = source };
    size_t from = 0, to = 0;
    bool angle = false, closed = false, any = false;
    for (struct rfc822_token t; !closed && (t = rfc822_next(&c)).type != RFC822_END;) {
        size_t start = c.at - t.raw.n;
        if (t.type == RFC822_SPECIAL && t.special == '<') {
            from = to = c.at;
            angle = true;
        } else if (t.type == RFC822_SPECIAL && t.special == '>') {
            closed = angle;
        } else {
            if (!any && !angle)
                from = start;
            to = c.at;
        }
        any = true;
    }
    return str_sub(source, from, to - from);
}

/* The comments among the words of an address (RFC 5322, 3.2.2): "user(here)@host". */
static void add_comments(struct buf *b, struct str where) {
    struct rfc822_cursor c = { .in = where };
    for (size_t from = 0;;) {
        struct rfc822_token t = rfc822_next(&c);
        size_t to = t.type == RFC822_END ? where.n : c.at - t.raw.n;
        struct str between = str_trim(str_sub(where, from, to - from));
        if (between.n > 0) {
            buf_byte(b, ' ');
            buf_add(b, between);
        }
        if (t.type == RFC822_END)
            return;
        from = c.at;
    }
}

/* `value` up to the comma behind the last address that is whole within `max` tokens; all of it when it has no more. */
static struct str first_tokens(struct str value, size_t max) {
    struct rfc822_cursor c = { .in = value };
    size_t whole = 0;
    for (size_t n = 0; rfc822_next(&c).type != RFC822_END; n++) {
        if (n == max)
            return str_sub(value, 0, whole);
        if (c.at > 0 && value.p[c.at - 1] == ',')
            whole = c.at;
    }
    return value;
}

/* The end of a list that was cut. */
static void add_cut(struct buf *b, struct str rest) {
    if (str_ends(rest, STR(",")))
        rest.n--;
    buf_add(b, rest);
    buf_byte(b, '\n');
}

struct str header_rewrite(struct arena *a, struct str field, unsigned header_flags, size_t max_tokens,
                          struct str (*address)(void *ctx, struct arena *a, struct str address, unsigned header_flags),
                          void *ctx) {
    struct str name, value;
    if (!header_split(field, &name, &value))
        return field;
    struct str all = value;
    value = first_tokens(value, max_tokens);
    struct header_addresses list = header_addresses_parse(a, value);
    struct buf b = { 0 };
    size_t done = 0; /* bytes of `field` that are in `b` */
    for (size_t i = 0; i < list.n; i++) {
        struct str old = list.at[i].address;
        struct str new = address(ctx, a, old, header_flags | (list.at[i].one_word ? (unsigned)HEADER_ONE_WORD : 0));
        struct str where = address_in(list.at[i].source);
        bool routed = where.n > 0 && where.p[0] == '@' && old.p[0] != '@';
        if (str_eq(old, new) && !routed)
            continue;
        size_t at = (size_t)(where.p - field.p);
        if (where.n == 0 || at < done || at > field.n)
            continue; /* nothing to put it in place of */
        buf_add(&b, str_sub(field, done, at - done));
        buf_add(&b, address_quote(a, new));
        add_comments(&b, where);
        done = at + where.n;
    }
    if (done == 0)
        return field;
    if (value.n == all.n)
        buf_add(&b, str_from(field, done));
    else
        add_cut(&b, str_from(str_sub(field, 0, (size_t)(value.p - field.p) + value.n), done));
    struct str out = arena_str(a, buf_str(&b));
    buf_free(&b);
    return out;
}
