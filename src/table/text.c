#include "table/text.h"

#include "base/log.h"
#include "base/utf8.h"
#include "mail/address.h"
#include "mail/rfc822.h"
#include "table/fold.h"

static struct str first_line(struct str s) {
    ptrdiff_t eol = str_index(s, '\n');
    return eol < 0 ? s : str_sub(s, 0, (size_t)eol);
}

static bool is_left_out(struct str line) {
    struct str text = str_trim_left(line);
    return text.n == 0 || text.p[0] == '#';
}

bool text_next_line(struct text_lines *t, struct buf *line, size_t *ret_number) {
    buf_clear(line);
    bool found = false;
    while (t->rest.n) {
        struct str physical = first_line(t->rest);
        if (!is_left_out(physical)) {
            if (found && !byte_is_space(physical.p[0]))
                break;
            if (!found)
                *ret_number = t->line + 1;
            found = true;
            buf_add(line, physical);
        }
        t->line++;
        t->rest = str_from(t->rest, physical.n + 1);
    }
    return found;
}

/* The key ends at the first blank that is neither in "..." nor behind a '\'; it keeps its quotes. False: the quotes
 * are not balanced. */
static bool split_key(struct str line, struct str *ret_key, struct str *ret_value) {
    bool quoted = false;
    size_t i = 0;
    for (; i < line.n; i++) {
        if (line.p[i] == '\\' && i + 1 < line.n)
            i++;
        else if (line.p[i] == '"')
            quoted = !quoted;
        else if (!quoted && byte_is_space(line.p[i]))
            break;
    }
    *ret_key = str_sub(line, 0, i);
    *ret_value = str_trim(str_from(line, i));
    return !quoted;
}

static bool read_map_line(struct text_reader *r, struct str line, size_t number, struct text_entry *ret) {
    if (!split_key(line, &ret->key, &ret->value)) {
        log_warn("%.*s, line %zu: unbalanced '\"' in '%.*s' -- ignoring this line", STR_ARG(r->file), number,
                 STR_ARG(line));
        return false;
    }
    if (ret->key.n == 0 || ret->value.n == 0) {
        log_warn("%.*s, line %zu: expected format: key whitespace value%s", STR_ARG(r->file), number, r->ignoring);
        return false;
    }
    if (str_ends(ret->key, STR(":")))
        log_warn("%.*s, line %zu: record is in \"key: value\" format; is this an alias file?", STR_ARG(r->file),
                 number);
    return true;
}

/* One token of an alias line in its stored form: one blank between words and before '<', ", " between items. */
static void add_alias_token(struct buf *b, const struct rfc822_token *t, bool after_word, bool unquote) {
    bool word = t->type != RFC822_SPECIAL;
    if (after_word && (word || t->special == '<'))
        buf_byte(b, ' ');
    if (unquote)
        rfc822_value(b, t);
    else
        buf_add(b, t->raw);
    if (t->type == RFC822_SPECIAL && t->special == ',')
        buf_byte(b, ' ');
}

static bool read_alias_line(struct text_reader *r, struct str line, size_t number, struct buf *scratch,
                            struct text_entry *ret, struct arena *a) {
    struct rfc822_cursor c = { .in = line };
    struct rfc822_token t;
    bool after_word = false, local = true;
    buf_clear(scratch);
    while ((t = rfc822_next(&c)).type != RFC822_END && !(t.type == RFC822_SPECIAL && t.special == ':')) {
        local = local && !(t.type == RFC822_SPECIAL && t.special == '@');
        add_alias_token(scratch, &t, after_word, true);
        after_word = t.type != RFC822_SPECIAL;
    }
    /* as an address has it, with quotes where it needs them (since Postfix 3.12) */
    bool named = scratch->n > 0;
    buf_add(scratch, STR("@x"));
    ret->key = address_quote(a, buf_str(scratch));
    ret->key = arena_str(a, str_sub(ret->key, 0, ret->key.n - 2));
    bool colon = t.type != RFC822_END;
    buf_clear(scratch);
    after_word = false;
    while ((t = rfc822_next(&c)).type != RFC822_END) {
        add_alias_token(scratch, &t, after_word, false);
        after_word = t.type != RFC822_SPECIAL && !str_eq(t.raw, STR("|")); /* |"command" */
    }
    ret->value = arena_str(a, str_trim_right(buf_str(scratch)));
    const char *fault = NULL;
    if (!colon || !named || ret->value.n == 0)
        fault = "need name:value pair";
    else if (c.unterminated)
        fault = "unbalanced quote, bracket or comment";
    else if (!local)
        fault = "name must be local";
    if (fault)
        log_warn("%.*s, line %zu: %s", STR_ARG(r->file), number, fault);
    return fault == NULL;
}

bool text_next_entry(struct text_reader *r, struct arena *a, struct buf *scratch, struct text_entry *ret) {
    struct buf line = { 0 };
    bool found = false;
    size_t number;
    while (!found && text_next_line(&r->lines, &line, &number)) {
        struct str text = buf_str(&line);
        *ret = (struct text_entry){ .line = number };
        if (byte_is_space(text.p[0])) {
            log_warn("%.*s, line %zu: logical line must not start with whitespace: \"%.*s\"", STR_ARG(r->file), number,
                     STR_ARG(str_sub(text, 0, 30)));
            continue;
        }
        if (str_index(text, 0) >= 0 || (!(r->flags & TEXT_ANY_BYTES) && !utf8_valid(text))) {
            log_warn("%.*s, line %zu: non-UTF-8 input \"%.*s\" -- ignoring this line", STR_ARG(r->file), number,
                     STR_ARG(text));
            continue;
        }
        if (r->flags & TEXT_ALIASES) {
            found = read_alias_line(r, text, number, scratch, ret, a);
            if (found && (r->flags & TEXT_FOLD))
                ret->key = arena_fold(a, ret->key, !(r->flags & TEXT_ASCII));
        } else if (read_map_line(r, text, number, ret)) { /* both side by side: they are read together */
            ret->key =
                r->flags & TEXT_FOLD ? arena_fold(a, ret->key, !(r->flags & TEXT_ASCII)) : arena_str(a, ret->key);
            ret->value = arena_str(a, ret->value);
            found = true;
        }
    }
    buf_free(&line);
    return found;
}

void dictionary_read(struct dictionary *d, struct text_reader *r, struct arena *a) {
    VEC(struct text_entry) all = { 0 };
    struct buf scratch = { 0 };
    struct text_entry e;
    /* the map borrows pointers into the vector, so it is filled once the vector has stopped moving */
    while (text_next_entry(r, a, &scratch, &e))
        *vec_add(a, &all) = e;
    buf_free(&scratch);
    d->at = all.at;
    d->n = 0;
    for (size_t i = 0; i < all.n; i++) {
        if (map_get(&d->map, all.at[i].key)) {
            log_warn("%.*s, line %zu: duplicate entry: \"%.*s\"", STR_ARG(r->file), all.at[i].line,
                     STR_ARG(all.at[i].key));
            continue;
        }
        all.at[d->n] = all.at[i];
        map_put(&d->map, all.at[d->n].key, &all.at[d->n]);
        d->n++;
    }
}

void dictionary_free(struct dictionary *d) {
    map_free(&d->map);
    *d = (struct dictionary){ 0 };
}
