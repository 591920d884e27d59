/* encoded_word.h - text that is not ASCII in a display name or comment (RFC 2047). */
#ifndef ANGARIUM_MAIL_ENCODED_WORD_H
#define ANGARIUM_MAIL_ENCODED_WORD_H

#include "base/arena.h"

/* `text`, of any bytes, as encoded words of at most 75 bytes, each on a line of its own ("\n " between them);
 * characters of UTF-8 are not cut apart. Q where it is short or mostly ASCII, else B. Text that is not in UTF-8
 * although `charset` says so is of charset unknown-8bit (RFC 1428). `charset` with bytes that cannot stand there counts
 * as unknown-8bit. */
struct str encoded_words(struct arena *a, struct str text, struct str charset);
#endif
