/* flush.h - the fast flush service: flush(8). */
#ifndef ANGARIUM_FLUSH_FLUSH_H
#define ANGARIUM_FLUSH_FLUSH_H

#include "base/map.h"
#include "flush/site_log.h"
#include "proto/flush.h"
#include "run/coro.h"
#include "table/match.h"

struct flush {
    const struct conf *conf;
    struct match *eligible; /* fast_flush_domains */
    struct site_logs logs;
    struct group *work; /* sends and refreshes under way */
    const bool *draining;
    error (*connect)(void *ctx, struct ipc **ret); /* to qmgr */
    void *ctx;

    struct map sending;  /* sites whose log is being read out */
    struct map foreign;  /* names below flush/ that were reported */
    struct arena *names; /* of `foreign` */
    int64_t warned_us;   /* when a log could not be written; 0: never */
    bool refreshing, again, all, again_all;
};

/* Opens the table and the directory flush/ in the current one. The caller sets work, draining, connect, ctx. */
error flush_open(struct flush *f, const struct conf *c, struct arena *err_arena);
void flush_close(struct flush *f);

/* What a site's mail is waiting for: its ids are handed to qmgr in the background once FLUSH_OK was returned. */
enum flush_status flush_site(struct flush *f, struct str site);
void flush_add_ids(struct flush *f, struct flush_request *r);
/* In the background. Logs that were not sent for fast_flush_refresh_time, or all that are not empty; logs that are
 * empty and older than fast_flush_purge_time are removed. */
void flush_refresh(struct flush *f, bool all);
/* One connection, until it ends. */
void flush_serve(struct flush *f, struct ipc *ipc);
#endif
