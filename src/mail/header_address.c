/* header_addresses_parse(): address lists in header fields (RFC 5322, 3.4 and the obsolete forms of 4.4). */
#include "mail/address.h"
#include "mail/rfc822.h"

struct list_parser {
    struct arena *arena;
    struct str value;
    VEC(struct header_address) out;
    struct buf text;      /* the mailbox being read, internal form */
    size_t segment_start; /* byte where the mailbox with its display name began */
    size_t word_start;    /* the same for the mailbox being read, if there is no display name */
    size_t segment_first; /* entries of `out` from here on would be words of a display name, should a '<' follow */
    size_t most;
    bool quoted, at; /* of the mailbox being read: a quoted string, an '@' of the syntax */
    bool truncated;
};

static void mailbox_clear(struct list_parser *p) {
    buf_clear(&p->text);
    p->quoted = p->at = false;
}

static void emit(struct list_parser *p, size_t end) {
    struct str address = buf_str(&p->text);
    bool clean = str_index_any(address, STR("\0\r\n")) < 0;
    if (address.n > ADDRESS_MAX || p->out.n == p->most)
        p->truncated = true;
    else if (address.n > 0 && clean)
        *vec_add(p->arena, &p->out) = (struct header_address){
            arena_str(p->arena, address),
            str_trim(str_sub(p->value, p->word_start, end - p->word_start)),
            p->quoted && !p->at,
        };
    mailbox_clear(p);
}

/* One list item ends here; the next begins at byte `next`. */
static void end_segment(struct list_parser *p, size_t end, size_t next) {
    emit(p, end);
    p->segment_start = p->word_start = next;
    p->segment_first = p->out.n;
}

/* The byte after the last ';' of the syntax: a ':' before it opens a group, one after it is part of an address. */
static size_t last_semicolon(struct str value) {
    struct rfc822_cursor c = { .in = value };
    size_t last = 0;
    for (struct rfc822_token t; (t = rfc822_next(&c)).type != RFC822_END;)
        if (t.type == RFC822_SPECIAL && t.special == ';')
            last = c.at;
    return last;
}

static void add_token(struct list_parser *p, const struct rfc822_token *t) {
    p->quoted = p->quoted || t->type == RFC822_QUOTED;
    p->at = p->at || (t->type == RFC822_SPECIAL && t->special == '@');
    if (p->text.n <= ADDRESS_MAX) /* an over-long one is dropped whole; no need to keep more of it */
        rfc822_value(&p->text, t);
}

/* angle-addr, after the '<'. A ',' or ';' that is not in a route ends the mailbox: "<a@b, c@d>" is two of them. */
static void take_angle(struct list_parser *p, struct rfc822_cursor *c) {
    bool route = false, first = true;
    for (;;) {
        struct rfc822_cursor before = *c;
        struct rfc822_token t = rfc822_next(c);
        char special = t.type == RFC822_SPECIAL ? t.special : 0;
        if (t.type == RFC822_END || special == '>')
            return;
        if (special == '<') { /* "Foo <bar <user@domain>": the inner one counts */
            mailbox_clear(p);
            route = false;
            first = true;
            continue;
        }
        if (first && special == '@')
            route = true;
        first = false;
        if (route && special == ':') {
            mailbox_clear(p);
            route = false;
            continue;
        }
        if (!route && (special == ',' || special == ';')) {
            *c = before;
            return;
        }
        add_token(p, &t);
    }
}

struct header_addresses header_addresses_parse(struct arena *a, struct str value) {
    return header_addresses_parse_most(a, value, HEADER_ADDRESS_MAX);
}

struct header_addresses header_addresses_parse_most(struct arena *a, struct str value, size_t most) {
    struct list_parser p = { .arena = a, .value = value, .most = most };
    struct rfc822_cursor c = { .in = value };
    size_t groups_until = last_semicolon(value);
    bool after_word = false;
    size_t end = 0; /* of the last token */
    for (;;) {
        struct rfc822_token t = rfc822_next(&c);
        if (t.type == RFC822_END)
            break;
        size_t start = c.at - t.raw.n;
        if (t.type != RFC822_SPECIAL) {
            if (after_word) { /* two words side by side: two mailboxes, or a display name */
                emit(&p, end);
                p.word_start = end;
            }
            add_token(&p, &t);
            after_word = true;
            end = c.at;
            continue;
        }
        after_word = false;
        switch (t.special) {
        case '<':
            mailbox_clear(&p);
            p.out.n = p.segment_first;
            p.word_start = p.segment_start;
            take_angle(&p, &c);
            end_segment(&p, c.at, c.at);
            break;
        case '>':
            break;
        case ',':
        case ';':
            end_segment(&p, start, c.at);
            break;
        case ':':
            if (p.text.n && p.text.p[0] == '@') { /* @relay:user@domain */
                mailbox_clear(&p);
            } else if (c.at < groups_until) { /* display-name ":" */
                mailbox_clear(&p);
                p.out.n = p.segment_first;
                p.segment_start = p.word_start = c.at;
            } else {
                add_token(&p, &t);
            }
            break;
        default:
            add_token(&p, &t);
        }
        end = c.at;
    }
    end_segment(&p, value.n, value.n);
    buf_free(&p.text);
    return (struct header_addresses){ p.out.at, p.out.n, p.truncated };
}
