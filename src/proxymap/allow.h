/* allow.h - which tables may be asked here. Whoever asks may have been broken into, and a table name can be any file of
 * the host, so only what the administrator has written counts:
 *
 *   proxy:spec         must stand, as proxy:spec, in proxy_read_maps (to write: proxy_write_maps)
 *   spec of a server   must stand in any parameter of main.cf, or in an -o of master.cf; to write: in one for a cache
 *                      (*_cache_map, *_cache_database, *_cache_name, address_verify_map)
 *   unix:...           always, to read */
#ifndef ANGARIUM_PROXYMAP_ALLOW_H
#define ANGARIUM_PROXYMAP_ALLOW_H

#include "conf/master_cf.h"
#include "table/remote.h"

struct allow;
/* `services` may be NULL. Keeps nothing of either. */
struct allow *allow_new(const struct conf *c, const struct master_cf *services);
void allow_free(struct allow *a);
bool allow_question(const struct allow *a, const struct table_question *q);
#endif
