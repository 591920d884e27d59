/* file_values.h - tables whose values are names of files (postmap -F, tls_server_sni_maps): a look-up gives what is in
 * the files. An index has the contents in base64, the text has the names. */
#ifndef ANGARIUM_TABLE_FILE_VALUES_H
#define ANGARIUM_TABLE_FILE_VALUES_H

#include "base/arena.h"
#include "base/err.h"

enum { FILE_VALUE_MAX = 16 * 1024 * 1024 /* bytes of all files of one value */ };

/* The files of the list (separated by commas and blanks), a newline between each two. An error: "open NAME: why". */
error file_value_read(struct str names, struct arena *a, struct str *ret);
struct str base64_encode(struct arena *a, struct str s);
/* False: `s` is not base64 (RFC 4648, 4). */
bool base64_decode(struct arena *a, struct str s, struct str *ret);
#endif
