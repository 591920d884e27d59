/* lookup.h - questions to the look-up process: anybody -> proxymap (private/proxymap to read, private/proxywrite also
 * to write). One request frame, one reply frame, one after the other on one connection; who wants several answers at a
 * time opens several connections.
 *
 * type     payload
 * ASK      u8 what (enum table_ask), u8 proxied, u32 flags, str spec, str key, str value
 * ANSWER   u8 result (enum table_result), str key, str value, str why
 *
 * The look-up process answers within LOOKUP_SECONDS, with TABLE_ERROR where the table did not. */
#ifndef ANGARIUM_PROTO_LOOKUP_H
#define ANGARIUM_PROTO_LOOKUP_H

#include "run/ipc.h"
#include "table/remote.h"

enum lookup_msg { LOOKUP_ASK = 1, LOOKUP_ANSWER };
enum {
    LOOKUP_SECONDS = 30,
    LOOKUP_SPEC_MAX = 4096,
    LOOKUP_KEY_MAX = 64 * 1024,
    LOOKUP_VALUE_MAX = 512 * 1024,
};

/* The outer error is the connection's. Results are copied to `a`. */
error lookup_ask(struct ipc *ipc, const struct table_question *q, int64_t deadline, struct arena *a,
                 enum table_result *ret, struct str *ret_key, struct str *ret_value, struct str *ret_why);

/* The other side: what was asked, in the message's memory; ERR_PERM when it is malformed or over a limit. */
error lookup_read(const struct ipc_msg *m, struct table_question *ret);
error lookup_answer(struct ipc *ipc, int64_t deadline, enum table_result result, struct str key, struct str value,
                    struct str why);
#endif
