#include "smtpd/policy.h"

#include "base/die.h"
#include "base/log.h"
#include "base/utf8.h"
#include "conf/values.h"
#include "mail/dsn.h"
#include "smtpd/restriction.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* --- settings --- */
static bool is_braced(struct str s) {
    return s.n >= 2 && s.p[0] == '{' && s.p[s.n - 1] == '}';
}

static error bad_value(struct arena *a, struct str name, struct str value, const char *need) {
    return err_make(a, ERR_SYNTAX, "bad value \"%.*s\" of %.*s: need %s", STR_ARG(value), STR_ARG(name), need);
}

static error set_one(struct arena *a, struct policy_service *p, struct str name, struct str value) {
    const struct {
        struct str name;
        int64_t *time;    /* seconds */
        uint32_t *number; /* at least `least` */
        uint32_t least;
        struct str *text;
    } rows[] = {
        { STR_INIT("timeout"), &p->timeout, NULL, 0, NULL },
        { STR_INIT("max_idle"), &p->max_idle, NULL, 0, NULL },
        { STR_INIT("max_ttl"), &p->max_ttl, NULL, 0, NULL },
        { STR_INIT("retry_delay"), &p->retry_delay, NULL, 0, NULL },
        { STR_INIT("request_limit"), NULL, &p->request_limit, 0, NULL },
        { STR_INIT("try_limit"), NULL, &p->try_limit, 1, NULL },
        { STR_INIT("default_action"), NULL, NULL, 0, &p->default_action },
        { STR_INIT("policy_context"), NULL, NULL, 0, &p->context },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!str_eq(name, rows[i].name))
            continue;
        if (rows[i].time && (!time_parse(value, 's', rows[i].time) || *rows[i].time < 1))
            return bad_value(a, name, value, "a time of at least 1s");
        if (rows[i].number && (!str_to_u32(value, UINT32_MAX, rows[i].number) || *rows[i].number < rows[i].least))
            return bad_value(a, name, value, rows[i].least ? "a number of at least 1" : "a number");
        if (rows[i].text)
            *rows[i].text = arena_str(a, value);
        return NULL;
    }
    return err_make(a, ERR_SYNTAX,
                    "unknown setting \"%.*s\": need timeout, max_idle, max_ttl, retry_delay, request_limit, try_limit, "
                    "default_action or policy_context",
                    STR_ARG(name));
}

static error read_settings(struct arena *a, struct policy_service *p, struct str rest) {
    struct str item;
    while (str_word_braced(&rest, STR_COMMA_SPACE, &item)) {
        if (is_braced(item))
            item = str_trim(str_sub(item, 1, item.n - 2));
        ptrdiff_t eq = str_index(item, '=');
        if (eq <= 0)
            return err_make(a, ERR_SYNTAX, "need name=value or { name = value } in place of \"%.*s\"", STR_ARG(item));
        error e = set_one(a, p, str_trim(str_sub(item, 0, (size_t)eq)), str_trim(str_from(item, (size_t)eq + 1)));
        if (e)
            return e;
    }
    return rest.n ? err_make(a, ERR_SYNTAX, "unbalanced braces in \"%.*s\"", STR_ARG(rest)) : NULL;
}

error policy_service_parse(struct arena *a, const struct conf *c, struct str text, struct policy_service **ret) {
    struct policy_service *p = ARENA_NEW(a, struct policy_service);
    *p = (struct policy_service){
        .text = arena_str(a, text),
        .timeout = conf_time(c, PARAM_smtpd_policy_service_timeout),
        .max_idle = conf_time(c, PARAM_smtpd_policy_service_max_idle),
        .max_ttl = conf_time(c, PARAM_smtpd_policy_service_max_ttl),
        .retry_delay = conf_time(c, PARAM_smtpd_policy_service_retry_delay),
        .request_limit = (uint32_t)conf_int(c, PARAM_smtpd_policy_service_request_limit),
        .try_limit = (uint32_t)conf_int(c, PARAM_smtpd_policy_service_try_limit),
        .default_action = conf_str(c, PARAM_smtpd_policy_service_default_action),
        .context = conf_str(c, PARAM_smtpd_policy_service_policy_context),
    };
    *ret = p;
    struct str rest = p->text, endpoint = rest;
    if (is_braced(rest)) {
        rest = str_trim(str_sub(rest, 1, rest.n - 2));
        if (!str_word(&rest, STR_COMMA_SPACE, &endpoint))
            return err_make(a, ERR_SYNTAX, "empty policy service: \"%.*s\"", STR_ARG(text));
        error e = read_settings(a, p, rest);
        if (e)
            return e;
    }
    if (str_starts(endpoint, STR("local:"))) /* what other systems call it */
        endpoint = arena_cat(a, STR("unix:"), str_from(endpoint, 6));
    p->server = str_from(endpoint, (size_t)(str_index(endpoint, ':') + 1));
    if (p->retry_delay > POLICY_WAIT_MAX)
        p->retry_delay = POLICY_WAIT_MAX;
    return dial_parse(a, endpoint, &p->target);
}

/* --- connections --- */
struct policy_link {
    struct policy_link *next;
    struct io *io;
    const struct tx *tx; /* whose requests have gone over it; NULL: nobody's that is still there */
    bool busy;
    int64_t opened, used; /* microseconds */
    uint32_t requests;
};

static void link_close(struct policy_service *p, struct policy_link *l) {
    for (struct policy_link **at = &p->links; *at; at = &(*at)->next)
        if (*at == l) {
            *at = l->next;
            break;
        }
    p->link_count--;
    io_close(l->io);
    free(l);
}

void policy_service_close(struct policy_service *p) {
    while (p->links)
        link_close(p, p->links);
}

static int64_t expires(const struct policy_service *p, const struct policy_link *l) {
    int64_t idle = l->used + p->max_idle * US_PER_S, old = l->opened + p->max_ttl * US_PER_S;
    return idle < old ? idle : old;
}

/* What nobody uses any more goes, also when nobody asks again. */
static void sweep(void *arg) {
    struct policy_service *p = arg;
    while (p->links) {
        int64_t now = sys->mono_us(), next = now + p->max_ttl * US_PER_S;
        for (struct policy_link *l = p->links, *after; l; l = after) {
            after = l->next;
            if (l->busy)
                continue;
            if (expires(p, l) <= now)
                link_close(p, l);
            else if (expires(p, l) < next)
                next = expires(p, l);
        }
        if (p->links && wait_until(next))
            break;
    }
    p->sweeping = false;
}

static struct policy_link *find_idle(struct policy_service *p, const struct tx *tx) {
    struct policy_link *free_one = NULL, *others = NULL;
    int64_t now = sys->mono_us();
    for (struct policy_link *l = p->links, *after; l; l = after) {
        after = l->next;
        if (l->busy)
            continue;
        if (expires(p, l) <= now)
            link_close(p, l);
        else if (tx && l->tx == tx)
            return l;
        else if (!l->tx)
            free_one = l;
        else
            others = l;
    }
    return free_one ? free_one : p->link_count >= POLICY_LINKS_MAX ? others : NULL;
}

static error link_open(struct policy_service *p, const struct backend *back, int64_t deadline,
                       struct policy_link **ret) {
    struct policy_link *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    l->busy = true;
    l->opened = l->used = sys->mono_us();
    l->next = p->links; /* counted from now on: others see that it is being made */
    p->links = l;
    p->link_count++;
    error e = back->dial(back->ctx, &p->target, deadline, &l->io);
    if (e) {
        link_close(p, l);
        cond_signal(&p->freed);
        return e;
    }
    *ret = l;
    return NULL;
}

static error link_take(struct policy_service *p, struct session *s, int64_t deadline, struct policy_link **ret) {
    for (;;) {
        *ret = find_idle(p, s->tx);
        if (*ret) {
            (*ret)->busy = true;
            return NULL;
        }
        if (p->link_count < POLICY_LINKS_MAX) {
            error e = link_open(p, s->back, deadline, ret);
            if (e)
                log_warn("connect to %.*s: %.*s", STR_ARG(p->server), STR_ARG(e->text));
            return e;
        }
        error e = cond_wait(&p->freed, deadline);
        if (e)
            return e;
    }
}

static void link_release(struct policy_service *p, struct session *s, struct policy_link *l) {
    l->busy = false;
    l->used = sys->mono_us();
    l->requests++;
    l->tx = s->tx;
    if (s->tx)
        s->tx->has_policy_links = true;
    if (p->request_limit && l->requests >= p->request_limit)
        link_close(p, l);
    else if (!p->sweeping)
        p->sweeping = coro_spawn(sweep, p, "policy sweep") != NULL;
    cond_signal(&p->freed);
}

void policy_tx_end(const struct settings *set, const struct tx *tx) {
    for (size_t i = 0; i < set->policies.n; i++)
        for (struct policy_link *l = set->policies.at[i]->links; l; l = l->next)
            if (l->tx == tx)
                l->tx = NULL;
}

/* --- the request --- */
static void attribute(struct buf *b, const char *name, struct str value) {
    buf_add(b, str_c(name));
    buf_byte(b, '=');
    size_t from = b->n;
    buf_add(b, value);
    for (size_t i = from; i < b->n; i++)
        if (b->p[i] == '\n' || b->p[i] == '\r' || b->p[i] == 0)
            b->p[i] = '?';
    buf_byte(b, '\n');
}

static void number(struct buf *b, const char *name, uint64_t value) {
    buf_printf(b, "%s=%llu\n", name, (unsigned long long)value);
}

/* The same for all requests about one message, and no other's. */
static struct str instance(struct session *s) {
    static uint32_t count;
    struct str *id = s->tx ? &s->tx->instance : &s->instance;
    if (id->n == 0) {
        int64_t now = sys->wall_us();
        *id = arena_printf(s->tx ? s->tx->arena : s->arena, "%x.%llx.%llx.%x", (unsigned)getpid(),
                           (unsigned long long)(now / US_PER_S), (unsigned long long)(now % US_PER_S), count++);
    }
    return *id;
}

static void add_tls(struct buf *b, struct arena *a, const struct tls_facts *t) {
    struct str none = STR("");
    bool vouched = t->active && t->trusted;
    attribute(b, "ccert_subject", vouched ? xtext_encode(a, t->subject) : none);
    attribute(b, "ccert_issuer", vouched ? xtext_encode(a, t->issuer) : none);
    attribute(b, "ccert_fingerprint", t->active ? t->cert_print : none);
    attribute(b, "ccert_pubkey_fingerprint", t->active ? t->key_print : none);
    attribute(b, "encryption_protocol", t->active ? t->protocol : none);
    attribute(b, "encryption_cipher", t->active ? t->cipher : none);
    number(b, "encryption_keysize", t->active ? t->bits : 0);
}

static void make_request(struct buf *b, struct checks *c, const struct policy_service *p) {
    struct session *s = c->s;
    const struct tx *tx = s->tx;
    bool end = strcmp(s->stage, "END-OF-MESSAGE") == 0;
    bool content = end || strcmp(s->stage, "DATA") == 0 || strcmp(s->stage, "BDAT") == 0;
    bool forwarded_id = tx && tx->id.text[0];
    attribute(b, "request", STR("smtpd_access_policy"));
    attribute(b, "protocol_state", str_c(strcmp(s->stage, "BDAT") == 0 ? "DATA" : s->stage));
    attribute(b, "protocol_name", str_c(s->esmtp ? "ESMTP" : "SMTP"));
    attribute(b, "client_address", s->address);
    attribute(b, "client_name", s->name);
    attribute(b, "client_port", s->port);
    attribute(b, "reverse_client_name", s->reverse_name);
    attribute(b, "server_address", s->server_address);
    attribute(b, "server_port", s->server_port);
    attribute(b, "helo_name", s->helo);
    attribute(b, "sender", c->have_sender ? c->sender : STR(""));
    attribute(b, "recipient", c->have_recipient ? c->recipient : STR(""));
    number(b, "recipient_count", content && tx ? tx->rcpts : 0);
    attribute(b, "queue_id", forwarded_id ? session_queue_id(s) : STR(""));
    attribute(b, "instance", instance(s));
    number(b, "size", !tx ? 0 : end ? tx->received : tx->declared_size);
    attribute(b, "etrn_domain", c->etrn);
    attribute(b, "stress", conf_str(s->set->conf, PARAM_stress));
    attribute(b, "sasl_method", s->login.method);
    attribute(b, "sasl_username", s->login.username);
    attribute(b, "sasl_sender", s->login.sender);
    add_tls(b, c->arena, &s->tls);
    attribute(b, "tls_sni", s->tls.active ? s->tls.sni : STR(""));
    attribute(b, "policy_context", p->context);
    attribute(b, "compatibility_level", conf_str(s->set->conf, PARAM_compatibility_level));
    attribute(b, "mail_version", conf_str(s->set->conf, PARAM_mail_version));
    buf_byte(b, '\n');
}

/* --- the reply --- */
bool policy_reply_line(struct policy_reply *r, struct str line) {
    struct str value = line;
    if (line.n == 0) {
        r->ended = true;
        return r->have_action;
    }
    if (r->have_action || !str_starts(line, STR("action=")) || memchr(line.p, 0, line.n))
        return false;
    value = str_trim(str_from(value, 7));
    buf_add(&r->action, value);
    r->have_action = true;
    return true;
}

static error malformed(struct arena *a, struct str line) {
    struct buf b = { 0 };
    buf_printable(&b, line, 100);
    error e = err_make(a, ERR_SYNTAX, "malformed reply: \"%.*s\"", STR_ARG(buf_str(&b)));
    buf_free(&b);
    return e;
}

static error read_reply(struct io *io, struct arena *a, int64_t deadline, struct policy_reply *r) {
    while (!r->ended) {
        struct str line;
        error e = io_line(io, POLICY_LINE_MAX, deadline, &line);
        if (e == &err_limit)
            return malformed(a, line);
        if (e)
            return e;
        if (str_ends(line, STR("\n")))
            line.n--;
        if (str_ends(line, STR("\r")))
            line.n--;
        if (!policy_reply_line(r, line))
            return malformed(a, line);
    }
    return NULL;
}

static error converse(struct policy_link *l, struct arena *a, struct str request, int64_t deadline,
                      struct policy_reply *r) {
    io_set_write_deadline(l->io, deadline);
    io_write(l->io, request);
    error e = io_flush(l->io, deadline);
    return e ? e : read_reply(l->io, a, deadline, r);
}

/* The server had gone before it saw the request: what it thinks of it is still open. */
static bool was_stale(error e, const struct policy_reply *r) {
    return !r->have_action && (e->kind == ERR_EOF || e->sys == EPIPE || e->sys == ECONNRESET);
}

/* One try; a connection that died while nobody used it is no failure of the server. */
static error ask_once(struct policy_service *p, struct checks *c, struct str request, struct policy_reply *r) {
    struct session *s = c->s;
    int64_t deadline = deadline_in(p->timeout);
    for (;;) {
        struct policy_link *l;
        buf_clear(&r->action);
        r->have_action = r->ended = false;
        error e = link_take(p, s, deadline, &l);
        if (e)
            return e;
        bool used_before = l->requests > 0;
        e = converse(l, c->arena, request, deadline, r);
        if (!e) {
            link_release(p, s, l);
            return NULL;
        }
        link_close(p, l);
        cond_signal(&p->freed);
        if (!used_before || !was_stale(e, r))
            return e;
    }
}

static error ask(struct policy_service *p, struct checks *c, struct policy_reply *r) {
    struct buf request = { 0 };
    make_request(&request, c, p);
    error e = NULL;
    for (uint32_t tries = 0; tries < p->try_limit; tries++) {
        if (tries && (e = wait_until(deadline_in(p->retry_delay))))
            break;
        e = ask_once(p, c, buf_str(&request), r);
        if (!e || e == &err_cancelled)
            break;
        log_warn("problem talking to server %.*s: %.*s", STR_ARG(p->server), STR_ARG(e->text));
    }
    buf_free(&request);
    return e;
}

enum verdict row_check_policy_service(struct checks *c, const struct restriction *r) {
    struct policy_service *p = r->policy;
    struct policy_reply reply = { 0 };
    struct str action = p->default_action;
    error e = ask(p, c, &reply);
    if (e == &err_cancelled)
        session_broken(c->s, e);
    if (!e) {
        action = arena_str(c->arena, buf_str(&reply.action));
        if (!utf8_valid(action)) {
            log_warn("malformed UTF-8 in policy server %.*s response: \"%.*s\"", STR_ARG(p->server), STR_ARG(action));
            action = p->default_action;
        }
    }
    buf_free(&reply.action);
    return access_apply(c, p->server, STR("policy query"), action);
}
