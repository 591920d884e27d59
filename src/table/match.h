/* match.h - pattern lists of main.cf: mydestination, relay_domains, mynetworks, debug_peer_list...
 *
 * Items are separated by commas or white space; "!" negates; "/file/name" stands for the file's items; "type:table"
 * asks a table. The first item that matches decides. Files are read when the list is opened. */
#ifndef ANGARIUM_TABLE_MATCH_H
#define ANGARIUM_TABLE_MATCH_H

#include "table/table.h"

enum match_kind {
    MATCH_STRING,  /* equal, case ignored */
    MATCH_DOMAIN,  /* equal, or a parent: "example.com" matches sub-domains when the parameter stands in
                    * parent_domain_matches_subdomains, ".example.com" always does */
    MATCH_ADDRESS, /* 127.0.0.0/8, [::1]/128, an address, a host name */
};
enum match_result { MATCH_NO, MATCH_YES, MATCH_ERROR /* a table failed: temporary */ };

struct match;
/* `parameter` is the list's name, for messages and for parent_domain_matches_subdomains. Never NULL: a malformed list
 * gives MATCH_ERROR for every question and says why in match_error(). */
struct match *match_open(const struct conf *c, struct str parameter, struct str list, enum match_kind kind,
                         unsigned table_flags);
void match_close(struct match *m);
error match_error(const struct match *m);
/* MATCH_ADDRESS: name and address (either may be empty). Others: `name` only. */
enum match_result match_find(struct match *m, struct str name, struct str address);
#endif
