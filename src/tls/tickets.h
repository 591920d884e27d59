/* tickets.h - the keys of session tickets (RFC 5077, RFC 8446 4.6.1).
 *
 * A ticket is the server's state, encrypted, which the client keeps: all workers that have the key can resume the
 * session. Keys come from tlsmgr, are never stored, and change: each is used for new tickets during its turn, and is
 * known before its turn begins, so that no worker meets a ticket it cannot read; it is accepted until the last ticket
 * made with it has expired. */
#ifndef ANGARIUM_TLS_TICKETS_H
#define ANGARIUM_TLS_TICKETS_H

#include "run/ipc.h"

enum {
    TICKET_NAME = 16, /* bytes, RFC 5077, 4 */
    TICKET_SECRET = 32,
    TICKET_KEYS_MAX = 8,
    TICKET_TURN_MIN = 2, /* seconds */
};
struct tls_ticket_key {
    unsigned char name[TICKET_NAME], cipher_key[TICKET_SECRET], mac_key[TICKET_SECRET];
    int64_t from, until, accepted_until; /* seconds since the epoch: made in [from, until) */
};
struct tls_ticket_keys {
    struct tls_ticket_key key[TICKET_KEYS_MAX]; /* by time */
    uint32_t n;
};

/* What is needed from `now` on: keys that are over are dropped, the present one and the next are made. `lifetime`: of
 * tickets, seconds. False: no random bytes to be had; what was there is still there. */
bool ticket_keys_advance(struct tls_ticket_keys *keys, int64_t now, int64_t lifetime);
/* The key for tickets made now, or NULL. */
const struct tls_ticket_key *ticket_key_now(const struct tls_ticket_keys *keys, int64_t now);
const struct tls_ticket_key *ticket_key_find(const struct tls_ticket_keys *keys, const unsigned char name[TICKET_NAME],
                                             int64_t now);
/* When to ask again: seconds since the epoch. */
int64_t ticket_keys_refresh(const struct tls_ticket_keys *keys, int64_t now);
void ticket_keys_wipe(struct tls_ticket_keys *keys);

void ticket_keys_pack(struct buf *b, const struct tls_ticket_keys *keys);
bool ticket_keys_unpack(struct str s, struct tls_ticket_keys *ret);

/* --- tlsmgr and who asks it: TICKET_MSG_ASK is empty, the answer TICKET_MSG_KEYS is packed as above --- */
enum ticket_msg { TICKET_MSG_ASK = 1, TICKET_MSG_KEYS };
error ticket_keys_ask(struct ipc *ipc, int64_t deadline, struct tls_ticket_keys *ret);
/* tlsmgr's end: answer until the other side has had enough. `advance` brings the keys up to date first; false: there
 * are none to be had. */
error ticket_keys_serve(struct ipc *ipc, bool (*advance)(void *arg), void *arg, const struct tls_ticket_keys *keys);
#endif
