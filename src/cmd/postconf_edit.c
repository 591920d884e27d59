/* main.cf and master.cf changed. */
#include "cmd/postconf.h"
#include "conf/main_edit.h"

static void edit_main_cf(const struct request *r) {
    struct main_edits edits;
    must(main_edits_parse(r->edit, r->args, r->arena, &edits));
    edits.path = arena_printf(r->arena, "%.*s/main.cf", STR_ARG(r->directory));
    must(conf_file_edit(edits.path, main_edits_apply, &edits, r->arena));
    for (size_t i = 0; i < edits.warnings.n; i++)
        warn(edits.warnings.at[i]);
}

static void edit_master_cf(const struct request *r) {
    struct master_edits edits;
    enum master_scope scope = r->mode == 'M' ? MASTER_SERVICES : r->mode == 'F' ? MASTER_FIELDS : MASTER_PARAMETERS;
    must(master_edits_parse(scope, r->edit, r->args, r->arena, &edits));
    edits.path = arena_printf(r->arena, "%.*s/master.cf", STR_ARG(r->directory));
    must(conf_file_edit(edits.path, master_edits_apply, &edits, r->arena));
    for (size_t i = 0; i < edits.notes.warnings.n; i++)
        warn(edits.notes.warnings.at[i]);
}

void postconf_edit(const struct request *r) {
    if (!*r->args)
        fail(r->edit == EDIT_SET ? STR("-e requires name=value argument") : STR("missing service argument"));
    if (r->mode == 'p')
        edit_main_cf(r);
    else
        edit_master_cf(r);
}
