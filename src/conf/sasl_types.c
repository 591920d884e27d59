#include "conf/sasl_types.h"

const struct sasl_type *sasl_types(void) {
    static const struct sasl_type types[] = {
        { STR_INIT("dovecot"), true, false },
        { STR_INIT(""), false, false },
    };
    return types;
}
