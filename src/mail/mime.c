#include "mail/mime.h"

#include "base/buf.h"
#include "base/die.h"
#include "base/utf8.h"
#include "mail/header.h"
#include "mail/quoted_printable.h"
#include <stdlib.h>

enum encoding { ENCODING_7BIT, ENCODING_8BIT, ENCODING_OTHER };

struct level { /* a multipart that has not ended */
    struct str boundary;
    bool digest; /* its parts are messages unless they say otherwise (RFC 2046, 5.1.5) */
};

struct mime {
    struct mime_options o;
    struct arena *arena;
    struct buf header;
    bool in_headers;
    bool attached; /* behind the empty line that comes now begins the header of an attached message */
    bool skip;     /* the line under way began with a boundary */
    enum mime_class class;
    VEC(struct level) levels;
    size_t offset; /* in the body under way */
    /* of the entity whose headers are being read */
    bool multipart, message, digest, message_type, global;
    enum encoding encoding;
    struct str boundary;
    /* with `downgrade` */
    bool quoting; /* the body under way is a leaf in 8 bits */
    struct quoted_printable quoted;
    size_t line_offset; /* of the line that `quoted` is in */
};

static const struct str seven_bit_field = STR_INIT("Content-Transfer-Encoding: 7bit");
static const struct str quoted_field = STR_INIT("Content-Transfer-Encoding: quoted-printable");

struct str mime_error_text(enum mime_error e) {
    static const struct str texts[] = {
        [MIME_8BIT_HEADER] = STR_INIT("improper use of 8-bit data in message header"),
        [MIME_8BIT_BODY] = STR_INIT("improper use of 8-bit data in message body"),
        [MIME_DOMAIN] = STR_INIT("invalid message/* or multipart/* encoding domain"),
        [MIME_NESTING] = STR_INIT("MIME nesting exceeds safety limit"),
    };
    return texts[e];
}

bool mime_is_mime_header(enum header_id id) {
    switch (id) {
    case HEADER_CONTENT_DESCRIPTION:
    case HEADER_CONTENT_DISPOSITION:
    case HEADER_CONTENT_ID:
    case HEADER_CONTENT_TRANSFER_ENCODING:
    case HEADER_CONTENT_TYPE:
    case HEADER_MIME_VERSION:
        return true;
    default:
        return false;
    }
}

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

static void report(struct mime *m, enum mime_error e, struct str about) {
    if (m->o.error && m->o.parts)
        m->o.error(m->o.ctx, e, about);
}

static void entity_begin(struct mime *m, enum mime_class class) {
    m->in_headers = true;
    m->attached = false;
    m->encoding = ENCODING_7BIT;
    m->class = class;
    m->multipart = m->digest = m->message_type = m->global = false;
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
    m->multipart = m->message = m->digest = m->message_type = m->global = false;
    struct str type = take_word(&in, &word);
    m->multipart = str_eq_icase(type, STR("multipart"));
    bool message = m->message_type = str_eq_icase(type, STR("message"));
    if (take(&in, '/')) {
        struct str subtype = take_word(&in, &word);
        m->digest = m->multipart && str_eq_icase(subtype, STR("digest"));
        m->global = message && str_eq_icase(subtype, STR("global"));
        m->message = m->global || (message && str_eq_icase(subtype, STR("rfc822")));
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

/* mechanism = "7bit" / "8bit" / "binary" / "quoted-printable" / "base64" / ...       ; RFC 2045, 6.1 */
static void transfer_encoding(struct mime *m, struct str in) {
    struct buf word = { 0 };
    skip_blanks(&in);
    bool quoted = in.n && in.p[0] == '"';
    struct str name = take_word(&in, &word);
    if (quoted || (in.n && in.p[0] == '/')) /* a token, and nothing else (RFC 2045, 6.1) */
        name = STR("?");
    bool plain = str_eq_icase(name, STR("7bit"));
    bool eight = str_eq_icase(name, STR("8bit")) || str_eq_icase(name, STR("binary"));
    if (name.n)
        m->encoding = plain ? ENCODING_7BIT : eight ? ENCODING_8BIT : ENCODING_OTHER;
    /* what holds other parts cannot be encoded itself (RFC 2045, 6.4); asked when both fields are known */
    buf_free(&word);
}

bool mime_own_header(struct mime *m, struct str header) {
    struct str name, value;
    if (!m->o.parts || !header_split(header, &name, &value))
        return true;
    enum header_id id = header_find(name)->id;
    if (id == HEADER_CONTENT_TYPE)
        content_type(m, value);
    else if (id == HEADER_CONTENT_TRANSFER_ENCODING)
        transfer_encoding(m, value);
    if ((id == HEADER_CONTENT_TYPE || id == HEADER_CONTENT_TRANSFER_ENCODING) && m->encoding == ENCODING_OTHER &&
        (m->multipart || m->message_type))
        report(m, MIME_DOMAIN, id == HEADER_CONTENT_TYPE ? header : str_trim(value));
    if (!str_is_ascii(header))
        report(m, MIME_8BIT_HEADER, header);
    if (id == HEADER_CONTENT_TYPE && m->multipart && m->boundary.n && m->levels.n > m->o.nesting_limit + 1)
        report(m, MIME_NESTING, header);
    return !(m->o.downgrade && id == HEADER_CONTENT_TRANSFER_ENCODING && m->encoding == ENCODING_8BIT);
}

bool mime_is_new_field(struct str header) {
    return header.p == seven_bit_field.p || header.p == quoted_field.p;
}

struct str mime_new_field(const struct mime *m) {
    if (!m->o.parts || !m->o.downgrade || m->encoding != ENCODING_8BIT)
        return STR("");
    /* what holds other entities has no encoding of its own (RFC 2045, 6.4; RFC 6532, 3.5 lets message/global have one)
     */
    bool holds = m->multipart || m->message || m->message_type;
    return holds && !m->global ? seven_bit_field : quoted_field;
}

static void header_done(struct mime *m) {
    if (m->header.n == 0)
        return;
    struct str header = buf_str(&m->header);
    if (mime_own_header(m, header))
        m->o.header(m->o.ctx, m->class, header);
    buf_clear(&m->header);
}

static void last_header_done(struct mime *m) {
    header_done(m);
    struct str field = mime_new_field(m);
    if (field.n)
        m->o.header(m->o.ctx, m->class, field);
}

static void quoted_line(void *ctx, struct str line) {
    struct mime *m = ctx;
    m->o.body(m->o.ctx, line, m->line_offset, true);
}

static void body(struct mime *m, struct str line, bool whole) {
    size_t offset = m->offset;
    m->offset += line.n + (whole ? 1 : 0);
    if (m->encoding == ENCODING_7BIT && m->o.error && !str_is_ascii(line))
        report(m, MIME_8BIT_BODY, line);
    if (!m->quoting) {
        m->o.body(m->o.ctx, line, offset, whole);
        return;
    }
    quoted_printable_add(&m->quoted, line, whole, quoted_line, m);
    if (whole)
        m->line_offset = m->offset;
}

void mime_own_headers_end(struct mime *m) {
    m->in_headers = false;
    m->offset = m->line_offset = 0;
    if (m->o.downgrade && m->encoding == ENCODING_8BIT && m->global)
        m->message = false; /* as a whole: its header may be in 8 bits, too (RFC 6532, 3.7) */
    m->quoting = m->o.downgrade && m->encoding == ENCODING_8BIT && !m->multipart && !m->message;
    m->attached = m->o.parts && m->message;
    if (!m->o.parts || m->levels.n > m->o.nesting_limit + 1)
        return;
    if (m->multipart && m->boundary.n)
        *vec_add(m->arena, &m->levels) = (struct level){ m->boundary, m->digest };
}

static void headers_done(struct mime *m) {
    last_header_done(m);
    mime_own_headers_end(m);
}

/* A line between parts: "--boundary" and anything (RFC 2046, 5.1.1: the innermost that matches ends those in it). */
static bool boundary_line(struct mime *m, struct str line, bool whole) {
    if (!str_starts(line, STR("--")))
        return false;
    for (size_t i = m->levels.n; i-- > 0;) {
        struct str boundary = m->levels.at[i].boundary;
        if (!str_starts(str_from(line, 2), boundary))
            continue;
        if (m->in_headers)
            last_header_done(m);
        m->quoting = false;
        bool last = str_starts(str_from(line, 2 + boundary.n), STR("--"));
        m->levels.n = last ? i : i + 1;
        m->offset = 0;
        m->encoding = ENCODING_7BIT;
        body(m, line, whole);
        if (last) {
            m->in_headers = false;
            m->encoding = ENCODING_OTHER; /* of what stands between parts nobody has said anything */
        } else {
            entity_begin(m, MIME_PART);
        }
        return true;
    }
    return false;
}

static bool is_header(struct str line) {
    struct str name, value;
    return header_split(line, &name, &value);
}

/* More of a line whose beginning is in the header under way. */
static void header_more(struct mime *m, struct str piece) {
    if (m->header.n < m->o.header_limit)
        buf_add(&m->header, str_sub(piece, 0, m->o.header_limit - m->header.n));
}

void mime_piece(struct mime *m, struct str line, bool first, bool whole) {
    if (!first && m->skip) {
        m->skip = !whole;
        m->o.body(m->o.ctx, line, m->offset, whole);
        return;
    }
    if (!first && m->in_headers) {
        header_more(m, line);
        return;
    }
    if (first && boundary_line(m, line, whole)) {
        m->skip = !whole;
        return;
    }
    if (!m->in_headers) {
        bool begins = m->attached && line.n == 0; /* behind the empty line that ends the header */
        m->attached = false;
        body(m, line, whole);
        if (begins)
            entity_begin(m, MIME_NESTED);
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
    bool primary = m->class == MIME_PRIMARY;
    headers_done(m);
    bool begins = m->attached && line.n == 0;
    if (m->attached && line.n) /* no message after all */
        m->quoting = m->o.downgrade && m->encoding == ENCODING_8BIT;
    m->attached = false;
    if (line.n == 0 || primary) /* a message that has no empty line there gets one */
        body(m, STR(""), true);
    if (line.n)
        body(m, line, whole);
    else if (begins)
        entity_begin(m, MIME_NESTED);
}

void mime_line(struct mime *m, struct str line) {
    mime_piece(m, line, true, true);
}

void mime_end(struct mime *m) {
    if (m->in_headers)
        last_header_done(m);
}
