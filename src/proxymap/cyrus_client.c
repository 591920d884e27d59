/* Logins by the Cyrus SASL library at servers elsewhere (smtp_sasl_type = cyrus), for smtp and lmtp. */
#include "base/die.h"
#include "base/log.h"
#include "proto/login.h"
#include "proxymap/cyrus.h"
#include "proxymap/cyrus_internal.h"
#include "sasl/server.h"
#include <sasl/sasl.h>
#include <stdlib.h>

enum { CALLBACKS = 5 };

static bool ready;

struct login {
    sasl_conn_t *conn;
    sasl_callback_t callbacks[CALLBACKS];
    struct buf log;
    char *service, *host, *local, *remote, *mechanisms, *username, *authzid; /* NULL: not known */
    sasl_secret_t *secret;
    unsigned flags; /* SASL_SEC_ */
};

struct job { /* one call of the library, in a thread */
    struct login *login;
    bool begin;
    struct str challenge;
    int result;
    struct buf response, mechanism, available;
    bool has_response;
};

/* --- what the library asks for --- */
static int log_in_login(void *context, int level, const char *message) {
    struct login *l = context;
    cyrus_add_message(&l->log, level, message);
    return SASL_OK;
}

static int get_name(void *context, int id, const char **result, unsigned *len) {
    const struct login *l = context;
    const char *name = id == SASL_CB_USER ? l->authzid : l->username;
    *result = name ? name : "";
    if (len)
        *len = (unsigned)strlen(*result);
    return SASL_OK;
}

static int get_secret(sasl_conn_t *conn, void *context, int id, sasl_secret_t **ret) {
    const struct login *l = context;
    if (!conn || id != SASL_CB_PASS)
        return SASL_BADPARAM;
    *ret = l->secret;
    return SASL_OK;
}

static void set_callbacks(struct login *l) {
    const sasl_callback_t callbacks[CALLBACKS] = {
        { SASL_CB_LOG, (int (*)(void))(void (*)(void))log_in_login, l },
        { SASL_CB_USER, (int (*)(void))(void (*)(void))get_name, l },
        { SASL_CB_AUTHNAME, (int (*)(void))(void (*)(void))get_name, l },
        { SASL_CB_PASS, (int (*)(void))(void (*)(void))get_secret, l },
        { SASL_CB_LIST_END, NULL, NULL },
    };
    memcpy(l->callbacks, callbacks, sizeof callbacks);
}

/* --- in a thread --- */
static int start(struct job *j, const char **out, unsigned *size) {
    struct login *l = j->login;
    const char *mechanism = NULL;
    sasl_security_properties_t properties = { .security_flags = l->flags }; /* and no security layer of its own */
    int r = sasl_client_new(l->service, l->host, l->local, l->remote, l->callbacks, 0, &l->conn);
    if (r == SASL_OK)
        r = sasl_setprop(l->conn, SASL_SEC_PROPS, &properties);
    if (r == SASL_OK)
        r = sasl_client_start(l->conn, l->mechanisms, NULL, out, size, &mechanism);
    if (mechanism)
        buf_add(&j->mechanism, str_c(mechanism));
    const char **names = r == SASL_NOMECH ? sasl_global_listmech() : NULL;
    for (; names && *names; names++)
        buf_printf(&j->available, "%s%s", j->available.n ? " " : "", *names);
    return r;
}

static void call_library(void *arg) {
    struct job *j = arg;
    const char *out = NULL;
    unsigned size = 0;
    if (j->begin)
        j->result = start(j, &out, &size);
    else
        j->result = sasl_client_step(j->login->conn, j->challenge.p, (unsigned)j->challenge.n, NULL, &out, &size);
    if (out)
        buf_add(&j->response, str_n(out, size));
    j->has_response = out && (size > 0 || !j->begin);
}

static error run(struct ipc *ipc, struct job *j) {
    struct login_move m = { .what = LOGIN_MOVE_GIVE_UP, .why = STR("the look-up process is busy") };
    if (cyrus_run(call_library, j)) {
        m = (struct login_move){ .what = j->result == SASL_OK || j->result == SASL_CONTINUE ? LOGIN_MOVE_SAY
                                         : j->result == SASL_NOMECH                         ? LOGIN_MOVE_NO_MECHANISM
                                                                                            : LOGIN_MOVE_GIVE_UP,
                                 .has_response = j->has_response,
                                 .mechanism = buf_str(&j->mechanism),
                                 .response = buf_str(&j->response),
                                 .why = str_c(sasl_errstring(j->result, NULL, NULL)),
                                 .log = buf_str(&j->login->log),
                                 .available = buf_str(&j->available) };
    }
    error e = login_move_answer(ipc, &m, deadline_in(LOGIN_SECONDS));
    buf_clear(&j->login->log);
    buf_wipe(&j->response);
    buf_free(&j->mechanism);
    buf_free(&j->available);
    cyrus_write_stray_log();
    return e;
}

/* --- one login --- */
static unsigned flags_of(const struct login_begin *b) {
    static const struct {
        unsigned property, flag;
        bool asked;
    } table[] = {
        { SASL_PLAINTEXT, SASL_SEC_NOPLAINTEXT, false },          { SASL_ACTIVE, SASL_SEC_NOACTIVE, false },
        { SASL_DICTIONARY, SASL_SEC_NODICTIONARY, false },        { SASL_ANONYMOUS, SASL_SEC_NOANONYMOUS, false },
        { SASL_FORWARD_SECRECY, SASL_SEC_FORWARD_SECRECY, true }, { SASL_MUTUAL_AUTH, SASL_SEC_MUTUAL_AUTH, true },
    };
    unsigned flags = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if ((table[i].asked ? b->required : b->forbidden) & table[i].property)
            flags |= table[i].flag;
    return flags;
}

static void fill(struct login *l, const struct login_begin *b, struct arena *a) {
    const struct {
        struct str from;
        char **to;
    } copies[] = { { b->service, &l->service },      { b->host, &l->host },       { b->local, &l->local },
                   { b->remote, &l->remote },        { b->authzid, &l->authzid }, { b->username, &l->username },
                   { b->mechanisms, &l->mechanisms } };
    for (size_t i = 0; i < sizeof copies / sizeof *copies; i++)
        *copies[i].to = copies[i].from.n ? arena_cstr(a, copies[i].from) : NULL;
    l->flags = flags_of(b);
    l->secret = malloc(sizeof *l->secret + b->password.n);
    if (!l->secret)
        die_no_memory(b->password.n);
    l->secret->len = b->password.n;
    if (b->password.n)
        memcpy(l->secret->data, b->password.p, b->password.n);
    l->secret->data[b->password.n] = 0;
    str_wipe(b->password); /* in the buffer of the frame, which is ours */
    set_callbacks(l);
}

static void talk(struct ipc *ipc, struct login *l) {
    struct ipc_msg m = { .fd = -1 };
    struct job j = { .login = l, .begin = true };
    error e = run(ipc, &j);
    while (!e && !ipc_recv(ipc, DEADLINE_NEVER, &m)) {
        j = (struct job){ .login = l };
        if (!l->conn || !login_step_read(&m, &j.challenge)) {
            log_warn("malformed request to the login service");
            break;
        }
        e = run(ipc, &j);
    }
    ipc_msg_drop(&m);
}

void cyrus_client_session(struct ipc *ipc, const struct ipc_msg *first) {
    struct login_begin b;
    struct login l = { 0 };
    struct arena *a = arena_new();
    if (!login_begin_read(first, &b)) {
        log_warn("malformed request to the login service");
    } else if (!ready) {
        const struct login_move m = { .what = LOGIN_MOVE_GIVE_UP, .why = STR("the Cyrus library is not loaded") };
        (void)login_move_answer(ipc, &m, deadline_in(LOGIN_SECONDS));
    } else {
        fill(&l, &b, a);
        talk(ipc, &l);
        if (l.conn)
            sasl_dispose(&l.conn);
        buf_free(&l.log);
        str_wipe(str_n((char *)l.secret->data, l.secret->len));
        free(l.secret);
    }
    arena_free(a);
}

void cyrus_client_open(const struct conf *c, const struct master_cf *services) {
    static const struct {
        struct str program;
        enum param enabled, type;
    } clients[] = {
        { STR_INIT("smtp"), PARAM_smtp_sasl_auth_enable, PARAM_smtp_sasl_type },
        { STR_INIT("lmtp"), PARAM_lmtp_sasl_auth_enable, PARAM_lmtp_sasl_type },
    };
    static const sasl_callback_t callbacks[] = {
        { .id = SASL_CB_LOG, .proc = (int (*)(void))(void (*)(void))cyrus_log_stray, .context = NULL },
        { .id = SASL_CB_LIST_END },
    };
    struct arena *a = arena_new();
    bool wanted = false;
    for (size_t i = 0; i < services->count; i++)
        for (size_t k = 0; k < sizeof clients / sizeof *clients; k++)
            wanted =
                wanted || (str_eq(services->entries[i].command, clients[k].program) &&
                           str_eq_icase(cyrus_setting(c, &services->entries[i], clients[k].enabled, a), STR("yes")) &&
                           str_eq(cyrus_setting(c, &services->entries[i], clients[k].type, a), STR("cyrus")));
    arena_free(a);
    if (!wanted || !cyrus_prepare(c))
        return;
    int r = sasl_client_init(callbacks);
    cyrus_write_stray_log();
    ready = r == SASL_OK;
    if (!ready)
        log_warn("SASL: the Cyrus library: %s", sasl_errstring(r, NULL, NULL));
}
