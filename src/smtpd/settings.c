#include "smtpd/settings.h"

#include "conf/params.h"
#include "mail/verp.h"
#include "proto/receive.h"
#include "smtpd/footer.h"
#include "smtpd/policy.h"
#include "smtpd/proxy.h"
#include "smtpd/restriction.h"
#include "smtpd/starttls.h"
#include "smtpd/transcript.h"
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>

static bool bare_newline_mode(struct str s, enum bare_newline *ret) {
    static const struct {
        struct str word;
        enum bare_newline mode;
    } words[] = {
        { STR_INIT("no"), BARE_ALLOW },
        { STR_INIT("yes"), BARE_NORMALIZE },
        { STR_INIT("normalize"), BARE_NORMALIZE },
        { STR_INIT("reject"), BARE_REJECT },
        { STR_INIT("note"), BARE_NOTE },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_eq_icase(s, words[i].word)) {
            *ret = words[i].mode;
            return true;
        }
    return false;
}

/* --- our own addresses, for permit_inet_interfaces --- */
typedef VEC(struct str) strings;

static void add_address(struct settings *s, strings *v, const struct sockaddr *sa) {
    struct endpoint e = { .len = sa->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6) };
    memcpy(&e.u, sa, e.len);
    char text[INET6_ADDRSTRLEN];
    *vec_add(s->arena, v) = arena_str(s->arena, endpoint_address(&e, text));
}

static void own_addresses(struct settings *s, const struct conf *c) {
    strings v = { 0 };
    struct str lists[] = { conf_str(c, PARAM_inet_interfaces), conf_str(c, PARAM_proxy_interfaces) }, word;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        while (str_word(&lists[i], STR_COMMA_SPACE, &word)) {
            bool all = str_eq_icase(word, STR("all")), loopback = str_eq_icase(word, STR("loopback-only"));
            struct ifaddrs *list;
            struct endpoint e;
            if ((all || loopback) && getifaddrs(&list) == 0) {
                for (const struct ifaddrs *a = list; a; a = a->ifa_next)
                    if (a->ifa_addr && (a->ifa_addr->sa_family == AF_INET || a->ifa_addr->sa_family == AF_INET6) &&
                        (all || (a->ifa_flags & IFF_LOOPBACK)))
                        add_address(s, &v, a->ifa_addr);
                freeifaddrs(list);
            } else if (word.n > 2 && word.p[0] == '[' && word.p[word.n - 1] == ']') {
                if (endpoint_ip(str_sub(word, 1, word.n - 2), 0, &e))
                    add_address(s, &v, &e.u.sa);
            } else if (endpoint_ip(word, 0, &e)) {
                add_address(s, &v, &e.u.sa);
            }
        }
    s->own_addresses = v.at;
    s->own_address_count = v.n;
}

static size_t size_param(const struct conf *c, enum param p) {
    int64_t v = conf_int(c, p);
    return v > 0 ? (size_t)v : 0;
}

static uint32_t u32_param(const struct conf *c, enum param p) {
    int64_t v = conf_int(c, p);
    return v < 0 ? 0 : v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

static int code_param(const struct conf *c, enum param p) {
    int64_t v = conf_int(c, p);
    return v >= 200 && v <= 599 ? (int)v : 554;
}

static void read_numbers(struct settings *s, const struct conf *c) {
    s->line_length = size_param(c, PARAM_line_length_limit);
    s->message_size = size_param(c, PARAM_message_size_limit);
    s->recipients = u32_param(c, PARAM_smtpd_recipient_limit);
    s->recipients_overshoot = u32_param(c, PARAM_smtpd_recipient_overshoot_limit);
    s->soft_errors = u32_param(c, PARAM_smtpd_soft_error_limit);
    s->hard_errors = u32_param(c, PARAM_smtpd_hard_error_limit);
    s->junk_commands = u32_param(c, PARAM_smtpd_junk_command_limit);
    s->timeout = conf_time(c, PARAM_smtpd_timeout);
    s->error_sleep = conf_time(c, PARAM_smtpd_error_sleep_time);
    s->min_data_rate = conf_int(c, PARAM_smtpd_min_data_rate);
    s->rate_limits[ANVIL_CONNECT] = u32_param(c, PARAM_smtpd_client_connection_rate_limit);
    s->rate_limits[ANVIL_MESSAGE] = u32_param(c, PARAM_smtpd_client_message_rate_limit);
    s->rate_limits[ANVIL_RECIPIENT] = u32_param(c, PARAM_smtpd_client_recipient_rate_limit);
    s->rate_limits[ANVIL_NEWTLS] = u32_param(c, PARAM_smtpd_client_new_tls_session_rate_limit);
    s->rate_limits[ANVIL_AUTH] = u32_param(c, PARAM_smtpd_client_auth_rate_limit);
    s->client_connections = u32_param(c, PARAM_smtpd_client_connection_count_limit);
    s->ipv4_block = u32_param(c, PARAM_smtpd_client_ipv4_prefix_length);
    s->ipv6_block = u32_param(c, PARAM_smtpd_client_ipv6_prefix_length);

    s->bare_newline_code = code_param(c, PARAM_smtpd_forbid_bare_newline_reject_code);
    s->access_reject_code = code_param(c, PARAM_access_map_reject_code);
    s->access_defer_code = code_param(c, PARAM_access_map_defer_code);
    s->reject_code = code_param(c, PARAM_reject_code);
    s->defer_code = code_param(c, PARAM_defer_code);
    s->relay_code = code_param(c, PARAM_relay_domains_reject_code);
    s->plaintext_code = code_param(c, PARAM_plaintext_reject_code);
    s->invalid_hostname_code = code_param(c, PARAM_invalid_hostname_reject_code);
    s->non_fqdn_code = code_param(c, PARAM_non_fqdn_reject_code);
    s->unknown_client_code = code_param(c, PARAM_unknown_client_reject_code);
    s->multi_bounce_code = code_param(c, PARAM_multi_recipient_bounce_reject_code);
    s->unknown_hostname_code = code_param(c, PARAM_unknown_hostname_reject_code);
    s->unknown_address_code = code_param(c, PARAM_unknown_address_reject_code);
    s->rbl_code = code_param(c, PARAM_maps_rbl_reject_code);
}

static void read_choices(struct settings *s, const struct conf *c) {
    s->helo_required = conf_bool(c, PARAM_smtpd_helo_required);
    s->vrfy_off = conf_bool(c, PARAM_disable_vrfy_command);
    s->delay_reject = conf_bool(c, PARAM_smtpd_delay_reject);
    s->strict_envelopes = conf_bool(c, PARAM_strict_rfc821_envelopes);
    s->min_user = conf_bool(c, PARAM_allow_min_user);
    s->null_domain = conf_bool(c, PARAM_resolve_null_domain);
    s->unauth_pipelining_off = conf_bool(c, PARAM_smtpd_forbid_unauth_pipelining);
    s->reject_unlisted_recipient = conf_bool(c, PARAM_smtpd_reject_unlisted_recipient);
    s->reject_unlisted_sender = conf_bool(c, PARAM_smtpd_reject_unlisted_sender);
    s->relay_before_recipient = conf_bool(c, PARAM_smtpd_relay_before_recipient_restrictions);
    s->soft_bounce = conf_bool(c, PARAM_soft_bounce);
    s->smtputf8 = conf_bool(c, PARAM_smtputf8_enable);
    s->strict_smtputf8 = conf_bool(c, PARAM_strict_smtputf8);
    s->requiretls = conf_bool(c, PARAM_requiretls_enable);
    s->requiretls_header = conf_bool(c, PARAM_requiretls_esmtp_header);
    s->peername_lookup = conf_bool(c, PARAM_smtpd_peername_lookup);
    s->delay_open = conf_bool(c, PARAM_smtpd_delay_open_until_valid_rcpt);
    s->port_logging = conf_bool(c, PARAM_smtpd_client_port_logging);
    s->request_deadline = conf_bool(c, PARAM_smtpd_per_request_deadline);
    s->hide_client = conf_bool(c, PARAM_smtpd_hide_client_session);
    s->untrusted_routing = conf_bool(c, PARAM_allow_untrusted_routing);
    s->swap_bangpath = conf_bool(c, PARAM_swap_bangpath);
    s->percent_hack = conf_bool(c, PARAM_allow_percent_hack);
    s->numeric_domains = conf_bool(c, PARAM_resolve_numeric_domain);
}

/* The actions that reject_tempfail_action and its kin know. */
static error tempfail_param(const struct conf *c, enum param p, const char *name, struct arena *err_arena,
                            enum tempfail_action *ret) {
    struct str value = conf_str(c, p);
    if (!str_eq_icase(value, STR("defer_if_permit")) && !str_eq_icase(value, STR("defer")))
        return err_make(err_arena, ERR_CONFIG, "bad parameter value: '%s = %.*s': specify defer or defer_if_permit",
                        name, STR_ARG(value));
    *ret = str_eq_icase(value, STR("defer")) ? TEMPFAIL_DEFER : TEMPFAIL_DEFER_IF_PERMIT;
    return NULL;
}

static error read_tempfail(struct settings *s, const struct conf *c, struct arena *err_arena) {
    enum tempfail_action unused;
    error e = tempfail_param(c, PARAM_reject_tempfail_action, "reject_tempfail_action", err_arena, &unused);
    if (!e)
        e = tempfail_param(c, PARAM_unknown_helo_hostname_tempfail_action, "unknown_helo_hostname_tempfail_action",
                           err_arena, &s->unknown_helo_tempfail);
    if (!e)
        e = tempfail_param(c, PARAM_unknown_address_tempfail_action, "unknown_address_tempfail_action", err_arena,
                           &s->unknown_address_tempfail);
    if (!e)
        e = tempfail_param(c, PARAM_unverified_sender_tempfail_action, "unverified_sender_tempfail_action", err_arena,
                           &s->unverified_sender.tempfail);
    if (!e)
        e = tempfail_param(c, PARAM_unverified_recipient_tempfail_action, "unverified_recipient_tempfail_action",
                           err_arena, &s->unverified_recipient.tempfail);
    return e;
}

static void read_verification(struct settings *s, const struct conf *c) {
    s->unverified_sender.reject_code = code_param(c, PARAM_unverified_sender_reject_code);
    s->unverified_sender.defer_code = code_param(c, PARAM_unverified_sender_defer_code);
    s->unverified_sender.reject_reason = conf_str(c, PARAM_unverified_sender_reject_reason);
    s->unverified_recipient.reject_code = code_param(c, PARAM_unverified_recipient_reject_code);
    s->unverified_recipient.defer_code = code_param(c, PARAM_unverified_recipient_defer_code);
    s->unverified_recipient.reject_reason = conf_str(c, PARAM_unverified_recipient_reject_reason);
    s->verify_polls = u32_param(c, PARAM_address_verify_poll_count);
    s->verify_delay = conf_time(c, PARAM_address_verify_poll_delay);
}

/* NULL when the parameter is empty. */
static struct maps *own_maps(struct settings *s, struct str list, unsigned flags) {
    struct maps *m = maps_open(s->conf, list, flags);
    if (maps_is_empty(m)) {
        maps_close(m);
        return NULL;
    }
    *vec_add(s->arena, &s->access_maps) = m;
    return m;
}

/* A table in that list that fails leaves us with what the list has by default. */
static bool access_parents(const struct conf *c) {
    struct match *list = match_open(c, STR("parent_domain_matches_subdomains"),
                                    conf_str(c, PARAM_parent_domain_matches_subdomains), MATCH_STRING, 0);
    bool parents = match_find(list, STR("smtpd_access_maps"), STR("")) != MATCH_NO;
    match_close(list);
    return parents;
}

static void read_lists(struct settings *s, const struct conf *c) {
    s->mynetworks = match_open(c, STR("mynetworks"), conf_str(c, PARAM_mynetworks), MATCH_ADDRESS, 0);
    s->bare_newline_exclusions = match_open(c, STR("smtpd_forbid_bare_newline_exclusions"),
                                            conf_str(c, PARAM_smtpd_forbid_bare_newline_exclusions), MATCH_ADDRESS, 0);
    s->limit_exceptions = match_open(c, STR("smtpd_client_event_limit_exceptions"),
                                     conf_str(c, PARAM_smtpd_client_event_limit_exceptions), MATCH_ADDRESS, 0);
    s->forbidden_commands =
        match_open(c, STR("smtpd_forbidden_commands"), conf_str(c, PARAM_smtpd_forbidden_commands), MATCH_STRING, 0);
    s->ehlo_keyword_maps = maps_open(c, conf_str(c, PARAM_smtpd_discard_ehlo_keyword_address_maps), 0);
    struct str peers = conf_str(c, PARAM_debug_peer_list);
    if (peers.n && conf_int(c, PARAM_debug_peer_level) > 0)
        s->debug_peers = match_open(c, STR("debug_peer_list"), peers, MATCH_ADDRESS, 0);
    struct str reject_filter = conf_str(c, PARAM_smtpd_reject_filter_maps);
    if (reject_filter.n)
        s->reject_filter = maps_open(c, reject_filter, 0);
    struct str filter = conf_str(c, PARAM_smtpd_command_filter);
    if (filter.n)
        s->command_filter = maps_open(c, filter, 0);
    s->access_parents = access_parents(c);
    s->noop_commands =
        match_open(c, STR("smtpd_noop_commands"), conf_str(c, PARAM_smtpd_noop_commands), MATCH_STRING, 0);
    s->fast_flush_domains =
        match_open(c, STR("fast_flush_domains"), conf_str(c, PARAM_fast_flush_domains), MATCH_DOMAIN, TABLE_FOLD);
    s->verp_clients = match_open(c, STR("smtpd_authorized_verp_clients"),
                                 conf_str(c, PARAM_smtpd_authorized_verp_clients), MATCH_ADDRESS, 0);
    s->log_permit_actions = match_open(c, STR("smtpd_log_access_permit_actions"),
                                       conf_str(c, PARAM_smtpd_log_access_permit_actions), MATCH_STRING, 0);
    s->mx_backup_networks =
        match_open(c, STR("permit_mx_backup_networks"), conf_str(c, PARAM_permit_mx_backup_networks), MATCH_ADDRESS, 0);
    s->rbl_replies = own_maps(s, conf_str(c, PARAM_rbl_reply_maps), TABLE_FOLD);
    s->relay_clientcerts = own_maps(s, conf_str(c, PARAM_relay_clientcerts), TABLE_FOLD);
    s->login_maps = own_maps(s, conf_str(c, PARAM_smtpd_sender_login_maps), TABLE_FOLD);
    s->reject_footers = own_maps(s, conf_str(c, PARAM_smtpd_reject_footer_maps), TABLE_FOLD);
    restrictions_parse(s, conf_str(c, PARAM_smtpd_client_restrictions), STR("check_client_access"), &s->client);
    restrictions_parse(s, conf_str(c, PARAM_smtpd_helo_restrictions), STR("check_helo_access"), &s->helo);
    restrictions_parse(s, conf_str(c, PARAM_smtpd_sender_restrictions), STR("check_sender_access"), &s->sender);
    restrictions_parse(s, conf_str(c, PARAM_smtpd_relay_restrictions), STR("check_recipient_access"), &s->relay);
    restrictions_parse(s, conf_str(c, PARAM_smtpd_recipient_restrictions), STR("check_recipient_access"),
                       &s->recipient);
    restrictions_parse(s, conf_str(c, PARAM_smtpd_data_restrictions), STR(""), &s->data);
    restrictions_parse(s, conf_str(c, PARAM_smtpd_end_of_data_restrictions), STR(""), &s->end_of_data);
    restrictions_parse(s, conf_str(c, PARAM_smtpd_etrn_restrictions), STR("check_etrn_access"), &s->etrn);
    restrictions_parse(s, conf_str(c, PARAM_local_header_rewrite_clients), STR(""), &s->local_rewrite_clients);
}

error settings_load(const struct conf *c, struct str service, struct arena *err_arena, struct settings **ret) {
    struct settings *s = calloc(1, sizeof *s);
    if (!s)
        return err_errno(ENOMEM);
    s->conf = c;
    s->arena = arena_new();
    s->service = arena_str(s->arena, service);
    s->myhostname = conf_str(c, PARAM_myhostname);
    s->mail_name = conf_str(c, PARAM_mail_name);
    s->banner = conf_str(c, PARAM_smtpd_banner);
    s->null_sender_key = conf_str(c, PARAM_smtpd_null_access_lookup_key);
    s->extensions = addr_extension_rules(c);
    s->rbl_reply = conf_str(c, PARAM_default_rbl_reply);
    s->reject_footer = conf_str(c, PARAM_smtpd_reject_footer);
    s->expansion_filter = expansion_filter(s->arena, conf_str(c, PARAM_smtpd_expansion_filter));
    s->verp_delimiters = conf_str(c, PARAM_default_verp_delimiters);
    s->verp_filter = conf_str(c, PARAM_verp_delimiter_filter);
    s->ehlo_keywords_off = conf_str(c, PARAM_smtpd_discard_ehlo_keywords);
    read_numbers(s, c);
    read_choices(s, c);
    read_verification(s, c);
    s->history_lines = u32_param(c, PARAM_smtpd_history_flush_threshold);
    s->notify_classes = error_classes_parse(conf_str(c, PARAM_notify_classes));

    bool no_unknown_checks;
    error e = receive_flags(c, err_arena, &s->submit_flags, &no_unknown_checks);
    s->submit_flags |= receive_detect_utf8(c, STR("smtpd"));
    if (no_unknown_checks)
        s->reject_unlisted_recipient = s->reject_unlisted_sender = false;
    struct str mode = conf_str(c, PARAM_smtpd_forbid_bare_newline);
    if (!e && !bare_newline_mode(mode, &s->bare_newline))
        e = err_make(err_arena, ERR_CONFIG, "invalid smtpd_forbid_bare_newline value: \"%.*s\"", STR_ARG(mode));
    char delimiters[VERP_DELIMITERS];
    if (!e && !verp_delimiters_parse(s->verp_delimiters, s->verp_filter, delimiters))
        e = err_make(err_arena, ERR_CONFIG,
                     "bad parameter value: 'default_verp_delimiters = %.*s': specify two characters of "
                     "verp_delimiter_filter, \"%.*s\"",
                     STR_ARG(s->verp_delimiters), STR_ARG(s->verp_filter));
    if (!e)
        e = read_tempfail(s, c, err_arena);
    if (!e)
        e = restriction_classes_read(s, err_arena);
    if (!e)
        e = starttls_settings(&s->tls, c, err_arena);
    if (!e) {
        read_lists(s, c);
        own_addresses(s, c);
        s->milter_maps = maps_open(c, conf_str(c, PARAM_smtpd_milter_maps), TABLE_NO_REGSUB);
        e = milter_macros_parse(s->arena, c, &s->milter_macros);
    }
    if (!e)
        e = milter_configs_parse(s->arena, c, conf_str(c, PARAM_smtpd_milters), &s->milters);
    if (!e) {
        if (!restrictions_guard_relay(&s->relay) && !restrictions_guard_relay(&s->recipient))
            e = err_make(err_arena, ERR_CONFIG,
                         "in parameter smtpd_relay_restrictions or smtpd_recipient_restrictions, specify at least one "
                         "working instance of: reject_unauth_destination, defer_unauth_destination, reject, defer, "
                         "defer_if_permit or check_relay_domains");
    }
    if (!e)
        e = proxy_settings_load(s->arena, c, err_arena, &s->proxy);
    if (!e)
        e = auth_settings_load(c, err_arena, &s->auth);
    if (!e)
        e = front_settings_load(c, err_arena, &s->front);
    if (s->tls.mandatory) /* nobody is asked for a password that must not be given yet */
        s->auth.tls_only = true;
    if (e) {
        settings_free(s);
        return e;
    }
    *ret = s;
    return NULL;
}

/* Parameters with ${stress?...} by default; all others must read the same for lists and tables to be shared. */
static bool is_pace(struct str name) {
    static const struct str names[] = {
        STR_INIT("stress"),
        STR_INIT("address_verify_poll_count"),
        STR_INIT("smtpd_hard_error_limit"),
        STR_INIT("smtpd_junk_command_limit"),
        STR_INIT("smtpd_per_request_deadline"),
        STR_INIT("smtpd_starttls_timeout"),
        STR_INIT("smtpd_timeout"),
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq(name, names[i]))
            return true;
    return str_starts(name, STR("postscreen_")); /* another program's */
}

static bool reads_the_same(const struct conf *a, const struct conf *b, struct str name) {
    struct arena *arena = arena_new();
    struct str one, other;
    bool has = conf_lookup(a, name, arena, &one);
    bool same = conf_lookup(b, name, arena, &other) == has && (!has || str_eq(one, other));
    arena_free(arena);
    return same;
}

static bool only_paces_differ(const struct conf *a, const struct conf *b) {
    for (unsigned p = 0; p < PARAM_COUNT; p++) {
        struct str name = param_row((enum param)p)->name;
        if (!is_pace(name) && !reads_the_same(a, b, name))
            return false;
    }
    struct str classes = conf_str(a, PARAM_smtpd_restriction_classes), name;
    while (str_word(&classes, STR_COMMA_SPACE, &name))
        if (!reads_the_same(a, b, name))
            return false;
    return true;
}

error settings_load_stressed(const struct settings *normal, const struct conf *stressed, struct arena *err_arena,
                             struct settings **ret) {
    struct settings *s = NULL;
    if (only_paces_differ(normal->conf, stressed)) {
        s = malloc(sizeof *s);
        if (!s)
            return err_errno(ENOMEM);
        *s = *normal;
        s->conf = stressed;
        s->shares = true;
        read_numbers(s, stressed);
        read_choices(s, stressed);
        read_verification(s, stressed);
    } else {
        error e = settings_load(stressed, normal->service, err_arena, &s);
        if (e || !s)
            return e ? e : err_errno(ENOMEM);
        starttls_close(&s->tls);
        s->tls = normal->tls;
    }
    s->shares_tls = true;
    s->tls.timeout = conf_time(stressed, PARAM_smtpd_starttls_timeout);
    *ret = s;
    return NULL;
}

void settings_free(struct settings *s) {
    if (!s)
        return;
    if (s->shares) {
        free(s);
        return;
    }
    auth_settings_free(&s->auth);
    front_settings_free(&s->front);
    if (!s->shares_tls)
        starttls_close(&s->tls);
    match_close(s->mynetworks);
    maps_close(s->milter_maps);
    match_close(s->bare_newline_exclusions);
    match_close(s->limit_exceptions);
    match_close(s->forbidden_commands);
    match_close(s->noop_commands);
    match_close(s->fast_flush_domains);
    match_close(s->log_permit_actions);
    match_close(s->verp_clients);
    match_close(s->debug_peers);
    maps_close(s->reject_filter);
    match_close(s->mx_backup_networks);
    maps_close(s->ehlo_keyword_maps);
    maps_close(s->command_filter);
    for (size_t i = 0; i < s->policies.n; i++)
        policy_service_close(s->policies.at[i]);
    for (size_t i = 0; i < s->access_maps.n; i++)
        maps_close(s->access_maps.at[i]);
    arena_free(s->arena);
    free(s);
}
