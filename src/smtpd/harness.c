#include "smtpd/harness.h"

#include "base/die.h"
#include "base/log.h"
#include "mail/address.h"
#include "run/loop.h"
#include "service/dial.h"
#include "smtpd/clients.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <sys/mman.h>

static const char world[] = "myhostname = mx.here.example\n"
                            "mydomain = here.example\n"
                            "mail_name = Angarium\n"
                            "compatibility_level = 3.6\n"
                            "mynetworks = 127.0.0.2/32\n"
                            "inet_interfaces = 127.0.0.1\n"
                            "smtpd_error_sleep_time = 0\n"
                            "smtpd_sasl_type = dovecot\n";

/* --- back ends --- */
static bool in_list(struct str s, struct str list) {
    struct str word;
    while (str_word(&list, STR(" "), &word))
        if (str_eq_icase(s, word))
            return true;
    return false;
}

static void fake_client_name(void *ctx, struct arena *a, const struct endpoint *client, struct dns_client *ret) {
    (void)ctx, (void)a;
    char text[INET6_ADDRSTRLEN];
    struct str address = endpoint_address(client, text);
    *ret = (struct dns_client){ .name = STR("unknown"),
                                .reverse_name = STR("unknown"),
                                .name_status = DNS_NOT_FOUND,
                                .reverse_status = DNS_NOT_FOUND };
    if (str_starts(address, STR("127.0.0.")))
        ret->name = STR("localhost");
    else if (str_eq(address, STR("192.0.2.1")))
        ret->name = STR("client.example");
    if (!str_eq(ret->name, STR("unknown"))) {
        ret->reverse_name = ret->name;
        ret->name_status = ret->reverse_status = DNS_OK;
    } else if (str_eq(address, STR("192.0.2.2"))) { /* a name that leads elsewhere */
        ret->reverse_name = STR("liar.example");
        ret->reverse_status = DNS_OK;
        ret->mismatch = true;
        ret->forward_status = DNS_NOT_FOUND;
    } else if (str_eq(address, STR("192.0.2.3"))) {
        ret->name_status = ret->reverse_status = DNS_RETRY;
    }
}

static enum address_class class_of(struct str domain) {
    static const struct {
        struct str domain;
        enum address_class class;
    } classes[] = {
        { STR_INIT("here.example"), CLASS_LOCAL },           { STR_INIT("localhost"), CLASS_LOCAL },
        { STR_INIT("relay.example"), CLASS_RELAY },          { STR_INIT("vmbox.example"), CLASS_VIRTUAL_MAILBOX },
        { STR_INIT("valias.example"), CLASS_VIRTUAL_ALIAS },
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (str_eq_icase(domain, classes[i].domain))
            return classes[i].class;
    return CLASS_DEFAULT;
}

static const struct err temporary = { .kind = ERR_TEMP,
                                      .code = 451,
                                      .dsn = STR_INIT("4.3.0"),
                                      .text = STR_INIT("Temporary lookup failure"),
                                      .detail = STR_INIT("") };
static const struct err gone = {
    .kind = ERR_EOF, .dsn = STR_INIT(""), .text = STR_INIT("connection closed"), .detail = STR_INIT("")
};

static struct str domain_of(struct str address) {
    struct str domain = address_split(address).domain;
    if (domain.n > 1 && domain.p[domain.n - 1] == '.')
        domain.n--;
    return domain;
}

static error fake_check_address(void *ctx, struct arena *a, const struct route_question *q, struct route_check *ret) {
    static const char *const tables[] = { [CLASS_LOCAL] = "local recipient",
                                          [CLASS_VIRTUAL_ALIAS] = "virtual alias",
                                          [CLASS_VIRTUAL_MAILBOX] = "virtual mailbox",
                                          [CLASS_RELAY] = "relay recipient" };
    struct harness *h = ctx;
    struct str local = address_split(q->address).local, domain = domain_of(q->address);
    h->questions++;
    if (str_eq(domain, STR("gone.example")))
        return &gone;
    *ret = (struct route_check){ .class = class_of(domain), .routed = str_index_any(local, STR("%@!")) >= 0 };
    if (str_eq(domain, STR("temp.example"))) {
        ret->unroutable = q->want & ROUTE_WANT_CLASS ? &temporary : NULL;
        ret->unlisted = q->want & ROUTE_WANT_LISTED ? &temporary : NULL;
    }
    if (!(q->want & ROUTE_WANT_LISTED) || ret->class == CLASS_DEFAULT ||
        in_list(local, ret->class == CLASS_LOCAL ? STR("user user2 postmaster") : STR("ok")))
        return NULL;
    ret->unlisted = err_smtp(a, 550, q->is_sender ? "5.1.0" : "5.1.1", "User unknown in %s table", tables[ret->class]);
    return NULL;
}

static bool zone_record(struct arena *a, enum dns_type type, struct str data, struct dns_record *ret) {
    *ret = (struct dns_record){ .type = type, .ttl = 300, .name = STR(""), .text = STR("") };
    struct str rest = data, word = STR("");
    switch (type) {
    case DNS_A:
    case DNS_AAAA:
        return endpoint_ip(data, 0, &ret->addr);
    case DNS_TXT:
        ret->text = arena_str(a, data);
        return true;
    case DNS_MX: {
        uint32_t preference;
        if (!str_word(&rest, STR(" "), &word) || !str_to_u32(word, UINT16_MAX, &preference))
            return false;
        ret->preference = (uint16_t)preference;
        ret->name = arena_str(a, str_trim(rest));
        return true;
    }
    default:
        ret->name = arena_str(a, data);
        return true;
    }
}

/* "name TYPE data", where both match. */
static void fake_dns_query(void *ctx, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
    struct harness *h = ctx;
    struct str rest = str_c(h->zone ? h->zone : ""), line;
    VEC(struct dns_record) found = { 0 };
    h->dns_queries++;
    *ret = (struct dns_answer){ .status = DNS_NOT_FOUND, .canonical = name };
    while (rest.n && str_next(&rest, STR("\n"), &line)) {
        struct str owner, kind;
        if (!str_word(&line, STR(" "), &owner) || !str_word(&line, STR(" "), &kind) || !str_eq_icase(owner, name))
            continue;
        if (ret->status == DNS_NOT_FOUND)
            ret->status = DNS_NO_DATA;
        if (!str_eq(kind, dns_type_name(type)))
            continue;
        line = str_trim(line);
        struct dns_record r;
        if (str_eq(line, STR("!")))
            ret->status = DNS_RETRY;
        else if (str_eq(line, STR("?")))
            ret->status = DNS_INVALID;
        else if (str_eq(line, STR("0 .")))
            ret->status = DNS_NULL_MX;
        else if (zone_record(a, type, line, &r))
            *vec_add(a, &found) = r;
    }
    if (found.n)
        *ret = (struct dns_answer){ .status = DNS_OK, .records = found.at, .count = found.n, .canonical = name };
}

static void fake_dns_addresses(void *ctx, struct arena *a, struct str host, struct dns_answer *ret) {
    struct dns_answer six;
    fake_dns_query(ctx, a, host, DNS_AAAA, &six);
    fake_dns_query(ctx, a, host, DNS_A, ret);
    if (ret->status != DNS_OK && six.status == DNS_OK)
        *ret = six;
}

static error fake_verify(void *ctx, struct arena *a, struct str address, struct verify_answer *ret) {
    (void)a, (void)address;
    struct harness *h = ctx;
    size_t last = sizeof h->verified / sizeof *h->verified - 1;
    *ret = h->verified[h->verify_asked < last ? h->verify_asked : last];
    h->verify_asked++;
    return ret->text.p ? NULL : &gone;
}

static error fake_dial(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret) {
    (void)deadline;
    struct harness *h = ctx;
    buf_printf(&h->dialled, "%.*s\n", STR_ARG(t->text));
    if (!h->servers || !h->servers[h->dials])
        return err_errno(ECONNREFUSED);
    *ret = io_new(script_peer_start(h->servers[h->dials++]));
    return NULL;
}

static error fake_scratch_file(void *ctx, int64_t deadline, int *ret_fd) {
    struct harness *h = ctx;
    (void)deadline;
    h->scratch_files++;
    *ret_fd = h->scratch_fails ? -1 : memfd_create("scratch", MFD_CLOEXEC);
    return *ret_fd < 0 ? err_errno(ENOSPC) : NULL;
}

/* By the first label; what is not named here is being sent. */
static error fake_flush_site(void *ctx, struct str site, enum flush_status *ret) {
    struct harness *h = ctx;
    h->flushes++;
    if (str_starts(site, STR("gone.")))
        return &gone;
    *ret = str_starts(site, STR("denied."))   ? FLUSH_DENIED
           : str_starts(site, STR("failed.")) ? FLUSH_FAIL
           : str_starts(site, STR("bad."))    ? FLUSH_BAD
                                              : FLUSH_OK;
    return NULL;
}

/* --- the login server: what comes of a login is what the client says, in base64 (tests/login_server.py) --- */
static const struct {
    const char *response; /* "good", "fail", ... */
    struct sasl_answer answer;
} login_answers[] = {
    { "Z29vZA==", { .outcome = LOGIN_OK, .username = STR_INIT("joe") } },
    { "bWFzaw==", { .outcome = LOGIN_OK, .username = STR_INIT("a(b)\\c") } },
    { "ZmFpbA==", { .outcome = LOGIN_FAILED, .username = STR_INIT("joe") } },
    { "cmVhc29u", { .outcome = LOGIN_FAILED, .username = STR_INIT("joe"), .reason = STR_INIT("Because") } },
    { "bm91c2Vy", { .outcome = LOGIN_FAILED } },
    { "bW9yZQ==", { .outcome = LOGIN_MORE, .challenge = STR_INIT("bW9yZQ==") } },
    { "ZW1wdHk=", { .outcome = LOGIN_MORE } },
    { "Y2xvc2U=",
      { .outcome = LOGIN_TEMP,
        .reason = STR_INIT("Connection lost to authentication server"),
        .detail = STR_INIT("connection closed") } },
};

static void login_answer(struct str response, struct sasl_answer *ret) {
    *ret = (struct sasl_answer){ .outcome = LOGIN_FAILED, .username = STR("unknown") };
    for (size_t i = 0; i < sizeof login_answers / sizeof *login_answers; i++)
        if (str_eq(response, str_c(login_answers[i].response)))
            *ret = login_answers[i].answer;
}

static const struct sasl_mechanism login_mechanisms[] = {
    { STR_INIT("PLAIN"), SASL_PLAINTEXT },
    { STR_INIT("LOGIN"), SASL_PLAINTEXT },
    { STR_INIT("CRAM-MD5"), SASL_DICTIONARY | SASL_ACTIVE },
    { STR_INIT("ANONYMOUS"), SASL_ANONYMOUS },
    { STR_INIT("XMUT"), SASL_MUTUAL_AUTH | SASL_FORWARD_SECRECY },
};
enum { LOGIN_MECHANISMS = sizeof login_mechanisms / sizeof *login_mechanisms };

static error fake_mechanisms(struct sasl_server *s, const struct sasl_peer *peer, const struct sasl_policy *p,
                             int64_t deadline, struct arena *a, struct sasl_mechanism **ret, size_t *ret_count) {
    (void)s, (void)peer, (void)deadline;
    *ret = arena_array(a, LOGIN_MECHANISMS, sizeof **ret);
    *ret_count = 0;
    for (size_t i = 0; i < LOGIN_MECHANISMS; i++)
        if (sasl_policy_allows(p, &login_mechanisms[i]))
            (*ret)[(*ret_count)++] = login_mechanisms[i];
    return NULL;
}

static size_t exchanges; /* begun and neither ended nor cancelled: there must be none behind a session */
static struct sasl_exchange *ended(struct sasl_exchange *x, const struct sasl_answer *answer) {
    if (answer->outcome == LOGIN_MORE)
        return x;
    exchanges--;
    return NULL;
}

static struct sasl_exchange *fake_begin(struct sasl_server *s, const struct sasl_peer *peer,
                                        const struct sasl_policy *p, struct str mechanism, const struct str *initial,
                                        int64_t deadline, struct arena *a, struct sasl_answer *ret) {
    static struct sasl_exchange x;
    (void)peer, (void)deadline, (void)a;
    x.server = s;
    exchanges++;
    for (size_t i = 0; i < LOGIN_MECHANISMS; i++)
        if (str_eq_icase(login_mechanisms[i].name, mechanism) && sasl_policy_allows(p, &login_mechanisms[i])) {
            if (initial)
                login_answer(*initial, ret);
            else
                *ret = (struct sasl_answer){ .outcome = LOGIN_MORE, .challenge = STR("Y2hhbA==") };
            return ended(&x, ret);
        }
    *ret = (struct sasl_answer){ .outcome = LOGIN_FAILED, .reason = STR("Invalid authentication mechanism") };
    return ended(&x, ret);
}

static void fake_respond(struct sasl_exchange *x, struct str response, int64_t deadline, struct arena *a,
                         struct sasl_answer *ret) {
    (void)deadline, (void)a;
    login_answer(response, ret);
    (void)ended(x, ret);
}

static void fake_cancel(struct sasl_exchange *x) {
    (void)x;
    exchanges--;
}

static const struct sasl_ops login_ops = {
    .mechanisms = fake_mechanisms, .begin = fake_begin, .respond = fake_respond, .cancel = fake_cancel
};
static struct sasl_server login_server = { .ops = &login_ops };

static error fake_anvil(void *ctx, enum anvil_event event, struct str ident, int64_t deadline,
                        struct anvil_answer *ret) {
    (void)deadline;
    struct harness *h = ctx;
    buf_printf(&h->anvil_told, "%u %.*s%s;", (unsigned)event, STR_ARG(ident), ret ? "?" : "");
    if (h->anvil_fails)
        return &gone;
    if (ret)
        *ret = h->anvil_says;
    return NULL;
}

struct submission {
    struct harness *h;
    struct harness_message *message;
};

static error fake_open(void *ctx, struct arena *a, unsigned flags, struct submission **ret, struct queue_id *ret_id,
                       struct submit_result *ret_refused) {
    (void)a;
    static struct harness_message overflow;
    struct harness *h = ctx;
    *ret = NULL;
    if (h->open_fails)
        return &gone;
    *ret_refused = h->open_result;
    if (h->open_result.status != SUBMIT_OK)
        return NULL;
    struct submission *m = calloc(1, sizeof *m);
    if (!m)
        die_no_memory(sizeof *m);
    m->h = h;
    m->message = h->message_count < HARNESS_MESSAGES_MAX ? &h->messages[h->message_count] : &overflow;
    if (m->message == &overflow)
        buf_clear(&overflow.content), buf_clear(&overflow.actions);
    h->message_count++;
    m->message->opened = true;
    h->draining = h->draining || h->drain_at_open;
    m->message->flags = flags;
    queue_id_make(ret_id, sys->wall_us(), h->message_count, false);
    *ret = m;
    return NULL;
}

static error fake_envelope(struct submission *m, const struct envelope *e) {
    m->message->sender = arena_str(m->h->strings, e->sender);
    m->message->envelope_flags = e->flags;
    const struct client_info *c = &e->client;
    m->message->client = arena_printf(m->h->strings, "%.*s [%.*s]:%.*s %.*s %.*s %.*s %.*s", STR_ARG(c->name),
                                      STR_ARG(c->address), STR_ARG(c->port), STR_ARG(c->protocol), STR_ARG(c->helo),
                                      STR_ARG(c->ident), STR_ARG(c->sasl_username));
    m->message->envid = arena_str(m->h->strings, e->dsn_envid);
    m->message->ret = e->dsn_ret;
    memcpy(m->message->verp, e->verp_delimiters, sizeof m->message->verp);
    return NULL;
}

static error fake_rcpt(struct submission *m, const struct rcpt *r) {
    if (m->h->rcpt_fails)
        return &gone;
    size_t n = m->message->rcpt_count;
    if (n < HARNESS_RCPTS_MAX) {
        m->message->rcpts[n] = arena_str(m->h->strings, r->address);
        m->message->orcpt[n] = arena_str(m->h->strings, r->dsn_orcpt);
        m->message->notify[n] = r->dsn_notify;
    }
    m->message->rcpt_count++;
    return NULL;
}

static error fake_action(struct submission *m, enum submit_action action, struct str value) {
    static const char *const names[] = { [SUBMIT_ACTION_HOLD] = "hold",
                                         [SUBMIT_ACTION_DISCARD] = "discard",
                                         [SUBMIT_ACTION_FILTER] = "filter",
                                         [SUBMIT_ACTION_REDIRECT] = "redirect" };
    buf_printf(&m->message->actions, "%s(%.*s)", names[action], STR_ARG(value));
    return NULL;
}

static error fake_content(struct submission *m, struct str bytes) {
    if (m->h->content_fails)
        return &gone;
    buf_add(&m->message->content, bytes);
    return NULL;
}

static error fake_submit_end(struct submission *m, struct arena *a, struct submit_result *ret) {
    (void)a;
    struct harness *h = m->h;
    bool fails = h->end_fails;
    *ret = h->end_result;
    m->message->ended = !fails && ret->status == SUBMIT_OK;
    queue_id_make(&ret->id, sys->wall_us(), h->message_count, false);
    free(m);
    return fails ? &gone : NULL;
}

static void fake_abort(struct submission *m) {
    m->message->aborted = true;
    free(m);
}

/* --- the world --- */
static void keep_record(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)tag, (void)level;
    struct harness *h = ctx;
    buf_add(&h->log, text);
    buf_byte(&h->log, '\n');
}

static size_t read_options(struct arena *a, const char *text, struct conf_override *at) {
    struct str rest = str_c(text), line;
    size_t n = 0;
    while (rest.n && str_next(&rest, STR("\n"), &line)) {
        ptrdiff_t eq = str_index(line, '=');
        if (eq < 0)
            continue;
        if (at)
            at[n] = (struct conf_override){ arena_str(a, str_trim(str_sub(line, 0, (size_t)eq))),
                                            arena_str(a, str_trim(str_from(line, (size_t)eq + 1))) };
        n++;
    }
    return n;
}

void harness_begin(struct harness *h, const char *options) {
    *h = (struct harness){ .arena = arena_new(), .strings = arena_new() };
    h->open_result = h->end_result = (struct submit_result){ .status = SUBMIT_OK, .dsn = STR(""), .text = STR("") };
    size_t base = read_options(h->arena, world, NULL), more = read_options(h->arena, options, NULL);
    struct conf_override *at = arena_array(h->arena, base + more, sizeof *at);
    read_options(h->arena, world, at);
    read_options(h->arena, options, at + base);
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = at,
                                  .override_count = base + more,
                                  .process_name = STR("smtpd"),
                                  .service_name = STR("smtp"),
                                  .missing_is_empty = true };
    error e = conf_load(&source, h->arena, &h->conf);
    if (!e)
        e = settings_load(h->conf, STR("smtp"), h->arena, &h->settings);
    if (e)
        die("harness: %.*s", STR_ARG(e->text));
    h->backend = (struct backend){ .ctx = h,
                                   .client_name = fake_client_name,
                                   .dns_query = fake_dns_query,
                                   .dns_addresses = fake_dns_addresses,
                                   .check_address = fake_check_address,
                                   .submit_open = fake_open,
                                   .submit_envelope = fake_envelope,
                                   .submit_rcpt = fake_rcpt,
                                   .submit_action = fake_action,
                                   .submit_content = fake_content,
                                   .submit_end = fake_submit_end,
                                   .submit_abort = fake_abort,
                                   .verify = fake_verify,
                                   .dial = fake_dial,
                                   .scratch_file = fake_scratch_file,
                                   .anvil = fake_anvil,
                                   .flush_site = fake_flush_site,
                                   .sasl = h->settings->auth.enabled ? &login_server : NULL };
    exchanges = 0;
    harness_resume(h);
}

void harness_resume(struct harness *h) {
    log_set_sink(keep_record, h);
    if (loop_init())
        die("harness: loop_init");
}

void harness_clear(struct harness *h) {
    for (size_t i = 0; i < HARNESS_MESSAGES_MAX; i++) {
        buf_free(&h->messages[i].content);
        buf_free(&h->messages[i].actions);
        h->messages[i] = (struct harness_message){ 0 };
    }
    h->message_count = 0;
    arena_reset(h->strings);
    buf_free(&h->dialled);
    h->dialled = (struct buf){ 0 };
    buf_free(&h->log);
    h->log = (struct buf){ 0 };
    buf_free(&h->anvil_told);
    h->anvil_told = (struct buf){ 0 };
}

const char *harness_messages_fault(const struct harness *h) {
    for (size_t i = 0; i < h->message_count && i < HARNESS_MESSAGES_MAX; i++) {
        const struct harness_message *m = &h->messages[i];
        if (m->ended && m->aborted)
            return "taken and cancelled";
        if (!m->ended && !m->aborted && !h->end_fails && h->end_result.status == SUBMIT_OK)
            return "neither taken nor cancelled";
        if (m->ended && (m->rcpt_count == 0 || !m->sender.p))
            return "taken without recipients or envelope";
        if (m->ended && !str_starts(buf_str(&m->content), STR("Received: ")))
            return "taken without our header";
    }
    return NULL;
}

void harness_end(struct harness *h) {
    loop_free();
    log_set_sink(NULL, NULL);
    harness_clear(h);
    settings_free(h->settings);
    conf_free(h->conf);
    arena_free(h->strings);
    arena_free(h->arena);
}

struct running {
    struct harness *h;
    struct io *io;
    struct session_client client;
};

static void run_session(void *arg) {
    struct running *r = arg;
    struct session s;
    session_init(&s, r->h->settings, &r->h->backend, r->io, &r->h->draining);
    s.clients = r->h->clients;
    s.tls = r->h->tls;
    s.login = r->h->login;
    session_run(&s, &r->client);
    session_free(&s);
    io_close(r->io);
}

static void begin_session(struct harness *h, struct running *r, const char *address, int fd) {
    *r = (struct running){ .h = h, .io = io_new(fd) };
    if (!h->standard_input && !endpoint_ip(str_c(address), 4711, &r->client.address))
        die("harness: bad address %s", address);
    coro_spawn(run_session, r, "session");
}

static void run_all(void) {
    error e = loop_run();
    if (e)
        die("harness: loop_run: %.*s", STR_ARG(e->text));
    if (exchanges > 0)
        die("harness: a login was neither ended nor cancelled");
}

void harness_session(struct harness *h, const char *address, int fd) {
    struct running r;
    begin_session(h, &r, address, fd);
    run_all();
}

void harness_script(struct harness *h, const char *address, const char *script) {
    harness_session(h, address, script_peer_start(script));
    script_peer_check();
}

void harness_script2(struct harness *h, const char *address, const char *script, const char *other) {
    struct running r[2];
    begin_session(h, &r[0], address, script_peer_start(script));
    begin_session(h, &r[1], address, script_peer_start(other));
    run_all();
    script_peer_check();
}

size_t harness_log_count(const struct harness *h, const char *pattern) {
    struct str rest = buf_str(&h->log), line;
    size_t n = 0;
    struct arena *a = arena_new();
    while (rest.n && str_next(&rest, STR("\n"), &line))
        n += fnmatch(pattern, arena_cstr(a, line), 0) == 0;
    arena_free(a);
    return n;
}

bool harness_logged(const struct harness *h, const char *pattern) {
    return harness_log_count(h, pattern) > 0;
}
