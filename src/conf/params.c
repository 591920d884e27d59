#include "conf/params.h"
#include "base/die.h"
#include "build_config.h"

#include <stdlib.h>

#define STRING TYPE_STRING, 0
#define BOOL TYPE_BOOL, 0
#define INT TYPE_INT, 0
#define LONG TYPE_LONG, 0
#define RAW TYPE_RAW, 0
#define TIME(unit) TYPE_TIME, unit

/* TYPE stands for two fields, so it has to be expanded before ROW counts its arguments. */
#define ROW(...) ROW_(__VA_ARGS__)
#define ROW_(name, type, unit, fallback, min, max, status, note)                                                       \
    { STR_INIT(name), type, unit, STR_INIT(fallback), min, max, STATUS_##status, STR_INIT(note) }

static const struct param_row params[PARAM_COUNT] = {
#define PARAM(name, type, fallback, min, max, status, note)                                                            \
    [PARAM_##name] = ROW(#name, type, fallback, min, max, status, note),
#include "conf/params.def"
#undef PARAM
};

static const struct service_row services[] = {
#define SERVICE_PARAM(users, suffix, type, fallback, min, max, status)                                                 \
    { USERS_##users, ROW(suffix, type, fallback, min, max, status, "") },
#define SERVICE_DEFAULT(service, suffix, fallback)
#include "conf/service_params.def"
#undef SERVICE_PARAM
#undef SERVICE_DEFAULT
};

static const struct service_fallback service_defaults[] = {
#define SERVICE_PARAM(users, suffix, type, fallback, min, max, status)
#define SERVICE_DEFAULT(service, suffix, fallback) { STR_INIT(service), STR_INIT(suffix), STR_INIT(fallback) },
#include "conf/service_params.def"
#undef SERVICE_PARAM
#undef SERVICE_DEFAULT
};

static const struct legacy_row legacies[] = {
#define LEGACY(name, kind, instead) { STR_INIT(#name), LEGACY_##kind, STR_INIT(instead) },
#include "conf/legacy.def"
#undef LEGACY
};

enum {
    SERVICE_COUNT = sizeof services / sizeof services[0],
    SERVICE_DEFAULT_COUNT = sizeof service_defaults / sizeof service_defaults[0],
    LEGACY_COUNT = sizeof legacies / sizeof legacies[0],
};

/* By name, for the binary search: the rows of params.def are in an order for readers. */
static enum param sorted[PARAM_COUNT];

static int order(const void *a, const void *b) {
    const enum param *x = a, *y = b;
    return str_cmp(params[*x].name, params[*y].name);
}

/* Before main(), so that nothing has to ask whether it was done. */
__attribute__((constructor)) static void sort_params(void) {
    for (int p = 0; p < PARAM_COUNT; p++)
        sorted[p] = (enum param)p;
    qsort(sorted, PARAM_COUNT, sizeof sorted[0], order);
}

const struct param_row *param_row(enum param p) {
    if ((unsigned)p >= PARAM_COUNT)
        die("param_row: no parameter %d", (int)p);
    return &params[p];
}

bool param_find(struct str name, enum param *ret) {
    size_t low = 0, high = PARAM_COUNT;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = str_cmp(params[sorted[mid]].name, name);
        if (c == 0) {
            *ret = sorted[mid];
            return true;
        }
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return false;
}

size_t service_rows(const struct service_row **ret) {
    *ret = services;
    return SERVICE_COUNT;
}

const struct service_row *service_row_find(struct str suffix) {
    for (size_t i = 0; i < SERVICE_COUNT; i++)
        if (str_eq(services[i].row.name, suffix))
            return &services[i];
    return NULL;
}

const struct service_row *service_name_find(struct str name, struct str *ret_service) {
    const struct service_row *found = NULL;
    for (size_t i = 0; i < SERVICE_COUNT; i++) {
        struct str suffix = services[i].row.name;
        /* _recipient_limit is the end of _destination_recipient_limit too: the longest suffix is the row */
        if (name.n > suffix.n && str_ends(name, suffix) && (!found || suffix.n > found->row.name.n))
            found = &services[i];
    }
    if (found)
        *ret_service = str_sub(name, 0, name.n - found->row.name.n);
    return found;
}

bool service_fallback_at(size_t i, struct service_fallback *ret) {
    if (i >= SERVICE_DEFAULT_COUNT)
        return false;
    *ret = service_defaults[i];
    return true;
}

struct str service_default(struct str service, const struct service_row *row) {
    for (size_t i = 0; i < SERVICE_DEFAULT_COUNT; i++)
        if (str_eq(service_defaults[i].service, service) && str_eq(service_defaults[i].suffix, row->row.name))
            return service_defaults[i].fallback;
    return row->row.fallback;
}

bool service_uses(struct str command, enum service_users users) {
    static const struct {
        struct str command;
        bool delivery, command_limit;
    } users_of[] = {
        { STR_INIT("local"), true, false }, { STR_INIT("error"), true, false }, { STR_INIT("virtual"), true, false },
        { STR_INIT("smtp"), true, false },  { STR_INIT("lmtp"), true, false },  { STR_INIT("pipe"), true, true },
        { STR_INIT("spawn"), false, true },
    };
    for (size_t i = 0; i < sizeof users_of / sizeof users_of[0]; i++)
        if (str_eq(users_of[i].command, command))
            return users == USERS_DELIVERY ? users_of[i].delivery : users_of[i].command_limit;
    return false;
}

static bool is_restriction(const struct legacy_row *row) {
    return row->kind == LEGACY_REMOVED || row->kind == LEGACY_LEAVING;
}

static const struct legacy_row *find_legacy(struct str name, bool restriction) {
    for (size_t i = 0; i < LEGACY_COUNT; i++)
        if (is_restriction(&legacies[i]) == restriction && str_eq(legacies[i].name, name))
            return &legacies[i];
    return NULL;
}

const struct legacy_row *legacy_find(struct str name) {
    return find_legacy(name, false);
}

const struct legacy_row *legacy_restriction_find(struct str word) {
    return find_legacy(word, true);
}
