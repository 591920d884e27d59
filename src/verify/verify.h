/* verify.h - what is known of addresses: a cache of answers, and probes for what is not known (verify(8)).
 *
 * An entry is "status:probed:updated:text", times in seconds since the epoch, 0: never. Pure of processes: how a probe
 * is sent is the caller's. */
#ifndef ANGARIUM_VERIFY_VERIFY_H
#define ANGARIUM_VERIFY_VERIFY_H

#include "proto/verify.h"
#include "table/table.h"

enum { VERIFY_PROBE_LIFE = 1000 /* seconds after which a probe that nobody has answered is lost */ };

struct verify_entry {
    enum verify_status status;
    int64_t probed, updated;
    struct str text;
};
/* False: not an entry. The text is borrowed. */
bool verify_entry_parse(struct str raw, struct verify_entry *ret);
struct str verify_entry_format(struct arena *a, const struct verify_entry *e);

struct verify {
    struct table *cache;
    bool keep_negative;                        /* address_verify_negative_cache */
    int64_t positive_expire, positive_refresh; /* seconds */
    int64_t negative_expire, negative_refresh;
    size_t pending_max; /* address_verify_pending_request_limit */
    size_t pending;     /* probes being written */
    /* Begin a probe, without waiting for it; false: cannot. */
    bool (*probe)(void *ctx, struct str address);
    void *ctx;
};
void verify_open(struct verify *v, const struct conf *c);
/* What is known at `now`; sends a probe when that is nothing, or old. */
struct verify_answer verify_ask(struct verify *v, struct arena *a, struct str address, int64_t now);
/* What a probe has found. */
void verify_tell(struct verify *v, struct str address, const struct verify_answer *is, int64_t now);
/* One pass over the cache: what has expired goes. Says how many stay and went. */
void verify_clean(struct verify *v, int64_t now, size_t *ret_kept, size_t *ret_dropped);
#endif
