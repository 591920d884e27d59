/* filter_edit.h - a message while mail filters look at it, and what they change; for the files of this room only. */
#ifndef ANGARIUM_CLEANUP_FILTER_EDIT_H
#define ANGARIUM_CLEANUP_FILTER_EDIT_H

#include "cleanup/message.h"
#include "milter/packet.h"

enum { REASON_MAX = 200 /* bytes of why a message is held, in the log */ };

struct filtered {
    struct message *m;
    struct arena *scratch;
    VEC(struct str) fields; /* whole, with their last LF; in the message's arena */
    size_t own;             /* our own Received:, of which filters do not hear; SIZE_MAX: there is none */
    size_t header_bytes;    /* of all that was ever in `fields` */
    bool separator;         /* an empty line stands between header and body */
    uint64_t body_at;       /* in the message's file */
    struct spool_new *body; /* what takes its place; NULL: nothing */
    bool header_changed;
    bool leading_space; /* this filter's values begin with what stands behind the colon */
    bool replaces_body; /* it has begun to */
    bool body_cr;       /* the last byte of the new body was a CR, which has not been written */
    bool deleted;       /* recipients */
};

/* `header`: all fields; lives as long as the message. */
void filtered_header(struct filtered *f, struct str header);
/* False: the field is gone. */
bool filtered_field(const struct filtered *f, size_t i, struct str *ret_name, struct str *ret_value);
uint64_t filtered_body_size(const struct filtered *f);
error filtered_body_read(struct filtered *f, uint64_t at, void *p, size_t n);
/* One change (not a quarantine). False: it cannot be made, which is a failure of ours or a limit. */
bool filtered_edit(struct filtered *f, const struct milter_reply *r, bool leading_space);
/* A filter has made all its changes. */
void filtered_edits_done(struct filtered *f);
/* The changed content takes the place of the old. */
error filtered_write(struct filtered *f);
void filtered_free(struct filtered *f);
#endif
