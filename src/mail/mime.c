#include "mail/mime.h"

#include "base/buf.h"
#include "base/die.h"
#include "mail/header.h"
#include <stdlib.h>

struct level { /* a multipart that has not ended */
    struct str boundary;
    bool digest; /* its parts are messages unless they say otherwise (RFC 2046, 5.1.5) */
};

struct mime {
    struct mime_options o;
    struct arena *arena;
    struct buf header;
    bool in_headers;
    enum mime_class class;
    VEC(struct level) levels;
    /* of the entity whose headers are being read */
    bool multipart, message, digest;
    struct str boundary;
};

struct mime *mime_new(const struct mime_options *o) {
    struct mime *m = calloc(1, sizeof *m);
    if (!m)
        die_no_memory(sizeof *m);
    m->o = *o;
    m->arena = arena_new();
    m->in_headers = true;
    return m;
}

void mime_free(struct mime *m) {
    if (!m)
        return;
    buf_free(&m->header);
    arena_free(m->arena);
    free(m);
}

static void entity_begin(struct mime *m, enum mime_class class) {
    m->in_headers = true;
    m->class = class;
    m->multipart = m->digest = false;
    m->message = class != MIME_NESTED && m->levels.n && m->levels.at[m->levels.n - 1].digest;
    m->boundary = STR("");
}

static bool is_token_end(char c) {
    return byte_is_space(c) || c == ';' || c == '=' || c == '(' || c == '/' || c == '"';
}

/* White space and comments, which nest. */
static void skip_blanks(struct str *in) {
    size_t i = 0, depth = 0;
    for (; i < in->n && (depth || in->p[i] == '(' || byte_is_space(in->p[i])); i++)
        if (in->p[i] == '\\')
            i++;
        else if (in->p[i] == '(')
            depth++;
        else if (in->p[i] == ')')
            depth--;
    *in = str_from(*in, i);
}

static bool take(struct str *in, char c) {
    skip_blanks(in);
    if (in->n == 0 || in->p[0] != c)
        return false;
    *in = str_from(*in, 1);
    return true;
}

/* A token or a quoted string into `word`. */
static struct str take_word(struct str *in, struct buf *word) {
    size_t i = 0;
    skip_blanks(in);
    buf_clear(word);
    if (in->n && in->p[0] == '"') {
        for (i = 1; i < in->n && in->p[i] != '"'; i++) {
            if (in->p[i] == '\\' && i + 1 < in->n)
                i++;
            buf_byte(word, in->p[i]);
        }
        i++;
    } else {
        while (i < in->n && !is_token_end(in->p[i]))
            buf_byte(word, in->p[i++]);
    }
    *in = str_from(*in, i);
    return buf_str(word);
}

/* type "/" subtype *(";" attribute "=" value)            ; RFC 2045, 5.1 */
static void content_type(struct mime *m, struct str in) {
    struct buf word = { 0 };
    m->multipart = m->message = m->digest = false;
    struct str type = take_word(&in, &word);
    m->multipart = str_eq_icase(type, STR("multipart"));
    bool message = str_eq_icase(type, STR("message"));
    if (take(&in, '/')) {
        struct str subtype = take_word(&in, &word);
        m->digest = m->multipart && str_eq_icase(subtype, STR("digest"));
        m->message = message && (str_eq_icase(subtype, STR("rfc822")) || str_eq_icase(subtype, STR("global")));
    }
    while (in.n && m->boundary.n == 0) {
        ptrdiff_t semicolon = str_index(in, ';');
        if (!take(&in, ';')) { /* what does not belong here */
            in = str_from(in, semicolon < 0 ? in.n : (size_t)semicolon);
            continue;
        }
        bool boundary = str_eq_icase(take_word(&in, &word), STR("boundary"));
        if (take(&in, '=') && boundary)
            m->boundary = arena_str(m->arena, str_sub(take_word(&in, &word), 0, m->o.boundary_limit));
    }
    buf_free(&word);
}

static void header_done(struct mime *m) {
    if (m->header.n == 0)
        return;
    struct str header = buf_str(&m->header), name, value;
    if (m->o.parts && header_split(header, &name, &value) && header_find(name)->id == HEADER_CONTENT_TYPE)
        content_type(m, value);
    m->o.header(m->o.ctx, m->class, header);
    buf_clear(&m->header);
}

static void headers_done(struct mime *m) {
    header_done(m);
    m->in_headers = false;
    if (!m->o.parts || m->levels.n >= m->o.nesting_limit)
        return;
    if (m->multipart && m->boundary.n)
        *vec_add(m->arena, &m->levels) = (struct level){ m->boundary, m->digest };
}

/* A line between parts: "--boundary" and anything (RFC 2046, 5.1.1: the innermost that matches ends those in it). */
static bool boundary_line(struct mime *m, struct str line) {
    if (!str_starts(line, STR("--")))
        return false;
    for (size_t i = m->levels.n; i-- > 0;) {
        struct str boundary = m->levels.at[i].boundary;
        if (!str_starts(str_from(line, 2), boundary))
            continue;
        header_done(m);
        bool last = str_starts(str_from(line, 2 + boundary.n), STR("--"));
        m->levels.n = last ? i : i + 1;
        m->o.body(m->o.ctx, line);
        if (last)
            m->in_headers = false;
        else
            entity_begin(m, MIME_PART);
        return true;
    }
    return false;
}

static bool is_header(struct str line) {
    struct str name, value;
    return header_split(line, &name, &value);
}

void mime_line(struct mime *m, struct str line) {
    if (boundary_line(m, line))
        return;
    if (!m->in_headers) {
        m->o.body(m->o.ctx, line);
        return;
    }
    bool blank = line.n && (line.p[0] == ' ' || line.p[0] == '\t');
    if (blank && m->header.n) {
        if (m->header.n < m->o.header_limit) {
            buf_byte(&m->header, '\n');
            buf_add(&m->header, str_sub(line, 0, m->o.header_limit - m->header.n + 1));
        }
        return;
    }
    if (line.n && !blank && is_header(line)) {
        header_done(m);
        size_t colon = (size_t)str_index(line, ':');
        buf_add(&m->header, str_trim_right(str_sub(line, 0, colon)));
        buf_add(&m->header, str_from(line, colon));
        if (m->header.n > m->o.header_limit)
            buf_truncate(&m->header, m->o.header_limit);
        return;
    }
    headers_done(m);
    bool attached = m->o.parts && m->message;
    m->o.body(m->o.ctx, STR(""));
    if (line.n)
        m->o.body(m->o.ctx, line);
    else if (attached)
        entity_begin(m, MIME_NESTED);
}

void mime_end(struct mime *m) {
    if (m->in_headers)
        header_done(m);
}
