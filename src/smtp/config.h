/* config.h - the client's parameters, once for smtp and once for lmtp (postconf(5): smtp_... and lmtp_...).
 * Times in seconds; 0 means no limit for smtp_connect_timeout. Strings live as long as the conf. */
#ifndef ANGARIUM_SMTP_CONFIG_H
#define ANGARIUM_SMTP_CONFIG_H

#include "dns/dns.h"
#include "service/service.h"
#include "smtp/tls_settings.h"
#include "table/match.h"

struct login_config;   /* login.h */
struct outgoing_rules; /* outgoing.h */

struct client_config {
    bool lmtp;
    int64_t connect_timeout, helo_timeout, mail_timeout, rcpt_timeout, data_init_timeout, data_xfer_timeout,
        data_done_timeout, quit_timeout, rset_timeout;
    struct str helo_name, host_lookup, address_preference, verify_target, bind_address, bind_address6, fallback_relay,
        tcp_port, discard_keywords;
    bool always_ehlo, never_ehlo; /* smtp only: LMTP has LHLO */
    bool skip_5xx_greeting, skip_quit_response, quote_envelope, assume_final, randomize, balance, ignore_mx_error,
        defer_if_no_mx_address, bind_enforce;
    int64_t mx_address_limit, mx_session_limit, line_length_limit;
    bool cache_on_demand;                                          /* sessions are kept: kept.h */
    struct match *cache_destinations;                              /* NULL: none are listed */
    int64_t cache_time_limit, reuse_time_limit, reuse_count_limit; /* the first: never over connection_cache_ttl_limit
                                                                      and max_idle */
    struct tls_settings tls;
    struct str myhostname;
    enum dns_family families; /* inet_protocols */
    bool lookup_mx, native_hosts, dns_hosts;
    bool dummy_mail_auth;                                  /* AUTH=<> with MAIL where we have logged in */
    struct login_config *login;                            /* NULL: no logins */
    struct outgoing_rules *outgoing;                       /* NULL: messages go out as they are */
    struct maps *reply_filter, *discard_maps, *dns_filter; /* NULL: none */
    bool send_xforward, per_request_deadline;
    int64_t xforward_timeout, min_data_rate; /* bytes a second */

    struct dns *dns;
    struct endpoint *own; /* our addresses: mail must not loop back (RFC 5321, 5.1) */
    size_t own_count;
    uint16_t default_port;
};

/* Before confinement: reads resolv.conf, hosts, services, and the interfaces of this host. */
error client_config_load(struct service_ctx *ctx, bool lmtp, struct arena *err_arena, struct client_config *ret);
void client_config_free(struct client_config *c);

/* "smtp", "25": only names known when the configuration was loaded. False: unknown, or not a port. */
bool client_port(struct str name, uint16_t *ret);
bool client_is_own_address(const struct client_config *c, const struct endpoint *e);
#endif
