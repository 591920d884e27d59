/* params.h - the tables made from params.def, service_params.def and legacy.def. Read only. */
#ifndef ANGARIUM_CONF_PARAMS_H
#define ANGARIUM_CONF_PARAMS_H

#include "conf/conf.h"

enum param_type { TYPE_STRING = 1, TYPE_BOOL, TYPE_INT, TYPE_LONG, TYPE_TIME, TYPE_RAW };
enum param_status { STATUS_LIVE = 1, STATUS_INERT, STATUS_PENDING };

struct param_row {
    struct str name;
    enum param_type type;
    char unit;           /* of a TIME that is written without one */
    struct str fallback; /* the default, unexpanded */
    int64_t min, max;    /* 0: no limit */
    enum param_status status;
    struct str note; /* INERT: the reason */
};

/* `p` < PARAM_COUNT. */
const struct param_row *param_row(enum param p);
bool param_find(struct str name, enum param *ret);

enum service_users { USERS_DELIVERY = 1, USERS_COMMAND };

struct service_row {
    enum service_users users;
    struct param_row row; /* `row.name` is the suffix: "_destination_concurrency_limit" */
};

size_t service_rows(const struct service_row **ret);
/* The row of a suffix; NULL: none. */
const struct service_row *service_row_find(struct str suffix);
/* Cut "relay_destination_concurrency_limit" into service and row; NULL: not such a name. The longest suffix wins. */
const struct service_row *service_name_find(struct str name, struct str *ret_service);
struct service_fallback {
    struct str service, suffix, fallback;
};
/* Row `i` of SERVICE_DEFAULT; false: no more. */
bool service_fallback_at(size_t i, struct service_fallback *ret);
/* The default of <service><suffix>, which may differ from the row's. */
struct str service_default(struct str service, const struct service_row *row);
/* Does a service that runs `command` (the program's name) have the parameters of `users`? */
bool service_uses(struct str command, enum service_users users);

enum legacy_kind { LEGACY_RENAMED = 1, LEGACY_DEPRECATED, LEGACY_ABSENT, LEGACY_REMOVED, LEGACY_LEAVING };

struct legacy_row {
    struct str name;
    enum legacy_kind kind;
    struct str instead; /* the parameter to write; empty: none */
};

/* Of a parameter, or of a word of a restriction list (the last two kinds). NULL: not a legacy name. */
const struct legacy_row *legacy_find(struct str name);
const struct legacy_row *legacy_restriction_find(struct str word);
#endif
