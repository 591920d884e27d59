/* settings.h - what smtpd reads from main.cf, converted once before the process is confined.
 *
 * Everything here is constant after settings_load() and shared by all sessions of the process. */
#ifndef ANGARIUM_SMTPD_SETTINGS_H
#define ANGARIUM_SMTPD_SETTINGS_H

#include "conf/conf.h"
#include "milter/config.h"
#include "proto/anvil.h"
#include "service/dial.h"
#include "smtpd/auth.h"
#include "smtpd/xclient.h"
#include "table/match.h"
#include "table/table.h"

struct tls_server;      /* tls/tls.h */
struct restriction_row; /* restriction.h */
struct dns_list;        /* dnsbl.h */
struct policy_service;  /* policy.h */

/* One entry of a restriction list. What belongs to its row's kind of argument is set. */
struct restriction {
    const struct restriction_row *row; /* NULL: a name that we do not know */
    struct str name, argument;
    struct str problem;               /* not empty: running it logs this and is a server configuration error */
    struct maps *maps;                /* check_..._access */
    uint32_t number;                  /* sleep: seconds */
    unsigned search_order;            /* check_ccert_access: enum ccert_key, four bits each */
    const struct dns_list *list;      /* reject_rbl_client and its kin */
    struct policy_service *policy;    /* check_policy_service */
    const struct restrictions *class; /* a restriction class */
};
struct restrictions {
    struct restriction *at;
    size_t n;
    const struct restriction_row *bare_table; /* what a bare type:table is here; NULL: a mistake */
};
struct restriction_class { /* smtpd_restriction_classes */
    struct str name, text;
    struct restrictions list;
};

enum tempfail_action { TEMPFAIL_DEFER_IF_PERMIT, TEMPFAIL_DEFER };

enum bare_newline { BARE_ALLOW, BARE_NORMALIZE, BARE_REJECT, BARE_NOTE };

/* TLS with clients (starttls.c). */
struct starttls {
    struct tls_server *server; /* NULL: not on, or its certificates are of no use */
    bool on, mandatory;        /* smtpd_tls_security_level */
    bool wrapper;              /* from the first byte on */
    bool received_header, fast_shutdown;
    int64_t timeout; /* seconds for a handshake */
    int log_level;
    struct maps *log_levels; /* by client; NULL: none */
};

/* The before-queue content filter (proxy.h). */
struct proxy_settings {
    bool on, speed_adjust;
    struct str text; /* smtpd_proxy_filter, for logs */
    struct dial_target target;
    struct str ehlo;
    int64_t timeout; /* seconds, to connect, for each command and for each piece of content */
};

struct settings {
    const struct conf *conf;
    struct arena *arena;     /* owns the lists */
    struct str service;      /* $service_name */
    bool shares, shares_tls; /* what is not its own: all lists; TLS */

    struct str myhostname, mail_name, banner;
    struct str ehlo_keywords_off;   /* smtpd_discard_ehlo_keywords */
    struct maps *ehlo_keyword_maps; /* smtpd_discard_ehlo_keyword_address_maps */
    struct maps *command_filter;    /* smtpd_command_filter; NULL: none */

    /* limits */
    size_t line_length;    /* bytes of a command that are looked at */
    uint64_t message_size; /* bytes; 0: none */
    uint32_t recipients, recipients_overshoot;
    uint32_t soft_errors, hard_errors, junk_commands;
    size_t history_lines;               /* of a transcript that go on to the next message */
    unsigned notify_classes;            /* enum error_class: the postmaster hears of these */
    int64_t timeout, error_sleep;       /* seconds */
    int64_t min_data_rate;              /* bytes a second of content, with request_deadline */
    uint32_t rate_limits[ANVIL_EVENTS]; /* of each event in anvil_rate_time_unit; 0: none */
    uint32_t client_connections;        /* at a time from one client block; 0: no limit */
    unsigned ipv4_block, ipv6_block;

    /* reply codes */
    int bare_newline_code, reject_code, defer_code, relay_code, plaintext_code;
    int invalid_hostname_code, non_fqdn_code, unknown_client_code, multi_bounce_code;
    int unknown_hostname_code, unknown_address_code, rbl_code;
    enum tempfail_action unknown_helo_tempfail, unknown_address_tempfail;
    struct unverified { /* reject_unverified_sender, reject_unverified_recipient */
        int reject_code, defer_code;
        enum tempfail_action tempfail;
        struct str reject_reason; /* in place of what the probe has found; empty: that */
    } unverified_sender, unverified_recipient;
    uint32_t verify_polls;
    int64_t verify_delay; /* seconds between them */

    /* choices */
    enum bare_newline bare_newline;
    bool helo_required, vrfy_off, delay_reject, strict_envelopes, unauth_pipelining_off;
    bool min_user, null_domain; /* addresses may begin with "-", or end with "@" */
    bool reject_unlisted_recipient, reject_unlisted_sender, relay_before_recipient;
    bool soft_bounce, smtputf8, strict_smtputf8, requiretls, requiretls_header, peername_lookup, delay_open,
        port_logging, hide_client;
    bool untrusted_routing, swap_bangpath, percent_hack, numeric_domains;
    bool request_deadline; /* the whole content has smtpd_timeout, not each read of it */
    unsigned submit_flags; /* receive_override_options and the like: enum submit_flags */

    struct auth_settings auth;
    struct front_settings front;
    struct starttls tls;
    struct proxy_settings proxy;

    struct match *mynetworks, *bare_newline_exclusions, *limit_exceptions;
    struct match *forbidden_commands, *noop_commands;
    struct match *fast_flush_domains, *verp_clients;
    struct match *debug_peers;               /* NULL: none */
    struct maps *reject_filter;              /* smtpd_reject_filter_maps; NULL: none */
    struct str verp_delimiters, verp_filter; /* XVERP's without a value; what they may be made of */

    struct restrictions client, helo, sender, relay, recipient, data, end_of_data, etrn;
    struct restrictions local_rewrite_clients; /* permit: headers are rewritten as for local mail */

    VEC(struct restriction_class *) classes;
    VEC(struct policy_service *) policies;
    VEC(struct maps *) access_maps; /* of all lists, and the four below that are set */
    struct maps *rbl_replies, *relay_clientcerts, *login_maps, *reject_footers;
    struct str rbl_reply, reject_footer, expansion_filter; /* templates, and what their values may be made of */
    struct match *log_permit_actions, *mx_backup_networks;
    bool access_parents; /* example.com in an access table is also for x.example.com */
    int access_reject_code, access_defer_code;
    struct str null_sender_key;
    struct extension_rules extensions;

    struct milter_configs milters; /* smtpd_milters */
    struct milter_macros milter_macros;
    struct maps *milter_maps; /* smtpd_milter_maps */

    struct str *own_addresses; /* inet_interfaces and proxy_interfaces, in presentation form */
    size_t own_address_count;
};

/* ERR_CONFIG: the text of the fatal line. What `ret` holds lives until settings_free(). */
error settings_load(const struct conf *c, struct str service, struct arena *err_arena, struct settings **ret);
/* The same service under stress: `stressed` is its main.cf as it reads with stress = yes. Where only the paces differ
 * that have ${stress?...} by default, all else is shared with `normal`; always its TLS. Free it before `normal`. */
error settings_load_stressed(const struct settings *normal, const struct conf *stressed, struct arena *err_arena,
                             struct settings **ret);
void settings_free(struct settings *s);
#endif
