#include "base/log.h"
#include "tls/tls.h"

enum { LEVEL_NONE, LEVEL_MAY, LEVEL_ENCRYPT, LEVEL_MORE };

static const struct {
    struct str name;
    int level;
} levels[] = {
    { STR_INIT("none"), LEVEL_NONE },       { STR_INIT("may"), LEVEL_MAY },
    { STR_INIT("encrypt"), LEVEL_ENCRYPT }, { STR_INIT("fingerprint"), LEVEL_MORE },
    { STR_INIT("verify"), LEVEL_MORE },     { STR_INIT("secure"), LEVEL_MORE },
    { STR_INIT("dane"), LEVEL_MORE },       { STR_INIT("dane-only"), LEVEL_MORE },
};

error tls_server_level(const struct conf *c, const struct tls_level_params *p, struct arena *err_arena, bool *ret_on,
                       bool *ret_mandatory) {
    struct str name = conf_str(c, p->level);
    if (name.n == 0) {
        *ret_mandatory = conf_bool(c, p->enforce);
        *ret_on = *ret_mandatory || conf_bool(c, p->use);
        return NULL;
    }
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (!str_eq_icase(name, levels[i].name))
            continue;
        if (levels[i].level == LEVEL_MORE) /* levels of a client */
            log_warn("%s: unsupported TLS level \"%.*s\", using \"encrypt\"", p->name, STR_ARG(name));
        *ret_on = levels[i].level != LEVEL_NONE;
        *ret_mandatory = levels[i].level >= LEVEL_ENCRYPT;
        return NULL;
    }
    return err_make(err_arena, ERR_CONFIG, "Invalid TLS level \"%.*s\"", STR_ARG(name));
}
