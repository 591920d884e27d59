#include "qmgr/qmgr.h"

#include "base/die.h"
#include "base/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct connection {
    struct connection *next;
    struct ipc *ipc;
    int64_t since;
};

static struct feedback feedback_of(const struct conf *c, struct str name, struct str rest) {
    struct str text = conf_service_str(c, name, rest);
    struct feedback f;
    if (feedback_parse(text, &f))
        return f;
    log_warn("bad feedback value for parameter %.*s%.*s: \"%.*s\" -- using default 1", STR_ARG(name), STR_ARG(rest),
             STR_ARG(text));
    return (struct feedback){ .value = 1 };
}

static unsigned natural(int64_t v) {
    return v < 0 ? 0 : v > INT32_MAX ? INT32_MAX : (unsigned)v;
}

void transport_params_from(const struct qmgr *q, struct str name, struct transport_params *ret) {
    const struct conf *c = q->conf;
    *ret = (struct transport_params){
        .process_limit = q->outside.process_limit(q->outside.ctx, name),
        .initial_concurrency = natural(conf_service_int(c, name, STR("_initial_destination_concurrency"))),
        .concurrency_limit = natural(conf_service_int(c, name, STR("_destination_concurrency_limit"))),
        .recipient_limit = natural(conf_service_int(c, name, STR("_destination_recipient_limit"))),
        .failed_cohort_limit = natural(conf_service_int(c, name, STR("_destination_concurrency_failed_cohort_limit"))),
        .positive = feedback_of(c, name, STR("_destination_concurrency_positive_feedback")),
        .negative = feedback_of(c, name, STR("_destination_concurrency_negative_feedback")),
        .feedback_debug = conf_bool(c, PARAM_destination_concurrency_feedback_debug),
        .destination_rate_us = US_PER_S * conf_service_time(c, name, STR("_destination_rate_delay")),
        .transport_rate_us = US_PER_S * conf_service_time(c, name, STR("_transport_rate_delay")),
        .slot_cost = natural(conf_service_int(c, name, STR("_delivery_slot_cost"))),
        .slot_discount = natural(conf_service_int(c, name, STR("_delivery_slot_discount"))),
        .slot_loan = natural(conf_service_int(c, name, STR("_delivery_slot_loan"))),
        .rcpts_limit = natural(conf_service_int(c, name, STR("_recipient_limit"))),
        .rcpts_extra = natural(conf_service_int(c, name, STR("_extra_recipient_limit"))),
        .refill_limit = natural(conf_service_int(c, name, STR("_recipient_refill_limit"))),
        .refill_us = US_PER_S * conf_service_time(c, name, STR("_recipient_refill_delay")),
        .minimum_slots = natural(conf_service_int(c, name, STR("_minimum_delivery_slots"))),
    };
}

error transport_connect(struct qmgr *q, struct transport *t, struct ipc **ret, bool *ret_used) {
    *ret_used = t->idle != NULL;
    if (t->idle) {
        struct connection *k = t->idle;
        t->idle = k->next;
        *ret = k->ipc;
        free(k);
        return NULL;
    }
    char name[256];
    if (t->name.n + sizeof "private/" > sizeof name)
        return err_errno(ENAMETOOLONG);
    int n = snprintf(name, sizeof name, "private/%.*s", STR_ARG(t->name));
    return q->outside.connect(q->outside.ctx, str_n(name, (size_t)n),
                              deadline_in(conf_time(q->conf, PARAM_qmgr_ipc_timeout)), ret);
}

void transport_keep(struct qmgr *q, struct transport *t, struct ipc *ipc) {
    if (q->draining) {
        ipc_close(ipc);
        return;
    }
    struct connection *k = malloc(sizeof *k);
    if (!k)
        die_no_memory(sizeof *k);
    *k = (struct connection){ .next = t->idle, .ipc = ipc, .since = sys->mono_us() };
    t->idle = k;
}

void transport_close_idle(struct transport *t, int64_t idle_us) {
    int64_t before = sys->mono_us() - idle_us;
    for (struct connection **at = &t->idle; *at;) {
        struct connection *k = *at;
        if (k->since > before && idle_us) {
            at = &k->next;
            continue;
        }
        *at = k->next;
        ipc_close(k->ipc);
        free(k);
    }
}
