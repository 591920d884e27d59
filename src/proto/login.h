/* login.h - logins that the Cyrus library makes for a client: smtp, lmtp -> proxymap, where the library is, because it
 * reads files and may wait. One login at a time on a connection, which ends with it; the password comes along, and only
 * responses go back.
 *
 * type     payload
 * BEGIN    str service, host, local, remote, mechanisms, username, authzid, password, u32 forbidden, u32 required
 * STEP     str challenge
 * MOVE     u8 what (enum login_move_what), u8 has_response, str mechanism, str response, str why,
 *          str log (lines of the library, LF between), str available (its mechanisms, blanks between)
 *
 * Payloads hold secrets: buffers are overwritten on both sides. */
#ifndef ANGARIUM_PROTO_LOGIN_H
#define ANGARIUM_PROTO_LOGIN_H

#include "run/ipc.h"

enum login_msg { LOGIN_BEGIN = 16, LOGIN_STEP, LOGIN_MOVE };
enum { LOGIN_PAYLOAD_MAX = 256 * 1024, LOGIN_SECONDS = 60 };

struct login_begin {
    struct str service, host, local, remote, mechanisms, username, authzid, password;
    uint32_t forbidden, required; /* enum sasl_property of sasl/server.h */
};
enum login_move_what { LOGIN_MOVE_SAY, LOGIN_MOVE_NO_MECHANISM, LOGIN_MOVE_GIVE_UP };
struct login_move {
    enum login_move_what what;
    bool has_response;
    struct str mechanism, response, why, log, available;
};

/* The client. Errors are the connection's; `ret` is in `a`. */
error login_begin_ask(struct ipc *ipc, const struct login_begin *b, int64_t deadline, struct arena *a,
                      struct login_move *ret);
error login_step_ask(struct ipc *ipc, struct str challenge, int64_t deadline, struct arena *a, struct login_move *ret);

/* The other side, in the message's memory. False: malformed. */
bool login_begin_read(const struct ipc_msg *m, struct login_begin *ret);
bool login_step_read(const struct ipc_msg *m, struct str *ret_challenge);
error login_move_answer(struct ipc *ipc, const struct login_move *m, int64_t deadline);
#endif
