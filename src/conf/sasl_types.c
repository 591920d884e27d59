#include "conf/sasl_types.h"

#include "build_config.h"

const struct sasl_type *sasl_types(void) {
    static const struct sasl_type types[] = {
#ifdef HAVE_CYRUS_SASL
        { STR_INIT("cyrus"), true, true },
#endif
        { STR_INIT("dovecot"), true, false },
        { STR_INIT("native"), false, true },
        { STR_INIT(""), false, false },
    };
    return types;
}
