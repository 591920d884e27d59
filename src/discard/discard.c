#include "discard/discard.h"

void discard_deliver(struct agent_request *r) {
    struct agent_status s = { .relay = STR("none") };
    agent_status_text(r->req.nexthop, STR("2.0.0"), &s);
    for (size_t i = 0; i < r->req.env.rcpt_count; i++)
        agent_sent(r, i, &s);
}
