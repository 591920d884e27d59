/* early.c - before the greeting: who speaks before it is spoken to (RFC 5321, 3.1), and what DNS lists say. */
#include "postscreen/screen.h"

#include "base/log.h"
#include <errno.h>
#include <sys/socket.h>

enum { PEEK_MAX = 4096 };

/* Bytes that came already; they stay in the socket for whoever reads next. -1: the client has gone. */
static ssize_t peek(const struct client *c, char *bytes, size_t size) {
    ssize_t n = recv(io_fd(c->io), bytes, size, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return n == 0 ? -1 : n;
}

static void spoke(struct client *c, struct str bytes) {
    log_info("PREGREET %zu after %.*s from %.*s: %.*s", bytes.n, STR_ARG(client_after(c)), STR_ARG(c->name),
             STR_ARG(client_text(c, bytes)));
    client_fails(c, TEST_PREGREET, NULL, NULL);
}

/* Silence until the time is over. */
static void pregreet(struct client *c) {
    char bytes[PEEK_MAX];
    if (c->set->teaser.n) {
        io_printf(c->io, "220-%.*s\r\n", STR_ARG(c->set->teaser));
        if (io_flush(c->io, deadline_in(c->pace.greet_wait))) {
            client_hung_up(c, "before");
            return;
        }
    }
    int64_t deadline = deadline_in(c->pace.greet_wait);
    for (;;) {
        error e = wait_readable(io_fd(c->io), deadline);
        if (e == &err_timeout) {
            client_passes(c, TEST_PREGREET, c->set->tests[TEST_PREGREET].ttl);
            return;
        }
        ssize_t n = e ? -1 : peek(c, bytes, sizeof bytes);
        if (n < 0) {
            client_hung_up(c, "before");
            return;
        }
        if (n > 0) {
            spoke(c, str_n(bytes, (size_t)n));
            return;
        }
    }
}

/* All other tests are taken as passed for as long as the lists' good word counts. */
static void vouched_for(struct client *c, int64_t ttl) {
    for (int t = 0; t < TESTS; t++)
        client_passes(c, (enum test)t, ttl);
}

static void rank(struct client *c, const struct dnsbl_rank *r) {
    const struct settings *set = c->set;
    int64_t longest = set->tests[TEST_DNSBL].ttl, ttl = r->ttl ? r->ttl : longest;
    ttl = ttl > longest ? longest : ttl < set->dnsbl_min_ttl ? set->dnsbl_min_ttl : ttl;
    if (r->score >= set->dnsbl_threshold) {
        log_info("DNSBL rank %lld for %.*s", (long long)r->score, STR_ARG(c->name));
        struct str text = arena_printf(c->arena, "5.7.1 Service unavailable; client [%.*s] blocked using %.*s",
                                       STR_ARG(c->address), STR_ARG(r->domain));
        client_fails(c, TEST_DNSBL, text.p, text.p);
        return;
    }
    client_passes(c, TEST_DNSBL, ttl);
    if (set->dnsbl_allow_threshold < 0 && r->score <= set->dnsbl_allow_threshold && !c->failed && !c->ignored)
        vouched_for(c, ttl);
}

void early_tests(struct client *c) {
    struct dnsbl_query *q = NULL;
    int64_t deadline = deadline_in(c->set->dnsbl_timeout);
    if (test_is_due(c, TEST_DNSBL))
        q = dnsbl_ask(&c->set->dnsbl, c->screen->dns, &c->peer, deadline);
    if (test_is_due(c, TEST_PREGREET))
        pregreet(c);
    if (!q)
        return;
    struct dnsbl_rank r;
    dnsbl_end(q, c->arena, c->gone ? 0 : deadline, &r);
    if (!c->gone)
        rank(c, &r);
}
