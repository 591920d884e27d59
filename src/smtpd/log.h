/* log.h - one function an event: the lines that log readers know (smtpd(8), "connect from" and friends). */
#ifndef ANGARIUM_SMTPD_LOG_H
#define ANGARIUM_SMTPD_LOG_H

#include "smtpd/session.h"

void log_connect(const struct session *s);
void log_disconnect(const struct session *s);
void log_client(const struct session *s);                                     /* QID: client= */
void log_refusal(const struct session *s, const char *what, struct str text); /* what: "reject", "reject_warning" */
/* What is said to and by clients of debug_peer_list ('<': by the client); of others nothing. */
void log_conversation(const struct session *s, char direction, struct str line);
void log_proxy_verdict(const struct session *s, bool accepted, struct str reply); /* of the content filter */
void log_proxy_rejected(const struct session *s, struct str command, struct str reply);
void log_proxy_garbage(const struct session *s, struct str line);
void log_session_end(const struct session *s); /* lost connection, timeout, too many errors */
void log_pipelining(const struct session *s, struct str input);
void log_name_mismatch(const struct session *s, struct str name, const char *reason);
void log_address_syntax(const struct session *s, struct str address);
void log_line_too_long(const struct session *s, struct str line);
void log_response_too_long(const struct session *s); /* to a challenge of AUTH */
void log_haproxy(const struct session *s, const char *fault, struct str seen);
void log_login_failed(const struct session *s, struct str mechanism, struct str reason, struct str username);
void log_login_aborted(const struct session *s, struct str mechanism);
void log_login_server(const struct session *s, struct str why); /* it is not there, or not to be understood */
void log_not_smtp(const struct session *s, struct str line);
void log_concurrency(const struct session *s, uint32_t count);
void log_size_exceeded(const struct session *s);
void log_lookup_error(struct str tables, struct str key);
void log_local_data_error(const struct session *s);
void log_null_bdat(const struct session *s);
void log_bdat_syntax(const struct session *s, struct str args);
void log_bdat_too_large(const struct session *s);
void log_replaced_command(const struct session *s, struct str old, struct str now);
void log_etrn_denied(const struct session *s, struct str domain);
void log_tls_abort(const struct session *s, const char *why); /* the client's certificate is not enough */
void log_tls_dropped(const struct session *s);                /* wrapper mode without certificates of ours */
void log_flush_failed(const struct session *s, struct str why);
#endif
