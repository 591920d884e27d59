#include "mail/rfc822.h"

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_special(char c) {
    return c && strchr("<>@,;:.", c);
}

/* comment = "(" *(ctext / quoted-pair / comment) ")": the depth is a number, so nesting costs nothing. */
static void skip_comment(struct rfc822_cursor *c) {
    size_t depth = 0;
    c->comment = true;
    while (c->at < c->in.n) {
        char ch = c->in.p[c->at++];
        if (ch == '\\' && c->at < c->in.n)
            c->at++;
        else if (ch == '(')
            depth++;
        else if (ch == ')' && --depth == 0)
            return;
    }
    c->unterminated = true;
}

static void skip_enclosed(struct rfc822_cursor *c, char closing) {
    c->at++;
    while (c->at < c->in.n) {
        char ch = c->in.p[c->at++];
        if (ch == '\\' && c->at < c->in.n)
            c->at++;
        else if (ch == closing)
            return;
    }
    c->unterminated = true;
}

static void skip_atom(struct rfc822_cursor *c) {
    while (c->at < c->in.n) {
        char ch = c->in.p[c->at];
        if (ch == '\\') {
            if (c->at + 1 == c->in.n)
                c->unterminated = true;
            else
                c->at++;
        } else if (is_blank(ch) || is_special(ch) || ch == '"' || ch == '(' || ch == '[') {
            return;
        }
        c->at++;
    }
}

struct rfc822_token rfc822_next(struct rfc822_cursor *c) {
    while (c->at < c->in.n && (is_blank(c->in.p[c->at]) || c->in.p[c->at] == '(')) {
        if (c->in.p[c->at] == '(')
            skip_comment(c);
        else
            c->at++;
    }
    struct rfc822_token t = { RFC822_END, 0, str_from(c->in, c->at) };
    if (c->at >= c->in.n)
        return t;
    size_t start = c->at;
    char ch = c->in.p[start];
    if (is_special(ch)) {
        t.type = RFC822_SPECIAL;
        t.special = ch;
        c->at++;
    } else if (ch == '"') {
        t.type = RFC822_QUOTED;
        skip_enclosed(c, '"');
    } else if (ch == '[') {
        t.type = RFC822_LITERAL;
        skip_enclosed(c, ']');
    } else {
        t.type = RFC822_ATOM;
        skip_atom(c);
    }
    t.raw = str_sub(c->in, start, c->at - start);
    return t;
}

void rfc822_value(struct buf *b, const struct rfc822_token *t) {
    struct str s = t->raw;
    if (t->type == RFC822_SPECIAL) {
        buf_add(b, s);
        return;
    }
    bool quoted = t->type == RFC822_QUOTED;
    for (size_t i = quoted ? 1 : 0; i < s.n; i++) {
        if (quoted && s.p[i] == '"')
            break; /* only the closing one is not behind a '\' */
        if (s.p[i] == '\\') {
            if (++i == s.n)
                break;
        } else if (s.p[i] == '\r' || s.p[i] == '\n') {
            continue; /* folding (RFC 5322, 3.2.2) */
        }
        buf_byte(b, s.p[i]);
    }
}
