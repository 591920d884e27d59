#include "conf/main_edit.h"
#include "base/map.h"
#include "conf/main_cf.h"

/* The argument as a message shows it. */
static struct str shown(const struct main_edits *e, const struct main_edit *edit, struct arena *a) {
    if (e->kind != EDIT_SET)
        return edit->name;
    return arena_printf(a, "%.*s = %.*s", STR_ARG(edit->name), STR_ARG(edit->value));
}

static error parse_one(enum edit_kind kind, struct str text, struct arena *a, struct main_edit *ret) {
    if (str_index(text, '\n') >= 0)
        return err_make(a, ERR_CONFIG, "-e, -X, or -# accepts no multi-line input");
    struct str word = str_trim(text);
    if (word.n && word.p[0] == '#')
        return err_make(a, ERR_CONFIG, "-e, -X, or -# accepts no comment input");
    if (kind == EDIT_SET) {
        const char *wrong = assignment_split(text, &ret->name, &ret->value);
        return wrong ? err_make(a, ERR_CONFIG, "%s: \"%.*s\"", wrong, STR_ARG(text)) : NULL;
    }
    if (!word.n)
        return err_make(a, ERR_CONFIG, "-X or -# requires non-blank parameter names");
    if (str_index(word, '=') >= 0)
        return err_make(a, ERR_CONFIG, "-X or -# requires parameter names without value");
    *ret = (struct main_edit){ word, STR("") };
    return NULL;
}

error main_edits_parse(enum edit_kind kind, char *const *args, struct arena *a, struct main_edits *ret) {
    *ret = (struct main_edits){ .kind = kind };
    for (; *args; args++) {
        struct main_edit edit = { STR(""), STR("") };
        error e = parse_one(kind, str_c(*args), a, &edit);
        if (e)
            return e;
        for (size_t i = 0; i < ret->list.n; i++) {
            if (!str_eq(ret->list.at[i].name, edit.name))
                continue;
            struct str earlier = shown(ret, &ret->list.at[i], a);
            *vec_add(a, &ret->warnings) = arena_printf(a, "ignoring earlier request: '%.*s'", STR_ARG(earlier));
            memmove(&ret->list.at[i], &ret->list.at[i + 1], (ret->list.n - i - 1) * sizeof ret->list.at[0]);
            ret->list.n--;
            break;
        }
        *vec_add(a, &ret->list) = edit;
    }
    return NULL;
}

/* What stands before "=": of lines without one the first word, so that an edit can mend them. */
static struct str name_of(struct str line) {
    ptrdiff_t end = str_index_any(line, STR("= \t\r\n\v\f"));
    return end < 0 ? line : str_sub(line, 0, (size_t)end);
}

static void add_setting(struct buf *b, const struct main_edit *edit) {
    edit_end_line(b);
    buf_printf(b, "%.*s = %.*s\n", STR_ARG(edit->name), STR_ARG(edit->value));
}

error main_edits_apply(void *ctx, struct str text, struct arena *a, struct buf *ret_text) {
    struct main_edits *edits = ctx;
    struct map wanted = { 0 };
    size_t *times = arena_array(a, edits->list.n, sizeof *times);
    for (size_t i = 0; i < edits->list.n; i++)
        map_put(&wanted, edits->list.at[i].name, &edits->list.at[i]);
    const struct main_edit *edit = NULL; /* the one that the logical line at hand is about */
    struct str line;
    enum line_kind kind;
    while (physical_line(&text, &line, &kind)) {
        if (kind == LINE_BEGINS && (edit = map_get(&wanted, name_of(line)))) {
            if (++times[edit - edits->list.at] == 2)
                *vec_add(a, &edits->warnings) =
                    arena_printf(a, "%.*s: multiple entries for \"%.*s\"", STR_ARG(edits->path), STR_ARG(edit->name));
            if (edits->kind == EDIT_SET)
                add_setting(ret_text, edit);
        }
        if (kind != LINE_NOTHING && edit && edits->kind == EDIT_COMMENT)
            buf_byte(ret_text, '#');
        if (kind == LINE_NOTHING || !edit || edits->kind == EDIT_COMMENT)
            buf_add(ret_text, line);
    }
    for (size_t i = 0; edits->kind == EDIT_SET && i < edits->list.n; i++)
        if (!times[i])
            add_setting(ret_text, &edits->list.at[i]);
    map_free(&wanted);
    return NULL;
}
