/* roles.h - who may talk to whom: a process that was broken into reaches only the services its program has business
 * with. Service names are parameters (cleanup_service_name), so they are looked up in the configuration and in the -o
 * overrides of the entry that asks. */
#ifndef ANGARIUM_MASTER_ROLES_H
#define ANGARIUM_MASTER_ROLES_H

#include "conf/master_cf.h"

/* May a process of `from` be connected to `endpoint` ("private/rewrite", "public/cleanup")? */
bool role_may_connect(const struct conf *c, const struct master_entry *from, struct str endpoint);
/* May it write trigger bytes there? Whoever may connect may trigger, and some may only trigger. */
bool role_may_trigger(const struct conf *c, const struct master_entry *from, struct str endpoint);
/* May it have files without a name (SCRATCH in service/control.h)? */
bool role_may_scratch(const struct master_entry *from);
/* May it have master keep bytes for its successor (KEEP in service/control.h)? */
bool role_may_keep(const struct master_entry *from);
#endif
