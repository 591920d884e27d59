/* alias_list.h - what an alias, a line of ~/.forward or of an :include: file stands for (aliases(5)).
 *
 *     list = item *( "," item )
 *     item = "|" command / "/" path / ":include:" path / addresses
 *
 * A command with blanks is quoted, with the bar inside or outside: "|prog arg", |"prog arg". In quotes a backslash
 * takes the next byte as it is. A line whose first byte is '#' is a comment. Never fails: what makes no sense becomes
 * an address that does not exist, as Postfix has it. Linear in time. */
#ifndef ANGARIUM_LOCAL_ALIAS_LIST_H
#define ANGARIUM_LOCAL_ALIAS_LIST_H

#include "base/arena.h"

enum { ALIAS_ITEMS_MAX = 500000 }; /* of one list; with more it is `truncated`: not to be used */

enum alias_item_kind { ALIAS_ADDRESS = 1, ALIAS_COMMAND, ALIAS_FILE, ALIAS_INCLUDE };
struct alias_item {
    enum alias_item_kind kind;
    struct str text; /* address in internal form; the command; the path */
};
struct alias_list {
    struct alias_item *at;
    size_t n, room;
    bool truncated;
};

/* Adds to `*list`; `{0}` is an empty one. */
void alias_list_parse(struct arena *a, struct str text, struct alias_list *list);
/* The same for each line of a file. */
void alias_list_parse_lines(struct arena *a, struct str text, struct alias_list *list);
#endif
