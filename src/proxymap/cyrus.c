#include "proxymap/cyrus.h"

#include "base/die.h"
#include "base/log.h"
#include "conf/params.h"
#include "conf/settings.h"
#include "proxymap/cyrus_internal.h"
#include "sasl/serve.h"
#include "table/file_values.h"
#include <errno.h>
#include <pthread.h>
#include <sasl/sasl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { FIRST_SECONDS = 100, QUEUE_SECONDS = 60, LOG_BYTES_MAX = 4096, SECRETS_MAX = 64 * 1024 };

static struct {
    bool ready;
    struct arena *arena;
    char *hostname;
    struct login_library library;
    unsigned running; /* threads */
    struct cond turn;
    /* what the library says outside of a login, in whatever thread */
    pthread_mutex_t stray_lock;
    struct buf stray;
} cyrus = { .stray_lock = PTHREAD_MUTEX_INITIALIZER };

/* --- what the library says --- */

void cyrus_add_message(struct buf *b, int level, const char *message) {
    const char *what = level == SASL_LOG_ERR    ? "SASL authentication error"
                       : level == SASL_LOG_FAIL ? "SASL authentication failure"
                       : level == SASL_LOG_WARN ? "SASL authentication problem"
                                                : NULL;
    if (what && b->n < LOG_BYTES_MAX)
        buf_printf(b, "%s: %s\n", what, message);
}

static int log_in_login(void *context, int level, const char *message) {
    cyrus_add_message(context, level, message);
    return SASL_OK;
}

int cyrus_log_stray(void *context, int level, const char *message) {
    (void)context;
    pthread_mutex_lock(&cyrus.stray_lock);
    cyrus_add_message(&cyrus.stray, level, message);
    pthread_mutex_unlock(&cyrus.stray_lock);
    return SASL_OK;
}

static void write_log(struct buf *b) {
    struct str rest = buf_str(b), line;
    while (rest.n && str_next(&rest, STR("\n"), &line))
        if (line.n)
            log_warn("%.*s", STR_ARG(line));
    buf_free(b);
    *b = (struct buf){ 0 };
}

void cyrus_write_stray_log(void) {
    pthread_mutex_lock(&cyrus.stray_lock);
    struct buf b = cyrus.stray;
    cyrus.stray = (struct buf){ 0 };
    pthread_mutex_unlock(&cyrus.stray_lock);
    write_log(&b);
}

/* --- locks, as the library wants them --- */
static void *lock_new(void) {
    pthread_mutex_t *m = malloc(sizeof *m);
    if (m)
        pthread_mutex_init(m, NULL);
    return m;
}
static int lock_take(void *m) {
    return pthread_mutex_lock(m) ? SASL_FAIL : SASL_OK;
}
static int lock_give(void *m) {
    return pthread_mutex_unlock(m) ? SASL_FAIL : SASL_OK;
}
static void lock_free(void *m) {
    if (m)
        pthread_mutex_destroy(m);
    free(m);
}

/* --- one login --- */
struct login {
    sasl_conn_t *conn;
    sasl_callback_t callbacks[2];
    struct buf log;
};

struct job { /* one call of the library, in a thread; in the caller's memory */
    struct login *login;
    /* to begin; NULL: a step */
    const char *mechanism;
    const char *service, *realm, *local, *remote; /* NULL: not known */
    bool has_input;
    struct str input; /* decoded */
    /* what came of it, copied out of the library */
    int result;
    struct buf challenge, username, reason;
};

static int open_conn(struct job *j, unsigned flags) {
    struct login *l = j->login;
    l->callbacks[0] =
        (sasl_callback_t){ .id = SASL_CB_LOG, .proc = (int (*)(void))(void (*)(void))log_in_login, .context = &l->log };
    l->callbacks[1] = (sasl_callback_t){ .id = SASL_CB_LIST_END };
    int r = sasl_server_new(j->service, cyrus.hostname, j->realm, j->local, j->remote, l->callbacks, 0, &l->conn);
    sasl_security_properties_t properties = { .security_flags = flags }; /* and no security layer of its own */
    return r == SASL_OK ? sasl_setprop(l->conn, SASL_SEC_PROPS, &properties) : r;
}

static void call_library(void *arg) {
    struct job *j = arg;
    struct login *l = j->login;
    const char *out = NULL;
    unsigned size = 0;
    const void *username = NULL;
    const char *in = j->has_input ? j->input.p : NULL;
    if (j->mechanism) {
        j->result = open_conn(j, 0);
        if (j->result == SASL_OK)
            j->result = sasl_server_start(l->conn, j->mechanism, in, (unsigned)j->input.n, &out, &size);
    } else {
        j->result = sasl_server_step(l->conn, in, (unsigned)j->input.n, &out, &size);
    }
    if (j->result == SASL_NOUSER) /* nobody is told who exists */
        j->result = SASL_BADAUTH;
    if (out)
        buf_add(&j->challenge, str_n(out, size));
    if (j->result == SASL_CONTINUE)
        return;
    if (l->conn && sasl_getprop(l->conn, SASL_USERNAME, &username) == SASL_OK && username)
        buf_add(&j->username, str_c(username));
    buf_add(&j->reason, str_c(sasl_errstring(j->result, NULL, NULL)));
}

/* Not the client's fault: whoever should say is not there. */
static bool is_temporary(int result) {
    return result == SASL_FAIL || result == SASL_TRYAGAIN || result == SASL_UNAVAIL || result == SASL_NOMEM ||
           result == SASL_BUFOVER;
}

bool cyrus_run(void (*fn)(void *arg), void *arg) {
    int64_t deadline = deadline_in(QUEUE_SECONDS);
    error e = NULL;
    while (cyrus.running >= CYRUS_THREADS && !e)
        e = cond_wait(&cyrus.turn, deadline);
    if (e)
        return false;
    cyrus.running++;
    offload(fn, arg);
    cyrus.running--;
    cond_signal(&cyrus.turn);
    return true;
}

static void run_job(struct job *j, struct arena *a, struct sasl_answer *ret) {
    if (!cyrus_run(call_library, j)) {
        *ret = (struct sasl_answer){ .outcome = LOGIN_TEMP, .reason = STR("authentication server is busy") };
        return;
    }
    write_log(&j->login->log);
    cyrus_write_stray_log();
    *ret = (struct sasl_answer){ .outcome = j->result == SASL_CONTINUE ? LOGIN_MORE
                                            : j->result == SASL_OK     ? LOGIN_OK
                                            : is_temporary(j->result)  ? LOGIN_TEMP
                                                                       : LOGIN_FAILED };
    if (ret->outcome == LOGIN_MORE)
        ret->challenge = base64_encode(a, buf_str(&j->challenge));
    ret->username = sasl_printable(a, buf_str(&j->username), SASL_USERNAME_MAX);
    ret->reason = sasl_printable(a, buf_str(&j->reason), SASL_REASON_MAX);
    if (ret->outcome == LOGIN_OK && ret->username.n == 0)
        *ret = (struct sasl_answer){ .outcome = LOGIN_FAILED, .reason = STR("no user name") };
    buf_wipe(&j->challenge);
    buf_free(&j->username);
    buf_free(&j->reason);
}

/* False: not base64; `ret` says so. The decoded text is the caller's to wipe. */
static bool decode(struct job *j, struct str text, struct arena *a, struct sasl_answer *ret) {
    j->has_input = true;
    if (text.n <= SECRETS_MAX && base64_decode(a, text, &j->input))
        return true;
    *ret = (struct sasl_answer){ .outcome = LOGIN_FAILED, .reason = STR("Invalid base64 data") };
    return false;
}

static void login_end(void *state) {
    struct login *l = state;
    if (l->conn)
        sasl_dispose(&l->conn);
    buf_free(&l->log);
    free(l);
}

/* "192.0.2.1;4711", as the library wants it; NULL where one of them is not known. */
static const char *ip_port(struct arena *a, struct str address, struct str port) {
    struct endpoint e;
    if (!endpoint_ip(address, 0, &e) || port.n == 0)
        return NULL;
    return arena_printf(a, "%.*s;%.*s", STR_ARG(address), STR_ARG(port)).p;
}

static void *login_begin(void *ctx, const struct sasl_peer *peer, struct str mechanism, const struct str *initial,
                         struct arena *a, struct sasl_answer *ret) {
    (void)ctx;
    struct login *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    struct job j = { .login = l,
                     .mechanism = arena_cstr(a, mechanism),
                     .service = arena_cstr(a, peer->service),
                     .realm = peer->realm.n ? arena_cstr(a, peer->realm) : NULL,
                     .local = ip_port(a, peer->local_address, peer->local_port),
                     .remote = ip_port(a, peer->address, peer->port),
                     .input = STR("") };
    if (!initial || decode(&j, *initial, a, ret))
        run_job(&j, a, ret);
    str_wipe(j.has_input ? j.input : (struct str){ 0 });
    if (ret->outcome == LOGIN_MORE)
        return l;
    login_end(l);
    return NULL;
}

static void login_step(void *state, struct str response, struct arena *a, struct sasl_answer *ret) {
    struct job j = { .login = state, .input = STR("") };
    if (decode(&j, response, a, ret)) {
        run_job(&j, a, ret);
        str_wipe(j.input);
    }
}

/* --- the library --- */

/* The mechanisms it has under these SASL_SEC_ flags, in the arena. */
static bool list_mechanisms(unsigned flags, struct str *ret) {
    struct login *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    struct job j = { .login = l, .service = "smtp" };
    const char *list = "";
    unsigned size = 0;
    int r = open_conn(&j, flags);
    if (r == SASL_OK)
        r = sasl_listmech(l->conn, NULL, "", " ", "", &list, &size, NULL);
    bool none = r == SASL_NOMECH; /* under these flags */
    *ret = arena_str(cyrus.arena, r == SASL_OK ? str_n(list, size) : STR(""));
    if (r != SASL_OK && !none)
        log_warn("SASL: list of mechanisms: %s", sasl_errstring(r, NULL, NULL));
    write_log(&l->log);
    login_end(l);
    return r == SASL_OK || none;
}

static bool has_word(struct str list, struct str wanted) {
    struct str word;
    while (str_word(&list, STR(" "), &word))
        if (str_eq(word, wanted))
            return true;
    return false;
}

/* The library says which mechanisms are there under each flag; a mechanism that a flag takes away has what the flag
 * forbids, or has not what it asks for. */
static bool read_mechanisms(void) {
    static const struct {
        unsigned flag, property;
        bool asks; /* the flag asks for the property */
    } flags[] = {
        { SASL_SEC_NOPLAINTEXT, SASL_PLAINTEXT, false },          { SASL_SEC_NOACTIVE, SASL_ACTIVE, false },
        { SASL_SEC_NODICTIONARY, SASL_DICTIONARY, false },        { SASL_SEC_NOANONYMOUS, SASL_ANONYMOUS, false },
        { SASL_SEC_FORWARD_SECRECY, SASL_FORWARD_SECRECY, true }, { SASL_SEC_MUTUAL_AUTH, SASL_MUTUAL_AUTH, true },
    };
    struct str all, some, name;
    if (!list_mechanisms(0, &all))
        return false;
    VEC(struct sasl_mechanism) v = { 0 };
    struct str rest = all;
    while (v.n < SASL_MECHANISMS_MAX && str_word(&rest, STR(" "), &name))
        *vec_add(cyrus.arena, &v) = (struct sasl_mechanism){ .name = name };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (!list_mechanisms(flags[i].flag, &some))
            return false;
        for (size_t k = 0; k < v.n; k++)
            if (has_word(some, v.at[k].name) == flags[i].asks)
                v.at[k].properties |= flags[i].property;
    }
    cyrus.library = (struct login_library){
        .mechanisms = v.at, .mechanism_count = v.n, .begin = login_begin, .step = login_step, .end = login_end
    };
    if (v.n == 0)
        log_warn("SASL: the Cyrus library has no mechanisms: are its plug-ins installed (libsasl2-modules)?");
    return v.n > 0;
}

struct str cyrus_setting(const struct conf *c, const struct master_entry *e, enum param p, struct arena *a) {
    struct str name = param_row(p)->name, value;
    for (size_t i = e->override_count; i > 0; i--)
        if (str_eq(e->overrides[i - 1].name, name) && !conf_expand(c, e->overrides[i - 1].value, a, &value))
            return value;
    if (param_row(p)->type == TYPE_BOOL)
        return conf_bool(c, p) ? STR("yes") : STR("no");
    return conf_str(c, p);
}

/* The application name (smtpd_sasl_path) of the smtpd services that use the library; empty: none does. */
static struct str application(const struct conf *c, const struct master_cf *services) {
    struct str found = STR("");
    for (size_t i = 0; i < services->count; i++) {
        const struct master_entry *e = &services->entries[i];
        if (!str_eq(e->command, STR("smtpd")))
            continue;
        struct str enabled = cyrus_setting(c, e, PARAM_smtpd_sasl_auth_enable, cyrus.arena),
                   type = cyrus_setting(c, e, PARAM_smtpd_sasl_type, cyrus.arena),
                   path = cyrus_setting(c, e, PARAM_smtpd_sasl_path, cyrus.arena);
        if (!str_eq_icase(enabled, STR("yes")) || !str_eq(type, STR("cyrus")))
            continue;
        if (found.n && !str_eq(found, path))
            log_warn(
                "SASL: services with different smtpd_sasl_path (%.*s, %.*s): the Cyrus library reads %.*s.conf for "
                "all of them",
                STR_ARG(found), STR_ARG(path), STR_ARG(found));
        else
            found = path;
    }
    return found;
}

static struct str config_path(const struct conf *c) {
    struct str path = conf_str(c, PARAM_cyrus_sasl_config_path);
    if (path.n) /* else where Debian has it, too */
        return path;
    return arena_printf(cyrus.arena, "%.*s/sasl:/etc/sasl2:/usr/lib/sasl2", STR_ARG(conf_directory(c)));
}

bool cyrus_prepare(const struct conf *c) {
    static bool done;
    if (done)
        return true;
    sasl_set_mutex(lock_new, lock_take, lock_give, lock_free);
    int r = sasl_set_path(SASL_PATH_TYPE_CONFIG, arena_cstr(cyrus.arena, config_path(c)));
    if (r != SASL_OK)
        log_warn("SASL: the Cyrus library: %s (cyrus_sasl_config_path)", sasl_errstring(r, NULL, NULL));
    done = r == SASL_OK;
    return done;
}

void cyrus_open(const struct conf *c, const struct master_cf *services) {
    static const sasl_callback_t callbacks[] = {
        { .id = SASL_CB_LOG, .proc = (int (*)(void))(void (*)(void))cyrus_log_stray, .context = NULL },
        { .id = SASL_CB_LIST_END },
    };
    cyrus.arena = arena_new();
    cyrus_client_open(c, services);
    struct str name = application(c, services);
    if (name.n == 0 || !cyrus_prepare(c))
        return;
    cyrus.hostname = arena_cstr(cyrus.arena, conf_str(c, PARAM_myhostname));
    int r = sasl_server_init(callbacks, arena_cstr(cyrus.arena, name));
    cyrus_write_stray_log();
    if (r != SASL_OK) {
        log_warn("SASL: the Cyrus library: %s (%.*s.conf in %.*s)", sasl_errstring(r, NULL, NULL), STR_ARG(name),
                 STR_ARG(config_path(c)));
        return;
    }
    cyrus.ready = read_mechanisms();
    cyrus_write_stray_log();
}

bool cyrus_wanted(struct io *io) {
    char first[4];
    if (!cyrus.ready || wait_readable(io_fd(io), deadline_in(FIRST_SECONDS)))
        return false;
    /* read as the length of a frame this is more than any frame has */
    return recv(io_fd(io), first, sizeof first, MSG_PEEK | MSG_DONTWAIT) == (ssize_t)sizeof first &&
           memcmp(first, "VERS", sizeof first) == 0;
}

void cyrus_session(struct io *io) {
    error e = login_serve(io, &cyrus.library);
    if (e)
        log_warn("%.*s", STR_ARG(e->text));
}
