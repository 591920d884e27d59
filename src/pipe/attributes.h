/* attributes.h - what pipe(8) runs and how, as its service in master.cf says it. */
#ifndef ANGARIUM_PIPE_ATTRIBUTES_H
#define ANGARIUM_PIPE_ATTRIBUTES_H

#include "deliver/run_as.h"

enum pipe_flags {
    PIPE_BLANK_LINE = 1,    /* B: an empty line at the end */
    PIPE_DELIVERED_TO = 2,  /* D: Delivered-To:, and its loop detection; one recipient at a time */
    PIPE_FROM_LINE = 4,     /* F: a From_ line */
    PIPE_ORIGINAL_TO = 8,   /* O: X-Original-To:; one recipient at a time */
    PIPE_RETURN_PATH = 16,  /* R: Return-Path: */
    PIPE_FINAL = 32,        /* X: the command is the end of the way ("delivered" instead of "relayed") */
    PIPE_FOLD_DOMAIN = 64,  /* h: domains and $nexthop in lower case */
    PIPE_QUOTE = 128,       /* q: whole addresses quoted */
    PIPE_FOLD_USER = 256,   /* u: local parts of recipients in lower case */
    PIPE_DOT = 512,         /* .: "." in front of lines that begin with one */
    PIPE_QUOTE_FROM = 1024, /* >: ">" in front of lines that begin with "From " */
};

struct pipe_attributes { /* strings NUL-terminated, in the arena given */
    unsigned flags;
    struct run_as as;
    struct str user;                /* as written: for messages */
    const char *chroot, *directory; /* NULL: not there */
    struct str eol;                 /* "\n"; may hold any byte */
    struct str null_sender;         /* what stands for the null sender; may be empty */
    uint64_t size_limit;            /* bytes of a message; 0: none */
    const struct str *argv;         /* with macros */
    size_t argc;                    /* at least 1 */
};

/* ERR_CONFIG: what is wrong. `root` and the owner: see run_as_parse(). */
error pipe_attributes_parse(struct arena *a, const struct str *args, size_t count, bool root, uid_t owner,
                            gid_t owner_group, struct pipe_attributes *ret);

/* \a \b \f \n \r \t \v \\ and up to three octal digits; behind another backslash a byte means itself. */
struct str pipe_unescape(struct arena *a, struct str s);
#endif
