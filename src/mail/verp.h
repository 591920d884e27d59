/* verp.h - variable envelope return paths: the sender's address as each recipient's server sees it has that recipient
 * in it, so that the sender can tell from a returned message who it was for.
 *
 *   list@origin.example to user@dest.example, delimiters "+=":  list+user=dest.example@origin.example
 */
#ifndef ANGARIUM_MAIL_VERP_H
#define ANGARIUM_MAIL_VERP_H

#include "base/arena.h"

enum { VERP_DELIMITERS = 2 }; /* in front of the recipient's local part; in place of its @ */

/* Two bytes, each one of `filter` (verp_delimiter_filter)? Then `ret` has them, else it is unchanged. */
bool verp_delimiters_parse(struct str text, struct str filter, char ret[VERP_DELIMITERS]);
/* Both in internal form (mail/address.h). The null sender stays what it is; a sender without a domain gets
 * none. The result is in `a`. */
struct str verp_sender(struct arena *a, const char delimiters[VERP_DELIMITERS], struct str sender,
                       struct str recipient);
#endif
