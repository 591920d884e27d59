/* anvil.h - what smtpd tells and asks anvil on private/anvil: how often a client comes (anvil(8)).
 *
 * A client is a name of smtpd's: "smtp:192.0.2.1", its service and its address block. Events that have a limit are
 * asked about (ASK, answered by ANSWER with the same number); the others are said (NOTE) and may wait in the buffer
 * until something else is sent. A connection that ends takes its clients' open sessions with it. */
#ifndef ANGARIUM_PROTO_ANVIL_H
#define ANGARIUM_PROTO_ANVIL_H

#include "run/ipc.h"

enum {
    ANVIL_IDENT_MAX = 255,     /* bytes of a client's name */
    ANVIL_QUESTIONS_MAX = 512, /* under way over one connection; more wait */
};
enum anvil_event {
    ANVIL_CONNECT = 1, /* the only one that `count` is for */
    ANVIL_DISCONNECT,
    ANVIL_MESSAGE,
    ANVIL_RECIPIENT,
    ANVIL_NEWTLS,
    ANVIL_NEWTLS_STATUS, /* not counted: how many have there been? */
    ANVIL_AUTH,
    ANVIL_EVENTS,
};
struct anvil_answer {
    uint32_t count; /* sessions of this client now */
    uint32_t rate;  /* of the event, in this anvil_rate_time_unit */
};

/* --- smtpd's end --- */
struct anvil_link *anvil_link_new(struct ipc *ipc); /* takes `ipc` over */
void anvil_link_close(struct anvil_link *l);        /* nobody may be asking. NULL is allowed. */
bool anvil_link_usable(const struct anvil_link *l);
size_t anvil_link_count(const struct anvil_link *l); /* who is asking */
error anvil_ask(struct anvil_link *l, enum anvil_event event, struct str ident, int64_t deadline,
                struct anvil_answer *ret);
void anvil_note(struct anvil_link *l, enum anvil_event event, struct str ident);

/* --- anvil's end --- */
enum anvil_msg { ANVIL_MSG_ASK = 1, ANVIL_MSG_NOTE, ANVIL_MSG_ANSWER };
struct anvil_request {
    bool wants_answer;
    uint32_t number;
    enum anvil_event event;
    struct str ident; /* borrowed from the frame */
};
/* False: not a request. */
bool anvil_unpack(const struct ipc_msg *m, struct anvil_request *ret);
void anvil_reply(struct ipc *ipc, uint32_t number, const struct anvil_answer *a);
#endif
