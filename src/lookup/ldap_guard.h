/* ldap_guard.h - an end to calls of libldap that have none of their own: its TLS handshake ignores every time limit,
 * and the servers to which referrals lead are connected inside of a search. One thread of the process shuts down the
 * sockets of a handle whose time is up; the call then fails as if the server had hung up.
 *
 * A guard belongs to one handle. Functions may be called from any thread. Times as in run/sys.h, mono_us. */
#ifndef ANGARIUM_LOOKUP_LDAP_GUARD_H
#define ANGARIUM_LOOKUP_LDAP_GUARD_H

#include <stdbool.h>
#include <stdint.h>

enum { LDAP_GUARD_SOCKETS = 16 }; /* of one handle: its own, and those of referrals */

struct ldap_guard {
    struct {
        int fd, copy;
    } sockets[LDAP_GUARD_SOCKETS];
    int count;
    bool armed;
    int64_t deadline;
    struct ldap_guard *next; /* among the armed */
};

/* Watch a socket (a copy of it: the library may close its own at any time). False: there are too many. */
bool ldap_guard_add(struct ldap_guard *g, int fd);
void ldap_guard_remove(struct ldap_guard *g, int fd);
/* From now on, until disarmed. False: no thread could be started. */
bool ldap_guard_arm(struct ldap_guard *g, int64_t deadline);
void ldap_guard_disarm(struct ldap_guard *g);
/* Disarm and forget all sockets. */
void ldap_guard_clear(struct ldap_guard *g);
#endif
