/* xclient.h - servers in front of us that say who the client is: XCLIENT and XFORWARD (XCLIENT_README,
 * XFORWARD_README), and haproxy's PROXY header. Who may: smtpd_authorized_xclient_hosts,
 * smtpd_authorized_xforward_hosts; with smtpd_upstream_proxy_protocol whoever connects. */
#ifndef ANGARIUM_SMTPD_XCLIENT_H
#define ANGARIUM_SMTPD_XCLIENT_H

#include "mail/envelope.h"
#include "table/match.h"

struct session;
struct session_client;

struct front_settings {
    struct match *xclient, *xforward;
    bool haproxy;          /* a PROXY header comes first */
    int64_t proxy_timeout; /* seconds it may take */
};
/* ERR_CONFIG: the text of the fatal line. */
error front_settings_load(const struct conf *c, struct arena *err_arena, struct front_settings *ret);
void front_settings_free(struct front_settings *f);

/* The lines of EHLO; empty: not for this client. */
struct str xclient_ehlo_line(struct session *s);
struct str xforward_ehlo_line(struct session *s);
bool command_xclient(struct session *s, struct str args);
bool command_xforward(struct session *s, struct str args);

/* What XFORWARD has said is for one transaction. */
void xforward_reset(struct session *s);
/* The client as the envelope has it: the one in front, when it was named. */
struct client_info xforward_client(const struct session *s);
/* Are headers rewritten as for local mail? As SOURCE= says, or as we see it ourselves. */
bool xforward_local(struct session *s);

/* haproxy.c: read the header of a proxy and put what it says into `client`. NULL, or what is wrong; what came instead
 * of a header is in `*ret_seen` (in the session's scratch arena). */
const char *haproxy_front(struct session *s, struct session_client *client, struct str *ret_seen);
#endif
