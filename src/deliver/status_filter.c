#include "deliver/status_filter.h"

#include "base/log.h"
#include "mail/dsn.h"
#include "table/table.h"

static const struct row {
    struct str program, parameter;
    enum param param;
} rows[] = {
    { STR_INIT("local"), STR_INIT("local_delivery_status_filter"), PARAM_local_delivery_status_filter },
    { STR_INIT("virtual"), STR_INIT("virtual_delivery_status_filter"), PARAM_virtual_delivery_status_filter },
    { STR_INIT("pipe"), STR_INIT("pipe_delivery_status_filter"), PARAM_pipe_delivery_status_filter },
    { STR_INIT("smtp"), STR_INIT("smtp_delivery_status_filter"), PARAM_smtp_delivery_status_filter },
    { STR_INIT("lmtp"), STR_INIT("lmtp_delivery_status_filter"), PARAM_lmtp_delivery_status_filter },
};

static struct {
    struct maps *maps; /* NULL: no filter */
    struct str parameter;
} filter;

void status_filter_open(const struct service_ctx *ctx) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!str_eq(rows[i].program, ctx->program))
            continue;
        struct str list = conf_str(ctx->conf, rows[i].param);
        filter.maps = list.n ? maps_open(ctx->conf, list, 0) : NULL;
        filter.parameter = rows[i].parameter;
    }
}

void status_filter_close(void) {
    if (filter.maps)
        maps_close(filter.maps);
    filter.maps = NULL;
}

static bool may_replace(struct str old, struct str new) {
    return (old.p[0] == '2') == (new.p[0] == '2');
}

void status_filter(struct arena *a, struct str *dsn, struct str *reason) {
    struct str answer, new_dsn, new_reason;
    if (!filter.maps)
        return;
    struct str question = arena_printf(a, "%.*s %.*s", STR_ARG(*dsn), STR_ARG(*reason));
    if (maps_get(filter.maps, question, a, &answer, NULL) != TABLE_FOUND)
        return;
    dsn_split(answer, STR(""), &new_dsn, &new_reason);
    if (!new_dsn.n || !new_reason.n || !may_replace(*dsn, new_dsn)) {
        log_warn("%.*s: bad status code: %.*s", STR_ARG(filter.parameter), STR_ARG(answer));
        return;
    }
    *dsn = new_dsn;
    *reason = new_reason;
}
