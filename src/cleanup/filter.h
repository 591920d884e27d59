/* filter.h - mail filters (MILTER_README) hear a message when all of it is there, and change it; for the files of this
 * room only.
 *
 * Mail from smtpd comes with the filters it has talked to; other mail (SUBMIT_MILTER) is told to non_smtpd_milters,
 * with an invented session around it. The header is in memory while that lasts (FILTER_HEADER_MAX), the body is not:
 * what a filter puts in its place lies in the spool, too. What was changed is written once, when all filters are
 * content. */
#ifndef ANGARIUM_CLEANUP_FILTER_H
#define ANGARIUM_CLEANUP_FILTER_H

#include "cleanup/message.h"

enum { FILTER_HEADER_MAX = 2 * 1024 * 1024 /* bytes of header fields of a message that filters hear */ };

/* non_smtpd_milters, opened; part of struct cleanup. */
error filter_open(struct cleanup *s, struct arena *err_arena);
/* What smtpd has handed over. False: malformed. */
bool filter_take(struct message *m, struct submit_in *in, struct str payload);
/* The content is whole and good so far. What the filters think of it is in the message's status, flags, sender,
 * recipients and content then. */
void filter_message(struct message *m);
void filter_end(struct message *m);
#endif
