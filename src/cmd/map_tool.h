/* map_tool.h - what postmap, postalias and newaliases do (postmap(1), postalias(1)).
 *
 * The three differ in the form of the text (key value; name: value) and of what they print. */
#ifndef ANGARIUM_CMD_MAP_TOOL_H
#define ANGARIUM_CMD_MAP_TOOL_H

#include "conf/conf.h"

struct map_tool {
    const char *name;  /* "postmap" */
    const char *usage; /* of the options */
    bool aliases;
};

/* main() of postmap and postalias. */
int map_tool_main(int argc, char **argv, const struct map_tool *tool);

struct map_options {
    bool incremental;    /* -i: add what standard input has */
    bool no_fold;        /* -f */
    bool no_nul;         /* -n */
    bool keep_root;      /* -o */
    bool no_permissions; /* -p */
    bool list;           /* -s */
    bool any_bytes;      /* -u */
    bool quiet;          /* -w: duplicates are left out without a warning */
    bool replace;        /* -r: the later of two counts, without a warning */
    const char *query;   /* -q */
    const char *remove;  /* -d */
};
/* Build the index of "type:name" from its text. Ends the program on failure, as the commands do. */
void map_tool_build(const struct map_tool *tool, const struct map_options *o, const struct conf *c, struct str spec);
#endif
