#include "tls/internal.h"

#include "base/log.h"
#include <openssl/err.h>

void log_library_problems(void) {
    const char *file, *data;
    int line, flags;
    unsigned long code;
    while ((code = ERR_get_error_all(&file, &line, NULL, &data, &flags))) {
        char text[256];
        ERR_error_string_n(code, text, sizeof text);
        if (flags & ERR_TXT_STRING)
            log_warn("TLS library problem: %s:%s:%d:%s:", text, file, line, data);
        else
            log_warn("TLS library problem: %s:%s:%d:", text, file, line);
    }
}

/* --- the steps of a negotiation --- */
static void on_step(const SSL *ssl, int where, int ret) {
    const char *side = SSL_is_server(ssl) ? "SSL_accept" : "SSL_connect";
    if (where & SSL_CB_LOOP) {
        log_info("%s:%s", side, SSL_state_string_long(ssl));
    } else if (where & SSL_CB_ALERT) {
        const char *description = SSL_alert_desc_string_long(ret);
        if ((ret & 0xff) != SSL_AD_CLOSE_NOTIFY)
            log_info("SSL3 alert %s:%s:%s", where & SSL_CB_READ ? "read" : "write", SSL_alert_type_string_long(ret),
                     description);
    } else if (where & SSL_CB_EXIT) {
        if (ret == 0)
            log_info("%s:failed in %s", side, SSL_state_string_long(ssl));
        else if (ret < 0 && SSL_want(ssl) == SSL_NOTHING)
            log_info("%s:error in %s", side, SSL_state_string_long(ssl));
    }
}

/* --- bytes, as a hexadecimal and ASCII dump --- */
enum { DUMP_LINE = 16 };

static void dump(const char *p, size_t n) {
    for (size_t at = 0; at < n; at += DUMP_LINE) {
        char text[8 + 4 * DUMP_LINE + 4];
        size_t used = (size_t)snprintf(text, sizeof text, "%04zx ", at);
        for (size_t i = 0; i < DUMP_LINE; i++) {
            const char *end = i == DUMP_LINE / 2 - 1 && at + i < n ? "|" : " ";
            if (at + i < n)
                used += (size_t)snprintf(text + used, sizeof text - used, "%02x%s", (unsigned)(unsigned char)p[at + i],
                                         end);
            else
                used += (size_t)snprintf(text + used, sizeof text - used, "   ");
        }
        text[used++] = ' ';
        for (size_t i = 0; i < DUMP_LINE && at + i < n; i++) {
            if (i == DUMP_LINE / 2)
                text[used++] = ' ';
            text[used++] = byte_is_print(p[at + i]) ? p[at + i] : '.';
        }
        log_info("%.*s", (int)used, text);
    }
}

static long on_bytes(BIO *bio, int operation, const char *p, size_t n, int argi, long argl, int ret, size_t *done) {
    (void)argi, (void)argl;
    struct tls *t = (struct tls *)BIO_get_callback_arg(bio);
    bool reading = operation == (BIO_CB_READ | BIO_CB_RETURN), writing = operation == (BIO_CB_WRITE | BIO_CB_RETURN);
    if ((!reading && !writing) || (t->shaken && t->log_level < TLS_LOG_ALL))
        return ret;
    size_t moved = ret > 0 && done ? *done : 0;
    log_info("%s %.*s (%zu bytes => %ld (0x%lX))", reading ? "read from" : "write to", STR_ARG(t->peer), n,
             ret > 0 ? (long)moved : (long)ret, ret > 0 ? (unsigned long)moved : (unsigned long)(long)ret);
    dump(p, moved);
    return ret;
}

void log_follow(struct tls *t) {
    if (t->log_level >= TLS_LOG_STEPS)
        SSL_set_info_callback(t->ssl, on_step);
    if (t->log_level >= TLS_LOG_NEGOTIATION) {
        BIO *bio = SSL_get_rbio(t->ssl);
        BIO_set_callback_ex(bio, on_bytes);
        BIO_set_callback_arg(bio, (char *)t);
    }
}

int log_verify(const struct tls *t, int ok, X509_STORE_CTX *x) {
    if (t->log_level < TLS_LOG_STEPS)
        return ok;
    char subject[256] = "";
    X509 *cert = X509_STORE_CTX_get_current_cert(x);
    if (cert)
        X509_NAME_oneline(X509_get_subject_name(cert), subject, sizeof subject);
    log_info("%.*s: depth=%d verify=%d subject=%s", STR_ARG(t->peer), X509_STORE_CTX_get_error_depth(x), ok, subject);
    return ok;
}

void log_distrust(const struct tls *t) {
    const char *side = t->server ? "client" : "server"; /* whose certificate */
    switch (t->verify_error) {
    case X509_V_OK:
        return;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        log_info("certificate verification failed for %.*s: untrusted issuer %s", STR_ARG(t->peer), t->verify_issuer);
        return;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        log_info("%s certificate verification failed for %.*s: %s", side, STR_ARG(t->peer),
                 t->verify_error == X509_V_ERR_CERT_HAS_EXPIRED ? "certificate has expired"
                                                                : "certificate not yet valid");
        return;
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
        log_info("certificate verification failed for %.*s: certificate chain longer than limit(%d)", STR_ARG(t->peer),
                 SSL_get_verify_depth(t->ssl));
        return;
    default:
        log_info("%s certificate verification failed for %.*s: num=%d:%s", side, STR_ARG(t->peer), t->verify_error,
                 X509_verify_cert_error_string(t->verify_error));
    }
}

/* --- the summary --- */
void tls_log_summary(const struct tls_facts *f, struct str peer) {
    const char *kind = f->cert_print.n == 0 ? "Anonymous"
                       : f->matched         ? "Verified"
                       : f->trusted         ? "Trusted"
                                            : "Untrusted";
    log_info("%s TLS connection established %s %.*s%s%.*s: %.*s with cipher %.*s (%u/%u bits)%s%.*s", kind,
             f->client ? "to" : "from", STR_ARG(peer), f->sni.n ? " to " : "", STR_ARG(f->sni), STR_ARG(f->protocol),
             STR_ARG(f->cipher), f->bits, f->algorithm_bits, f->details.n ? " " : "", STR_ARG(f->details));
}
