/* screen.h - one client from connect to hand-over. */
#ifndef ANGARIUM_POSTSCREEN_SCREEN_H
#define ANGARIUM_POSTSCREEN_SCREEN_H

#include "base/map.h"
#include "postscreen/cache.h"

/* The process: what all clients share. */
struct screen {
    const struct settings *set;
    struct cache *cache;
    struct dns *dns;
    struct map clients;         /* address -> struct count: connections at a time */
    uint32_t checking, handing; /* clients under test; clients that wait for smtpd */
    bool stress;
    /* Give the connection to smtpd; the descriptor stays the caller's. `peer`, with `local`: it is not the other end of
     * the connection; else NULL. */
    error (*hand_over)(void *ctx, int fd, const struct endpoint *peer_or_null, const struct endpoint *local);
    void *ctx;
};

struct client {
    struct screen *screen;
    const struct settings *set;
    struct arena *arena;
    struct io *io;
    struct endpoint peer, local;
    struct str address, name;      /* name: "[ADDR]:PORT" */
    int64_t since_us;              /* monotonic: when the present stage began */
    struct passes passes, before;  /* now; as the cache had them */
    unsigned due, failed, ignored; /* masks of 1 << enum test */
    struct str refusal;            /* what its recipients hear in place of 450; empty: nothing */
    bool gone;                     /* hung up, or dropped */
    bool proxied;                  /* peer and local are what a proxy says */
    bool vetoed;                   /* nothing that it shows counts (postscreen_allowlist_interfaces) */
    struct pace pace;
};

/* The whole of it; closes nothing. */
void screen_client(struct screen *s, struct io *io, const struct endpoint *peer, const struct endpoint *local);

/* --- for early.c and engine.c --- */
static inline bool test_is_due(const struct client *c, enum test t) {
    return (c->due & ~(c->failed | c->ignored)) >> t & 1;
}
/* The test was failed: logs nothing. What is to be done is remembered; true: the client has been dropped. The texts
 * stand behind 550, or behind 521 when it is dropped; NULL: "5.5.1 Protocol error". */
bool client_fails(struct client *c, enum test t, const char *refused, const char *dropped);
void client_passes(struct client *c, enum test t, int64_t ttl);
/* One reply line, and the end. */
void client_drop(struct client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void client_hung_up(struct client *c, const char *stage);
/* "0", "0.3", "12" seconds since the stage began. */
struct str client_after(const struct client *c);
/* What a stranger sent, for a log line: CR and LF as \r and \n. */
struct str client_text(const struct client *c, struct str bytes);

/* early.c: pre-greeting and DNS lists. */
void early_tests(struct client *c);
#endif
