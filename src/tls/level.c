#include "base/log.h"
#include "tls/tls.h"

static const struct str names[] = {
    [TLS_LEVEL_NONE] = STR_INIT("none"),           [TLS_LEVEL_MAY] = STR_INIT("may"),
    [TLS_LEVEL_ENCRYPT] = STR_INIT("encrypt"),     [TLS_LEVEL_FINGERPRINT] = STR_INIT("fingerprint"),
    [TLS_LEVEL_HALF_DANE] = STR_INIT("half-dane"), [TLS_LEVEL_DANE] = STR_INIT("dane"),
    [TLS_LEVEL_DANE_ONLY] = STR_INIT("dane-only"), [TLS_LEVEL_VERIFY] = STR_INIT("verify"),
    [TLS_LEVEL_SECURE] = STR_INIT("secure"),
};
enum { LEVELS = sizeof names / sizeof *names };

bool tls_level_parse(struct str name, enum tls_level *ret) {
    for (int i = 0; i < LEVELS; i++)
        if (i != TLS_LEVEL_HALF_DANE && str_eq_icase(name, names[i])) {
            *ret = (enum tls_level)i;
            return true;
        }
    return false;
}

struct str tls_level_name(enum tls_level l) {
    return names[l];
}

error tls_server_level(const struct conf *c, const struct tls_level_params *p, struct arena *err_arena, bool *ret_on,
                       bool *ret_mandatory) {
    struct str name = conf_str(c, p->level);
    enum tls_level level;
    if (name.n == 0) {
        *ret_mandatory = conf_bool(c, p->enforce);
        *ret_on = *ret_mandatory || conf_bool(c, p->use);
        return NULL;
    }
    if (!tls_level_parse(name, &level))
        return err_make(err_arena, ERR_CONFIG, "Invalid TLS level \"%.*s\"", STR_ARG(name));
    if (level > TLS_LEVEL_ENCRYPT)
        log_warn("%s: unsupported TLS level \"%.*s\", using \"encrypt\"", p->name, STR_ARG(name));
    *ret_on = level != TLS_LEVEL_NONE;
    *ret_mandatory = level >= TLS_LEVEL_ENCRYPT;
    return NULL;
}
