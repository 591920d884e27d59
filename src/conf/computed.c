#include "build_config.h"
#include "conf/mynetworks.h"
#include "conf/private.h"

#include <unistd.h>

bool param_is_read_only(enum param p) {
    return p == PARAM_process_id || p == PARAM_process_name || p == PARAM_service_name || p == PARAM_angarium_version;
}

bool param_is_computed(enum param p) {
    return p == PARAM_process_id || p == PARAM_process_name || p == PARAM_service_name || p == PARAM_myhostname ||
           p == PARAM_mydomain || p == PARAM_mynetworks;
}

static bool is_set(const struct conf *c, enum param p) {
    return map_get(&c->settings, param_row(p)->name) != NULL;
}

/* The machine's own name; when that is only a label, mydomain completes it. */
static error own_hostname(const struct conf *c, struct arena *a, struct str *ret) {
    char host[256];
    if (gethostname(host, sizeof host) != 0)
        host[0] = 0;
    host[sizeof host - 1] = 0;
    struct str name = arena_str(a, str_c(host[0] ? host : "localhost"));
    if (str_index(name, '.') >= 0) {
        *ret = name;
        return NULL;
    }
    struct str domain = STR("localdomain");
    error e = is_set(c, PARAM_mydomain) ? conf_value_text(c, PARAM_mydomain, a, &domain) : NULL;
    if (!e)
        *ret = arena_printf(a, "%.*s.%.*s", STR_ARG(name), STR_ARG(domain));
    return e;
}

static error own_domain(const struct conf *c, struct arena *a, struct str *ret) {
    struct str host;
    error e = conf_value_text(c, PARAM_myhostname, a, &host);
    if (e)
        return e;
    ptrdiff_t dot = str_index(host, '.');
    *ret = dot >= 0 ? str_from(host, (size_t)dot + 1) : STR("localdomain");
    return NULL;
}

static error own_networks(const struct conf *c, struct arena *a, struct str *ret) {
    struct str style, interfaces, protocols;
    const struct interface_address *list;
    size_t count;
    error e;
    if ((e = conf_value_text(c, PARAM_mynetworks_style, a, &style)))
        return e;
    if ((e = conf_value_text(c, PARAM_inet_interfaces, a, &interfaces)))
        return e;
    if ((e = conf_value_text(c, PARAM_inet_protocols, a, &protocols)))
        return e;
    if ((e = interfaces_list(protocols, a, &list, &count)))
        return e;
    return mynetworks_default(style, interfaces, list, count, a, ret);
}

error computed_default(const struct conf *c, enum param p, struct arena *a, struct str *ret) {
    switch ((int)p) {
    case PARAM_process_id:
        *ret = c->process_id;
        return NULL;
    case PARAM_process_name:
        *ret = c->process_name;
        return NULL;
    case PARAM_service_name:
        *ret = c->service_name;
        return NULL;
    case PARAM_myhostname:
        return own_hostname(c, a, ret);
    case PARAM_mydomain:
        return own_domain(c, a, ret);
    case PARAM_mynetworks:
        return own_networks(c, a, ret);
    }
    *ret = param_row(p)->fallback;
    return NULL;
}

struct str conf_default(const struct conf *c, enum param p) {
    if (!param_is_computed(p))
        return param_row(p)->fallback;
    struct computed *k = c->computed;
    if (k->state[p] == COMPUTED_NOT_YET) {
        k->state[p] = COMPUTED_BUSY;
        k->text[p] = STR("");
        struct str text;
        error e = computed_default(c, p, c->arena, &text);
        if (e) {
            k->state[p] = COMPUTED_FAILED;
            k->failure = k->failure ? k->failure : e;
        } else {
            k->state[p] = COMPUTED_DONE;
            k->text[p] = arena_str(c->arena, text);
        }
    }
    /* while it is being worked out (myhostname = x.$mydomain) it counts as empty */
    return k->text[p];
}
