/* proxy.h - the before-queue content filter (smtpd_proxy_filter, SMTPD_PROXY_README): an SMTP server that gets the mail
 * in place of cleanup, and whose replies are the client's.
 *
 * Each message has a connection of its own. EHLO, XFORWARD, DATA and QUIT are ours; MAIL and RCPT go as the client has
 * said them, after our own checks. What the filter is told comes in lines with CRLF and every leading dot doubled,
 * without a CR elsewhere, whatever the client has sent: the server behind it may be lenient.
 *
 * With speed_adjust the filter is connected when all of the content is there; so long that waits in memory, and what is
 * more than a little in a file without a name. */
#ifndef ANGARIUM_SMTPD_PROXY_H
#define ANGARIUM_SMTPD_PROXY_H

#include "service/dial.h"
#include "smtpd/session.h"

enum {
    PROXY_HELD_MAX = 64 * 1024,    /* bytes of a waiting message in memory */
    PROXY_GARBAGE_MAX = 100,       /* lines that are no reply, and passed over, in front of one that is */
    PROXY_XFORWARD_LINE_MAX = 512, /* RFC 5321, 4.5.3.1.4 */
};

/* ERR_CONFIG: smtpd_proxy_filter or smtpd_proxy_options is malformed. */
error proxy_settings_load(struct arena *a, const struct conf *c, struct arena *err_arena, struct proxy_settings *ret);

/* Does the mail of this session go through the filter? */
bool proxy_used(const struct session *s);
/* The commands that go to the filter, when we have nothing against them. False: refused by the filter, or it cannot be
 * reached; the client has been told. MAIL opens tx->proxy and, but for speed_adjust, the connection. */
bool proxy_mail(struct session *s);
bool proxy_rcpt(struct session *s);
bool proxy_data(struct session *s);
/* Content, in LF lines. False: the filter is gone, which proxy_end() says; that has been logged. */
bool proxy_content(struct proxy *p, struct str bytes);
/* The end of the content: the filter's verdict, logged and passed on. True: it has taken the message. */
bool proxy_end(struct session *s);
/* There is content that will not be ended: `reply` is logged, the client hears it from the caller. */
void proxy_rejected(struct session *s, const char *reply);
/* The connection and all else that tx->arena does not hold. NULL is allowed. */
void proxy_free(struct proxy *p);
#endif
