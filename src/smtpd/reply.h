/* reply.h - what the client hears. Each call queues whole lines; the session's next read sends them.
 *
 * The replies of a session that made many mistakes are held back (smtpd_soft_error_limit, smtpd_error_sleep_time), so
 * each of these calls may wait. */
#ifndef ANGARIUM_SMTPD_REPLY_H
#define ANGARIUM_SMTPD_REPLY_H

#include "smtpd/session.h"

enum { REPLY_TEXT_MAX = 1000 /* bytes of one line; longer text is cut: RFC 5321, 4.5.3.1.5 asks for 512 */ };

/* "250 2.1.0 Ok": one whole line without its end. Returns true, for `return reply_ok(...)` in a command. */
bool reply_ok(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for a refusal of something that is against the protocol: counts an error first and returns false. 421 and
 * 521 end the session. */
bool reply_fail(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same; what the client did wrong is not (only) a matter of protocol. */
bool reply_error(struct session *s, unsigned classes, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A refusal of one or more lines, each with its code, "\n" between them. */
bool reply_lines(struct session *s, unsigned classes, struct str lines);
/* A refusal made by a check, which has said of what class the error is. */
bool reply_refusal(struct session *s, error refusal);
/* One line of a multi-line reply ("250-" is in the text); no delay. */
void reply_part(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
#endif
