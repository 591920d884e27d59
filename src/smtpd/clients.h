/* clients.h - how many sessions this process has from each client (smtpd_client_connection_count_limit).
 *
 * Clients are counted by address block (smtpd_client_ipv4_prefix_length, smtpd_client_ipv6_prefix_length), so that one
 * who owns a /64 has one counter. An entry lives while it has sessions: the table is no larger than their number. */
#ifndef ANGARIUM_SMTPD_CLIENTS_H
#define ANGARIUM_SMTPD_CLIENTS_H

#include "base/map.h"
#include "run/io.h"

struct clients {
    struct map map;
};
struct client_count; /* one block */

/* Count one more session; `*ret` is the number now. The result goes to client_leave() when the session ends. */
struct client_count *client_enter(struct clients *c, const struct endpoint *client, unsigned ipv4_bits,
                                  unsigned ipv6_bits, uint32_t *ret);
void client_leave(struct clients *c, struct client_count *n);
#endif
