#include "cleanup/content.h"

#include "base/utf8.h"
#include "mail/address.h"
#include "mail/date.h"
#include "mail/encoded_word.h"
#include "mail/header_rewrite.h"

enum { REJECTED_LINE_MAX = 200 };

#define SEEN(id) (UINT64_C(1) << (id))
_Static_assert(HEADER_TO < 64, "a bit for each row of the header table");

/* --- rules --- */

static bool octal(char c) {
    return c >= '0' && c <= '7';
}

struct byte_set byte_set_parse(struct str s) {
    static const char names[] = "abfnrtv", values[] = "\a\b\f\n\r\t\v";
    struct byte_set set = { 0 };
    for (size_t i = 0; i < s.n; i++) {
        unsigned c = (unsigned char)s.p[i];
        if (c == '\\' && i + 1 < s.n) {
            char next = s.p[++i];
            const char *named = memchr(names, next, sizeof names - 1);
            c = named ? (unsigned char)values[named - names] : (unsigned char)next;
            if (octal(next)) {
                c = (unsigned)(next - '0');
                for (int digits = 1; digits < 3 && i + 1 < s.n && octal(s.p[i + 1]); digits++)
                    c = c * 8 + (unsigned)(s.p[++i] - '0');
                c &= 255;
            }
        }
        set.bits[c / 64] |= UINT64_C(1) << (c % 64);
        set.any = true;
    }
    return set;
}

bool header_end_action(struct str name, enum header_end_action *ret) {
    static const struct str names[] = {
        [HEADER_END_FIX] = STR_INIT("fix_quietly"),
        [HEADER_END_ADD_FIELD] = STR_INIT("add_header"),
        [HEADER_END_REJECT] = STR_INIT("reject"),
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (str_eq(name, names[i])) {
            *ret = (enum header_end_action)i;
            return true;
        }
    return false;
}

struct content_rules content_rules(const struct conf *c) {
    struct content_rules r = {
        .replace_stray_cr = conf_bool(c, PARAM_cleanup_replace_stray_cr_lf),
        .strip = byte_set_parse(conf_str(c, PARAM_message_strip_characters)),
        .reject = byte_set_parse(conf_str(c, PARAM_message_reject_characters)),
        .header_size_limit = (size_t)conf_int(c, PARAM_header_size_limit),
        .address_tokens = (size_t)conf_int(c, PARAM_header_address_token_limit),
        .drop_headers = conf_str(c, PARAM_message_drop_headers),
        .undisclosed = str_trim(conf_str(c, PARAM_undisclosed_recipients_header)),
        .from_obsolete = str_eq(conf_str(c, PARAM_header_from_format), STR("obsolete")),
        .name_charset = conf_str(c, PARAM_full_name_encoding_charset),
        .host = conf_str(c, PARAM_myhostname),
    };
    header_end_action(conf_str(c, PARAM_non_empty_end_of_header_action), &r.header_end);
    struct str list = r.drop_headers, name;
    while (str_word(&list, STR_COMMA_SPACE, &name)) {
        enum header_id id = header_find(name)->id;
        if (id == HEADER_OTHER)
            r.drop_others = true;
        else
            r.drop_ids |= SEEN(id);
    }
    return r;
}

static bool dropped(const struct content_rules *r, struct str name, enum header_id id) {
    if (id != HEADER_OTHER || !r->drop_others)
        return r->drop_ids & SEEN(id);
    struct str list = r->drop_headers, item;
    while (str_word(&list, STR_COMMA_SPACE, &item))
        if (str_eq_icase(item, name))
            return true;
    return false;
}

/* --- the header section --- */

static void put(struct content *c, struct str s) {
    if (s.n > 0)
        c->m->write(c->m->ctx, s);
}

/* What the inspector says of a field: false: it goes away. */
static bool field_inspected(struct content *c, struct str *field) {
    const struct content_inspector *i = c->m->inspector;
    if (!i || !i->header)
        return true;
    struct str text = str_sub(*field, 0, field->n - 1), before = STR("");
    bool keep = i->header(c->m->ctx, c->arena, MIME_PRIMARY, &text, &before);
    if (before.n)
        put(c, arena_cat(c->arena, before, STR("\n")));
    if (text.p != field->p || text.n != field->n - 1)
        *field = arena_cat(c->arena, text, STR("\n"));
    return keep;
}

static bool word_is(struct str value, struct str a, struct str b) {
    struct str word;
    return str_word(&value, STR(" \t\r\n;("), &word) && (str_eq_icase(word, a) || str_eq_icase(word, b));
}

static void field_end(struct content *c) {
    buf_clear(&c->field);
    c->line = 0;
    arena_reset(c->arena);
}

/* A whole field, with its last LF. */
static void field_done(struct content *c) {
    struct str field = buf_str(&c->field), name, value;
    if (field.n == 0)
        return;
    if ((c->mime && !mime_own_header(c->mime, str_sub(field, 0, field.n - 1))) || !field_inspected(c, &field)) {
        field_end(c);
        return;
    }
    header_split(field, &name, &value); /* it began as a header, or it would not be here */
    if (field.p[name.n] != ':')         /* "Name : value", of old (RFC 5322, 4.5) */
        field = arena_cat(c->arena, name, str_from(field, (size_t)str_index(field, ':')));
    const struct header_row *row = header_find(name);
    if (row->id == HEADER_CONTENT_TRANSFER_ENCODING)
        c->eight_bit = c->eight_bit || word_is(value, STR("8bit"), STR("binary"));
    if (row->id == HEADER_OTHER && str_eq_icase(name, STR("Require-TLS-ESMTP")))
        c->requiretls = c->requiretls || word_is(value, STR("yes"), STR("yes"));
    if (row->id == HEADER_TLS_REQUIRED)
        c->tls_optional = c->tls_optional || word_is(value, STR("no"), STR("no"));
    c->seen |= SEEN(row->id);
    c->resent = c->resent || (row->flags & HEADER_RESENT);
    if (row->id == HEADER_RECEIVED)
        c->hops++;
    if (c->m->detect_utf8 && !c->utf8)
        c->utf8 = !str_is_ascii(field);
    if (row->id == HEADER_MESSAGE_ID || row->id == HEADER_RESENT_MESSAGE_ID)
        c->m->message_id(c->m->ctx, row->id == HEADER_RESENT_MESSAGE_ID, header_unfold(c->arena, value));
    if (!dropped(c->rules, name, row->id)) {
        unsigned kind = row->flags & (HEADER_SENDER_ADDRESS | HEADER_RECIPIENT_ADDRESS);
        if (kind && c->m->rewrite)
            field = header_rewrite(c->arena, field, kind, c->rules->address_tokens, c->m->address, c->m->ctx);
        put(c, field);
    }
    field_end(c);
}

static bool name_needs_quotes(struct str name) {
    for (size_t i = 0; i < name.n; i++)
        if (!byte_is_alnum(name.p[i]) && !memchr("!#$%&'*+-/=?^_`{|}~ ", name.p[i], 20) &&
            (unsigned char)name.p[i] < 0x80)
            return true;
    return false;
}

struct str content_from(struct arena *a, struct str prefix, struct str sender, struct str full_name, struct str charset,
                        bool obsolete) {
    struct buf b = { 0 };
    struct str address = sender.n > 0 ? address_quote(a, sender) : STR("MAILER-DAEMON");
    char *clean = arena_cstr(a, full_name);
    for (size_t i = 0; i < full_name.n; i++)
        if ((unsigned char)clean[i] < ' ' || clean[i] == 0x7f)
            clean[i] = ' ';
    struct str name = sender.n > 0 ? str_trim((struct str){ clean, full_name.n }) : STR("");
    buf_printf(&b, "%.*sFrom: ", STR_ARG(prefix));
    bool encode = !str_is_ascii(name);
    if (encode)
        name = encoded_words(a, name, charset);
    if (name.n == 0) {
        buf_add(&b, address);
    } else if (encode) {
        struct str first = obsolete ? address : name, second = obsolete ? name : address;
        buf_printf(&b, "%.*s %c%.*s%c", STR_ARG(first), obsolete ? '(' : '<', STR_ARG(second), obsolete ? ')' : '>');
    } else if (obsolete) {
        buf_printf(&b, "%.*s (", STR_ARG(address));
        for (size_t i = 0; i < name.n; i++) {
            if (memchr("()\\", name.p[i], 3))
                buf_byte(&b, '\\');
            buf_byte(&b, name.p[i]);
        }
        buf_byte(&b, ')');
    } else {
        bool quote = name_needs_quotes(name);
        if (quote)
            buf_byte(&b, '"');
        for (size_t i = 0; i < name.n; i++) {
            if (quote && (name.p[i] == '"' || name.p[i] == '\\'))
                buf_byte(&b, '\\');
            buf_byte(&b, name.p[i]);
        }
        buf_printf(&b, "%s <%.*s>", quote ? "\"" : "", STR_ARG(address));
    }
    struct str from = arena_str(a, buf_str(&b));
    buf_free(&b);
    return from;
}

static void add_missing(struct content *c) {
    const struct content_message *m = c->m;
    struct str prefix = c->resent ? STR("Resent-") : STR("");
    if (!(c->seen & SEEN(c->resent ? HEADER_RESENT_MESSAGE_ID : HEADER_MESSAGE_ID))) {
        struct str id = message_id(c->arena, m->now, m->queue_id, c->rules->host);
        m->message_id(m->ctx, c->resent, id);
        put(c, arena_printf(c->arena, "%.*sMessage-Id: %.*s\n", STR_ARG(prefix), STR_ARG(id)));
        if (!c->resent)
            c->seen |= SEEN(HEADER_MESSAGE_ID);
    }
    if (!(c->seen & SEEN(c->resent ? HEADER_RESENT_DATE : HEADER_DATE))) {
        struct str date = date_rfc5322(c->arena, m->now);
        put(c, arena_printf(c->arena, "%.*sDate: %.*s\n", STR_ARG(prefix), STR_ARG(date)));
    }
    if (!(c->seen & SEEN(c->resent ? HEADER_RESENT_FROM : HEADER_FROM))) {
        struct str from =
            content_from(c->arena, prefix, m->sender, m->full_name, c->rules->name_charset, c->rules->from_obsolete);
        put(c, arena_cat(c->arena, from, STR("\n")));
    }
    const uint64_t visible = SEEN(HEADER_TO) | SEEN(HEADER_CC) | SEEN(HEADER_RESENT_TO) | SEEN(HEADER_RESENT_CC);
    if (!(c->seen & visible) && c->rules->undisclosed.n > 0)
        put(c, arena_cat(c->arena, c->rules->undisclosed, STR("\n")));
}

/* No more header fields. */
static void header_end(struct content *c) {
    struct str encoding = c->mime ? mime_new_field(c->mime) : STR("");
    if (encoding.n) {
        encoding = arena_cat(c->arena, encoding, STR("\n"));
        if (field_inspected(c, &encoding))
            put(c, encoding);
    }
    if (c->m->add_missing)
        add_missing(c);
    if (!(c->seen & SEEN(HEADER_MESSAGE_ID)))
        c->m->message_id(c->m->ctx, false, STR(""));
    arena_reset(c->arena);
    c->in_header = false;
    c->cut = false;
    if (c->mime)
        mime_own_headers_end(c->mime);
}

/* --- the body, where somebody looks at it --- */
static void inspected_header(void *ctx, enum mime_class class, struct str text) {
    struct content *c = ctx;
    const struct content_inspector *i = c->m->inspector;
    struct str before = STR("");
    bool keep = !i->header || i->header(c->m->ctx, c->arena, class, &text, &before);
    if (before.n)
        put(c, arena_cat(c->arena, before, STR("\n")));
    if (keep) {
        put(c, text);
        put(c, STR("\n"));
    }
    arena_reset(c->arena);
}

static void inspected_body(void *ctx, struct str text, size_t offset, bool whole) {
    struct content *c = ctx;
    const struct content_inspector *i = c->m->inspector;
    struct str before = STR("");
    bool keep = !i->body || i->body(c->m->ctx, c->arena, offset, &text, &before);
    if (before.n)
        put(c, arena_cat(c->arena, before, STR("\n")));
    if (keep) {
        put(c, text);
        if (whole)
            put(c, STR("\n"));
    }
    arena_reset(c->arena);
}

static void inspected_error(void *ctx, enum mime_error e, struct str about) {
    struct content *c = ctx;
    c->m->inspector->error(c->m->ctx, e, about);
}

static void text_done(struct content *c, bool whole) {
    mime_piece(c->mime, buf_str(&c->text), c->text_first, whole);
    buf_clear(&c->text);
    c->text_first = whole;
}

static void inspect(struct content *c, struct str s) {
    size_t limit = c->m->inspector->line_limit;
    while (s.n > 0) {
        ptrdiff_t lf = str_index(s, '\n');
        size_t n = lf < 0 ? s.n : (size_t)lf;
        bool cut = n > limit - c->text.n;
        if (cut)
            n = limit - c->text.n;
        buf_add(&c->text, str_sub(s, 0, n));
        s = str_from(s, n);
        if (cut) {
            text_done(c, false);
        } else if (lf >= 0) {
            s = str_from(s, 1);
            text_done(c, true);
        }
    }
}

static void inspect_begin(struct content *c) {
    const struct content_inspector *i = c->m->inspector;
    const struct mime_options o = {
        .parts = i->parts,
        .downgrade = i->downgrade,
        .header_limit = c->rules->header_size_limit,
        .nesting_limit = i->nesting_limit,
        .boundary_limit = i->boundary_limit,
        .header = inspected_header,
        .body = inspected_body,
        .error = i->error ? inspected_error : NULL,
        .ctx = c,
    };
    c->mime = mime_new(&o);
    c->text_first = true;
}

static void inspect_end(struct content *c) {
    if (c->text.n > 0 || !c->text_first)
        text_done(c, true);
    mime_end(c->mime);
}

static void body(struct content *c, struct str s) {
    if (s.n == 0)
        return;
    if (c->mime) {
        inspect(c, s);
        return;
    }
    c->line_open = s.p[s.n - 1] != '\n';
    put(c, s);
}

/* What is in `field` turned out to be no header field but the first line of the body, as far as it is there. */
static void header_ends_here(struct content *c) {
    struct str line = buf_str(&c->field);
    bool forgotten = !str_eq(line, STR("\n"));
    if (forgotten && c->rules->header_end == HEADER_END_ADD_FIELD)
        put(c, STR("MIME-Error: " HEADER_END_TEXT "\n"));
    if (forgotten && c->rules->header_end == HEADER_END_REJECT)
        buf_add(&c->unended, str_trim(line));
    header_end(c);
    if (forgotten)
        body(c, STR("\n"));
    body(c, line);
    buf_free(&c->field);
}

static bool is_field(const struct content *c) {
    struct str name, value;
    return header_split(buf_str(&c->field), &name, &value);
}

/* A piece of one line of the header section, `whole` when it ends with its LF. Returns how much of it was taken: all,
 * or less when the rest belongs to the body. */
static size_t header_piece(struct content *c, struct str piece, bool whole) {
    if (c->line_start) {
        c->line_start = false;
        if (c->line == 0 || (piece.p[0] != ' ' && piece.p[0] != '\t')) {
            field_done(c);
            c->cut = false;
        }
    }
    size_t text = piece.n - (whole ? 1 : 0);
    size_t limit = c->rules->header_size_limit;
    size_t room = c->field.n < limit ? limit - c->field.n : 0;
    if (!c->cut && text > room) {
        buf_add(&c->field, str_sub(piece, 0, room));
        if (c->line == 0 && !is_field(c)) {
            header_ends_here(c);
            return room;
        }
        c->cut = true;
    } else if (!c->cut) {
        buf_add(&c->field, str_sub(piece, 0, text));
    }
    if (!whole)
        return piece.n;
    c->line_start = true;
    if (c->cut && c->field.n == c->line)
        return piece.n; /* a continuation line of which nothing is kept */
    buf_byte(&c->field, '\n');
    if (c->line == 0 && !is_field(c))
        header_ends_here(c);
    else
        c->line = c->field.n;
    return piece.n;
}

/* Bytes after replacing and stripping. */
static void clean(struct content *c, struct str s) {
    while (c->in_header && s.n > 0) {
        ptrdiff_t lf = str_index(s, '\n');
        struct str piece = lf >= 0 ? str_sub(s, 0, (size_t)lf + 1) : s;
        s = str_from(s, header_piece(c, piece, lf >= 0));
    }
    body(c, s);
}

/* --- everything --- */

void content_begin(struct content *c, const struct content_rules *rules, const struct content_message *m) {
    *c = (struct content){ .rules = rules, .m = m, .arena = arena_new(), .in_header = true, .line_start = true };
    if (m->inspector)
        inspect_begin(c);
}

void content_free(struct content *c) {
    arena_free(c->arena);
    mime_free(c->mime);
    buf_free(&c->text);
    buf_free(&c->field);
    buf_free(&c->rejected_line);
    buf_free(&c->unended);
    *c = (struct content){ 0 };
}

static void reject_check(struct content *c, struct str s) {
    for (size_t i = 0; i < s.n && !c->rejected; i++)
        if (byte_set_has(&c->rules->reject, (unsigned char)s.p[i])) {
            c->rejected = true;
            size_t from = i;
            while (from > 0 && s.p[from - 1] != '\n' && i - from < REJECTED_LINE_MAX)
                from--;
            struct str line = str_sub(s, from, REJECTED_LINE_MAX);
            ptrdiff_t lf = str_index(line, '\n');
            buf_add(&c->rejected_line, lf >= 0 ? str_sub(line, 0, (size_t)lf) : line);
        }
}

void content_feed(struct content *c, struct str s) {
    const struct content_rules *r = c->rules;
    if (r->reject.any)
        reject_check(c, s);
    if (!r->strip.any) {
        ptrdiff_t cr;
        while (r->replace_stray_cr && (cr = str_index(s, '\r')) >= 0) {
            clean(c, str_sub(s, 0, (size_t)cr));
            clean(c, STR(" "));
            s = str_from(s, (size_t)cr + 1);
        }
        clean(c, s);
        return;
    }
    size_t from = 0;
    for (size_t i = 0; i < s.n; i++) {
        bool strip = byte_set_has(&r->strip, (unsigned char)s.p[i]);
        bool stray = s.p[i] == '\r' && r->replace_stray_cr;
        if (!strip && !stray)
            continue;
        clean(c, str_sub(s, from, i - from));
        if (!strip)
            clean(c, STR(" "));
        from = i + 1;
    }
    clean(c, str_from(s, from));
}

void content_end(struct content *c) {
    if (c->in_header && !c->line_start) /* a last line without its LF */
        header_piece(c, STR("\n"), true);
    if (c->in_header) {
        field_done(c);
        header_end(c);
    }
    if (c->mime)
        inspect_end(c);
    if (c->line_open)
        put(c, STR("\n"));
    c->line_open = false;
}
