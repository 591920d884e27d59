/* config.h - smtpd_milters and its like: which filters, how long each may take, what happens without its answer.
 *
 *   inet:host:port  unix:path  { inet:host:port, connect_timeout=10s, default_action=accept, ... }
 *
 * by blanks or commas. Settings in braces have the names of the parameters without "milter_". */
#ifndef ANGARIUM_MILTER_CONFIG_H
#define ANGARIUM_MILTER_CONFIG_H

#include "milter/packet.h"
#include "service/dial.h"

enum { MILTERS_MAX = 16 /* of one list: each costs a descriptor a session */ };

enum milter_default { /* when there is no answer that can be understood */
                      MILTER_DEFAULT_ACCEPT,
                      MILTER_DEFAULT_REJECT,
                      MILTER_DEFAULT_TEMPFAIL,
                      MILTER_DEFAULT_QUARANTINE,
                      MILTER_DEFAULT_SHUTDOWN,
};

struct milter_config {
    struct dial_target target;                                 /* text: its name in logs */
    int64_t connect_timeout, command_timeout, content_timeout; /* seconds */
    unsigned version;
    bool mute_header; /* no_header_reply: says nothing to header fields, whatever was negotiated */
    enum milter_default on_error;
};
struct milter_configs {
    struct milter_config *at;
    size_t n;
};
/* The defaults of settings that are not given come from `c`. ERR_CONFIG: why, in `a`; the rest lives in `a`, too. Looks
 * up service names in files: in init(), or with numeric ports only. */
error milter_configs_parse(struct arena *a, const struct conf *c, struct str text, struct milter_configs *ret);
/* Tell master of all that are unix sockets. In init(). */
error milter_configs_declare(struct service_ctx *ctx, const struct milter_configs *list);

/* What main.cf says of macros: a list of names for each stage, and values where nobody has a better one. */
struct milter_macro {
    struct str name, value;
};
struct milter_macros {
    struct str lists[MILTER_STAGES];
    VEC(struct milter_macro) defaults;
};
/* ERR_CONFIG: milter_macro_defaults is malformed. */
error milter_macros_parse(struct arena *a, const struct conf *c, struct milter_macros *ret);
/* The next name of a list. */
bool milter_macro_next(struct str *list, struct str *ret);
/* Is it the macro `name`? Both with or without braces, which names of one letter may do without. */
bool milter_macro_is(struct str macro, struct str name);
#endif
