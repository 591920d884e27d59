/* settings.h - what postscreen reads from main.cf, converted once before the process is confined. Constant after
 * settings_load(), and shared by all clients. */
#ifndef ANGARIUM_POSTSCREEN_SETTINGS_H
#define ANGARIUM_POSTSCREEN_SETTINGS_H

#include "postscreen/dnsbl.h"
#include "proto/footer.h"
#include "table/match.h"
#include "tls/tls.h"

/* In the order of the cache's fields. */
enum test { TEST_PREGREET, TEST_DNSBL, TEST_PIPELINING, TEST_NON_SMTP, TEST_BARE_NEWLINE, TESTS };
enum { DEEP_TESTS_FIRST = TEST_PIPELINING /* these and the later ones need the SMTP engine */ };

enum action {
    ACTION_IGNORE,  /* log, and go on; the test is made again next time */
    ACTION_ENFORCE, /* let it speak, refuse its recipients with 550 */
    ACTION_DROP     /* refuse at once with 521 */
};

struct test_settings {
    bool enabled;
    enum action action;
    int64_t ttl; /* seconds that a pass counts */
};

/* One item of postscreen_access_list. */
struct access_item {
    enum access_kind { ACCESS_MYNETWORKS, ACCESS_PERMIT, ACCESS_REJECT, ACCESS_DUNNO, ACCESS_TABLE } kind;
    struct maps *maps; /* ACCESS_TABLE */
};

/* What is shorter while too many clients wait: seconds. */
struct pace {
    int64_t greet_wait, command_time;
};

struct settings {
    const struct conf *conf;
    struct arena *arena;
    struct str myhostname, banner, teaser; /* teaser empty: none */
    struct test_settings tests[TESTS];
    enum action denylist_action;
    struct pace pace, stressed;
    struct access_item *access;
    size_t access_count;
    struct match *mynetworks, *allowlist_interfaces, *forbidden_commands;
    struct dnsbl dnsbl;
    int64_t dnsbl_timeout, dnsbl_threshold, dnsbl_allow_threshold, dnsbl_min_ttl;
    struct str cache_map;                            /* empty: none */
    int64_t cache_cleanup_interval, cache_retention; /* seconds; interval 0: never */
    uint32_t client_connections, pre_queue, post_queue, commands;
    size_t line_length;
    uint64_t message_size;
    struct str ehlo_keywords_off;
    struct maps *ehlo_keywords_off_maps, *command_filter;
    bool helo_required, vrfy_off, smtputf8, respectful, soft_bounce;
    struct tls_server *tls; /* NULL: none */
    bool tls_on, tls_mandatory;
    int tls_log_level;
    struct maps *tls_log_levels; /* by client name or address */
    int64_t starttls_timeout;    /* seconds */
    bool proxied;                /* each connection begins with haproxy's header */
    int64_t proxy_timeout;
    struct footer reject_footer;
    struct str expansion_filter; /* what values in it may be made of */
    struct str smtpd_endpoint;   /* private/smtpd */
};

/* `stressed` is main.cf as it reads with stress = yes. ERR_CONFIG: the text of the fatal line. */
error settings_load(const struct conf *c, const struct conf *stressed, struct arena *err_arena, struct settings **ret);
/* Keys and certificates, of service `name`; without any that can be used there is no TLS, which has been logged. */
void settings_open_tls(struct settings *s, struct str name);
void settings_free(struct settings *s);
#endif
