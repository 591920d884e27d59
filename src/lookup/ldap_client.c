#include "lookup/ldap_client.h"

#include "base/log.h"
#include "lookup/wire.h"
#include "run/sys.h"
#include <fcntl.h>
#include <openldap.h>
#include <pthread.h>
#include <sasl/sasl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DEBUG_PACKETS = 0x0002, DEBUG_BER = 0x0010, SECOND = 1000000 };

struct timeval ldap_remaining(int64_t deadline) {
    int64_t left = deadline - sys->mono_us();
    if (left < 0)
        left = 0;
    return (struct timeval){ .tv_sec = left / SECOND, .tv_usec = left % SECOND };
}

/* --- the library --- */

static void library_init(void) {
    int version = 0;
    ldap_get_option(NULL, LDAP_OPT_PROTOCOL_VERSION, &version);
}

void ldap_library_init(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, library_init);
}

static void debug_line(const char *text) {
    log_info("ldap: %s", text);
}

void ldap_debug(int level) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int current;
    level &= ~(DEBUG_PACKETS | DEBUG_BER);
    pthread_mutex_lock(&lock);
    if ((level | current) != current) {
        current |= level;
        BER_LOG_PRINT_FN print = debug_line;
        ber_set_option(NULL, LBER_OPT_LOG_PRINT_FN, (const void *)print);
        ldap_set_option(NULL, LDAP_OPT_DEBUG_LEVEL, &current);
    }
    pthread_mutex_unlock(&lock);
}

/* --- a connection --- */

/* Of each connection that the library makes by itself: those to which referrals lead. */
static int connected(LDAP *ld, Sockbuf *sb, LDAPURLDesc *server, struct sockaddr *address, struct ldap_conncb *ctx) {
    (void)ld, (void)server, (void)address;
    struct ldap_host *h = ctx->lc_arg;
    int fd = -1;
    ber_len_t most = LDAP_PDU_MAX;
    ber_sockbuf_ctrl(sb, LBER_SB_OPT_SET_MAX_INCOMING, &most);
    return ber_sockbuf_ctrl(sb, LBER_SB_OPT_GET_FD, &fd) == 1 && ldap_guard_add(&h->guard, fd) ? 0 : -1;
}

static void disconnected(LDAP *ld, Sockbuf *sb, struct ldap_conncb *ctx) {
    (void)ld;
    struct ldap_host *h = ctx->lc_arg;
    int fd = -1;
    /* without a socket: the handle itself ends */
    if (sb && ber_sockbuf_ctrl(sb, LBER_SB_OPT_GET_FD, &fd) == 1)
        ldap_guard_remove(&h->guard, fd);
}

static void set_blocking(LDAP *ld, bool on) {
    int fd = -1;
    if (ldap_get_option(ld, LDAP_OPT_DESC, &fd) != LDAP_OPT_SUCCESS || fd < 0)
        return;
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0)
        fcntl(fd, F_SETFL, on ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

static void set_time_left(LDAP *ld, int64_t deadline) {
    struct timeval left = ldap_remaining(deadline);
    if (left.tv_sec == 0 && left.tv_usec == 0)
        left.tv_usec = 1; /* zero would be "for ever" */
    ldap_set_option(ld, LDAP_OPT_NETWORK_TIMEOUT, &left);
    ldap_set_option(ld, LDAP_OPT_TIMEOUT, &left);
}

static bool fail(struct buf *why, const struct ldap_host *h, const char *what, int rc) {
    buf_printf(why, "server %s: %s: %s", h->uri, what, ldap_err2string(rc));
    return false;
}

static int set_text(LDAP *ld, int option, const char *text) {
    return text && *text ? ldap_set_option(ld, option, text) : LDAP_OPT_SUCCESS;
}

static bool set_tls(struct ldap_host *h, const struct ldap_settings *s, struct buf *why) {
    const struct {
        int option;
        const char *text, *name;
    } files[] = {
        { LDAP_OPT_X_TLS_CACERTFILE, s->tls_ca_cert_file, "tls_ca_cert_file" },
        { LDAP_OPT_X_TLS_CACERTDIR, s->tls_ca_cert_dir, "tls_ca_cert_dir" },
        { LDAP_OPT_X_TLS_CERTFILE, s->tls_cert, "tls_cert" },
        { LDAP_OPT_X_TLS_KEYFILE, s->tls_key, "tls_key" },
        { LDAP_OPT_X_TLS_CIPHER_SUITE, s->tls_cipher_suite, "tls_cipher_suite" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (set_text(h->ld, files[i].option, files[i].text) != LDAP_OPT_SUCCESS)
            return fail(why, h, files[i].name, LDAP_PARAM_ERROR);
    /* for libraries without a source of their own; a setting of the process, not of the handle */
    set_text(NULL, LDAP_OPT_X_TLS_RANDOM_FILE, s->tls_random_file);
    int demand = s->tls_require_cert ? LDAP_OPT_X_TLS_DEMAND : LDAP_OPT_X_TLS_NEVER, client = 0;
    ldap_set_option(h->ld, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand);
    int rc = ldap_set_option(h->ld, LDAP_OPT_X_TLS_NEWCTX, &client);
    return rc == LDAP_OPT_SUCCESS || fail(why, h, "cannot use the tls_ files or tls_cipher_suite", LDAP_CONNECT_ERROR);
}

static bool wants_tls(const struct ldap_host *h, const struct ldap_settings *s) {
    return s->start_tls || str_starts_icase(str_c(h->uri), STR("ldaps:"));
}

static bool set_options(struct ldap_host *h, const struct ldap_settings *s, struct buf *why) {
    ldap_set_option(h->ld, LDAP_OPT_PROTOCOL_VERSION, &s->version);
    ldap_set_option(h->ld, LDAP_OPT_DEREF, &s->deref);
    ldap_set_option(h->ld, LDAP_OPT_REFERRALS, s->chase_referrals ? LDAP_OPT_ON : LDAP_OPT_OFF);
    ldap_set_option(h->ld, LDAP_OPT_RESTART, LDAP_OPT_ON); /* a signal is not the end of a search */
    ldap_set_option(h->ld, LDAP_OPT_CONNECT_CB, &h->callback);
    Sockbuf *sb = NULL;
    ber_len_t most = LDAP_PDU_MAX;
    if (ldap_get_option(h->ld, LDAP_OPT_SOCKBUF, &sb) == LDAP_OPT_SUCCESS && sb)
        ber_sockbuf_ctrl(sb, LBER_SB_OPT_SET_MAX_INCOMING, &most);
    return !wants_tls(h, s) || set_tls(h, s, why);
}

static int bind_simple(LDAP *ld, const struct ldap_settings *s, int64_t deadline) {
    struct berval password = { .bv_val = (char *)(uintptr_t)s->bind_pw.p, .bv_len = s->bind_pw.n };
    int id, result = LDAP_SUCCESS;
    int rc = ldap_sasl_bind(ld, s->bind_dn, LDAP_SASL_SIMPLE, &password, NULL, NULL, &id);
    if (rc != LDAP_SUCCESS)
        return rc;
    LDAPMessage *answer = NULL;
    struct timeval left = ldap_remaining(deadline);
    rc = ldap_result(ld, id, LDAP_MSG_ALL, &left, &answer);
    if (rc == 0)
        return LDAP_TIMEOUT;
    if (rc < 0) {
        ldap_get_option(ld, LDAP_OPT_RESULT_CODE, &result);
        return result == LDAP_SUCCESS ? LDAP_SERVER_DOWN : result;
    }
    rc = ldap_parse_result(ld, answer, &result, NULL, NULL, NULL, NULL, 1);
    return rc == LDAP_SUCCESS ? result : rc;
}

static int answer_sasl(LDAP *ld, unsigned flags, void *defaults, void *questions) {
    (void)ld, (void)flags;
    const struct ldap_settings *s = defaults;
    for (sasl_interact_t *q = questions; q->id != SASL_CB_LIST_END; q++) {
        struct str answer = STR("");
        switch (q->id) {
        case SASL_CB_GETREALM:
            answer = str_c(s->sasl_realm);
            break;
        case SASL_CB_USER:
            answer = str_c(s->sasl_authz_id);
            break;
        case SASL_CB_AUTHNAME:
            answer = str_c(s->bind_dn);
            break;
        case SASL_CB_PASS:
            answer = s->bind_pw;
            break;
        default:
            break;
        }
        if (answer.n == 0 && q->defresult)
            answer = str_c(q->defresult);
        q->result = answer.p;
        q->len = (unsigned)answer.n;
    }
    return LDAP_SUCCESS;
}

static int bind_sasl(LDAP *ld, const struct ldap_settings *s) {
    ldap_set_option(ld, LDAP_OPT_X_SASL_SSF_MIN, &(ber_len_t){ (ber_len_t)s->ssf_min });
    const char *mechs = s->sasl_mechs && *s->sasl_mechs ? s->sasl_mechs : NULL;
    return ldap_sasl_interactive_bind_s(ld, NULL, mechs, NULL, NULL, LDAP_SASL_QUIET, answer_sasl,
                                        (void *)(uintptr_t)s);
}

/* With a time limit for the network the library does not block in the handshake, and asks GnuTLS again and again for as
 * long as the server says nothing. Without, it blocks, and the guard ends it. */
static bool begin_tls(struct ldap_host *h, const struct ldap_settings *s, struct buf *why) {
    ldap_set_option(h->ld, LDAP_OPT_NETWORK_TIMEOUT, NULL);
    set_blocking(h->ld, true);
    int rc = s->start_tls ? ldap_start_tls_s(h->ld, NULL, NULL) : ldap_install_tls(h->ld);
    set_blocking(h->ld, false);
    return rc == LDAP_SUCCESS || fail(why, h, s->start_tls ? "cannot start TLS" : "TLS", rc);
}

static bool begin(struct ldap_host *h, const struct ldap_settings *s, int64_t deadline, struct buf *why) {
    set_time_left(h->ld, deadline);
    if (wants_tls(h, s) && !begin_tls(h, s, why))
        return false;
    set_time_left(h->ld, deadline);
    if (s->bind == LDAP_BIND_NONE)
        return true;
    int rc = s->bind == LDAP_BIND_SASL ? bind_sasl(h->ld, s) : bind_simple(h->ld, s, deadline);
    return rc == LDAP_SUCCESS || fail(why, h, "cannot bind", rc);
}

/* The library would do this inside of its first request, with limits for each address instead of one for all. */
static bool connect_socket(struct ldap_host *h, int64_t deadline, struct buf *why) {
    LDAPURLDesc *url = NULL;
    if (ldap_url_parse(h->uri, &url) != LDAP_URL_SUCCESS)
        return fail(why, h, "not an address", LDAP_PARAM_ERROR);
    bool local = str_eq_icase(str_c(url->lud_scheme), STR("ldapi"));
    struct str host = str_c(url->lud_host);
    struct wire w = { .fd = -1 };
    error e;
    if (local)
        e = wire_connect_unix(&w, host.n ? host : STR("/var/run/slapd/ldapi"), deadline);
    else {
        struct buf port = { 0 };
        int usual = str_eq_icase(str_c(url->lud_scheme), STR("ldaps")) ? LDAPS_PORT : LDAP_PORT;
        buf_printf(&port, "%d", url->lud_port ? url->lud_port : usual);
        e = wire_connect(&w, host.n ? host : STR("localhost"), buf_str(&port), deadline);
        buf_free(&port);
    }
    ldap_free_urldesc(url);
    if (e) {
        buf_printf(why, "server %s: cannot connect: %.*s", h->uri, STR_ARG(e->text));
        return false;
    }
    int rc = ldap_init_fd(w.fd, local ? LDAP_PROTO_IPC : LDAP_PROTO_TCP, h->uri, &h->ld);
    if (rc != LDAP_SUCCESS) {
        h->ld = NULL;
        close(w.fd);
        return fail(why, h, "cannot be used", rc);
    }
    return ldap_guard_add(&h->guard, w.fd);
}

void ldap_host_init(struct ldap_host *h, const char *uri) {
    *h = (struct ldap_host){ .uri = uri, .callback = { .lc_add = connected, .lc_del = disconnected, .lc_arg = h } };
}

bool ldap_host_connect(struct ldap_host *h, const struct ldap_settings *s, struct buf *why) {
    int64_t started = sys->mono_us(), deadline = started + s->timeout * SECOND;
    bool ok = connect_socket(h, deadline, why) && ldap_guard_arm(&h->guard, deadline) && set_options(h, s, why) &&
              begin(h, s, deadline, why);
    ldap_guard_disarm(&h->guard);
    if (!ok) {
        if (why->n == 0)
            buf_printf(why, "server %s: no thread or no descriptor left to watch over it", h->uri);
        ldap_host_failed(h, started);
    }
    return ok;
}

void ldap_host_close(struct ldap_host *h) {
    if (h->ld)
        ldap_unbind_ext(h->ld, NULL, NULL);
    h->ld = NULL;
    ldap_guard_clear(&h->guard);
}

void ldap_host_failed(struct ldap_host *h, int64_t started) {
    ldap_host_close(h);
    int64_t now = sys->mono_us(), waited = now - started, least = LDAP_REST_SECONDS * SECOND;
    h->rest_until = now + (waited > least ? waited : least);
}

bool ldap_is_lost(int rc) {
    switch (rc) {
    case LDAP_SERVER_DOWN:
    case LDAP_TIMEOUT:
    case LDAP_CONNECT_ERROR:
    case LDAP_DECODING_ERROR:
    case LDAP_ENCODING_ERROR:
    case LDAP_LOCAL_ERROR:
    case LDAP_BUSY:
    case LDAP_UNAVAILABLE:
    case LDAP_PROTOCOL_ERROR: /* what a server says that closes the connection */
        return true;
    default:
        return false;
    }
}
