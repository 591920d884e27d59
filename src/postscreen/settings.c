#include "postscreen/settings.h"

#include "base/log.h"

static error load_action(const struct conf *c, enum param p, const char *name, struct arena *a, enum action *ret) {
    static const struct {
        struct str name;
        enum action action;
    } rows[] = { { STR_INIT("ignore"), ACTION_IGNORE },
                 { STR_INIT("enforce"), ACTION_ENFORCE },
                 { STR_INIT("drop"), ACTION_DROP } };
    struct str value = conf_str(c, p);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (str_eq_icase(value, rows[i].name)) {
            *ret = rows[i].action;
            return NULL;
        }
    return err_make(a, ERR_CONFIG, "bad %s setting: \"%.*s\"; specify ignore, enforce or drop", name, STR_ARG(value));
}

static error load_tests(struct settings *s, const struct conf *c, struct arena *a) {
    const struct {
        enum test test;
        bool enabled;
        enum param action, ttl;
        const char *name;
    } rows[] = {
        { TEST_PREGREET, true, PARAM_postscreen_greet_action, PARAM_postscreen_greet_ttl, "postscreen_greet_action" },
        { TEST_DNSBL, s->dnsbl.list_count > 0, PARAM_postscreen_dnsbl_action, PARAM_postscreen_dnsbl_max_ttl,
          "postscreen_dnsbl_action" },
        { TEST_PIPELINING, conf_bool(c, PARAM_postscreen_pipelining_enable), PARAM_postscreen_pipelining_action,
          PARAM_postscreen_pipelining_ttl, "postscreen_pipelining_action" },
        { TEST_NON_SMTP, conf_bool(c, PARAM_postscreen_non_smtp_command_enable),
          PARAM_postscreen_non_smtp_command_action, PARAM_postscreen_non_smtp_command_ttl,
          "postscreen_non_smtp_command_action" },
        { TEST_BARE_NEWLINE, conf_bool(c, PARAM_postscreen_bare_newline_enable), PARAM_postscreen_bare_newline_action,
          PARAM_postscreen_bare_newline_ttl, "postscreen_bare_newline_action" },
    };
    _Static_assert(sizeof rows / sizeof *rows == TESTS, "a row for each test");
    error e = NULL;
    for (size_t i = 0; i < TESTS && !e; i++) {
        struct test_settings *t = &s->tests[rows[i].test];
        t->enabled = rows[i].enabled;
        t->ttl = conf_time(c, rows[i].ttl);
        e = load_action(c, rows[i].action, rows[i].name, a, &t->action);
    }
    return e ? e
             : load_action(c, PARAM_postscreen_denylist_action, "postscreen_denylist_action", a, &s->denylist_action);
}

static const struct {
    struct str name;
    enum access_kind kind;
} access_names[] = {
    { STR_INIT("permit_mynetworks"), ACCESS_MYNETWORKS },
    { STR_INIT("permit"), ACCESS_PERMIT },
    { STR_INIT("reject"), ACCESS_REJECT },
    { STR_INIT("dunno"), ACCESS_DUNNO },
};

static error load_access(struct settings *s, const struct conf *c, struct arena *a) {
    struct str list = conf_str(c, PARAM_postscreen_access_list), word;
    size_t room = 0;
    for (struct str rest = list; str_word_braced(&rest, STR_COMMA_SPACE, &word);)
        room++;
    s->access = arena_array(s->arena, room + 1, sizeof *s->access);
    while (str_word_braced(&list, STR_COMMA_SPACE, &word)) {
        struct access_item *item = &s->access[s->access_count++];
        bool named = false;
        for (size_t i = 0; i < sizeof access_names / sizeof *access_names && !named; i++)
            if (str_eq_icase(word, access_names[i].name)) {
                item->kind = access_names[i].kind;
                named = true;
            }
        if (named)
            continue;
        if (str_index(word, ':') < 0)
            return err_make(a, ERR_CONFIG,
                            "bad postscreen_access_list item: \"%.*s\"; specify permit_mynetworks, permit, "
                            "reject, dunno or type:table",
                            STR_ARG(word));
        item->kind = ACCESS_TABLE;
        item->maps = maps_open(c, word, TABLE_FOLD);
    }
    return list.n ? err_make(a, ERR_CONFIG, "postscreen_access_list: \"}\" is missing") : NULL;
}

static error load_front(struct settings *s, const struct conf *c, struct arena *a) {
    static const struct tls_level_params level = { .level = PARAM_postscreen_tls_security_level,
                                                   .use = PARAM_postscreen_use_tls,
                                                   .enforce = PARAM_postscreen_enforce_tls,
                                                   .name = "postscreen_tls_security_level" };
    error e = tls_server_level(c, &level, a, &s->tls_on, &s->tls_mandatory);
    if (e)
        return e;
    s->tls_log_level = tls_log_level(conf_str(c, PARAM_postscreen_tls_loglevel), "postscreen_tls_loglevel");
    s->starttls_timeout = conf_time(c, PARAM_postscreen_starttls_timeout);
    s->proxy_timeout = conf_time(c, PARAM_postscreen_upstream_proxy_timeout);
    struct str proxy = conf_str(c, PARAM_postscreen_upstream_proxy_protocol);
    s->proxied = proxy.n > 0;
    if (proxy.n && !str_eq_icase(proxy, STR("haproxy")))
        return err_make(a, ERR_CONFIG, "unknown postscreen_upstream_proxy_protocol: \"%.*s\"; specify haproxy",
                        STR_ARG(proxy));
    return NULL;
}

/* Tickets are for those who come back: a client that has passed speaks with smtpd then. */
void settings_open_tls(struct settings *s, struct str name) {
    static const struct tls_server_params params = {
        .ca_file = PARAM_postscreen_tls_CAfile,
        .ca_path = PARAM_postscreen_tls_CApath,
        .chain_files = PARAM_postscreen_tls_chain_files,
        .cert_file = PARAM_postscreen_tls_cert_file,
        .key_file = PARAM_postscreen_tls_key_file,
        .eccert_file = PARAM_postscreen_tls_eccert_file,
        .eckey_file = PARAM_postscreen_tls_eckey_file,
        .dcert_file = PARAM_postscreen_tls_dcert_file,
        .dkey_file = PARAM_postscreen_tls_dkey_file,
        .ask_ccert = PARAM_postscreen_tls_ask_ccert,
        .req_ccert = PARAM_postscreen_tls_req_ccert,
        .ccert_verifydepth = PARAM_postscreen_tls_ccert_verifydepth,
        .fingerprint_digest = PARAM_postscreen_tls_fingerprint_digest,
        .protocols = PARAM_postscreen_tls_protocols,
        .mandatory_protocols = PARAM_postscreen_tls_mandatory_protocols,
        .ciphers = PARAM_postscreen_tls_ciphers,
        .mandatory_ciphers = PARAM_postscreen_tls_mandatory_ciphers,
        .exclude_ciphers = PARAM_postscreen_tls_exclude_ciphers,
        .mandatory_exclude_ciphers = PARAM_postscreen_tls_mandatory_exclude_ciphers,
        .dh_param_file = PARAM_postscreen_tls_dh1024_param_file,
        .always_issue_session_ids = PARAM_postscreen_tls_always_issue_session_ids,
        .session_cache_timeout = PARAM_smtpd_tls_session_cache_timeout,
    };
    if (s->tls_on)
        s->tls = tls_server_open(s->conf, &params, name, s->tls_mandatory, s->tls_log_level);
}

/* A template is not expanded when main.cf is read, but the defaults of these are another parameter's whole value. */
static struct str template_value(const struct settings *s, enum param p) {
    struct str value = conf_str(s->conf, p), other;
    if (str_starts(value, STR("$")) && conf_lookup(s->conf, str_from(value, 1), s->arena, &other))
        return other;
    return value;
}

static struct pace load_pace(const struct conf *c) {
    return (struct pace){ .greet_wait = conf_time(c, PARAM_postscreen_greet_wait),
                          .command_time = conf_time(c, PARAM_postscreen_command_time_limit) };
}

static error load(struct settings *s, const struct conf *c, const struct conf *stressed, struct arena *a) {
    error e = dnsbl_load(&s->dnsbl, s->arena, conf_str(c, PARAM_postscreen_dnsbl_sites), a);
    if (!e)
        e = load_tests(s, c, a);
    if (!e)
        e = load_access(s, c, a);
    if (!e)
        e = load_front(s, c, a);
    if (e)
        return e;
    s->myhostname = conf_str(c, PARAM_myhostname);
    s->banner = conf_str(c, PARAM_smtpd_banner);
    s->teaser = conf_str(c, PARAM_postscreen_greet_banner);
    s->pace = load_pace(c);
    s->stressed = load_pace(stressed);
    s->mynetworks = match_open(c, STR("mynetworks"), conf_str(c, PARAM_mynetworks), MATCH_ADDRESS, TABLE_FOLD);
    s->allowlist_interfaces = match_open(c, STR("postscreen_allowlist_interfaces"),
                                         conf_str(c, PARAM_postscreen_allowlist_interfaces), MATCH_ADDRESS, TABLE_FOLD);
    s->forbidden_commands = match_open(c, STR("postscreen_forbidden_commands"),
                                       conf_str(c, PARAM_postscreen_forbidden_commands), MATCH_STRING, TABLE_FOLD);
    struct str reply_map = conf_str(c, PARAM_postscreen_dnsbl_reply_map);
    if (reply_map.n)
        s->dnsbl.reply_map = maps_open(c, reply_map, TABLE_FOLD);
    s->dnsbl_timeout = conf_time(c, PARAM_postscreen_dnsbl_timeout);
    s->dnsbl_threshold = conf_int(c, PARAM_postscreen_dnsbl_threshold);
    s->dnsbl_allow_threshold = conf_int(c, PARAM_postscreen_dnsbl_allowlist_threshold);
    s->dnsbl_min_ttl = conf_time(c, PARAM_postscreen_dnsbl_min_ttl);
    s->cache_map = conf_str(c, PARAM_postscreen_cache_map);
    s->cache_cleanup_interval = conf_time(c, PARAM_postscreen_cache_cleanup_interval);
    s->cache_retention = conf_time(c, PARAM_postscreen_cache_retention_time);
    s->client_connections = (uint32_t)conf_int(c, PARAM_postscreen_client_connection_count_limit);
    s->pre_queue = (uint32_t)conf_int(c, PARAM_postscreen_pre_queue_limit);
    s->post_queue = (uint32_t)conf_int(c, PARAM_postscreen_post_queue_limit);
    s->commands = (uint32_t)conf_int(c, PARAM_postscreen_command_count_limit);
    s->line_length = (size_t)conf_int(c, PARAM_line_length_limit);
    s->message_size = (uint64_t)conf_int(c, PARAM_message_size_limit);
    s->ehlo_keywords_off = conf_str(c, PARAM_postscreen_discard_ehlo_keywords);
    s->ehlo_keywords_off_maps =
        maps_open(c, conf_str(c, PARAM_postscreen_discard_ehlo_keyword_address_maps), TABLE_FOLD);
    struct str footers = conf_str(c, PARAM_postscreen_reject_footer_maps);
    s->reject_footer = (struct footer){ .parameter = "postscreen_reject_footer",
                                        .template = template_value(s, PARAM_postscreen_reject_footer),
                                        .maps = footers.n ? maps_open(c, footers, TABLE_FOLD) : NULL };
    s->expansion_filter = expansion_filter(s->arena, template_value(s, PARAM_postscreen_expansion_filter));
    s->tls_log_levels = maps_open(c, conf_str(c, PARAM_postscreen_tls_loglevel_maps), TABLE_FOLD);
    s->command_filter = maps_open(c, conf_str(c, PARAM_postscreen_command_filter), 0);
    s->helo_required = conf_bool(c, PARAM_postscreen_helo_required);
    s->vrfy_off = conf_bool(c, PARAM_postscreen_disable_vrfy_command);
    s->smtputf8 = conf_bool(c, PARAM_smtputf8_enable);
    s->soft_bounce = conf_bool(c, PARAM_soft_bounce);
    s->respectful = conf_bool(c, PARAM_respectful_logging);
    s->smtpd_endpoint = arena_cat(s->arena, STR("private/"), conf_str(c, PARAM_smtpd_service_name));
    return NULL;
}

error settings_load(const struct conf *c, const struct conf *stressed, struct arena *err_arena, struct settings **ret) {
    struct arena *a = arena_new();
    struct settings *s = arena_zalloc(a, sizeof *s);
    s->arena = a;
    s->conf = c;
    error e = load(s, c, stressed, err_arena);
    if (e)
        settings_free(s);
    else
        *ret = s;
    return e;
}

void settings_free(struct settings *s) {
    for (size_t i = 0; i < s->access_count; i++)
        if (s->access[i].maps)
            maps_close(s->access[i].maps);
    struct maps *const maps[] = { s->dnsbl.reply_map, s->ehlo_keywords_off_maps, s->command_filter, s->tls_log_levels,
                                  s->reject_footer.maps };
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        if (maps[i])
            maps_close(maps[i]);
    struct match *const lists[] = { s->mynetworks, s->allowlist_interfaces, s->forbidden_commands };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (lists[i])
            match_close(lists[i]);
    tls_server_close(s->tls);
    arena_free(s->arena);
}
