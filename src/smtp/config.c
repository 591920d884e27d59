#include "smtp/config.h"

#include "base/log.h"
#include "conf/params.h"
#include "smtp/login.h"
#include "smtp/outgoing.h"
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stddef.h>
#include <stdlib.h>

/* One row a setting: where it goes, and its name in either program. */
#define ROW(kind, field, smtp_param, lmtp_param)                                                                       \
    { kind, offsetof(struct client_config, field), smtp_param, lmtp_param }
static const struct {
    enum { T_TIME, T_BOOL, T_INT, T_STR } kind;
    size_t offset;
    enum param smtp, lmtp;
} rows[] = {
    ROW(T_TIME, connect_timeout, PARAM_smtp_connect_timeout, PARAM_lmtp_connect_timeout),
    ROW(T_TIME, helo_timeout, PARAM_smtp_helo_timeout, PARAM_lmtp_lhlo_timeout),
    ROW(T_TIME, mail_timeout, PARAM_smtp_mail_timeout, PARAM_lmtp_mail_timeout),
    ROW(T_TIME, rcpt_timeout, PARAM_smtp_rcpt_timeout, PARAM_lmtp_rcpt_timeout),
    ROW(T_TIME, data_init_timeout, PARAM_smtp_data_init_timeout, PARAM_lmtp_data_init_timeout),
    ROW(T_TIME, data_xfer_timeout, PARAM_smtp_data_xfer_timeout, PARAM_lmtp_data_xfer_timeout),
    ROW(T_TIME, data_done_timeout, PARAM_smtp_data_done_timeout, PARAM_lmtp_data_done_timeout),
    ROW(T_TIME, quit_timeout, PARAM_smtp_quit_timeout, PARAM_lmtp_quit_timeout),
    ROW(T_TIME, rset_timeout, PARAM_smtp_rset_timeout, PARAM_lmtp_rset_timeout),
    ROW(T_BOOL, cache_on_demand, PARAM_smtp_connection_cache_on_demand, PARAM_lmtp_connection_cache_on_demand),
    ROW(T_TIME, cache_time_limit, PARAM_smtp_connection_cache_time_limit, PARAM_lmtp_connection_cache_time_limit),
    ROW(T_TIME, reuse_time_limit, PARAM_smtp_connection_reuse_time_limit, PARAM_lmtp_connection_reuse_time_limit),
    ROW(T_INT, reuse_count_limit, PARAM_smtp_connection_reuse_count_limit, PARAM_lmtp_connection_reuse_count_limit),
    ROW(T_STR, helo_name, PARAM_smtp_helo_name, PARAM_lmtp_lhlo_name),
    ROW(T_STR, host_lookup, PARAM_smtp_host_lookup, PARAM_lmtp_host_lookup),
    ROW(T_STR, verify_target, PARAM_smtp_address_verify_target, PARAM_lmtp_address_verify_target),
    ROW(T_STR, address_preference, PARAM_smtp_address_preference, PARAM_lmtp_address_preference),
    ROW(T_STR, bind_address, PARAM_smtp_bind_address, PARAM_lmtp_bind_address),
    ROW(T_STR, bind_address6, PARAM_smtp_bind_address6, PARAM_lmtp_bind_address6),
    ROW(T_BOOL, bind_enforce, PARAM_smtp_bind_address_enforce, PARAM_lmtp_bind_address_enforce),
    ROW(T_STR, fallback_relay, PARAM_smtp_fallback_relay, PARAM_lmtp_fallback_relay),
    ROW(T_STR, tcp_port, PARAM_smtp_tcp_port, PARAM_lmtp_tcp_port),
    ROW(T_STR, discard_keywords, PARAM_smtp_discard_ehlo_keywords, PARAM_lmtp_discard_lhlo_keywords),
    ROW(T_BOOL, skip_5xx_greeting, PARAM_smtp_skip_5xx_greeting, PARAM_lmtp_skip_5xx_greeting),
    ROW(T_BOOL, skip_quit_response, PARAM_smtp_skip_quit_response, PARAM_lmtp_skip_quit_response),
    ROW(T_BOOL, send_xforward, PARAM_smtp_send_xforward_command, PARAM_lmtp_send_xforward_command),
    ROW(T_TIME, xforward_timeout, PARAM_smtp_xforward_timeout, PARAM_lmtp_xforward_timeout),
    ROW(T_BOOL, per_request_deadline, PARAM_smtp_per_request_deadline, PARAM_lmtp_per_request_deadline),
    ROW(T_INT, min_data_rate, PARAM_smtp_min_data_rate, PARAM_lmtp_min_data_rate),
    ROW(T_BOOL, dummy_mail_auth, PARAM_smtp_send_dummy_mail_auth, PARAM_lmtp_send_dummy_mail_auth),
    ROW(T_BOOL, quote_envelope, PARAM_smtp_quote_rfc821_envelope, PARAM_lmtp_quote_rfc821_envelope),
    ROW(T_BOOL, randomize, PARAM_smtp_randomize_addresses, PARAM_lmtp_randomize_addresses),
    ROW(T_BOOL, balance, PARAM_smtp_balance_inet_protocols, PARAM_lmtp_balance_inet_protocols),
    ROW(T_BOOL, defer_if_no_mx_address, PARAM_smtp_defer_if_no_mx_address_found,
        PARAM_lmtp_defer_if_no_mx_address_found),
    ROW(T_INT, mx_address_limit, PARAM_smtp_mx_address_limit, PARAM_lmtp_mx_address_limit),
    ROW(T_INT, mx_session_limit, PARAM_smtp_mx_session_limit, PARAM_lmtp_mx_session_limit),
    ROW(T_BOOL, assume_final, PARAM_lmtp_assume_final, PARAM_lmtp_assume_final),
    ROW(T_INT, line_length_limit, PARAM_smtp_line_length_limit, PARAM_lmtp_line_length_limit),
};

/* getservbyname reads a file, which a confined process cannot: the names mail uses are looked up once. */
static struct {
    const char *name;
    uint16_t port;
} ports[] = { { "smtp", 0 }, { "submission", 0 }, { "submissions", 0 }, { "smtps", 0 },
              { "lmtp", 0 }, { "ssmtp", 0 },      { "urd", 0 } };

static void ports_load(void) {
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        const struct servent *s = getservbyname(ports[i].name, "tcp");
        ports[i].port = s ? ntohs((uint16_t)s->s_port) : 0;
    }
    if (!ports[0].port)
        ports[0].port = 25; /* RFC 5321, 4.5.4.2: also where there is no services file */
}

bool client_port(struct str name, uint16_t *ret) {
    uint32_t number;
    if (str_to_u32(name, 65535, &number) && number > 0) {
        *ret = (uint16_t)number;
        return true;
    }
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++)
        if (ports[i].port && str_eq(name, str_c(ports[i].name))) {
            *ret = ports[i].port;
            return true;
        }
    return false;
}

static void add_own(struct client_config *c, const struct sockaddr *sa) {
    socklen_t len = sa->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    c->own = realloc(c->own, (c->own_count + 1) * sizeof *c->own);
    if (!c->own)
        log_fatal("out of memory");
    struct endpoint *e = &c->own[c->own_count++];
    *e = (struct endpoint){ .len = len };
    memcpy(&e->u, sa, len);
}

/* inet_interfaces and proxy_interfaces: the addresses that are this host to the world. */
static void own_addresses(const struct conf *conf, struct client_config *c) {
    struct str interfaces = conf_str(conf, PARAM_inet_interfaces), word;
    bool all = false, loopback_only = false;
    enum param lists[] = { PARAM_inet_interfaces, PARAM_proxy_interfaces };
    for (size_t i = 0; i < 2; i++) {
        interfaces = conf_str(conf, lists[i]);
        while (str_word(&interfaces, STR_COMMA_SPACE, &word)) {
            struct endpoint e;
            if (word.n > 2 && word.p[0] == '[' && word.p[word.n - 1] == ']')
                word = str_sub(word, 1, word.n - 2);
            if (endpoint_ip(word, 0, &e))
                add_own(c, &e.u.sa);
            all = all || str_eq(word, STR("all"));
            loopback_only = loopback_only || str_eq(word, STR("loopback-only"));
        }
    }
    struct ifaddrs *list = NULL;
    if ((!all && !loopback_only) || getifaddrs(&list) < 0)
        return;
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        if (all || (i->ifa_flags & IFF_LOOPBACK))
            add_own(c, i->ifa_addr);
    }
    freeifaddrs(list);
}

bool client_is_own_address(const struct client_config *c, const struct endpoint *e) {
    char a[INET6_ADDRSTRLEN], b[INET6_ADDRSTRLEN];
    for (size_t i = 0; i < c->own_count; i++)
        if (str_eq(endpoint_address(&c->own[i], a), endpoint_address(e, b)))
            return true;
    return false;
}

/* smtp_connection_cache_destinations, and the limits on the time a session is kept that do not belong to it. */
static void cache_settings(const struct conf *conf, bool lmtp, struct client_config *c) {
    const enum param others[] = { PARAM_connection_cache_ttl_limit, PARAM_max_idle };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (conf_time(conf, others[i]) < c->cache_time_limit)
            c->cache_time_limit = conf_time(conf, others[i]);
    struct str name = lmtp ? STR("lmtp_connection_cache_destinations") : STR("smtp_connection_cache_destinations");
    struct str list =
        conf_str(conf, lmtp ? PARAM_lmtp_connection_cache_destinations : PARAM_smtp_connection_cache_destinations);
    if (str_trim(list).n == 0)
        return;
    c->cache_destinations = match_open(conf, name, list, MATCH_STRING, TABLE_FOLD);
    error e = match_error(c->cache_destinations);
    if (e)
        log_warn("%.*s: %.*s", STR_ARG(name), STR_ARG(e->text));
}

static bool list_has(struct str list, struct str wanted) {
    struct str word;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        if (str_eq_icase(word, wanted))
            return true;
    return false;
}

static enum dns_family protocols(struct str list) {
    struct str word;
    unsigned f = 0;
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        if (str_eq(word, STR("all")))
            f |= DNS_FAMILY_ANY;
        else if (str_eq(word, STR("ipv4")))
            f |= DNS_FAMILY_IPV4;
        else if (str_eq(word, STR("ipv6")))
            f |= DNS_FAMILY_IPV6;
    }
    return f ? (enum dns_family)f : DNS_FAMILY_ANY;
}

/* NULL: none are named. */
static struct maps *open_maps(const struct conf *conf, enum param p) {
    struct str list = str_trim(conf_str(conf, p));
    struct maps *m = list.n ? maps_open(conf, list, 0) : NULL;
    error e = m ? maps_error(m) : NULL;
    if (e)
        log_warn("%.*s: %.*s", STR_ARG(param_row(p)->name), STR_ARG(e->text));
    return m;
}

/* smtp_dns_reply_filter: there is one resolver in a process. */
static struct record_filter {
    struct maps *maps;
    struct str parameter;
} record_filter;

static enum dns_verdict filter_record(void *ctx, struct str record) {
    const struct record_filter *f = ctx;
    struct arena *a = arena_new();
    struct str found, table;
    enum dns_verdict v = DNS_KEEP;
    switch (maps_get(f->maps, record, a, &found, &table)) {
    case TABLE_NOT_FOUND:
        break;
    case TABLE_ERROR:
        log_warn("%.*s lookup error for \"%.*s\"", STR_ARG(f->parameter), STR_ARG(record));
        v = DNS_FAIL;
        break;
    case TABLE_FOUND:
        v = DNS_DROP;
        log_info("ignoring DNS RR: %.*s", STR_ARG(record));
        if (str_starts_icase(found, STR("IGNORE")))
            break;
        log_warn("%.*s: table %.*s: unknown action \"%.*s\": there is only IGNORE", STR_ARG(f->parameter),
                 STR_ARG(table), STR_ARG(found));
        v = DNS_FAIL;
        break;
    }
    arena_free(a);
    return v;
}

error client_config_load(struct service_ctx *ctx, bool lmtp, struct arena *err_arena, struct client_config *ret) {
    const struct conf *conf = ctx->conf;
    struct client_config *c = ret;
    *c = (struct client_config){ .lmtp = lmtp };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum param p = lmtp ? rows[i].lmtp : rows[i].smtp;
        void *field = (char *)c + rows[i].offset;
        switch (rows[i].kind) {
        case T_TIME:
            *(int64_t *)field = conf_time(conf, p);
            break;
        case T_INT:
            *(int64_t *)field = conf_int(conf, p);
            break;
        case T_BOOL:
            *(bool *)field = conf_bool(conf, p);
            break;
        case T_STR:
            *(struct str *)field = conf_str(conf, p);
            break;
        }
    }
    c->always_ehlo = conf_bool(conf, PARAM_smtp_always_send_ehlo);
    c->never_ehlo = conf_bool(conf, PARAM_smtp_never_send_ehlo);
    c->ignore_mx_error = conf_bool(conf, PARAM_ignore_mx_lookup_error);
    c->myhostname = conf_str(conf, PARAM_myhostname);
    c->families = protocols(conf_str(conf, PARAM_inet_protocols));
    struct str dns_level = conf_str(conf, lmtp ? PARAM_lmtp_dns_support_level : PARAM_smtp_dns_support_level);
    bool dns_off =
        str_eq(dns_level, STR("disabled")) || (dns_level.n == 0 && conf_bool(conf, PARAM_disable_dns_lookups));
    if (dns_level.n && !dns_off && !str_eq(dns_level, STR("enabled")) && !str_eq(dns_level, STR("dnssec")))
        return err_make(err_arena, ERR_CONFIG,
                        "parameter %s_dns_support_level: bad value \"%.*s\": write disabled, enabled or dnssec",
                        lmtp ? "lmtp" : "smtp", STR_ARG(dns_level));
    c->lookup_mx = !dns_off && !lmtp; /* an LMTP server is found by its address (lmtp(8)) */
    c->native_hosts = dns_off || list_has(c->host_lookup, STR("native"));
    c->dns_hosts = !dns_off && list_has(c->host_lookup, STR("dns"));
    ports_load();
    if (!client_port(c->tcp_port, &c->default_port))
        return err_make(err_arena, ERR_CONFIG, "parameter %s_tcp_port: unknown service or bad port \"%.*s\"",
                        lmtp ? "lmtp" : "smtp", STR_ARG(c->tcp_port));
    error e = tls_settings_load(conf, lmtp, err_arena, &c->tls);
    if (e)
        return e;
    own_addresses(conf, c);
    cache_settings(conf, lmtp, c);
    e = login_load(ctx, lmtp, err_arena, &c->login);
    if (e)
        return e;
    outgoing_load(conf, lmtp, &c->outgoing);
    c->reply_filter = open_maps(conf, lmtp ? PARAM_lmtp_reply_filter : PARAM_smtp_reply_filter);
    c->discard_maps = open_maps(conf, lmtp ? PARAM_lmtp_discard_lhlo_keyword_address_maps
                                           : PARAM_smtp_discard_ehlo_keyword_address_maps);
    enum param dns_filter = lmtp ? PARAM_lmtp_dns_reply_filter : PARAM_smtp_dns_reply_filter;
    c->dns_filter = open_maps(conf, dns_filter);
    struct dns_options o = { .servers = conf_str(conf, PARAM_dns_resolvers),
                             .idna2003 = conf_bool(conf, PARAM_enable_idna2003_compatibility) };
    if (c->dns_filter) {
        record_filter = (struct record_filter){ c->dns_filter, param_row(dns_filter)->name };
        o.filter = filter_record;
        o.filter_ctx = &record_filter;
    }
    return dns_open(&o, err_arena, &c->dns);
}

void client_config_free(struct client_config *c) {
    tls_settings_free(&c->tls);
    dns_close(c->dns);
    match_close(c->cache_destinations);
    login_free(c->login);
    outgoing_free(c->outgoing);
    maps_close(c->reply_filter);
    maps_close(c->discard_maps);
    maps_close(c->dns_filter);
    free(c->own);
    *c = (struct client_config){ 0 };
}
