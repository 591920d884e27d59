/* verify.h - does an address take mail? What smtpd asks on private/verify, and what qmgr tells it of probes
 * (verify(8)).
 *
 * A conversation is QUERY and ANSWER, or one UPDATE, which is answered with an ANSWER, too, so that the teller knows
 * that it has arrived. Any number over one connection, one after the other. */
#ifndef ANGARIUM_PROTO_VERIFY_H
#define ANGARIUM_PROTO_VERIFY_H

#include "run/ipc.h"

enum { VERIFY_TEXT_MAX = 1000 /* bytes of a reason; more is cut */ };

enum verify_msg {
    VERIFY_MSG_QUERY = 1, /* address */
    VERIFY_MSG_UPDATE,    /* address, u8 enum verify_status, text */
    VERIFY_MSG_ANSWER,    /* u8 enum verify_status, text */
};
enum verify_status { /* numbers as they stand in the cache */
                     VERIFY_OK = 0,
                     VERIFY_DEFER, /* nobody can say now */
                     VERIFY_BOUNCE,
                     VERIFY_TODO, /* a probe is on its way */
};
struct verify_answer {
    enum verify_status status;
    struct str text;
};

/* Ask, and wait; the text is in `a`. */
error verify_query(struct ipc *ipc, struct str address, int64_t deadline, struct arena *a, struct verify_answer *ret);
error verify_update(struct ipc *ipc, struct str address, const struct verify_answer *is, int64_t deadline);

/* --- verify's end --- */
struct verify_request {
    enum verify_msg type; /* QUERY or UPDATE */
    struct str address;   /* borrowed from the frame */
    struct verify_answer is;
};
bool verify_unpack(const struct ipc_msg *m, struct verify_request *ret);
void verify_answer(struct ipc *ipc, const struct verify_answer *answer);
#endif
