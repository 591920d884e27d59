/* ldap_text.h - text for the directory: a key made safe for a filter (RFC 4515, 3) and for a name (RFC 4514, 2.4), the
 * server list, and which attributes a special result asks for. Nothing here talks to a server or logs. */
#ifndef ANGARIUM_LOOKUP_LDAP_TEXT_H
#define ANGARIUM_LOOKUP_LDAP_TEXT_H

#include "base/arena.h"
#include "base/buf.h"

/* Both are a query_quote (query.h); `ctx` is not used. What is special or not printable ASCII becomes a backslash and
 * two hexadecimal digits, so that the text is one value wherever it is put. Always true. */
bool ldap_quote_filter(void *ctx, struct buf *b, struct str text);
bool ldap_quote_dn(void *ctx, struct buf *b, struct str text);

/* One word of server_host as a URI: as it is when it is one, else ldap://word with `port` unless it has its own. */
struct str ldap_server_uri(struct arena *a, struct str word, int64_t port);

/* Is `returned`, an attribute description of a server, the `wanted` one or one with more options (RFC 4511, 4.1.4:
 * "description;lang-en" is a "description")? */
bool ldap_attribute_is(struct str returned, struct str wanted);
/* The attribute to ask for when a URL selects `selected` and the table has `listed`: without regard to case, and where
 * only one of the two has options, that one. Empty: they are different attributes. */
struct str ldap_attribute_common(struct str selected, struct str listed);
#endif
