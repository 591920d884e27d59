#include "error/error.h"

void error_deliver(struct agent_request *r) {
    bool retry = str_eq(r->ctx->name, STR("retry"));
    struct agent_status s = { .relay = STR("none") };
    agent_status_text(r->req.nexthop, retry ? STR("4.0.0") : STR("5.0.0"), &s);
    for (size_t i = 0; i < r->req.env.rcpt_count; i++) {
        if (retry)
            agent_deferred(r, i, &s);
        else
            agent_bounced(r, i, &s);
    }
}
