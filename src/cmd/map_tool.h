/* map_tool.h - what postmap, postalias and newaliases do (postmap(1), postalias(1)).
 *
 * The three differ in the form of the text (key value; name: value) and of what they print. Faults end the program, as
 * they do with Postfix: map_build.c makes and changes indexes, map_query.c asks and lists. */
#ifndef ANGARIUM_CMD_MAP_TOOL_H
#define ANGARIUM_CMD_MAP_TOOL_H

#include "base/buf.h"
#include "conf/conf.h"
#include "table/index.h"

struct map_tool {
    const char *name;    /* "postmap" */
    const char *options; /* the letters of the usage */
    const char *getopt;
    bool aliases;
};

/* main() of postmap and postalias. */
int map_tool_main(int argc, char **argv, const struct map_tool *tool);

struct map_options {
    bool body, header, mime; /* -b, -h, -m */
    bool files;              /* -F */
    bool incremental;        /* -i: add what standard input has */
    bool json;               /* -j */
    bool no_fold;            /* -f */
    bool no_nul, nul;        /* -n, -N */
    bool keep_root;          /* -o */
    bool no_permissions;     /* -p */
    bool list;               /* -s */
    bool any_bytes;          /* -u, or smtputf8_enable = no */
    bool force_utf8;         /* -U */
    bool quiet;              /* -w: duplicates are left out without a warning */
    bool replace;            /* -r: the later of two counts, without a warning */
    const char *query;       /* -q */
    const char *remove;      /* -d */
};

struct map_job {
    const struct map_tool *tool;
    const struct map_options *o;
    const struct conf *c;
};
/* Build the index of "type:name" from its text. */
void map_build(const struct map_job *j, struct str spec);
/* -i and -d. False: none of the keys was there. */
void map_add(const struct map_job *j, struct str spec);
bool map_remove_keys(const struct map_job *j, struct str spec, struct str keys);
/* -q and -s: the exit status. */
int map_query(const struct map_job *j, char **specs, size_t count);
void map_list(const struct map_job *j, struct str spec);

/* "type:name" of the command line taken apart. */
struct map_target {
    struct str spec, type, name, index;
    const char *source;
    enum index_kind kind;
};
struct map_target map_target(struct arena *a, const struct conf *c, struct str spec);

enum { MAP_INPUT_MAX = 512 * 1024 * 1024 /* bytes of a text file, or of entries on standard input */ };
void map_read_stdin(struct buf *b);
/* Lines of standard input, as they come, of any length up to MAP_INPUT_MAX. `{ 0 }` starts; free `bytes`. */
struct map_lines {
    struct buf bytes;
    size_t at;
    bool end;
    void (*waits)(void *ctx); /* before more is read: output so far should go out */
    void *ctx;
};
bool map_next_line(struct map_lines *l, struct str *ret);
/* Those of the next lines, at most `room`, that have been read already. They stay until more is read. */
size_t map_lines_ahead(const struct map_lines *l, struct str *ret, size_t room);
#endif
