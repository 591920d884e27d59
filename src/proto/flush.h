/* flush.h - what flush is told and asked on public/flush: which deferred mail is for which site, and to have it tried
 * now (flush(8)).
 *
 * qmgr keeps a connection and says which messages were deferred; smtpd (ETRN) and postqueue -s ask for a site, and are
 * answered once. A conversation begins with an empty frame, whose first byte cannot be taken for a trigger ('W', 'R':
 * refresh; 'P': purge).
 *
 * A site is a domain as it stands in an address, in any case: a host name, an address literal, or with SMTPUTF8 a name
 * that is not ASCII. Whether it is kept is fast_flush_domains' business: both ends look, because only the answer of
 * flush counts and asking it for nothing would cost. */
#ifndef ANGARIUM_PROTO_FLUSH_H
#define ANGARIUM_PROTO_FLUSH_H

#include "queue/queue_id.h"
#include "run/ipc.h"

enum {
    FLUSH_SITE_MAX = 254,  /* bytes of a site: with one in front of it, it is a file name */
    FLUSH_ADD_MAX = 10000, /* queue ids in one FLUSH_MSG_ADD */
};

enum flush_msg {
    FLUSH_MSG_HELLO = 1,
    FLUSH_MSG_ADD,       /* site, u32 count, queue ids: no answer */
    FLUSH_MSG_SEND_SITE, /* site: FLUSH_MSG_STATUS */
    FLUSH_MSG_STATUS,    /* u8 enum flush_status */
};

enum flush_status {
    FLUSH_OK,     /* mail for the site, if there is any, is being handed to qmgr */
    FLUSH_FAIL,   /* not now */
    FLUSH_BAD,    /* that is no site */
    FLUSH_DENIED, /* fast_flush_domains does not list it */
};

/* The form under which a site's mail is kept: lower case, ASCII (RFC 5891). False: no site. */
bool flush_site_normal(struct str site, struct arena *a, struct str *ret);

/* The first frame of a conversation. */
void flush_hello(struct ipc *ipc);
/* `ids`: the texts of `count` queue ids (at most FLUSH_ADD_MAX), each packed with pack_str(). */
void flush_add(struct ipc *ipc, struct str site, uint32_t count, struct str ids);
/* A whole conversation: say hello, ask, wait for the answer. */
error flush_send_site(struct ipc *ipc, struct str site, int64_t deadline, enum flush_status *ret);

/* --- flush's end --- */
struct flush_request {
    enum flush_msg type; /* FLUSH_MSG_HELLO: nothing to do */
    struct str site;     /* borrowed from the frame */
    uint32_t count;      /* ADD: calls of flush_next_id() that succeed */
    struct unpack ids;
};
/* False: not a request. The ids of an ADD have been looked at. */
bool flush_unpack(const struct ipc_msg *m, struct flush_request *ret);
bool flush_next_id(struct flush_request *r, struct queue_id *ret);
void flush_answer(struct ipc *ipc, enum flush_status status);
#endif
