/* Edits of both files: what is put in can be read back, what nothing matches stays as it is, and an edit that is done
 * twice changes nothing the second time. Input: arguments, one a line, an empty line, and the file. */
#include "base/die.h"
#include "conf/main_edit.h"
#include "conf/master_edit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ARGS = 8 };

static struct arena *arena;

static void edit_main(enum edit_kind kind, char *const *args, struct str text) {
    struct main_edits edits;
    struct buf once = { 0 }, twice = { 0 };
    if (main_edits_parse(kind, args, arena, &edits))
        return;
    edits.path = STR("main.cf");
    if (main_edits_apply(&edits, text, arena, &once) || main_edits_apply(&edits, buf_str(&once), arena, &twice))
        die("an edit of main.cf failed");
    if (!str_eq(buf_str(&once), buf_str(&twice)))
        die("main.cf changed by the second edit");
    if (kind != EDIT_SET && edits.list.n == 0 && !str_eq(buf_str(&once), text))
        die("main.cf changed by no edit");
    buf_free(&once);
    buf_free(&twice);
}

static void edit_master(enum master_scope scope, enum edit_kind kind, char *const *args, struct str text) {
    struct master_edits edits;
    struct buf once = { 0 }, twice = { 0 };
    if (master_edits_parse(scope, kind, args, arena, &edits))
        return;
    edits.path = STR("master.cf");
    if (!master_edits_apply(&edits, text, arena, &once)) {
        for (size_t i = 0; i < edits.list.n; i++)
            edits.list.at[i].matched = false;
        /* a service that was renamed cannot be found again, so only what is removed is gone for good */
        if (kind != EDIT_SET &&
            (master_edits_apply(&edits, buf_str(&once), arena, &twice) || !str_eq(buf_str(&once), buf_str(&twice))))
            die("master.cf changed by the second edit");
    }
    buf_free(&once);
    buf_free(&twice);
}

static void format(struct str text) {
    struct master_text m, again;
    struct master_cf services;
    if (master_text_parse(text, STR("master.cf"), arena, &m))
        return;
    master_text_services(&m, arena, &services);
    for (size_t i = 0; i < m.services.n && i < 100; i++) {
        struct service_text s;
        struct buf first = { 0 }, second = { 0 };
        again = (struct master_text){ 0 };
        service_text_format(&first, &m.services.at[i], false);
        if (m.warnings.n == 0 && str_index(buf_str(&first), '}') < 0) { /* nested or unbalanced ones may be lost */
            if (service_text_parse(buf_str(&first), arena, &again, &s))
                die("a service cannot be read back");
            service_text_format(&second, &s, false);
            if (!str_eq(buf_str(&first), buf_str(&second)))
                die("a service reads back as another one");
        }
        buf_free(&first);
        buf_free(&second);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str rest = { (const char *)data, size }, line;
    char *args[ARGS + 1] = { 0 };
    arena = arena_new();
    for (int n = 0; n < ARGS && str_next(&rest, STR("\n"), &line) && line.n && str_index(line, '\0') < 0; n++)
        args[n] = arena_cstr(arena, line);
    for (int kind = EDIT_SET; kind <= EDIT_COMMENT; kind++) {
        edit_main((enum edit_kind)kind, args, rest);
        for (int scope = MASTER_SERVICES; scope <= MASTER_PARAMETERS; scope++)
            edit_master((enum master_scope)scope, (enum edit_kind)kind, args, rest);
    }
    format(rest);
    arena_free(arena);
    return 0;
}
