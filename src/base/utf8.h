/* utf8.h - strict UTF-8 (RFC 3629): no over-long forms, no surrogates, nothing past U+10FFFF. */
#ifndef ANGARIUM_BASE_UTF8_H
#define ANGARIUM_BASE_UTF8_H

#include "base/str.h"

/* Bytes of the sequence at the front of `s`: 1 to 4; 0 when it is not a valid one (or `s` is empty). */
size_t utf8_length(struct str s);
bool utf8_valid(struct str s);
bool str_is_ascii(struct str s);
#endif
