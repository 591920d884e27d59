/* postfix non-bdb: the migration from Berkeley DB. There is none here: hash: and btree: have always been LMDB tables,
 * and a text file that is newer than its index is used at once, which is what the highest level of the migration gives.
 */
#include "base/log.h"
#include "cmd/postfix.h"
#include <stdio.h>

static void explain(void) {
    log_info("hash: and btree: are LMDB tables here, whatever main.cf says;");
    log_info("a text file without an index, or newer than it, is used at once");
}

static int status(void) {
    printf("enable-reindex\n");
    explain();
    return 0;
}

static int is_so(void) {
    explain();
    return 0;
}

static int cannot(void) {
    log_error("there is no Berkeley DB to go back to");
    explain();
    return 1;
}

int postfix_non_bdb(const struct postfix_command *m) {
    static const struct {
        const char *name;
        int (*run)(void);
    } subcommands[] = {
        { "status", status },
        { "enable-redirect", is_so },
        { "enable-reindex", is_so },
        { "disable", cannot },
    };
    const char *name = m->args[0] ? m->args[0] : "";
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
        if (strcmp(subcommands[i].name, name) == 0 && !m->args[1])
            return subcommands[i].run();
    log_fatal("usage: postfix non-bdb status (or disable, enable-redirect, enable-reindex)");
}
