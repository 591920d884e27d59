/* dsn.h - enhanced status codes (RFC 3463), delivery status parameters (RFC 3461), xtext. */
#ifndef ANGARIUM_MAIL_DSN_H
#define ANGARIUM_MAIL_DSN_H

#include "base/arena.h"

/* "4.7.1" at the front of `text`, followed by a blank or the end: its length, or 0. Class 2, 4, 5; numbers of 1 to 3
 * digits. */
size_t dsn_status_length(struct str text);
/* Split "5.7.1 text" into both; without a status `ret_status` is `fallback`. */
void dsn_split(struct str text, struct str fallback, struct str *ret_status, struct str *ret_text);
/* The status with its first digit made `digit`: the reply code wins over a table text's "4.5.2". */
struct str dsn_with_class(struct arena *a, struct str status, char digit);

enum dsn_notify { DSN_NOTIFY_NEVER = 1, DSN_NOTIFY_SUCCESS = 2, DSN_NOTIFY_FAILURE = 4, DSN_NOTIFY_DELAY = 8 };
enum dsn_ret { DSN_RET_FULL = 1, DSN_RET_HDRS = 2 };
/* "SUCCESS,FAILURE": a mask, or 0 when malformed (NEVER does not go with others: RFC 3461, 4.1). */
unsigned dsn_notify_parse(struct str s);
struct str dsn_notify_format(struct arena *a, unsigned mask);

/* xtext (RFC 3461, 4). Decoding refuses malformed input and encoded NUL. */
struct str xtext_encode(struct arena *a, struct str s);
bool xtext_decode(struct arena *a, struct str s, struct str *ret);
/* The escapes of a utf-8-addr-xtext, "\x{FC}" for U+00FC (RFC 6533, 3), made UTF-8. Refuses malformed ones, and those
 * of what needs none: letters, digits, control characters and whatever else ASCII has but + = \ and the blank. */
bool unitext_decode(struct arena *a, struct str s, struct str *ret);
/* "rfc822;user@dom", or with type utf-8, as ORCPT has it in a session that need not know SMTPUTF8: xtext, or the
 * escapes of utf-8-addr-xtext (RFC 6533, 3). Empty: it cannot be said. */
struct str dsn_orcpt_encode(struct arena *a, struct str orcpt);
/* ORCPT value "rfc822;user@dom": both parts checked; type utf-8 may hold valid UTF-8 (RFC 6533, 3). */
bool dsn_orcpt_valid(struct str decoded);
#endif
