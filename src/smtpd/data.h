/* data.h - the content of a message on its way to cleanup: what DATA and BDAT have in common. */
#ifndef ANGARIUM_SMTPD_DATA_H
#define ANGARIUM_SMTPD_DATA_H

#include "smtpd/content.h"
#include "smtpd/front_lines.h"
#include "smtpd/session.h"

/* What became of the content so far. After anything but FINE the rest is read and thrown away: the client hears of it
 * at the end, where it listens. */
enum fate { FINE, TOO_LARGE, BROKEN };

struct stream { /* stays where it is: `content` points to it */
    struct session *s;
    enum fate fate;
    struct buf gathered; /* what comes in small pieces goes to cleanup, or the filter, in larger ones */
    struct front_lines front;
    size_t decided; /* bytes of `gathered` that are as they should be; all of it, once front is done */
    uint64_t size_added;
    struct content content;
};

/* Is there a transaction with recipients? False: no, and the client has been told. */
bool data_may_begin(struct session *s);
/* Begin with the header fields that are ours. */
void stream_begin(struct stream *x, struct session *s);
/* Something has been fed to `content`. */
void stream_came(struct stream *x);
/* When the next bytes must be here, `received` of them having come. */
int64_t stream_deadline(const struct session *s, int64_t deadline, size_t received);
/* A bare newline that came is refused (smtpd_forbid_bare_newline = reject): the client has been told. */
bool stream_refuses_bare_newline(struct stream *x);
/* The refusal for a fate that is not FINE. Returns false. */
bool stream_fate_reply(struct stream *x);
/* All of it has come: end-of-data checks, cleanup's answer, the reply, the end of the transaction. */
bool stream_end(struct stream *x);
void stream_free(struct stream *x);
#endif
