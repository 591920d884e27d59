#include "conf/master_edit.h"
#include "conf/lines.h"
#include "conf/main_cf.h"

static const struct str any = STR_INIT("*");

bool pattern_part_matches(struct str pattern, struct str text) {
    return str_eq(pattern, any) || str_eq(pattern, text);
}

bool service_pattern_parse(enum master_scope scope, struct str text, struct service_pattern *ret) {
    struct str *parts[] = { &ret->name, &ret->type, &ret->part };
    size_t most = scope == MASTER_SERVICES ? 2 : 3;
    struct str rest = text, piece;
    *ret = (struct service_pattern){ any, any, any, 0 };
    if (str_starts(text, STR("/")))
        return false;
    while (str_word(&rest, STR("/"), &piece)) {
        if (ret->parts == most || (piece.n > 1 && str_index(piece, '*') >= 0))
            return false;
        *parts[ret->parts++] = piece;
    }
    return ret->parts > 0;
}

bool service_pattern_matches(const struct service_pattern *p, const struct service_text *s) {
    return pattern_part_matches(p->name, s->field[SERVICE_NAME]) &&
           pattern_part_matches(p->type, s->field[SERVICE_TYPE]);
}

/* --- what is asked for --- */

static error parse_pattern(enum master_scope scope, struct str text, struct arena *a, struct service_pattern *ret) {
    static const struct {
        size_t parts;
        const char *usage;
    } needs[] = {
        [MASTER_SERVICES] = { 2, "-Me, -MX or -M# requires service_name/type" },
        [MASTER_FIELDS] = { 3, "-Fe or -FX requires service_name/type/field_name" },
        [MASTER_PARAMETERS] = { 3, "-Pe or -PX requires service_name/type/parameter" },
    };
    if (!service_pattern_parse(scope, text, ret) || ret->parts != needs[scope].parts)
        return err_make(a, ERR_CONFIG, "%s", needs[scope].usage);
    return NULL;
}

static error parse_service(struct master_edits *edits, struct master_edit *edit, struct arena *a) {
    if (edits->kind != EDIT_SET)
        return NULL;
    error e = service_text_parse(edit->value, a, &edits->notes, &edit->service);
    if (e && str_starts(e->text, STR("bad field count")))
        e = err_make(a, ERR_CONFIG, "bad field count: \"%.*s\"", STR_ARG(edit->text));
    return e;
}

static error parse_field(struct master_edits *edits, struct master_edit *edit, struct arena *a) {
    struct service_text ignored = { 0 };
    if (str_eq(edit->pattern.part, any))
        return err_make(a, ERR_CONFIG, "-Fe does not accept wild-card field name");
    if (!service_field_find(edit->pattern.part, &edit->field))
        return err_make(a, ERR_CONFIG, "invalid service attribute name: \"%.*s\"", STR_ARG(edit->pattern.part));
    if (edit->field == SERVICE_COMMAND) /* for its warnings, once */
        return service_command_parse(edit->value, a, &edits->notes, &ignored);
    if (str_index_any(edit->value, STR(" \t\r\n\v\f")) >= 0)
        return err_make(a, ERR_CONFIG, "-Fe does not accept whitespace in non-command field");
    return service_field_check(edit->field, edit->value, edit->value, a);
}

static error parse_parameter(struct master_edit *edit, struct arena *a) {
    if (str_eq(edit->pattern.part, any))
        return err_make(a, ERR_CONFIG, "-Pe does not accept wild-card parameter name");
    if (str_index_any(edit->value, STR(" \t\r\n\v\f")) >= 0)
        return err_make(a, ERR_CONFIG, "-Pe does not accept whitespace in parameter value");
    return NULL;
}

static error parse_one(struct master_edits *edits, struct str text, struct arena *a, struct master_edit *edit) {
    struct str name = text;
    *edit = (struct master_edit){ .text = text };
    if (str_index(text, '\n') >= 0)
        return err_make(a, ERR_CONFIG, "-Me, -Fe, -Pe, -X, or -# accept no multi-line input");
    if (str_starts(str_trim_left(text), STR("#")))
        return err_make(a, ERR_CONFIG, "-Me, -Fe, -Pe, -X, or -# accept no comment input");
    if (edits->kind == EDIT_SET) {
        const char *wrong = assignment_split(text, &name, &edit->value);
        if (wrong)
            return err_make(a, ERR_CONFIG, "%s: \"%.*s\"", wrong, STR_ARG(text));
    } else if (str_index(text, '=') >= 0) {
        return err_make(a, ERR_CONFIG, "-X or -# requires names without value");
    }
    error e = parse_pattern(edits->scope, name, a, &edit->pattern);
    if (e)
        return e;
    switch (edits->scope) {
    case MASTER_SERVICES:
        return parse_service(edits, edit, a);
    case MASTER_FIELDS:
        return parse_field(edits, edit, a);
    case MASTER_PARAMETERS:
        return parse_parameter(edit, a);
    }
    return NULL;
}

static bool same_pattern(const struct service_pattern *x, const struct service_pattern *y) {
    return str_eq(x->name, y->name) && str_eq(x->type, y->type) && str_eq(x->part, y->part);
}

error master_edits_parse(enum master_scope scope, enum edit_kind kind, char *const *args, struct arena *a,
                         struct master_edits *ret) {
    *ret = (struct master_edits){ .scope = scope, .kind = kind };
    for (; *args; args++) {
        struct master_edit edit;
        error e = parse_one(ret, str_c(*args), a, &edit);
        if (e)
            return e;
        for (size_t i = 0; i < ret->list.n; i++) {
            if (!same_pattern(&ret->list.at[i].pattern, &edit.pattern))
                continue;
            *vec_add(a, &ret->notes.warnings) =
                arena_printf(a, "ignoring earlier request: '%.*s'", STR_ARG(ret->list.at[i].text));
            memmove(&ret->list.at[i], &ret->list.at[i + 1], (ret->list.n - i - 1) * sizeof ret->list.at[0]);
            ret->list.n--;
            break;
        }
        *vec_add(a, &ret->list) = edit;
    }
    return NULL;
}

/* --- doing it --- */

/* One logical line of the file: `text` is all of it, comments in between and all; where it has none, there is nothing
 * to continue. */
struct entry {
    struct str text; /* physical lines up to the last one that belongs to it */
    size_t line;
    struct service_text names; /* name and type only */
};

struct editing {
    struct master_edits *edits;
    struct arena *arena;
    struct buf *out;
};

/* A new entry replaces what it is asked to replace, and what would be the same service. */
static bool edit_matches(const struct editing *ed, const struct master_edit *edit, const struct service_text *s) {
    if (service_pattern_matches(&edit->pattern, s))
        return true;
    return ed->edits->scope == MASTER_SERVICES && ed->edits->kind == EDIT_SET &&
           str_eq(edit->service.field[SERVICE_NAME], s->field[SERVICE_NAME]) &&
           str_eq(edit->service.field[SERVICE_TYPE], s->field[SERVICE_TYPE]);
}

static void add_service(struct editing *ed, const struct service_text *s) {
    edit_end_line(ed->out);
    service_text_format(ed->out, s, true);
    buf_byte(ed->out, '\n');
}

/* The lines of an entry that are not its own, or, with `comment_out`, all of them. */
static void add_lines(struct editing *ed, struct str text, bool comment_out) {
    struct str line;
    enum line_kind kind;
    while (physical_line(&text, &line, &kind)) {
        if (kind != LINE_NOTHING && comment_out)
            buf_byte(ed->out, '#');
        if (kind == LINE_NOTHING || comment_out)
            buf_add(ed->out, line);
    }
}

static void set_parameter(struct service_text *s, const struct master_edit *edit, struct arena *a) {
    size_t at = 0; /* behind the last option */
    bool found = false;
    for (size_t i = 0; i < s->args.n; i++) {
        struct service_arg *arg = &s->args.at[i];
        if (arg->is_option)
            at = i + 1;
        if (arg->is_setting && str_eq(arg->name, edit->pattern.part)) {
            arg->value = edit->value;
            found = true;
        }
    }
    if (found)
        return;
    vec_add(a, &s->args)->is_option = false; /* room for one more */
    memmove(&s->args.at[at + 1], &s->args.at[at], (s->args.n - at - 1) * sizeof s->args.at[0]);
    s->args.at[at] =
        (struct service_arg){ .is_option = true, .is_setting = true, .name = edit->pattern.part, .value = edit->value };
}

/* False: there was none. */
static bool remove_parameter(struct service_text *s, const struct master_edit *edit) {
    size_t kept = 0, n = s->args.n;
    for (size_t i = 0; i < n; i++)
        if (!s->args.at[i].is_setting || !str_eq(s->args.at[i].name, edit->pattern.part))
            s->args.at[kept++] = s->args.at[i];
    s->args.n = kept;
    return kept < n;
}

static error set_field(struct service_text *s, const struct master_edit *edit, struct arena *a) {
    struct master_text ignored = { 0 };
    if (edit->field == SERVICE_COMMAND)
        return service_command_parse(edit->value, a, &ignored, s);
    s->field[edit->field] = edit->value;
    return NULL;
}

/* -F and -P: all requests that match, in order. */
static error change_entry(struct editing *ed, const struct entry *entry, bool *ret_changed, struct service_text *ret) {
    struct lines lines = { entry->text, ed->edits->path, 0, ed->arena };
    struct logical_line line;
    error e = lines_next(&lines, &line);
    if (!e)
        e = service_text_parse(line.text, ed->arena, &ed->edits->notes, ret);
    if (e && str_starts(e->text, STR("bad field count")))
        e = err_make(ed->arena, ERR_CONFIG, "file %.*s: line %zu: %.*s", STR_ARG(ed->edits->path), entry->line,
                     STR_ARG(e->text));
    for (size_t i = 0; !e && i < ed->edits->list.n; i++) {
        struct master_edit *edit = &ed->edits->list.at[i];
        if (!service_pattern_matches(&edit->pattern, &entry->names))
            continue;
        if (ed->edits->scope == MASTER_FIELDS) {
            e = set_field(ret, edit, ed->arena);
            *ret_changed = true;
        } else if (ed->edits->kind == EDIT_SET) {
            set_parameter(ret, edit, ed->arena);
            *ret_changed = true;
        } else {
            *ret_changed |= remove_parameter(ret, edit);
        }
    }
    return e;
}

static error edit_entry(struct editing *ed, const struct entry *entry) {
    struct master_edits *edits = ed->edits;
    struct master_edit *last = NULL;
    bool used = false;
    for (size_t i = 0; i < edits->list.n; i++) {
        if (!edit_matches(ed, &edits->list.at[i], &entry->names))
            continue;
        last = &edits->list.at[i];
        used = last->matched;
        last->matched = true;
    }
    if (!last) {
        buf_add(ed->out, entry->text);
        return NULL;
    }
    if (edits->scope == MASTER_SERVICES) {
        if (edits->kind == EDIT_SET && !used)
            add_service(ed, &last->service);
        add_lines(ed, entry->text, edits->kind == EDIT_COMMENT);
        return NULL;
    }
    struct service_text service = { 0 };
    bool changed = false;
    error e = change_entry(ed, entry, &changed, &service);
    if (e)
        return e;
    if (!changed) {
        buf_add(ed->out, entry->text);
        return NULL;
    }
    add_service(ed, &service);
    add_lines(ed, entry->text, false);
    return NULL;
}

/* Take one entry, whose first line is `first`; comments behind its last line stay in `*rest`. */
static error take_entry(struct editing *ed, struct str first, struct str *rest, size_t *line_number,
                        struct entry *ret) {
    size_t lines = 0, own = 0, bytes = 0; /* `own` and `bytes`: up to the last line that belongs to it */
    struct str ahead = *rest, line, words = first, name, type;
    enum line_kind kind;
    while (physical_line(&ahead, &line, &kind) && kind != LINE_BEGINS) {
        lines++;
        if (kind == LINE_CONTINUES) {
            own = lines;
            bytes = rest->n - ahead.n;
        }
    }
    ret->line = *line_number;
    *line_number += own;
    ret->text = str_n(first.p, first.n + bytes);
    *rest = str_from(*rest, bytes);
    ret->names = (struct service_text){ 0 };
    if (!str_word(&words, STR_SPACE, &name) || !str_word(&words, STR_SPACE, &type))
        return err_make(ed->arena, ERR_CONFIG, "file %.*s: line %zu: specify service name and type on the same line",
                        STR_ARG(ed->edits->path), ret->line);
    ret->names.field[SERVICE_NAME] = name;
    ret->names.field[SERVICE_TYPE] = type;
    return NULL;
}

error master_edits_apply(void *ctx, struct str text, struct arena *a, struct buf *ret_text) {
    struct master_edits *edits = ctx;
    struct editing ed = { edits, a, ret_text };
    struct str line;
    enum line_kind kind;
    size_t number = 0;
    while (physical_line(&text, &line, &kind)) {
        struct entry entry;
        number++;
        if (kind != LINE_BEGINS) {
            buf_add(ret_text, line);
            continue;
        }
        error e = take_entry(&ed, line, &text, &number, &entry);
        if (!e)
            e = edit_entry(&ed, &entry);
        if (e)
            return e;
    }
    for (size_t i = 0; i < edits->list.n; i++) {
        struct master_edit *edit = &edits->list.at[i];
        if (edit->matched)
            continue;
        if (edits->scope != MASTER_SERVICES)
            *vec_add(a, &edits->notes.warnings) =
                arena_printf(a, "unmatched service_name/type: \"%.*s\"", STR_ARG(edit->text));
        else if (edits->kind == EDIT_SET)
            add_service(&ed, &edit->service);
    }
    return NULL;
}
