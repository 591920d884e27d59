/* auth.h - logins of SMTP clients (RFC 4954). */
#ifndef ANGARIUM_SMTPD_AUTH_H
#define ANGARIUM_SMTPD_AUTH_H

#include "conf/conf.h"
#include "sasl/server.h"
#include "table/match.h"

struct session;

struct auth_settings {
    bool enabled, tls_only, broken_clients, header;
    struct sasl_policy plain, tls; /* without and within TLS */
    struct match *mechanisms;      /* smtpd_sasl_mechanism_filter: which are announced */
    struct match *exceptions;      /* smtpd_sasl_exceptions_networks: to whom nothing is */
    size_t response_limit;         /* bytes of one line of a client */
    struct str type, path, service, realm;
};

/* ERR_CONFIG: the text of the fatal line. */
error auth_settings_load(const struct conf *c, struct arena *err_arena, struct auth_settings *ret);
void auth_settings_free(struct auth_settings *a);

/* "AUTH PLAIN LOGIN", with `separator` '=' what clients of long ago look for (broken_sasl_auth_clients). Empty: not
 * offered. May wait for the login server. */
struct str auth_ehlo_line(struct session *s, char separator);
bool command_auth(struct session *s, struct str args);
/* The value of AUTH= in MAIL (RFC 4954, 5). False: it was refused. */
bool auth_mail_option(struct session *s, struct str value, struct str *ret_sender);
/* STARTTLS and XCLIENT: whoever was logged in no longer is. */
void auth_forget(struct session *s);
#endif
