#include "mail/address.h"

#include "mail/rfc822.h"
#include <arpa/inet.h>

enum { HOSTNAME_MAX = 255, HOSTNAME_LABEL_MAX = 63 };

/* --- one mailbox --- */

/* What stands in a path or in a mailbox without brackets. */
struct mailbox {
    struct buf value; /* internal form */
    bool leading_at;  /* an '@' of the syntax, not a quoted one, with nothing before it */
};

static bool control_free(struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if ((ch < 0x20 && ch != '\t') || ch == 0x7f)
            return false;
    }
    return true;
}

/* A-d-l = At-domain *( "," At-domain )     ; RFC 5321, 4.1.2
 * The part of `c` that ends with the first ':', when the next token is '@'. `c` stays where it is without a route. */
static bool skip_route(struct rfc822_cursor *c, enum address_flags flags) {
    struct rfc822_cursor look = *c;
    struct rfc822_token t = rfc822_next(&look);
    if (t.type != RFC822_SPECIAL || t.special != '@')
        return true;
    bool want_domain = true;
    while ((t = rfc822_next(&look)).type != RFC822_END) {
        if (t.type != RFC822_SPECIAL) {
            want_domain = false;
            continue;
        }
        if (t.special == ':') {
            *c = look;
            return !(flags & ADDRESS_STRICT) || !want_domain;
        }
        if (t.special == '<' || t.special == '>' || t.special == ';')
            return true;
        want_domain = t.special != '.';
    }
    return true;
}

/* Tokens up to the end or, with `bracket`, the '>'. Two words side by side are two mailboxes, hence malformed; a
 * separator at the ends is forgiven unless strict. */
static bool take_mailbox(struct rfc822_cursor *c, enum address_flags flags, bool bracket, struct mailbox *m) {
    bool strict = flags & ADDRESS_STRICT;
    bool after_word = false, closed = false, colon = false, semicolon = false;
    for (;;) {
        struct rfc822_token t = rfc822_next(c);
        if (t.type == RFC822_END) {
            if (bracket)
                return false;
            break;
        }
        if (t.type == RFC822_SPECIAL && t.special == '>') {
            if (bracket)
                break;
            continue; /* user@domain> */
        }
        if (t.type == RFC822_SPECIAL && (t.special == ',' || t.special == ';')) {
            if (strict)
                return false;
            closed = m->value.n > 0;
            semicolon = semicolon || t.special == ';';
            continue;
        }
        if (closed || (t.type == RFC822_SPECIAL && t.special == '<'))
            return false;
        if (t.type == RFC822_SPECIAL) {
            after_word = false;
            colon = colon || t.special == ':';
            if (t.special == '@' && m->value.n == 0)
                m->leading_at = true;
        } else {
            if (after_word)
                return false;
            after_word = true;
        }
        rfc822_value(&m->value, &t);
        if (m->value.n > ADDRESS_MAX)
            return false;
    }
    if (colon && semicolon) /* a group, not a mailbox */
        return false;
    return !(strict && m->leading_at);
}

/* The path ends at the first blank that is not inside <...>, quotes or behind a '\'. Comments do not protect blanks
 * outside of brackets: "MAIL FROM:a@b (c)" has an unknown parameter "(c)". */
static size_t path_length(struct str in) {
    size_t depth = 0;
    bool quoted = false;
    size_t i = 0;
    for (; i < in.n; i++) {
        char ch = in.p[i];
        if (ch == '\\' && i + 1 < in.n)
            i++;
        else if (ch == '"')
            quoted = !quoted;
        else if (quoted)
            continue;
        else if (ch == '<')
            depth++;
        else if (ch == '>' && depth > 0)
            depth--;
        else if (depth == 0 && (ch == ' ' || ch == '\t'))
            break;
    }
    return i;
}

static bool parse_path(struct str path, enum address_flags flags, struct mailbox *m) {
    bool strict = flags & ADDRESS_STRICT;
    struct rfc822_cursor c = { .in = path };
    if (strict && !str_starts(path, STR("<")))
        return false;

    /* a display name and comments in front of the bracket are what mail programs sometimes send */
    struct rfc822_token t;
    bool words = false;
    while ((t = rfc822_next(&c)).type != RFC822_END) {
        if (t.type == RFC822_SPECIAL && t.special == '<')
            break;
        if (t.type == RFC822_SPECIAL && t.special != '.')
            words = true;
    }
    bool bracket = t.type == RFC822_SPECIAL && t.special == '<';
    if (bracket && words) /* address<address> */
        return false;
    size_t brackets = 0; /* still to be closed after the mailbox: some clients send <<user@domain>> */
    if (!bracket)
        c = (struct rfc822_cursor){ .in = path };
    for (struct rfc822_cursor look = c; bracket; c = look, brackets++) {
        t = rfc822_next(&look);
        if (t.type != RFC822_SPECIAL || t.special != '<')
            break;
    }
    if (!skip_route(&c, flags) || !take_mailbox(&c, flags, bracket, m))
        return false;
    while ((t = rfc822_next(&c)).type != RFC822_END) {
        if (t.type != RFC822_SPECIAL || t.special != '>')
            return false;
        brackets -= brackets > 0;
    }
    if (brackets)
        return false;
    /* the null sender must be asked for with brackets */
    return !c.unterminated && !(strict && c.comment) && (bracket || m->value.n > 0);
}

bool address_parse_path(struct arena *a, struct str in, enum address_flags flags, struct str *ret_address,
                        struct str *ret_rest) {
    while (in.n && (in.p[0] == ' ' || in.p[0] == '\t'))
        in = str_from(in, 1);
    size_t n = path_length(in);
    struct str path = str_sub(in, 0, n);
    if (path.n == 0 || !control_free(path))
        return false;
    struct mailbox m = { 0 };
    bool ok = parse_path(path, flags, &m);
    if (ok) {
        *ret_address = arena_str(a, buf_str(&m.value));
        struct str rest = str_from(in, n);
        while (rest.n && (rest.p[0] == ' ' || rest.p[0] == '\t'))
            rest = str_from(rest, 1);
        *ret_rest = rest;
    }
    buf_free(&m.value);
    return ok;
}

/* --- forms --- */

/* atext, RFC 5322 3.2.3, and 8-bit bytes (RFC 6531, 3.3) */
static bool is_atext(char ch) {
    return byte_is_alnum(ch) || (unsigned char)ch >= 0x80 || (ch && strchr("!#$%&'*+-/=?^_`{|}~", ch));
}

/* Dot-string = Atom *("."  Atom)     ; RFC 5321, 4.1.2 */
bool address_is_dot_string(struct str s) {
    bool atom = false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.' ? !atom : !is_atext(s.p[i]))
            return false;
        atom = s.p[i] != '.';
    }
    return atom;
}

struct str address_quote(struct arena *a, struct str internal) {
    struct address_parts p = address_split(internal);
    if (internal.n == 0 || address_is_dot_string(p.local))
        return arena_str(a, internal);
    struct buf b = { 0 };
    buf_byte(&b, '"');
    for (size_t i = 0; i < p.local.n; i++) {
        char ch = p.local.p[i];
        if (ch == '"' || ch == '\\' || ch == '\r' || ch == '\n')
            buf_byte(&b, '\\');
        buf_byte(&b, ch);
    }
    buf_byte(&b, '"');
    if (p.has_domain) {
        buf_byte(&b, '@');
        buf_add(&b, p.domain);
    }
    struct str out = arena_str(a, buf_str(&b));
    buf_free(&b);
    return out;
}

static bool log_internal;

void address_log_internal(bool internal) {
    log_internal = internal;
}

struct str address_logged(struct arena *a, struct str internal) {
    return log_internal ? arena_str(a, internal) : address_quote(a, internal);
}

bool address_unquote(struct arena *a, struct str external, struct str *ret_internal) {
    if (!control_free(external))
        return false;
    struct rfc822_cursor c = { .in = external };
    struct mailbox m = { 0 };
    bool ok = skip_route(&c, 0) && take_mailbox(&c, 0, false, &m) && !c.unterminated;
    if (ok)
        *ret_internal = arena_str(a, buf_str(&m.value));
    buf_free(&m.value);
    return ok;
}

struct address_parts address_split(struct str internal) {
    ptrdiff_t at = str_rindex(internal, '@');
    if (at < 0)
        return (struct address_parts){ internal, STR(""), false };
    return (struct address_parts){ str_sub(internal, 0, (size_t)at), str_from(internal, (size_t)at + 1), true };
}

bool address_split_extension(struct str local, struct extension_rules rules, struct str *ret_user,
                             struct str *ret_extension) {
    if (rules.delimiters.n == 0 || str_eq_icase(local, STR("mailer-daemon")) ||
        str_eq_icase(local, STR("double-bounce")))
        return false;
    if (rules.owner_request_special && str_index(rules.delimiters, '-') >= 0 &&
        (str_starts_icase(local, STR("owner-")) || str_ends_icase(local, STR("-request"))))
        return false;
    ptrdiff_t at = str_index_any(local, rules.delimiters);
    if (at <= 0) /* none, or nothing would be left of the user */
        return false;
    *ret_user = str_sub(local, 0, (size_t)at);
    *ret_extension = str_from(local, (size_t)at + 1);
    return true;
}

/* --- domains --- */

bool address_domain_is_literal(struct str domain) {
    if (domain.n < 3 || domain.p[0] != '[' || domain.p[domain.n - 1] != ']')
        return false;
    struct str inside = str_sub(domain, 1, domain.n - 2);
    int family = AF_INET;
    if (str_starts_icase(inside, STR("IPv6:"))) {
        family = AF_INET6;
        inside = str_from(inside, 5);
    }
    char text[INET6_ADDRSTRLEN];
    unsigned char address[sizeof(struct in6_addr)];
    if (inside.n >= sizeof text || str_index(inside, 0) >= 0)
        return false;
    memcpy(text, inside.p, inside.n);
    text[inside.n] = 0;
    return inet_pton(family, text, address) == 1;
}

bool hostname_valid(struct str name) {
    if (name.n == 0 || name.n > HOSTNAME_MAX)
        return false;
    bool numeric = true;
    size_t label = 0;
    for (size_t i = 0; i < name.n; i++) {
        char ch = name.p[i];
        bool last = i + 1 == name.n || name.p[i + 1] == '.';
        if (ch == '.') {
            if (label == 0 || i + 1 == name.n)
                return false;
            label = 0;
            continue;
        }
        if (!byte_is_alnum(ch) && ch != '_' && ch != '-')
            return false;
        if (ch == '-' && (label == 0 || last))
            return false;
        if (++label > HOSTNAME_LABEL_MAX)
            return false;
        numeric = numeric && byte_is_digit(ch);
    }
    return !numeric;
}
