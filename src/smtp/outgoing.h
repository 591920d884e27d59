/* outgoing.h - what is changed in a message on its way out: smtp_generic_maps in the addresses of its header, what
 * smtp_header_checks and the others say (header_checks(5)), and 8 bits for servers that take 7 (mail/mime.h). In one
 * pass over the content; memory: one header field.
 *
 * Tables are asked while the message goes out, so a table that fails ends the connection in the middle of it. */
#ifndef ANGARIUM_SMTP_OUTGOING_H
#define ANGARIUM_SMTP_OUTGOING_H

#include "smtp/config.h"
#include "smtp/content.h"

struct outgoing_rules;

/* Before confinement. NULL in `*ret`: nothing is ever changed. */
void outgoing_load(const struct conf *conf, bool lmtp, struct outgoing_rules **ret);
void outgoing_free(struct outgoing_rules *r); /* NULL is allowed */

/* An address of the envelope (internal form), or itself; false: the table failed (logged). `r` may be NULL. */
bool outgoing_address(const struct outgoing_rules *r, const char *id, struct arena *a, struct str address,
                      struct str *ret);

struct outgoing;
/* `seven_bit`: the server does not take 8 bits. Is the content converted where it says that it has them? */
bool outgoing_converts(const struct outgoing_rules *r, bool seven_bit);
/* Into `w`; `id` is the message's. NULL: nothing changes in this one. */
struct outgoing *outgoing_begin(const struct outgoing_rules *r, const char *id, bool seven_bit,
                                struct content_writer *w);
/* The next piece, cut anywhere. False: a table failed (logged), or outgoing_too_deep(). */
bool outgoing_add(struct outgoing *o, struct str bytes);
/* Everything is written out but the end itself (content_end()). */
bool outgoing_end(struct outgoing *o);
/* It cannot be converted: deeper than mime_nesting_limit. */
bool outgoing_too_deep(const struct outgoing *o);
void outgoing_close(struct outgoing *o); /* NULL is allowed */
#endif
