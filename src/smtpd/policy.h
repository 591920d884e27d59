/* policy.h - policy servers (SMTPD_POLICY_README): programs that decide with the words of access(5).
 *
 *     request = *( name "=" value LF ) LF        ; the first is request=smtpd_access_policy
 *     reply   = "action=" action LF LF
 *
 * Connections are kept, and all sessions of the process use them: one request at a time on each. Those about one
 * message go over one connection, and no other message's come between, as long as there are not too many. */
#ifndef ANGARIUM_SMTPD_POLICY_H
#define ANGARIUM_SMTPD_POLICY_H

#include "run/coro.h"
#include "service/dial.h"
#include "smtpd/session.h"

enum {
    POLICY_LINKS_MAX = 100, /* connections to one server: as many as Postfix has with its default process limit */
    POLICY_LINE_MAX = 8192, /* bytes of one line of a reply */
    POLICY_WAIT_MAX = 3600, /* seconds that retry_delay may be */
};

struct policy_link; /* a connection */
struct policy_service {
    struct str text;   /* the argument of check_policy_service */
    struct str server; /* for logs: "private/policy", "127.0.0.1:10023" */
    struct dial_target target;
    int64_t timeout, max_idle, max_ttl, retry_delay; /* seconds */
    uint32_t request_limit, try_limit;               /* 0: no limit of requests */
    struct str default_action, context;
    /* its own */
    struct policy_link *links;
    size_t link_count;
    struct cond freed;
    bool sweeping;
};

/* inet:host:port, unix:path, or { one of these, name=value, { name = value } ... }. In `a`; settings that are not given
 * are main.cf's. ERR_SYNTAX: malformed. */
error policy_service_parse(struct arena *a, const struct conf *c, struct str text, struct policy_service **ret);
void policy_service_close(struct policy_service *p); /* its connections; nobody may be asking */
/* A message has ended: its connections are for everybody. */
void policy_tx_end(const struct settings *set, const struct tx *tx);

/* A reply, line by line without LF. `{0}` begins. */
struct policy_reply {
    bool have_action, ended;
    struct buf action;
};
/* False: malformed. */
bool policy_reply_line(struct policy_reply *r, struct str line);
#endif
