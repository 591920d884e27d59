#include "tls/internal.h"

#include "base/die.h"
#include "base/log.h"
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>

/* --- the socket, by way of run/sys.h --- */

/* Nobody waits for a ticket, and something is said soon after it: the answer to the first command, or the greeting.
 * Both go in one segment. The kernel waits for that no longer than 200 ms. */
static ssize_t send_ticket(int fd, struct iovec *iov) {
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = 1 };
    return sys->sendmsg(fd, &m, MSG_MORE | MSG_NOSIGNAL);
}

static int socket_write(BIO *bio, const char *p, int n) {
    struct tls *t = BIO_get_data(bio);
    struct iovec iov = { (void *)(uintptr_t)p, (size_t)n };
    bool ticket = SSL_version(t->ssl) >= TLS1_3_VERSION && SSL_get_state(t->ssl) == TLS_ST_SW_SESSION_TICKET;
    BIO_clear_retry_flags(bio);
    ssize_t sent;
    do
        sent = ticket ? send_ticket(t->fd, &iov) : sys->writev(t->fd, &iov, 1);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        BIO_set_retry_write(bio);
    return (int)sent;
}

static int socket_read(BIO *bio, char *p, int n) {
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (t->began.n) {
        size_t some = t->began.n < (size_t)n ? t->began.n : (size_t)n;
        memcpy(p, t->began.p, some);
        buf_consume(&t->began, some);
        if (t->began.n == 0)
            buf_free(&t->began);
        return (int)some;
    }
    if (t->drained) { /* said without asking the kernel once more; who waits for more then comes back */
        t->drained = false;
        BIO_set_retry_read(bio);
        errno = EAGAIN;
        return -1;
    }
    ssize_t got;
    do
        got = sys->read(t->fd, p, (size_t)n);
    while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        BIO_set_retry_read(bio);
    t->drained = got > 0 && got < n;
    return (int)got;
}

static long socket_ctrl(BIO *bio, int command, long number, void *p) {
    (void)bio, (void)number, (void)p;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP;
}

static int socket_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

static BIO *socket_bio(struct tls *t) {
    static BIO_METHOD *method;
    if (!method) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "angarium");
        if (!method)
            die_no_memory(0);
        BIO_meth_set_write(method, socket_write);
        BIO_meth_set_read(method, socket_read);
        BIO_meth_set_ctrl(method, socket_ctrl);
        BIO_meth_set_create(method, socket_create);
    }
    BIO *bio = BIO_new(method);
    if (!bio)
        die_no_memory(0);
    BIO_set_data(bio, t);
    return bio;
}

/* --- the transport --- */

/* What the last call on the session meant: bytes moved, 0 at the end, -1 with errno. OpenSSL's queue is read and
 * emptied here, before anybody else has a turn. */
static ssize_t outcome(struct tls *t, int ok, size_t moved, uint32_t *ret_wait) {
    if (ok == 1)
        return (ssize_t)moved;
    int why = errno;
    switch (SSL_get_error(t->ssl, ok)) {
    case SSL_ERROR_WANT_READ:
        *ret_wait = EPOLLIN;
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_WANT_WRITE:
        *ret_wait = EPOLLOUT;
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        t->failed = true;
        ERR_clear_error();
        if (why == 0)
            return 0;
        errno = why;
        return -1;
    default:
        t->failed = true;
        log_library_problems();
        errno = EPROTO;
        return -1;
    }
}

static ssize_t tls_read(void *ctx, void *p, size_t n, uint32_t *ret_wait) {
    struct tls *t = ctx;
    size_t got = 0;
    if (t->failed || !t->shaken)
        return 0;
    ERR_clear_error();
    errno = 0;
    int ok = SSL_read_ex(t->ssl, p, n, &got);
    return outcome(t, ok, got, ret_wait);
}

static ssize_t tls_write(void *ctx, const void *p, size_t n, uint32_t *ret_wait) {
    struct tls *t = ctx;
    size_t sent = 0;
    if (t->failed || !t->shaken) {
        errno = EPIPE;
        return -1;
    }
    ERR_clear_error();
    errno = 0;
    int ok = SSL_write_ex(t->ssl, p, n, &sent);
    ssize_t r = outcome(t, ok, sent, ret_wait);
    if (r == 0) {
        errno = EPIPE;
        return -1;
    }
    return r;
}

void tls_session_free(struct tls *t) {
    SSL_free(t->ssl);
    free(t->sni);
    buf_free(&t->began);
    free((void *)(uintptr_t)t->peer.p);
    free(t);
}

static void tls_close(void *ctx) {
    struct tls *t = ctx;
    if (t->shaken && !t->failed && !(SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN))
        SSL_shutdown(t->ssl);
    ERR_clear_error();
    sys->close(t->fd);
    tls_session_free(t);
}

static const struct io_transport tls_transport = { tls_read, tls_write, tls_close };

/* --- handshakes --- */
struct tls *tls_session_new(SSL_CTX *ctx, struct io *io, struct str peer, int log_level) {
    struct tls *t = calloc(1, sizeof *t);
    char *name = strndup(peer.p ? peer.p : "", peer.n);
    if (!t || !name)
        die_no_memory(sizeof *t);
    t->fd = io_fd(io);
    t->peer = str_c(name);
    t->log_level = log_level;
    t->ssl = SSL_new(ctx);
    if (!t->ssl)
        die_no_memory(0);
    SSL_set_app_data(t->ssl, t);
    BIO *bio = socket_bio(t);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_read_ahead(t->ssl, 1); /* a record in one read, not its head first; what is buffered is released as ever */
    log_follow(t);
    return t;
}

static struct tls *server_session(struct tls_server *s, struct io *io, struct str peer, int log_level) {
    struct tls *t = tls_session_new(s->ctx, io, peer, log_level);
    t->server = s;
    t->fingerprint = s->fingerprint;
    t->requested_cert = s->asks_cert;
    t->distrust_matters = s->requires_cert;
    SSL_set_accept_state(t->ssl);
    if (!ticket_key_now(&s->keys, sys->wall_us() / US_PER_S)) { /* rather no ticket than an empty one */
        SSL_set_options(t->ssl, SSL_OP_NO_TICKET);
        SSL_set_num_tickets(t->ssl, 0);
    }
    return t;
}

static const struct err err_handshake = { .kind = ERR_PERM, .text = STR_INIT("TLS handshake failed") };

/* One step; `*ret_wait` 0: no need to wait for the next. */
static bool handshake_goes_on(struct tls *t, error *ret, uint32_t *ret_wait) {
    ERR_clear_error();
    errno = 0;
    int ok = SSL_do_handshake(t->ssl);
    int why = errno;
    *ret_wait = 0;
    *ret = NULL;
    if (ok == 1)
        return false;
    switch (SSL_get_error(t->ssl, ok)) {
    case SSL_ERROR_WANT_READ:
        *ret_wait = EPOLLIN;
        return true;
    case SSL_ERROR_WANT_WRITE:
        *ret_wait = EPOLLOUT;
        return true;
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
        server_choose_certificate(t);
        return true;
    case SSL_ERROR_SYSCALL:
        *ret = why ? err_errno(why) : &err_eof;
        return false;
    case SSL_ERROR_ZERO_RETURN:
        *ret = &err_eof;
        return false;
    default: {
        unsigned long code = ERR_peek_error();
        bool eof = ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
        *ret = eof ? &err_eof : &err_handshake;
        return false;
    }
    }
}

static void log_handshake_failure(const struct tls *t, error e) {
    if (e == &err_cancelled)
        return;
    struct str why = e == &err_handshake      ? STR("-1")
                     : e->kind == ERR_TIMEOUT ? STR("Connection timed out")
                     : e->kind == ERR_EOF     ? STR("lost connection")
                                              : e->text;
    log_info("%s %.*s: %.*s", t->server ? "SSL_accept error from" : "SSL_connect error to", STR_ARG(t->peer),
             STR_ARG(why));
    log_library_problems();
}

error tls_session_attach(struct tls *t, struct io *io) {
    return io_switch(io, &tls_transport, t);
}

error tls_session_shake(struct tls *t, int64_t deadline) {
    uint32_t wait;
    error e;
    while (handshake_goes_on(t, &e, &wait)) {
        if (wait)
            e = wait == EPOLLIN ? wait_readable(t->fd, deadline) : wait_writable(t->fd, deadline);
        if (e)
            break;
    }
    if (e) {
        t->failed = true;
        log_handshake_failure(t, e);
        return e;
    }
    ERR_clear_error();
    t->shaken = true;
    return NULL;
}

error tls_accept(struct tls_server *s, struct io *io, struct str began, struct str peer, int log_level,
                 int64_t deadline, struct tls **ret) {
    *ret = NULL;
    struct tls *t = server_session(s, io, peer, log_level);
    buf_add(&t->began, began);
    error e = tls_session_attach(t, io);
    if (e) {
        tls_session_free(t);
        return e;
    }
    if (log_level >= TLS_LOG_STEPS) {
        log_info("setting up TLS connection from %.*s", STR_ARG(peer));
        log_info("%.*s: TLS cipher list \"%.*s\"", STR_ARG(peer), STR_ARG(s->cipher_list));
    }
    e = tls_session_shake(t, deadline);
    if (e)
        return e;
    if (log_level >= TLS_LOG_STEPS && SSL_session_reused(t->ssl))
        log_info("%.*s: Reusing old session (RFC 5077 session ticket)", STR_ARG(peer));
    *ret = t;
    return NULL;
}

void tls_shutdown(struct tls *t, struct io *io, int64_t deadline) {
    error e = io_flush(io, deadline);
    while (!e && !t->failed) {
        ERR_clear_error();
        errno = 0;
        int done = SSL_shutdown(t->ssl); /* 0: ours is out, the peer's is to come */
        uint32_t wait = EPOLLIN;
        if (done == 1 || (done < 0 && outcome(t, done, 0, &wait) == 0) || t->failed)
            break;
        e = wait == EPOLLIN ? wait_readable(t->fd, deadline) : wait_writable(t->fd, deadline);
    }
    ERR_clear_error();
}

/* --- facts --- */
static struct str common_name(struct arena *a, const X509_NAME *name) {
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    unsigned char *utf8 = NULL;
    int n = at < 0 ? -1 : ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    if (n < 0)
        return STR("");
    struct buf b = { 0 };
    /* it goes into logs, headers and the attributes of other protocols: no NUL and nothing that ends a line */
    if (n <= TLS_COMMON_NAME_MAX && !memchr(utf8, 0, (size_t)n))
        buf_printable(&b, str_n((const char *)utf8, (size_t)n), TLS_COMMON_NAME_MAX);
    OPENSSL_free(utf8);
    struct str cn = arena_str(a, buf_str(&b));
    buf_free(&b);
    return cn;
}

static struct str hex_print(struct arena *a, const unsigned char *p, unsigned n) {
    struct buf b = { 0 };
    for (unsigned i = 0; i < n; i++)
        buf_printf(&b, "%s%02X", i ? ":" : "", p[i]);
    struct str s = arena_str(a, buf_str(&b));
    buf_free(&b);
    return s;
}

struct str tls_session_cert_print(const struct tls *t, X509 *cert, struct arena *a) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    return X509_digest(cert, t->fingerprint, digest, &n) == 1 ? hex_print(a, digest, n) : STR("");
}

struct str tls_session_key_print(const struct tls *t, X509 *cert, struct arena *a) {
    unsigned char digest[EVP_MAX_MD_SIZE], *der = NULL;
    unsigned n = 0;
    struct str s = STR("");
    int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    if (length > 0 && EVP_Digest(der, (size_t)length, digest, &n, t->fingerprint, NULL) == 1)
        s = hex_print(a, digest, n);
    OPENSSL_free(der);
    return s;
}

static void certificate_facts(const struct tls *t, X509 *cert, struct arena *a, struct tls_facts *ret) {
    ret->subject = common_name(a, X509_get_subject_name(cert));
    ret->issuer = common_name(a, X509_get_issuer_name(cert));
    ret->cert_print = tls_session_cert_print(t, cert, a);
    ret->key_print = tls_session_key_print(t, cert, a);
    BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    char *hex = serial ? BN_bn2hex(serial) : NULL;
    if (hex)
        ret->serial = arena_str(a, str_c(hex));
    OPENSSL_free(hex);
    BN_free(serial);
    ret->trusted = SSL_get_verify_result(t->ssl) == X509_V_OK;
    ret->matched = t->matched;
    if (t->log_level < TLS_LOG_STEPS)
        return;
    char line[256];
    if (t->server) {
        log_info("subject=%s", X509_NAME_oneline(X509_get_subject_name(cert), line, sizeof line));
        log_info("issuer=%s", X509_NAME_oneline(X509_get_issuer_name(cert), line, sizeof line));
    }
    log_info("%.*s: subject_CN=%.*s, %s=%.*s, fingerprint=%.*s, pkey_fingerprint=%.*s", STR_ARG(t->peer),
             STR_ARG(ret->subject), t->server ? "issuer" : "issuer_CN", STR_ARG(ret->issuer), STR_ARG(ret->cert_print),
             STR_ARG(ret->key_print));
}

static struct str curve_of(const EVP_PKEY *key, char *name, size_t room) {
    size_t n = 0;
    return EVP_PKEY_get_group_name(key, name, room, &n) == 1 ? str_n(name, n) : STR("");
}

static void add_key_exchange(struct buf *b, SSL *ssl) {
    EVP_PKEY *key = NULL;
    char name[80];
    if (SSL_get_peer_tmp_key(ssl, &key) != 1 || !key)
        return;
    struct str curve = curve_of(key, name, sizeof name);
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC:
        buf_printf(b, "key-exchange ECDHE (%.*s)", STR_ARG(curve));
        break;
    case EVP_PKEY_DH:
    case EVP_PKEY_DHX:
        if (curve.n)
            buf_printf(b, "key-exchange DHE (%.*s)", STR_ARG(curve));
        else
            buf_printf(b, "key-exchange DHE (%d bits)", EVP_PKEY_get_bits(key));
        break;
    default:
        buf_printf(b, "key-exchange %s", OBJ_nid2sn(EVP_PKEY_get_base_id(key)));
    }
    EVP_PKEY_free(key);
}

/* "server-signature RSA-PSS (2048 bits) server-digest SHA256" */
static void add_signature(struct buf *b, const char *side, const EVP_PKEY *key, int type, int digest) {
    char name[80];
    if (!key)
        return;
    struct str curve;
    switch (type) {
    case EVP_PKEY_RSA:
        buf_printf(b, " %s-signature RSA (%d bits)", side, EVP_PKEY_get_bits(key));
        break;
    case EVP_PKEY_RSA_PSS:
        buf_printf(b, " %s-signature RSA-PSS (%d bits)", side, EVP_PKEY_get_bits(key));
        break;
    case EVP_PKEY_EC:
        curve = curve_of(key, name, sizeof name);
        buf_printf(b, " %s-signature ECDSA (%.*s)", side, STR_ARG(curve));
        break;
    default:
        buf_printf(b, " %s-signature %s", side, OBJ_nid2ln(type));
    }
    if (digest != NID_undef)
        buf_printf(b, " %s-digest %s", side, OBJ_nid2sn(digest));
}

static void add_signatures(struct buf *b, const struct tls *t, X509 *peer_cert) {
    const X509 *certs[] = { SSL_get_certificate(t->ssl), peer_cert };
    for (int side = 0; side < 2; side++) { /* the server's first */
        bool own = (side == 0) == (t->server != NULL);
        const X509 *cert = certs[own ? 0 : 1];
        int type = NID_undef, digest = NID_undef;
        if (!cert ||
            (own ? SSL_get_signature_type_nid(t->ssl, &type) : SSL_get_peer_signature_type_nid(t->ssl, &type)) != 1)
            continue;
        (void)(own ? SSL_get_signature_nid(t->ssl, &digest) : SSL_get_peer_signature_nid(t->ssl, &digest));
        add_signature(b, side == 0 ? "server" : "client", X509_get0_pubkey(cert), type, digest);
    }
}

/* How keys were agreed on and who proved what; before TLSv1.3 the cipher's name says it. A resumed session has no
 * signatures. */
static struct str details(const struct tls *t, X509 *peer_cert, struct arena *a) {
    struct buf b = { 0 };
    add_key_exchange(&b, t->ssl);
    if (b.n && !SSL_session_reused(t->ssl))
        add_signatures(&b, t, peer_cert);
    struct str s = arena_str(a, buf_str(&b));
    buf_free(&b);
    return s;
}

void tls_facts(struct tls *t, struct arena *a, struct tls_facts *ret) {
    int algorithm_bits = 0;
    *ret = (struct tls_facts){ .active = true,
                               .client = !t->server,
                               .requested_cert = t->requested_cert,
                               .reused = SSL_session_reused(t->ssl),
                               .protocol = str_c(SSL_get_version(t->ssl)),
                               .cipher = str_c(SSL_get_cipher_name(t->ssl)),
                               .sni = t->sni_state == SNI_MATCHED ? arena_str(a, str_c(t->sni)) : STR("") };
    ret->bits = (unsigned)SSL_get_cipher_bits(t->ssl, &algorithm_bits);
    ret->algorithm_bits = (unsigned)algorithm_bits;
    X509 *cert = SSL_get0_peer_certificate(t->ssl);
    if (cert) {
        if (!t->server && t->distrust_matters)
            log_distrust(t);
        certificate_facts(t, cert, a, ret);
        if (t->server && t->distrust_matters)
            log_distrust(t);
    }
    if (SSL_version(t->ssl) >= TLS1_3_VERSION)
        ret->details = details(t, cert, a);
    ERR_clear_error();
}
