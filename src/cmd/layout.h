/* layout.h - the files and directories of the mail system, and whether everything is as it must be: `postfix check`,
 * what `postfix start` does first, `postfix set-permissions`. They log: that is what they are for. */
#ifndef ANGARIUM_CMD_LAYOUT_H
#define ANGARIUM_CMD_LAYOUT_H

#include "conf/master_cf.h"

/* What must be there before anything can be started; makes the directories that are missing. Logs `fatal: ` lines
 * itself; false: there was one. */
bool layout_prepare(const struct conf *c);
/* Owners, permissions, files that do not belong there, tables, services and questionable settings: `warning: ` lines,
 * each with a line that says what mends it. `shared`: also the files that all instances share. `messages`: also every
 * file where messages lie, which takes seconds when there are a million of them. */
void layout_review(const struct conf *c, bool shared, bool messages);
/* Give every file of the table its owner, group and mode, and make missing directories. False: something failed; a
 * line says what. */
bool layout_mend(const struct conf *c, bool shared);

/* check_tables.c: the tables that main.cf and master.cf name, if they are files: missing, malformed, not readable for
 * mail_owner. `aliases_only`: those of alias_maps and alias_database. `services` may be NULL. */
void check_tables(const struct conf *c, const struct master_cf *services, bool aliases_only);
/* check_queue.c: damaged messages, copies of system files that have become old; with `messages` also files that no
 * message can have. */
void check_queue(const struct conf *c, bool messages);

/* One finding: a warning, and below it what to do. */
void check_finding(struct str what, struct str mend);
#endif
