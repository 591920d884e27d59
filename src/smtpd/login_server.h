/* login_server.h - the login server that smtpd_sasl_type and smtpd_sasl_path name. */
#ifndef ANGARIUM_SMTPD_LOGIN_SERVER_H
#define ANGARIUM_SMTPD_LOGIN_SERVER_H

#include "sasl/server.h"
#include "service/dial.h"

/* In init(). NULL in `ret`: smtpd_sasl_auth_enable = no. ERR_CONFIG: the text of the fatal line. It lives as long as
 * the process, and uses `dns` and `a` for that long. */
error login_server_open(struct service_ctx *ctx, struct dns *dns, struct arena *a, struct arena *err_arena,
                        struct sasl_server **ret);
#endif
