#include "proto/haproxy.h"
#include "smtpd/session.h"

const char *haproxy_front(struct session *s, struct session_client *client, struct str *ret_seen) {
    char *seen = arena_alloc(session_scratch(s), HAPROXY_MAX);
    size_t n = 0;
    struct haproxy h;
    const char *fault = haproxy_read(s->io, deadline_in(s->set->front.proxy_timeout), &h, seen, &n);
    *ret_seen = str_n(seen, n);
    if (!fault && h.proxied) {
        client->address = h.client;
        client->local = h.server;
    }
    return fault;
}
