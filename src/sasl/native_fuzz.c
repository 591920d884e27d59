/* Challenges of a server to each mechanism. Input: which mechanisms (a byte), whether with TLS and a token (a byte),
 * then the challenges, with 0xff between. Whatever it says: we answer or give up, never with the password in the clear
 * but in PLAIN, LOGIN and with tokens, and no server is believed that does not know it. */
#include "sasl/native.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const offers[] = { "PLAIN",       "LOGIN",           "CRAM-MD5",
                                      "SCRAM-SHA-1", "SCRAM-SHA-256",   "SCRAM-SHA-256-PLUS",
                                      "XOAUTH2",     "OAUTHBEARER",     "",
                                      "XYZ PLAIN",   "SCRAM-SHA-1-PLUS" };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    const char *offer = offers[data[0] % (sizeof offers / sizeof *offers)];
    const struct sasl_login l = { .host = STR("h"),
                                  .port = 25,
                                  .mechanisms = str_c(offer),
                                  .username = STR("u,=v"),
                                  .password = STR("geheim"),
                                  .authzid = data[1] & 4 ? STR("z") : STR(""),
                                  .token = data[1] & 1,
                                  .binding_type = STR("tls-unique"),
                                  .binding = data[1] & 2 ? STR("b") : STR("") };
    struct arena *a = arena_new();
    struct sasl_move m;
    native_fix_nonce(STR("abc"));
    struct native_login *n = native_begin(&l, a, &m);
    struct str rest = str_n((const char *)data + 2, size - 2), piece;
    bool scram = str_starts(m.mechanism, STR("SCRAM")), clear = !scram && !str_eq(m.mechanism, STR("CRAM-MD5"));
    while (m.what == SASL_SAY && str_next(&rest, STR("\xff"), &piece)) {
        char *alone = malloc(piece.n); /* so that a byte too many is seen */
        if (!alone && piece.n)
            abort();
        if (piece.n)
            memcpy(alone, piece.p, piece.n);
        native_step(n, str_n(alone, piece.n), a, &m);
        free(alone);
        if (m.what == SASL_NO_MECHANISM || (m.what == SASL_GIVE_UP && m.why.n == 0) ||
            (!clear && str_contains(m.response, STR("geheim"))))
            abort();
    }
    if (scram && native_accepted(n)) /* nobody guesses a signature */
        abort();
    native_end(n);
    arena_free(a);
    return 0;
}
