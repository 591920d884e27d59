#include "smtp/login.h"

#include "base/log.h"
#include "conf/params.h"
#include "conf/sasl_types.h"
#include "mail/dsn.h"
#include "proto/login.h"
#include "sasl/native.h"
#include "smtp/account.h"
#include "table/file_values.h"
#include "tls/client.h"
#include <stdlib.h>
#include <sys/socket.h>

enum { OFFERED_MAX = 4096 /* bytes of mechanisms that are looked at */ };

enum { NO_TLS, ANY_TLS, VERIFIED_TLS };

struct login_config {
    struct service_ctx *ctx;
    struct arena *arena;
    bool cyrus, soft_bounce, authzid;
    struct account_tables accounts;
    struct match *filter; /* NULL: no filter */
    struct str filter_name;
    struct security { /* smtp_sasl_..._options, by what is known of the connection */
        struct str parameter;
        struct sasl_policy policy;
    } security[VERIFIED_TLS + 1];
    struct str proxymap;
};

/* A setting's name in either program. */
#define PICK(smtp_name, lmtp_name) (lmtp ? (lmtp_name) : (smtp_name))

/* --- configuration --- */
static error read_policy(const struct conf *conf, enum param p, struct arena *err_arena, struct sasl_policy *ret) {
    struct str word;
    if (sasl_policy_parse(conf_str(conf, p), ret, &word))
        return NULL;
    return err_make(err_arena, ERR_CONFIG, "parameter %s: unknown security option \"%.*s\"", param_row(p)->name.p,
                    STR_ARG(word));
}

static error read_type(const struct conf *conf, enum param p, struct arena *err_arena, bool *ret_cyrus) {
    struct str type = conf_str(conf, p);
    const struct sasl_type *t = sasl_types();
    while (t->name.n && !(t->client && str_eq(t->name, type)))
        t++;
    *ret_cyrus = str_eq(type, STR("cyrus"));
    if (t->name.n)
        return NULL;
    return err_make(err_arena, ERR_CONFIG,
                    "parameter %s: unsupported SASL client implementation \"%.*s\" (\"postconf -A\" lists them)",
                    param_row(p)->name.p, STR_ARG(type));
}

static error read_settings(struct login_config *l, const struct conf *conf, bool lmtp, struct arena *err_arena) {
    enum param passwords = PICK(PARAM_smtp_sasl_password_maps, PARAM_lmtp_sasl_password_maps);
    const enum param security[] = {
        [NO_TLS] = PICK(PARAM_smtp_sasl_security_options, PARAM_lmtp_sasl_security_options),
        [ANY_TLS] = PICK(PARAM_smtp_sasl_tls_security_options, PARAM_lmtp_sasl_tls_security_options),
        [VERIFIED_TLS] =
            PICK(PARAM_smtp_sasl_tls_verified_security_options, PARAM_lmtp_sasl_tls_verified_security_options),
    };
    error e = read_type(conf, PICK(PARAM_smtp_sasl_type, PARAM_lmtp_sasl_type), err_arena, &l->cyrus);
    for (size_t i = 0; !e && i <= VERIFIED_TLS; i++) {
        l->security[i].parameter = param_row(security[i])->name;
        e = read_policy(conf, security[i], err_arena, &l->security[i].policy);
    }
    if (!e && str_trim(conf_str(conf, passwords)).n == 0)
        e = err_make(err_arena, ERR_CONFIG, "specify a password table via the `%s' configuration parameter",
                     param_row(passwords)->name.p);
    if (!e && !l->cyrus && !native_prepare())
        e = err_make(err_arena, ERR_CONFIG, "OpenSSL has no random numbers, SHA-1 or SHA-256");
    if (e)
        return e;
    l->soft_bounce = conf_bool(conf, PICK(PARAM_smtp_sasl_auth_soft_bounce, PARAM_lmtp_sasl_auth_soft_bounce));
    l->authzid = conf_bool(conf, PARAM_send_cyrus_sasl_authzid);
    l->accounts = (struct account_tables){
        .passwords = maps_open(conf, conf_str(conf, passwords), TABLE_FOLD),
        .delimiter =
            conf_str(conf, PICK(PARAM_smtp_sasl_password_result_delimiter, PARAM_lmtp_sasl_password_result_delimiter)),
        .extensions = addr_extension_rules(conf),
        .by_sender = conf_bool(
            conf, PICK(PARAM_smtp_sender_dependent_authentication, PARAM_lmtp_sender_dependent_authentication)),
        .lmtp = lmtp,
        .refused_time = conf_time(conf, PICK(PARAM_smtp_sasl_auth_cache_time, PARAM_lmtp_sasl_auth_cache_time)),
    };
    struct str cache = str_trim(conf_str(conf, PICK(PARAM_smtp_sasl_auth_cache_name, PARAM_lmtp_sasl_auth_cache_name)));
    if (cache.n)
        l->accounts.refused = table_open(conf, cache, TABLE_FOLD | TABLE_WRITE);
    enum param filter = PICK(PARAM_smtp_sasl_mechanism_filter, PARAM_lmtp_sasl_mechanism_filter);
    l->filter_name = param_row(filter)->name;
    if (str_trim(conf_str(conf, filter)).n)
        l->filter = match_open(conf, l->filter_name, conf_str(conf, filter), MATCH_STRING, TABLE_FOLD);
    const error problems[] = { maps_error(l->accounts.passwords), l->filter ? match_error(l->filter) : NULL,
                               l->accounts.refused ? table_error(l->accounts.refused) : NULL };
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++)
        if (problems[i])
            log_warn("%.*s", STR_ARG(problems[i]->text));
    return NULL;
}

error login_load(struct service_ctx *ctx, bool lmtp, struct arena *err_arena, struct login_config **ret) {
    *ret = NULL;
    if (!conf_bool(ctx->conf, PICK(PARAM_smtp_sasl_auth_enable, PARAM_lmtp_sasl_auth_enable)))
        return NULL;
    struct arena *a = arena_new();
    struct login_config *l = ARENA_NEW(a, struct login_config);
    *l = (struct login_config){ .arena = a, .ctx = ctx };
    l->proxymap = arena_printf(a, "private/%.*s", STR_ARG(conf_str(ctx->conf, PARAM_proxymap_service_name)));
    error e = read_settings(l, ctx->conf, lmtp, err_arena);
    if (e)
        login_free(l);
    else
        *ret = l;
    return e;
}

void login_free(struct login_config *l) {
    if (!l)
        return;
    if (l->accounts.passwords)
        maps_close(l->accounts.passwords);
    if (l->accounts.refused)
        table_close(l->accounts.refused);
    match_close(l->filter);
    arena_free(l->arena);
}

struct str login_kept_key(const struct client_config *c, struct arena *a, struct str nexthop, struct str sender) {
    if (!c->login || !c->login->accounts.by_sender)
        return nexthop;
    return arena_printf(a, "%.*s\n%.*s", STR_ARG(nexthop), STR_ARG(sender));
}

static const struct security *security_of(const struct session *s) {
    const struct login_config *l = s->config->login;
    return &l->security[!s->tls ? NO_TLS : s->tls_verified ? VERIFIED_TLS : ANY_TLS];
}

/* --- what the server offers --- */
static bool has_word(struct str list, struct str wanted) {
    struct str word;
    while (str_word(&list, STR_SPACE, &word))
        if (str_eq_icase(word, wanted))
            return true;
    return false;
}

bool login_offered(struct session *s, struct str keyword, struct str parameters) {
    struct str old = STR("AUTH=");
    bool is_old = str_starts_icase(keyword, old);
    if (!is_old && !str_eq_icase(keyword, STR("AUTH")))
        return false;
    if (!s->config->login)
        return true;
    s->features |= FEATURE_AUTH;
    struct buf *all = &s->auth_offered;
    struct str first = is_old ? str_from(keyword, old.n) : STR("");
    struct str lists[] = { first, parameters }, word;
    for (size_t i = 0; i < 2; i++)
        while (str_word(&lists[i], STR_SPACE, &word))
            if (all->n + word.n < OFFERED_MAX && !has_word(buf_str(all), word)) /* most servers say the same twice */
                buf_printf(all, "%s%.*s", all->n ? " " : "", STR_ARG(word));
    return true;
}

/* What smtp_sasl_mechanism_filter leaves; false: a table of it fails. */
static bool filtered(const struct login_config *l, struct arena *a, struct str offered, struct str *ret,
                     bool *ret_plus_excluded) {
    struct buf b = { 0 };
    struct str word;
    bool good = true;
    *ret_plus_excluded = false;
    while (good && str_word(&offered, STR_SPACE, &word)) {
        enum match_result m = l->filter ? match_find(l->filter, word, STR("")) : MATCH_YES;
        good = m != MATCH_ERROR;
        if (m == MATCH_YES)
            buf_printf(&b, "%s%.*s", b.n ? " " : "", STR_ARG(word));
        else if (str_ends_icase(word, STR("-PLUS")))
            *ret_plus_excluded = true;
    }
    *ret = arena_str(a, buf_str(&b));
    buf_free(&b);
    return good;
}

/* --- problems --- */
static bool fail(struct session *s, const char *dsn, struct str text, struct problem *ret_why) {
    *ret_why = session_problem(s, str_c(dsn), text);
    ret_why->session_dead = true;
    return false;
}

static bool table_failed(struct session *s, const char *what, struct problem *ret_why) {
    log_warn("%s: %s%s lookup error", s->errand.id, s->config->lmtp ? "lmtp" : "smtp", what);
    session_data_problem(s, ret_why);
    return false;
}

static bool cannot(struct session *s, struct str why, struct problem *ret_why) {
    return fail(s, "4.7.0",
                arena_printf(s->scratch, "SASL authentication failed; cannot authenticate to server %.*s: %.*s",
                             STR_ARG(s->host), STR_ARG(why)),
                ret_why);
}

static void add_list(struct buf *b, struct str before, struct str list) {
    if (list.n)
        buf_printf(b, "; %.*s %.*s", STR_ARG(before), STR_ARG(list));
}

/* In one line, what to change: what is offered, what our settings take away and which, what nobody here can do. */
static void explain(const struct session *s, const struct login_config *l, struct str left, struct str available,
                    bool token) {
    struct buf line = { 0 }, excluded = { 0 }, unknown = { 0 };
    struct str rest = left, word;
    buf_printf(&line, "%.*s: cannot log in: the server offers ", STR_ARG(s->relay));
    buf_printf(&line, "%.*s", STR_ARG(s->auth_offered.n ? buf_str(&s->auth_offered) : STR("no mechanism")));
    if (!str_eq(left, buf_str(&s->auth_offered)))
        buf_printf(&line, "; %.*s leaves %.*s", STR_ARG(l->filter_name), STR_ARG(left.n ? left : STR("none")));
    while (str_word(&rest, STR_SPACE, &word)) {
        struct sasl_mechanism m;
        bool known = sasl_mechanism_known(word, &m);
        struct str against = known ? sasl_policy_against(&security_of(s)->policy, &m) : STR("");
        if (against.n)
            buf_printf(&excluded, "%s%.*s (%.*s)", excluded.n ? ", " : "", STR_ARG(word), STR_ARG(against));
        else
            buf_printf(&unknown, "%s%.*s", unknown.n ? ", " : "", STR_ARG(word));
    }
    struct str by = arena_printf(s->scratch, "%.*s excludes", STR_ARG(security_of(s)->parameter));
    add_list(&line, by, buf_str(&excluded));
    struct str type = l->cyrus ? STR("smtp_sasl_type = cyrus has no plug-in for")
                      : token  ? STR("an access token is no use with")
                               : STR("smtp_sasl_type = native does not know");
    add_list(&line, type, buf_str(&unknown));
    if (unknown.n)
        add_list(&line, STR("it has"), available);
    log_warn("%.*s", STR_ARG(buf_str(&line)));
    buf_free(&line);
    buf_free(&excluded);
    buf_free(&unknown);
}

/* --- the exchange --- */
struct exchange {
    struct session *s;
    const struct login_config *l;
    struct sasl_login login;
    struct ipc *ipc; /* Cyrus */
    struct native_login *native;
    struct str available;
};

struct thread_step {
    struct native_login *n;
    struct str challenge;
    struct arena *a;
    struct sasl_move *ret;
};

static void step_in_thread(void *arg) {
    struct thread_step *t = arg;
    native_step(t->n, t->challenge, t->a, t->ret);
}

static void native_next(struct exchange *x, struct str challenge, struct sasl_move *ret) {
    struct thread_step t = { x->native, challenge, x->s->scratch, ret };
    if (native_is_slow(x->native))
        offload(step_in_thread, &t);
    else
        step_in_thread(&t);
}

static void write_library_log(struct str lines) {
    struct str line;
    while (lines.n && str_next(&lines, STR("\n"), &line))
        if (line.n)
            log_warn("%.*s", STR_ARG(line));
}

static void cyrus_move(struct exchange *x, error e, const struct login_move *m, struct sasl_move *ret) {
    if (e) {
        *ret = (struct sasl_move){ .what = SASL_GIVE_UP };
        ret->why = arena_printf(x->s->scratch, "%.*s service: %.*s", STR_ARG(x->l->proxymap), STR_ARG(e->text));
        return;
    }
    write_library_log(m->log);
    x->available = m->available;
    *ret = (struct sasl_move){ .what = m->what == LOGIN_MOVE_SAY            ? SASL_SAY
                                       : m->what == LOGIN_MOVE_NO_MECHANISM ? SASL_NO_MECHANISM
                                                                            : SASL_GIVE_UP,
                               .mechanism = m->mechanism,
                               .has_response = m->has_response,
                               .response = m->response,
                               .why = m->why };
}

static void cyrus_begin(struct exchange *x, struct sasl_move *ret) {
    const struct sasl_login *g = &x->login;
    const struct login_begin b = { .service = g->service,
                                   .host = g->host,
                                   .local = g->local,
                                   .remote = g->remote,
                                   .mechanisms = g->mechanisms,
                                   .username = g->username,
                                   .authzid = g->authzid,
                                   .password = g->password,
                                   .forbidden = g->policy.forbidden,
                                   .required = g->policy.required };
    struct login_move m;
    int64_t deadline = deadline_in(LOGIN_SECONDS);
    error e = service_connect(x->l->ctx, x->l->proxymap, deadline, &x->ipc);
    if (!e)
        e = login_begin_ask(x->ipc, &b, deadline, x->s->scratch, &m);
    cyrus_move(x, e, &m, ret);
}

static void begin(struct exchange *x, struct sasl_move *ret) {
    if (x->l->cyrus)
        cyrus_begin(x, ret);
    else
        x->native = native_begin(&x->login, x->s->scratch, ret);
}

static void next(struct exchange *x, struct str challenge, struct sasl_move *ret) {
    struct login_move m;
    if (x->native) {
        native_next(x, challenge, ret);
        return;
    }
    error e = login_step_ask(x->ipc, challenge, deadline_in(LOGIN_SECONDS), x->s->scratch, &m);
    cyrus_move(x, e, &m, ret);
}

static void end(struct exchange *x) {
    if (x->native)
        native_end(x->native);
    ipc_close(x->ipc);
}

/* AUTH MECHANISM [response], or a response alone (RFC 4954, 4). */
static void say(struct session *s, const struct sasl_move *m, bool first) {
    struct buf line = { 0 };
    struct str text = base64_encode(s->scratch, m->response);
    if (first)
        buf_printf(&line, "AUTH %.*s%s", STR_ARG(m->mechanism), m->has_response ? " " : "");
    log_debug("> %.*s: %.*s%s", STR_ARG(s->host), STR_ARG(buf_str(&line)), m->has_response ? "[secret]" : "");
    if (first && m->has_response && text.n == 0)
        buf_byte(&line, '=');
    buf_add(&line, text);
    buf_add(&line, STR("\r\n"));
    io_write(s->io, buf_str(&line));
    buf_wipe(&line);
    if (text.n)
        str_wipe(text);
    if (m->response.n)
        str_wipe(m->response);
}

/* What stands behind the code of a 334. */
static bool read_challenge(struct session *s, const struct reply *r, struct str *ret) {
    struct str text = str_trim(str_from(r->text, 4));
    *ret = STR("");
    return text.n == 0 || (sasl_base64_valid(text) && base64_decode(s->scratch, text, ret));
}

static bool refused(struct exchange *x, const struct account *k, const struct reply *r, const char *cached,
                    struct problem *ret_why) {
    struct session *s = x->s;
    session_reply_problem(s, r, "AUTH command", ret_why);
    if (!*cached && r->code == 535 && x->l->accounts.refused)
        account_refused_put(&x->l->accounts, s->remote_mta, k, r);
    if (x->l->soft_bounce && ret_why->dsn.p[0] == '5')
        ret_why->dsn = dsn_with_class(s->scratch, ret_why->dsn, '4');
    ret_why->text = arena_printf(s->scratch, "SASL %sauthentication failed; server %.*s said: %.*s", cached,
                                 STR_ARG(s->host), STR_ARG(ret_why->diagnostic));
    ret_why->session_dead = true;
    return false;
}

static bool converse(struct exchange *x, const struct account *k, struct problem *ret_why) {
    struct session *s = x->s;
    const char *doing = s->config->lmtp ? "performing the LHLO handshake" : "performing the EHLO handshake";
    struct sasl_move m = { 0 };
    struct reply r;
    begin(x, &m);
    for (int steps = 0;; steps++) {
        if (m.what == SASL_NO_MECHANISM)
            explain(s, x->l, x->login.mechanisms, x->available, x->login.token);
        if (m.what != SASL_SAY)
            return cannot(s, m.why, ret_why);
        say(s, &m, steps == 0);
        if (!session_reply(s, doing, s->config->helo_timeout, &r, ret_why))
            return false;
        if (r.code / 100 != 3)
            break;
        struct str challenge;
        if (steps == SASL_STEPS_MAX)
            return fail(s, "4.3.0",
                        arena_printf(s->scratch,
                                     "SASL authentication failed; authentication protocol loop with server %.*s",
                                     STR_ARG(s->host)),
                        ret_why);
        if (!read_challenge(s, &r, &challenge))
            return cannot(s, STR("malformed challenge"), ret_why);
        next(x, challenge, &m);
    }
    if (r.code / 100 != 2)
        return refused(x, k, &r, "", ret_why);
    if (x->native && !native_accepted(x->native))
        return cannot(s, STR("the server has not proved that it knows the password"), ret_why);
    return true;
}

/* "192.0.2.1;4711", as Cyrus wants it; empty: no such address. */
static struct str end_of(struct arena *a, const struct endpoint *e) {
    char ip[INET6_ADDRSTRLEN];
    if (e->u.sa.sa_family != AF_INET && e->u.sa.sa_family != AF_INET6)
        return STR("");
    return arena_printf(a, "%.*s;%u", STR_ARG(endpoint_address(e, ip)), endpoint_port(e));
}

static bool log_in(struct session *s, const struct login_config *l, struct str mechanisms, bool plus_excluded,
                   const struct account *k, struct problem *ret_why) {
    struct endpoint local = { .len = sizeof local.u };
    if (getsockname(io_fd(s->io), &local.u.sa, &local.len) < 0)
        local = (struct endpoint){ 0 };
    struct exchange x = { .s = s,
                          .l = l,
                          .available = STR(""),
                          .login = { .service = s->config->lmtp ? STR("lmtp") : STR("smtp"),
                                     .host = s->remote_mta,
                                     .port = endpoint_port(&s->address),
                                     .local = end_of(s->scratch, &local),
                                     .remote = end_of(s->scratch, &s->address),
                                     .mechanisms = mechanisms,
                                     .policy = security_of(s)->policy,
                                     .username = k->username,
                                     .authzid = l->authzid ? k->username : STR(""),
                                     .password = k->password,
                                     .binding_type = STR(""),
                                     .binding = STR(""),
                                     .plus_excluded = plus_excluded } };
    if (s->tls && !l->cyrus)
        (void)tls_binding(s->tls, s->scratch, &x.login.binding_type, &x.login.binding);
    struct str dsn, text;
    struct reply cached = { 0 };
    account_refused_get(&l->accounts, s->remote_mta, k, s->scratch, &cached.code, &dsn, &text);
    if (cached.code) {
        cached.dsn = dsn;
        cached.text = text;
        return refused(&x, k, &cached, "[CACHED] ", ret_why);
    }
    io_secret(s->io, true);
    bool good = converse(&x, k, ret_why);
    io_secret(s->io, false);
    end(&x);
    return good;
}

bool login_session(struct session *s, const struct destination *d, struct problem *ret_why) {
    const struct login_config *l = s->config->login;
    (void)d;
    if (!l || !(s->features & FEATURE_AUTH))
        return true;
    struct account k = { 0 };
    enum table_result found = account_find(&l->accounts, s, s->scratch, &k);
    if (found == TABLE_NOT_FOUND) { /* nothing for this server: strangers to each other */
        s->features &= ~(unsigned)FEATURE_AUTH;
        return true;
    }
    if (found == TABLE_ERROR)
        return table_failed(s, "_sasl_password_maps", ret_why);
    struct str mechanisms;
    bool plus_excluded, good;
    if (!filtered(l, s->scratch, buf_str(&s->auth_offered), &mechanisms, &plus_excluded)) {
        good = table_failed(s, "_sasl_mechanism_filter", ret_why);
    } else if (mechanisms.n == 0) {
        explain(s, l, mechanisms, STR(""), false);
        good = fail(s, "4.7.0",
                    arena_printf(s->scratch,
                                 "SASL authentication failed: server %.*s offered no compatible authentication "
                                 "mechanisms for this type of connection security",
                                 STR_ARG(s->host)),
                    ret_why);
    } else {
        good = log_in(s, l, mechanisms, plus_excluded, &k, ret_why);
    }
    account_wipe(&k);
    return good;
}
