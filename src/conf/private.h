/* private.h - the inside of struct conf, for the files of this room. */
#ifndef ANGARIUM_CONF_PRIVATE_H
#define ANGARIUM_CONF_PRIVATE_H

#include "base/map.h"
#include "conf/expand.h"
#include "conf/main_cf.h"
#include "conf/params.h"

/* A converted value: `text` for all types (expanded, but for RAW), `number` where the type has one. */
struct value {
    struct str text;
    int64_t number;
};

enum computed_state { COMPUTED_NOT_YET, COMPUTED_BUSY, COMPUTED_DONE, COMPUTED_FAILED };

/* Defaults that depend on this machine and on other settings: worked out when first asked for, so that the order
 * of main.cf never matters (and a host without a usable name can still print its settings). */
struct computed {
    enum computed_state state[PARAM_COUNT];
    struct str text[PARAM_COUNT];
    error failure; /* the first one; lives in the conf's arena */
};

struct conf {
    struct arena *arena;
    struct str directory, path, process_name, service_name, process_id;
    struct main_cf file;
    struct map settings; /* name -> struct setting *: the one that counts; overrides included */
    struct computed *computed;
    struct value *values;                 /* PARAM_COUNT of them once converted; NULL before */
    struct map service_values;            /* <service><suffix> set in main.cf -> struct value * */
    struct value *service_values_default; /* one per service row */
    struct map service_defaults;          /* <service><suffix> of SERVICE_DEFAULT -> struct value * */
    VEC(struct str) warnings;
};

/* The default of `p`, unexpanded: the row's, or the computed one. */
struct str conf_default(const struct conf *c, enum param p);
/* process_name and its like: what main.cf says of them does not count. */
bool param_is_read_only(enum param p);
/* One of the rows that computed.c fills in? */
bool param_is_computed(enum param p);
error computed_default(const struct conf *c, enum param p, struct arena *a, struct str *ret);

/* The unexpanded value, as expand() asks for it. `ctx` is the struct conf. */
bool conf_expand_lookup(void *ctx, struct str name, struct expand_value *ret);
/* The value of `p`, expanded, before conversion: for rows that others are computed from. */
error conf_value_text(const struct conf *c, enum param p, struct arena *a, struct str *ret);
#endif
