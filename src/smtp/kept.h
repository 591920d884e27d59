/* kept.h - sessions left open for the next message (postconf(5), smtp_connection_cache_... and reuse limits).
 *
 * A worker serves many deliveries, so what Postfix's scache(8) does for its processes is a list here. A session is kept
 * under the nexthop it was made for and under its server's address, for as long as smtp_connection_cache_time_limit,
 * connection_cache_ttl_limit and max_idle allow, and then ends with QUIT. At most KEPT_MAX: one more ends the oldest.
 */
#ifndef ANGARIUM_SMTP_KEPT_H
#define ANGARIUM_SMTP_KEPT_H

#include "smtp/session.h"

enum { KEPT_MAX = 500, BUSY_SLOTS = 64 };

struct kept {
    struct session *oldest, *newest;
    size_t count;
    struct {
        uint64_t hash; /* of a nexthop */
        int64_t until; /* mono_us */
    } busy[BUSY_SLOTS];
    bool draining;
    bool watched;       /* a coroutine waits for the oldest one's time */
    struct cond wake;   /* it is to look again at once */
    struct group *work; /* of coroutines that end sessions; may be NULL */
};

/* Is a session for `nexthop` (parsed: `d`) to be kept? Yes when the parameter lists it; on demand when the queue
 * manager says that more is coming, or said so within the time a session is kept: a busy destination without mail for a
 * moment stays a busy one. */
bool kept_wanted(struct kept *k, const struct client_config *c, struct str nexthop, const struct destination *d,
                 bool more_coming);
/* Has it been used as often or as long as allowed, or is it in no state for another message? */
bool kept_worn_out(const struct session *s);
/* Takes `s` over, whole and with no transaction. Never waits for the server. */
void kept_add(struct kept *k, struct session *s, struct str nexthop);
/* The session for this nexthop, or to this server with the same TLS policy, that was used last. NULL: none. It is the
 * caller's now, and may have been closed by the server meanwhile. */
struct session *kept_take(struct kept *k, struct str nexthop);
struct session *kept_take_at(struct kept *k, const struct endpoint *address, struct str tls_key);
/* No more are kept; those there are end soon. */
void kept_drain(struct kept *k);
#endif
