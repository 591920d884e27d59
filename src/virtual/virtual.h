/* virtual.h - the virtual(8) agent: mailboxes whose owners are no users of this host.
 *
 * virtual_mailbox_maps gives a path below virtual_mailbox_base, virtual_uid_maps and virtual_gid_maps the owner; all
 * are asked with user+ext@domain, user@domain, @domain. The tables may be filled by others (SQL, LDAP), so nothing in
 * them is trusted: a path with ".." or control bytes, a user id below virtual_minimum_uid or no number defers
 * the recipient. Mail that has a Delivered-To: of the recipient is delivered like any other: nothing is forwarded from
 * here. As an ordinary user only the own user id can be delivered to. */
#ifndef ANGARIUM_VIRTUAL_VIRTUAL_H
#define ANGARIUM_VIRTUAL_VIRTUAL_H

#include "deliver/agent.h"

error virtual_init(struct service_ctx *ctx, struct arena *err_arena);
void virtual_end(struct service_ctx *ctx); /* what virtual_init() opened: for tests */
void virtual_deliver(struct agent_request *r);

/* `base`/`value`, or an empty string for a value that would lead elsewhere. */
struct str virtual_path(struct arena *a, struct str base, struct str value);
#endif
