#include "tls/internal.h"

#include "base/log.h"
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

/* --- keys --- */
static bool make_key(struct tls_ticket_key *k, int64_t from, int64_t turn, int64_t lifetime) {
    if (RAND_bytes(k->name, sizeof k->name) != 1 || RAND_priv_bytes(k->cipher_key, sizeof k->cipher_key) != 1 ||
        RAND_priv_bytes(k->mac_key, sizeof k->mac_key) != 1)
        return false;
    k->from = from;
    k->until = from + turn;
    k->accepted_until = k->until + lifetime;
    return true;
}

bool ticket_keys_advance(struct tls_ticket_keys *keys, int64_t now, int64_t lifetime) {
    int64_t turn = lifetime / 2 > TICKET_TURN_MIN ? lifetime / 2 : TICKET_TURN_MIN;
    struct tls_ticket_keys next = { 0 };
    for (uint32_t i = 0; i < keys->n; i++) {
        /* a clock that was set back: a key from far in the future would never have its turn */
        bool sane = keys->key[i].from <= now + 2 * turn;
        if (keys->key[i].accepted_until > now && sane && next.n < TICKET_KEYS_MAX - 2)
            next.key[next.n++] = keys->key[i];
    }
    while (next.n == 0 || next.key[next.n - 1].until <= now + turn) {
        int64_t from = next.n ? next.key[next.n - 1].until : now;
        if (from + turn <= now) /* nobody asked for long */
            from = now;
        if (next.n == TICKET_KEYS_MAX || !make_key(&next.key[next.n], from, turn, lifetime)) {
            ticket_keys_wipe(&next);
            return false;
        }
        next.n++;
    }
    ticket_keys_wipe(keys);
    *keys = next;
    ticket_keys_wipe(&next);
    return true;
}

const struct tls_ticket_key *ticket_key_now(const struct tls_ticket_keys *keys, int64_t now) {
    for (uint32_t i = 0; i < keys->n; i++)
        if (keys->key[i].from <= now && now < keys->key[i].until)
            return &keys->key[i];
    return NULL;
}

const struct tls_ticket_key *ticket_key_find(const struct tls_ticket_keys *keys, const unsigned char name[TICKET_NAME],
                                             int64_t now) {
    for (uint32_t i = 0; i < keys->n; i++)
        if (now < keys->key[i].accepted_until && CRYPTO_memcmp(keys->key[i].name, name, TICKET_NAME) == 0)
            return &keys->key[i];
    return NULL;
}

int64_t ticket_keys_refresh(const struct tls_ticket_keys *keys, int64_t now) {
    const struct tls_ticket_key *k = ticket_key_now(keys, now);
    return k ? k->until : now;
}

void ticket_keys_wipe(struct tls_ticket_keys *keys) {
    OPENSSL_cleanse(keys, sizeof *keys);
}

void ticket_keys_pack(struct buf *b, const struct tls_ticket_keys *keys) {
    pack_u32(b, keys->n);
    for (uint32_t i = 0; i < keys->n; i++) {
        const struct tls_ticket_key *k = &keys->key[i];
        pack_str(b, str_n((const char *)k->name, sizeof k->name));
        pack_str(b, str_n((const char *)k->cipher_key, sizeof k->cipher_key));
        pack_str(b, str_n((const char *)k->mac_key, sizeof k->mac_key));
        pack_i64(b, k->from);
        pack_i64(b, k->until);
        pack_i64(b, k->accepted_until);
    }
}

static void unpack_bytes(struct unpack *u, unsigned char *to, size_t n) {
    struct str s = unpack_str(u);
    if (s.n == n)
        memcpy(to, s.p, n);
    else
        u->bad = true;
}

bool ticket_keys_unpack(struct str s, struct tls_ticket_keys *ret) {
    struct unpack u = unpack_from(s);
    *ret = (struct tls_ticket_keys){ .n = unpack_u32(&u) };
    if (ret->n > TICKET_KEYS_MAX)
        u.bad = true;
    for (uint32_t i = 0; i < ret->n && !u.bad; i++) {
        struct tls_ticket_key *k = &ret->key[i];
        unpack_bytes(&u, k->name, sizeof k->name);
        unpack_bytes(&u, k->cipher_key, sizeof k->cipher_key);
        unpack_bytes(&u, k->mac_key, sizeof k->mac_key);
        k->from = unpack_i64(&u);
        k->until = unpack_i64(&u);
        k->accepted_until = unpack_i64(&u);
    }
    if (unpack_done(&u))
        return true;
    ticket_keys_wipe(ret);
    return false;
}

/* --- tlsmgr --- */
static const struct err err_answer = { .kind = ERR_SYNTAX, .text = STR_INIT("malformed answer") };

error ticket_keys_ask(struct ipc *ipc, int64_t deadline, struct tls_ticket_keys *ret) {
    struct ipc_msg m = { .fd = -1 };
    ipc_send(ipc, TICKET_MSG_ASK, STR(""), -1);
    error e = ipc_recv(ipc, deadline, &m);
    if (!e && (m.type != TICKET_MSG_KEYS || !ticket_keys_unpack(m.payload, ret)))
        e = &err_answer;
    ipc_msg_drop(&m);
    return e;
}

error ticket_keys_serve(struct ipc *ipc, bool (*advance)(void *arg), void *arg, const struct tls_ticket_keys *keys) {
    for (;;) {
        struct ipc_msg m = { .fd = -1 };
        error e = ipc_recv(ipc, DEADLINE_NEVER, &m);
        if (!e && (m.type != TICKET_MSG_ASK || m.payload.n))
            e = &err_answer;
        ipc_msg_drop(&m);
        if (e)
            return e == &err_eof || e == &err_cancelled ? NULL : e;
        if (!advance(arg))
            return NULL;
        struct buf b = { 0 };
        ticket_keys_pack(&b, keys);
        ipc_send(ipc, TICKET_MSG_KEYS, buf_str(&b), -1);
        buf_wipe(&b);
    }
}

/* --- tickets --- */
static int64_t wall_seconds(void) {
    return sys->wall_us() / US_PER_S;
}

static bool prepare(const struct tls_server *s, const struct tls_ticket_key *k, const unsigned char *iv,
                    EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int making) {
    char digest[] = "SHA256";
    unsigned char mac_key[TICKET_SECRET];
    memcpy(mac_key, k->mac_key, sizeof mac_key);
    OSSL_PARAM params[] = { OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, mac_key, sizeof mac_key),
                            OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                            OSSL_PARAM_construct_end() };
    bool ok = EVP_MAC_CTX_set_params(mac, params) == 1 &&
              EVP_CipherInit_ex2(cipher, s->ticket_cipher, k->cipher_key, iv, making, NULL) == 1;
    OPENSSL_cleanse(mac_key, sizeof mac_key);
    return ok;
}

/* As SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 0 no ticket (or not ours: full handshake), 1 fine, 2 fine and a new one
 * is due. */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int making) {
    struct tls *t = SSL_get_app_data(ssl);
    const struct tls_server *s = t->server;
    int64_t now = wall_seconds();
    const struct tls_ticket_key *present = ticket_key_now(&s->keys, now);
    if (making) {
        if (!present || RAND_bytes(iv, EVP_CIPHER_get_iv_length(s->ticket_cipher)) != 1)
            return 0;
        memcpy(name, present->name, TICKET_NAME);
        if (t->log_level >= TLS_LOG_STEPS)
            log_info("%.*s: Issuing session ticket, key expiration: %lld", STR_ARG(t->peer), (long long)present->until);
        return prepare(s, present, iv, cipher, mac, 1) ? 1 : -1;
    }
    const struct tls_ticket_key *k = ticket_key_find(&s->keys, name, now);
    if (!k)
        return 0;
    if (t->log_level >= TLS_LOG_STEPS)
        log_info("%.*s: Decrypting session ticket, key expiration: %lld", STR_ARG(t->peer), (long long)k->until);
    if (!prepare(s, k, iv, cipher, mac, 0))
        return -1;
    /* of TLSv1.3 each ticket is used once (RFC 8446, C.4): a client that comes again and again needs a new one each
     * time */
    return k == present && SSL_version(ssl) < TLS1_3_VERSION ? 1 : 2;
}

void tickets_start(struct tls_server *s) {
    SSL_CTX_set_tlsext_ticket_key_evp_cb(s->ctx, on_ticket);
}

bool tls_server_wants_keys(const struct tls_server *s) {
    return s && s->ticket_cipher;
}

void tls_server_set_keys(struct tls_server *s, const struct tls_ticket_keys *keys) {
    if (s)
        s->keys = *keys;
}
