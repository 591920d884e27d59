/* probe.h - who sends the probes of verify(8). Mail to that address has nobody to go to. */
#ifndef ANGARIUM_ROUTE_PROBE_H
#define ANGARIUM_ROUTE_PROBE_H

#include "conf/conf.h"

/* address_verify_sender at `now` (seconds since the epoch): its local part changes with the time, where
 * address_verify_sender_ttl says so. Complete; empty: the null sender. */
struct str verify_sender(const struct conf *c, struct arena *a, int64_t now);
/* Is that the sender of probes, now or one ttl ago? */
bool verify_is_sender(const struct conf *c, struct str address, int64_t now);
#endif
