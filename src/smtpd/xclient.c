#include "smtpd/xclient.h"

#include "mail/address.h"
#include "mail/dsn.h"
#include "smtpd/auth.h"
#include "smtpd/command.h"
#include "smtpd/reply.h"
#include "smtpd/restriction.h"

enum { VALUE_MAX = 255 /* bytes of an attribute's value, encoded */, NAME_SHOWN = 100 };

/* --- settings --- */
error front_settings_load(const struct conf *c, struct arena *err_arena, struct front_settings *ret) {
    struct str proxy = conf_str(c, PARAM_smtpd_upstream_proxy_protocol);
    *ret = (struct front_settings){ .haproxy = proxy.n > 0,
                                    .proxy_timeout = conf_time(c, PARAM_smtpd_upstream_proxy_timeout) };
    if (proxy.n && !str_eq_icase(proxy, STR("haproxy")))
        return err_make(err_arena, ERR_CONFIG, "unsupported smtpd_upstream_proxy_protocol value: %.*s", STR_ARG(proxy));
    ret->xclient = match_open(c, STR("smtpd_authorized_xclient_hosts"),
                              conf_str(c, PARAM_smtpd_authorized_xclient_hosts), MATCH_ADDRESS, 0);
    ret->xforward = match_open(c, STR("smtpd_authorized_xforward_hosts"),
                               conf_str(c, PARAM_smtpd_authorized_xforward_hosts), MATCH_ADDRESS, 0);
    return NULL;
}

void front_settings_free(struct front_settings *f) {
    match_close(f->xclient);
    match_close(f->xforward);
}

static bool may_xclient(const struct session *s) {
    return !s->trusted && match_find(s->set->front.xclient, s->name, s->address) == MATCH_YES;
}

static bool may_xforward(const struct session *s) {
    return !s->trusted && match_find(s->set->front.xforward, s->name, s->address) == MATCH_YES;
}

/* --- attributes --- */
enum attribute {
    AT_NAME,
    AT_ADDR,
    AT_PROTO,
    AT_HELO,
    AT_REVERSE_NAME,
    AT_SOURCE,
    AT_PORT,
    AT_LOGIN,
    AT_IDENT,
    AT_DESTADDR,
    AT_DESTPORT,
    ATTRIBUTES,
};
enum state { ABSENT, GIVEN, UNAVAILABLE, TEMPUNAVAIL };
struct value {
    enum state state;
    struct str text; /* after GIVEN; in the scratch arena */
};
struct attributes {
    struct value at[ATTRIBUTES];
};

/* May the decoded text be this attribute? In its normal form. */
typedef bool check_value(struct session *s, struct str *text);

static bool any_text(struct session *s, struct str *text) {
    *text = sasl_printable(session_scratch(s), *text, VALUE_MAX);
    return true;
}

static bool host_name(struct session *s, struct str *text) {
    (void)s;
    return hostname_valid(*text);
}

/* IPv6 addresses stand behind IPV6: (XCLIENT_README), and IPv4 in IPv6 is IPv4. */
static bool address(struct session *s, struct str *text) {
    struct endpoint e;
    char shown[INET6_ADDRSTRLEN];
    bool ipv6 = str_starts_icase(*text, STR("IPV6:"));
    struct str plain = ipv6 ? str_from(*text, 5) : *text;
    if (ipv6 != (str_index(plain, ':') >= 0) || !endpoint_ip(plain, 0, &e))
        return false;
    *text = arena_str(session_scratch(s), endpoint_address(&e, shown));
    return true;
}

static bool port_number(struct session *s, struct str *text) {
    uint32_t v;
    (void)s;
    return str_to_u32(*text, UINT16_MAX, &v);
}

static bool smtp_protocol(struct session *s, struct str *text) {
    (void)s;
    return str_eq_icase(*text, STR("SMTP")) || str_eq_icase(*text, STR("ESMTP"));
}

static bool helo_name(struct session *s, struct str *text) {
    *text = helo_clean(s, *text);
    return true;
}

static bool source(struct session *s, struct str *text) {
    (void)s;
    return str_eq_icase(*text, STR("LOCAL")) || str_eq_icase(*text, STR("REMOTE"));
}

/* In the order in which EHLO names them. */
static const struct {
    struct str name;
    check_value *xclient, *xforward; /* NULL: not of that command */
    bool must, may_be_temp;          /* `must`: [UNAVAILABLE] is no value, in XCLIENT; the other in XCLIENT, too */
} rows[ATTRIBUTES] = {
    [AT_NAME] = { STR_INIT("NAME"), host_name, host_name, false, true },
    [AT_ADDR] = { STR_INIT("ADDR"), address, address, false, false },
    [AT_PROTO] = { STR_INIT("PROTO"), smtp_protocol, any_text, true, false },
    [AT_HELO] = { STR_INIT("HELO"), helo_name, helo_name, false, false },
    [AT_REVERSE_NAME] = { STR_INIT("REVERSE_NAME"), host_name, NULL, false, true },
    [AT_SOURCE] = { STR_INIT("SOURCE"), NULL, source, false, false },
    [AT_PORT] = { STR_INIT("PORT"), port_number, port_number, false, false },
    [AT_LOGIN] = { STR_INIT("LOGIN"), any_text, NULL, false, false },
    [AT_IDENT] = { STR_INIT("IDENT"), NULL, helo_name, false, false },
    [AT_DESTADDR] = { STR_INIT("DESTADDR"), address, NULL, false, false },
    [AT_DESTPORT] = { STR_INIT("DESTPORT"), port_number, NULL, false, false },
};

struct verb {
    struct str name;
    bool xclient;
};
static const struct verb xclient = { STR_INIT("XCLIENT"), true }, xforward = { STR_INIT("XFORWARD"), false };

static check_value *check_of(const struct verb *v, size_t i) {
    return v->xclient ? rows[i].xclient : rows[i].xforward;
}

static struct str ehlo_line(struct session *s, const struct verb *v) {
    struct str line = v->name;
    for (size_t i = 0; i < ATTRIBUTES; i++)
        if (check_of(v, i))
            line = arena_printf(session_scratch(s), "%.*s %.*s", STR_ARG(line), STR_ARG(rows[i].name));
    return line;
}

struct str xclient_ehlo_line(struct session *s) {
    return may_xclient(s) ? ehlo_line(s, &xclient) : STR("");
}

struct str xforward_ehlo_line(struct session *s) {
    return may_xforward(s) ? ehlo_line(s, &xforward) : STR("");
}

static bool take_value(struct session *s, const struct verb *v, size_t i, struct str text, struct value *ret) {
    if (str_eq_icase(text, STR("[UNAVAILABLE]")) && !(v->xclient && rows[i].must))
        ret->state = UNAVAILABLE;
    else if (str_eq_icase(text, STR("[TEMPUNAVAIL]")) && v->xclient && rows[i].may_be_temp)
        ret->state = TEMPUNAVAIL;
    else if (xtext_decode(session_scratch(s), text, &ret->text) && check_of(v, i)(s, &ret->text))
        ret->state = GIVEN;
    else
        return false;
    return true;
}

/* All of them, before any counts. False: refused. */
static bool parse(struct session *s, const struct verb *v, struct str args, struct attributes *ret) {
    struct str word;
    *ret = (struct attributes){ 0 };
    if (args.n == 0)
        return reply_fail(s, "501 5.5.4 Syntax: %.*s attribute=value...", STR_ARG(v->name));
    while (str_word(&args, STR_SPACE, &word)) {
        ptrdiff_t equals = str_index(word, '=');
        if (equals < 0 || (size_t)equals + 1 == word.n)
            return reply_fail(s, "501 5.5.4 Error: attribute=value expected");
        struct str name = str_sub(word, 0, (size_t)equals), text = str_from(word, (size_t)equals + 1);
        if (text.n > VALUE_MAX)
            return reply_fail(s, "501 5.5.4 Error: attribute value too long");
        size_t i = 0;
        while (i < ATTRIBUTES && !(check_of(v, i) && str_eq_icase(name, rows[i].name)))
            i++;
        if (i == ATTRIBUTES)
            return reply_fail(s, "501 5.5.4 Bad %.*s attribute name: %.*s", STR_ARG(v->name),
                              STR_ARG(str_sub(name, 0, NAME_SHOWN)));
        if (!take_value(s, v, i, text, &ret->at[i]))
            return reply_fail(s, "501 5.5.4 Bad %.*s syntax: %.*s", STR_ARG(rows[i].name), STR_ARG(text));
    }
    return true;
}

/* False: refused. */
static bool allowed(struct session *s, bool may) {
    if (s->tx)
        return reply_fail(s, "503 5.5.1 Error: MAIL transaction in progress");
    if (!may)
        return reply_error(s, ERROR_POLICY, "550 5.7.0 Error: insufficient authorization");
    return true;
}

/* --- XCLIENT --- */

/* The text that was given, or `otherwise` where it is not available; without the attribute nothing changes. */
static void replace(struct session *s, const struct value *v, const char *otherwise, struct str *field) {
    if (v->state != ABSENT)
        *field = v->state == GIVEN ? arena_str(s->arena, v->text) : str_c(otherwise);
}

static enum dns_status name_status(const struct value *v) {
    return v->state == GIVEN ? DNS_OK : v->state == TEMPUNAVAIL ? DNS_RETRY : DNS_NOT_FOUND;
}

static void replace_client(struct session *s, const struct attributes *a) {
    const struct value *name = &a->at[AT_NAME], *reverse = &a->at[AT_REVERSE_NAME];
    replace(s, name, "unknown", &s->name);
    if (name->state != ABSENT)
        s->name_status = name_status(name);
    /* a name that was found was found by way of the address */
    const struct value *by_address = reverse->state == ABSENT && name->state == GIVEN ? name : reverse;
    replace(s, by_address, "unknown", &s->reverse_name);
    if (by_address->state != ABSENT)
        s->reverse_status = name_status(by_address);
    replace(s, &a->at[AT_ADDR], "unknown", &s->address);
    replace(s, &a->at[AT_PORT], "unknown", &s->port);
    replace(s, &a->at[AT_DESTADDR], "unknown", &s->server_address);
    replace(s, &a->at[AT_DESTPORT], "unknown", &s->server_port);
}

static void replace_login(struct session *s, const struct value *v) {
    auth_forget(s);
    if (v->state == GIVEN)
        s->login = (struct session_login){ .method = STR("XCLIENT"), .username = arena_str(s->arena, v->text) };
}

/* The session begins anew, with another client: all we have learned of the one before is gone. Never true: in what the
 * log counts at the end a session that has begun anew has not succeeded in that. */
bool command_xclient(struct session *s, struct str args) {
    struct attributes a;
    if (!allowed(s, may_xclient(s)) || !parse(s, &xclient, args, &a) || !may_greet(s))
        return false;
    tx_end(s);
    s->helo = STR("");
    s->esmtp = a.at[AT_PROTO].state == GIVEN && str_eq_icase(a.at[AT_PROTO].text, STR("ESMTP"));
    replace(s, &a.at[AT_HELO], "", &s->helo);
    replace_client(s, &a);
    replace_login(s, &a.at[AT_LOGIN]);
    session_client_changed(s);
    (void)session_greet(s);
    return false;
}

/* --- XFORWARD --- */
void xforward_reset(struct session *s) {
    arena_free(s->forward_arena);
    s->forward_arena = NULL;
    s->forward = (struct client_info){ 0 };
    s->forward_client = false;
    s->forward_source = FORWARD_UNKNOWN;
}

static void forward(struct session *s, const struct value *v, const char *otherwise, struct str *field) {
    if (v->state != ABSENT)
        *field = v->state == GIVEN ? arena_str(s->forward_arena, v->text) : str_c(otherwise);
}

/* What the client behind the server in front was: all that has not been said of it is not known. */
static void forward_client(struct session *s, const struct attributes *a) {
    static const enum attribute client[] = { AT_NAME, AT_ADDR, AT_PORT, AT_PROTO, AT_HELO };
    bool named = false;
    for (size_t i = 0; i < sizeof client / sizeof *client; i++)
        named = named || a->at[client[i]].state != ABSENT;
    if (named && !s->forward_client) {
        s->forward_client = true;
        s->forward.name = s->forward.reverse_name = s->forward.address = s->forward.port = STR("unknown");
        s->forward.helo = s->forward.protocol = STR("");
    }
    forward(s, &a->at[AT_NAME], "unknown", &s->forward.name);
    forward(s, &a->at[AT_NAME], "unknown", &s->forward.reverse_name);
    forward(s, &a->at[AT_ADDR], "unknown", &s->forward.address);
    forward(s, &a->at[AT_PORT], "unknown", &s->forward.port);
    forward(s, &a->at[AT_PROTO], "", &s->forward.protocol);
    forward(s, &a->at[AT_HELO], "", &s->forward.helo);
}

enum { FORWARD_BYTES_MAX = 16 * 1024 /* of attributes that one client may say again and again */ };

bool command_xforward(struct session *s, struct str args) {
    struct attributes a;
    if (!allowed(s, may_xforward(s)) || !parse(s, &xforward, args, &a))
        return false;
    if (s->forward_arena && arena_used(s->forward_arena) > FORWARD_BYTES_MAX)
        return reply_fail(s, "501 5.5.4 Error: too many attributes");
    if (!s->forward_arena)
        s->forward_arena = arena_new();
    forward_client(s, &a);
    forward(s, &a.at[AT_IDENT], "", &s->forward.ident);
    const struct value *from = &a.at[AT_SOURCE];
    if (from->state == GIVEN)
        s->forward_source = str_eq_icase(from->text, STR("LOCAL")) ? FORWARD_LOCAL : FORWARD_REMOTE;
    return reply_ok(s, "250 2.0.0 Ok");
}

struct client_info xforward_client(const struct session *s) {
    struct client_info own = { .name = s->name,
                               .reverse_name = s->reverse_name,
                               .address = s->address,
                               .port = s->port,
                               .helo = s->helo,
                               .protocol = str_c(session_protocol(s)) };
    struct client_info c = s->forward_client ? s->forward : own;
    c.ident = s->forward.ident;
    c.sasl_method = s->login.method;
    c.sasl_username = s->login.username;
    c.sasl_sender = s->login.sender;
    return c;
}

bool xforward_local(struct session *s) {
    if (s->forward_source != FORWARD_UNKNOWN)
        return s->forward_source == FORWARD_LOCAL;
    return check_local_rewrite(s);
}
