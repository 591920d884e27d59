/* params.h - what stands behind the address of MAIL and RCPT: ESMTP parameters (RFC 5321, 4.1.1.11), as two tables. */
#ifndef ANGARIUM_SMTPD_PARAMS_H
#define ANGARIUM_SMTPD_PARAMS_H

#include "smtpd/session.h"

struct mail_params {
    uint64_t size;           /* SIZE= (RFC 1870); 0: not given */
    unsigned flags;          /* enum envelope_flags: BODY=, SMTPUTF8, REQUIRETLS */
    struct str envid;        /* ENVID=, decoded (RFC 3461, 4.4); empty: not given */
    struct str login_sender; /* AUTH= (RFC 4954, 5), as auth_mail_option() has it */
    unsigned ret;            /* RET=: enum dsn_ret; 0: not given */
    struct str verp;         /* XVERP: delimiters, as they were given; p NULL: it was not */
};
struct rcpt_params {
    unsigned notify;  /* NOTIFY=: mask of enum dsn_notify; 0: not given */
    struct str orcpt; /* ORCPT=, decoded: "rfc822;user@example" (RFC 3461, 4.2); empty: not given */
};

/* False: one of them is unknown, malformed or not for this session, and the client has been told. Strings are in the
 * scratch arena. */
bool mail_params_read(struct session *s, struct str options, struct mail_params *ret);
bool rcpt_params_read(struct session *s, struct str options, struct rcpt_params *ret);
/* Does the client say SMTPUTF8 here, and may it? Looked at before the address is. */
bool params_want_smtputf8(struct session *s, struct str options);
/* Its line of EHLO's answer; empty: not for this client (smtpd_authorized_verp_clients). */
struct str xverp_ehlo_line(struct session *s);
#endif
