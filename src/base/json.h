/* json.h - writing JSON (RFC 8259). */
#ifndef ANGARIUM_BASE_JSON_H
#define ANGARIUM_BASE_JSON_H

#include "base/buf.h"

/* `s` as a string, in its quotes. Bytes that are not UTF-8 cannot be written in JSON: '?' takes their place. */
void buf_json(struct buf *b, struct str s);
#endif
