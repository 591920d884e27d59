/* sasl_types.h - the SASL plug-in types this build has, one row each: for smtpd_sasl_type, smtp_sasl_type,
 * lmtp_sasl_type and `postconf -a`, `postconf -A`. A type gets its row in the commit that makes it work. */
#ifndef ANGARIUM_CONF_SASL_TYPES_H
#define ANGARIUM_CONF_SASL_TYPES_H

#include "base/str.h"

struct sasl_type {
    struct str name; /* "dovecot"; empty: the end of the list */
    bool server, client;
};

/* Ends with an empty name. */
const struct sasl_type *sasl_types(void);
#endif
