/* ldap: (ldap_table(5)). Servers and connections are ldap_client.c's, quoting is ldap_text.c's.
 *
 * A look-up is a list of things to do that begins with one search. What a search finds takes its place in the list, in
 * the order the server gave: values, and more searches where an attribute is special. So results come in the order of
 * a tree walked depth first, without recursion. */
#include "base/log.h"
#include "base/utf8.h"
#include "lookup/ldap_client.h"
#include "lookup/ldap_text.h"
#include "lookup/query.h"
#include "run/sys.h"

enum {
    LDAP_ATTRIBUTES_MAX = 256,
    LDAP_LOOKUP_TIMEOUTS = 10,       /* one look-up with all it leads to: so many times `timeout` */
    LDAP_TODO_MAX = 8 * 1024 * 1024, /* bytes of names and values of one look-up */
    SECOND = 1000000,
};

struct attribute {
    struct str name;
    bool result, special, terminal, leaf;
};

struct ldap_state {
    struct ldap_settings settings;
    struct buf password;
    struct query_common common;
    const char *search_base, *query_filter;
    int scope;
    int64_t recursion_limit, size_limit;
    struct attribute attributes[LDAP_ATTRIBUTES_MAX];
    size_t attribute_count;
    char *names[LDAP_ATTRIBUTES_MAX + 1]; /* of all, as the library wants them */
    struct ldap_host *hosts;
    size_t host_count;
};

/* --- settings --- */

static error settings_error(struct table *t, const char *what) {
    return err_make(t->gen, ERR_CONFIG, "%.*s: %s", STR_ARG(t->spec), what);
}

static error read_bind(struct table *t, struct source *s, struct ldap_settings *to) {
    static const struct {
        struct str word;
        enum ldap_bind bind;
    } words[] = {
        { STR_INIT("yes"), LDAP_BIND_SIMPLE }, { STR_INIT("simple"), LDAP_BIND_SIMPLE },
        { STR_INIT("no"), LDAP_BIND_NONE },    { STR_INIT("none"), LDAP_BIND_NONE },
        { STR_INIT("sasl"), LDAP_BIND_SASL },
    };
    struct str bind = source_str(s, "bind", STR("yes"));
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (str_eq_icase(bind, words[i].word)) {
            to->bind = words[i].bind;
            return NULL;
        }
    return err_make(t->gen, ERR_CONFIG, "%.*s: bind = %.*s: expecting yes, no, simple, none or sasl", STR_ARG(t->spec),
                    STR_ARG(bind));
}

static void read_scope(struct table *t, struct source *s, struct ldap_state *l) {
    struct str scope = source_str(s, "scope", STR("sub"));
    l->scope = LDAP_SCOPE_SUBTREE;
    if (str_eq_icase(scope, STR("one")))
        l->scope = LDAP_SCOPE_ONELEVEL;
    else if (str_eq_icase(scope, STR("base")))
        l->scope = LDAP_SCOPE_BASE;
    else if (!str_eq_icase(scope, STR("sub")))
        log_warn("%.*s: scope = %.*s: expecting sub, one or base; using sub", STR_ARG(t->spec), STR_ARG(scope));
}

static error read_numbers(struct table *t, struct source *s, struct ldap_state *l) {
    struct ldap_settings *to = &l->settings;
    int64_t version, deref, ssf_min, debuglevel;
    error e;
    if ((e = source_int(s, "version", 3, 0, INT32_MAX, &version)) ||
        (e = source_int(s, "timeout", 10, 1, 24 * 3600, &to->timeout)) ||
        (e = source_int(s, "dereference", 0, INT32_MIN, INT32_MAX, &deref)) ||
        (e = source_int(s, "sasl_minssf", 0, 0, 4096, &ssf_min)) ||
        (e = source_int(s, "debuglevel", 0, 0, INT32_MAX, &debuglevel)) ||
        (e = source_int(s, "recursion_limit", 1000, 1, INT32_MAX, &l->recursion_limit)) ||
        (e = source_int(s, "size_limit", l->common.expansion_limit, 0, INT32_MAX, &l->size_limit)) ||
        (e = source_bool(s, "chase_referrals", false, &to->chase_referrals)) ||
        (e = source_bool(s, "start_tls", false, &to->start_tls)) ||
        (e = source_bool(s, "tls_require_cert", false, &to->tls_require_cert)))
        return e;
    if (version != 2 && version != 3) {
        log_warn("%.*s: version = %d: expecting 2 or 3; using 3", STR_ARG(t->spec), (int)version);
        version = 3;
    }
    if (deref < 0 || deref > 3) {
        log_warn("%.*s: dereference = %d: expecting 0 to 3; using 0", STR_ARG(t->spec), (int)deref);
        deref = 0;
    }
    to->version = (int)version;
    to->deref = (int)deref;
    to->ssf_min = (int)ssf_min;
    if (debuglevel > 0)
        ldap_debug((int)debuglevel);
    return NULL;
}

static void need_version_3(struct table *t, struct ldap_settings *to, const char *what) {
    if (to->version < 3)
        log_warn("%.*s: %s needs version = 3; using 3", STR_ARG(t->spec), what);
    to->version = 3;
}

static void read_texts(struct table *t, struct source *s, struct ldap_state *l) {
    struct ldap_settings *to = &l->settings;
    const struct {
        const char *name, **to;
    } texts[] = {
        { "bind_dn", &to->bind_dn },
        { "sasl_mechs", &to->sasl_mechs },
        { "sasl_realm", &to->sasl_realm },
        { "sasl_authz_id", &to->sasl_authz_id },
        { "tls_ca_cert_file", &to->tls_ca_cert_file },
        { "tls_ca_cert_dir", &to->tls_ca_cert_dir },
        { "tls_cert", &to->tls_cert },
        { "tls_key", &to->tls_key },
        { "tls_random_file", &to->tls_random_file },
        { "tls_cipher_suite", &to->tls_cipher_suite },
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        *texts[i].to = arena_cstr(t->gen, source_str(s, texts[i].name, STR("")));
    buf_add(&l->password, source_str(s, "bind_pw", STR("")));
    to->bind_pw = buf_str(&l->password);
    static const char *const gone[] = { "cache", "cache_expiry", "cache_size" };
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++)
        if (source_has(s, gone[i]))
            log_warn("%.*s: %s is ignored: there is no such cache any more", STR_ARG(t->spec), gone[i]);
}

static struct attribute *attribute_of(struct table *t, struct ldap_state *l, struct str name) {
    for (size_t i = 0; i < l->attribute_count; i++)
        if (str_eq_icase(l->attributes[i].name, name))
            return &l->attributes[i];
    if (l->attribute_count == LDAP_ATTRIBUTES_MAX)
        return NULL;
    struct attribute *a = &l->attributes[l->attribute_count];
    a->name = arena_str(t->gen, name);
    l->names[l->attribute_count++] = arena_cstr(t->gen, name);
    return a;
}

static error read_attributes(struct table *t, struct source *s, struct ldap_state *l) {
    static const char *const lists[] = { "result_attribute", "special_result_attribute", "terminal_result_attribute",
                                         "leaf_result_attribute" };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct str list = source_str(s, lists[i], i == 0 ? STR("maildrop") : STR("")), name;
        while (str_word(&list, STR_COMMA_SPACE, &name)) {
            struct attribute *a = attribute_of(t, l, name);
            if (!a)
                return err_make(t->gen, ERR_CONFIG, "%.*s: %s: more than %d attributes", STR_ARG(t->spec), lists[i],
                                LDAP_ATTRIBUTES_MAX);
            *(bool *[]){ &a->result, &a->special, &a->terminal, &a->leaf }[i] = true;
        }
    }
    return NULL;
}

static error read_query(struct table *t, struct source *s, struct ldap_state *l) {
    struct str base = source_str(s, "search_base", STR(""));
    struct str filter = source_str(s, "query_filter", STR("(mailacceptinggeneralid=%s)"));
    error e;
    if ((e = query_check(s, "search_base", base, false)) || (e = query_check(s, "query_filter", filter, false)) ||
        (e = query_common_open(t, s, "result_filter", &l->common)))
        return e;
    l->common.result_format =
        arena_str(t->gen, l->common.result_format); /* the source is closed before the first use */
    l->search_base = arena_cstr(t->gen, base);
    l->query_filter = arena_cstr(t->gen, filter);
    if (str_index(filter, '%') < 0)
        log_warn("%.*s: query_filter is the same for every key: %%s or the like is missing", STR_ARG(t->spec));
    return NULL;
}

static error read_hosts(struct table *t, struct source *s, struct ldap_state *l) {
    int64_t port;
    error e = source_int(s, "server_port", 389, 1, 65535, &port);
    if (e)
        return e;
    struct str list = source_str(s, "server_host", STR("localhost")), word;
    l->hosts = arena_array(t->gen, LOOKUP_HOSTS_MAX, sizeof *l->hosts);
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        if (l->host_count == LOOKUP_HOSTS_MAX)
            return err_make(t->gen, ERR_CONFIG, "%.*s: server_host: more than %d servers", STR_ARG(t->spec),
                            LOOKUP_HOSTS_MAX);
        const char *uri = ldap_server_uri(t->gen, word, port).p;
        LDAPURLDesc *parsed = NULL;
        if (ldap_url_parse(uri, &parsed) != LDAP_URL_SUCCESS)
            return err_make(t->gen, ERR_CONFIG, "%.*s: server_host: \"%s\" is no address of an LDAP server",
                            STR_ARG(t->spec), uri);
        ldap_free_urldesc(parsed);
        if (!str_starts_icase(str_c(uri), STR("ldap:")))
            need_version_3(t, &l->settings, uri);
        ldap_host_init(&l->hosts[l->host_count++], uri);
    }
    return l->host_count ? NULL : settings_error(t, "server_host: no server is named");
}

static error read_settings(struct table *t, struct source *s, struct ldap_state *l) {
    error e;
    if ((e = read_query(t, s, l)) || (e = read_numbers(t, s, l)) || (e = read_bind(t, s, &l->settings)) ||
        (e = read_attributes(t, s, l)) || (e = read_hosts(t, s, l)))
        return e;
    read_scope(t, s, l);
    read_texts(t, s, l);
    if (l->settings.start_tls)
        need_version_3(t, &l->settings, "start_tls");
    if (l->settings.bind == LDAP_BIND_SASL)
        need_version_3(t, &l->settings, "bind = sasl");
    source_warn_unused(s);
    return NULL;
}

static error ldap_open_table(struct table *t) {
    ldap_library_init();
    struct ldap_state *l = ARENA_NEW(t->gen, struct ldap_state);
    t->state = l;
    struct source *s;
    error e = source_open(t, &s);
    if (e)
        return e;
    e = read_settings(t, s, l);
    source_close(s);
    return e;
}

static void ldap_close_table(struct table *t) {
    struct ldap_state *l = t->state;
    if (!l)
        return;
    for (size_t i = 0; i < l->host_count; i++)
        ldap_host_close(&l->hosts[i]);
    buf_wipe(&l->password);
    query_common_close(&l->common);
}

/* --- a look-up --- */

struct todo {
    struct todo *next;
    bool is_search;
    struct str value;
    const char *base, *filter;
    int scope;
    char **attributes;
    int64_t depth;
};

enum outcome { DONE, LOST /* the connection */, FAILED };

struct lookup {
    struct table *t;
    struct ldap_state *l;
    struct ldap_host *host;
    LDAP *ld;                    /* its */
    struct arena *arena;         /* of this attempt */
    struct todo *first, **added; /* what is left; where the running search puts what it finds */
    struct query_rows rows;
    int64_t deadline;
    struct buf *why;
};

static enum outcome trouble(struct lookup *k, const struct todo *search, const char *what, int rc) {
    if (search->depth)
        buf_printf(k->why, "at depth %d of special_result_attribute: ", (int)search->depth);
    buf_printf(k->why, "%s: %s", what, ldap_err2string(rc));
    return ldap_is_lost(rc) ? LOST : FAILED;
}

static struct todo *add(struct lookup *k) {
    struct todo *item = ARENA_NEW(k->arena, struct todo);
    item->next = *k->added;
    *k->added = item;
    k->added = &item->next;
    return item;
}

/* The attributes both the URL and the table want, in the table's order; NULL: none. */
static char **common_attributes(struct lookup *k, char **selected) {
    if (!selected || !selected[0])
        return k->l->names;
    char **both = arena_array(k->arena, LDAP_ATTRIBUTES_MAX + 1, sizeof *both);
    size_t n = 0;
    for (size_t i = 0; i < k->l->attribute_count; i++)
        for (size_t j = 0; selected[j]; j++) {
            struct str name = ldap_attribute_common(str_c(selected[j]), k->l->attributes[i].name);
            if (name.n) {
                both[n++] = arena_cstr(k->arena, name);
                break;
            }
        }
    return n ? both : NULL;
}

static enum outcome add_search(struct lookup *k, const struct todo *from, struct str value) {
    if (from->depth + 1 >= k->l->recursion_limit) {
        buf_printf(k->why, "special_result_attribute leads deeper than recursion_limit = %d",
                   (int)k->l->recursion_limit);
        return FAILED;
    }
    const char *text = arena_cstr(k->arena, value);
    struct todo search = { .is_search = true,
                           .base = text,
                           .filter = "(objectClass=*)",
                           .scope = LDAP_SCOPE_BASE,
                           .attributes = k->l->names,
                           .depth = from->depth + 1 };
    if (ldap_is_ldap_url(text)) {
        LDAPURLDesc *url;
        int rc = ldap_url_parse(text, &url);
        if (rc != LDAP_URL_SUCCESS) {
            buf_printf(k->why, "malformed URL in a special_result_attribute (error %d)", rc);
            return FAILED;
        }
        search.base = arena_cstr(k->arena, str_c(url->lud_dn));
        if (url->lud_filter)
            search.filter = arena_cstr(k->arena, str_c(url->lud_filter));
        if (url->lud_scope != LDAP_SCOPE_DEFAULT)
            search.scope = url->lud_scope;
        search.attributes = common_attributes(k, url->lud_attrs);
        ldap_free_urldesc(url);
    }
    if (!search.attributes)
        return DONE;
    struct todo *item = add(k);
    search.next = item->next;
    *item = search;
    return DONE;
}

static const struct attribute *listed(const struct ldap_state *l, struct str returned) {
    const struct attribute *found = NULL;
    for (size_t i = 0; i < l->attribute_count; i++)
        if (ldap_attribute_is(returned, l->attributes[i].name) && (!found || found->name.n < l->attributes[i].name.n))
            found = &l->attributes[i];
    return found;
}

static enum outcome add_values(struct lookup *k, const struct todo *from, struct berval **values, bool special) {
    for (size_t i = 0; values && values[i]; i++) {
        struct str value = str_n(values[i]->bv_val, values[i]->bv_len);
        if (value.n > LOOKUP_RESULT_MAX || arena_used(k->arena) > LDAP_TODO_MAX) {
            buf_printf(k->why, "the answer is larger than %d bytes", LOOKUP_RESULT_MAX);
            return FAILED;
        }
        if (str_index(value, 0) >= 0) { /* binary data: no address, no name */
            log_warn("%.*s: a value with a NUL byte is skipped", STR_ARG(k->t->spec));
            continue;
        }
        if (special) {
            enum outcome o = add_search(k, from, value);
            if (o != DONE)
                return o;
        } else
            add(k)->value = arena_str(k->arena, value);
    }
    return DONE;
}

/* What an entry has decides about its attributes: see terminal_result_attribute and leaf_result_attribute in
 * ldap_table(5). An attribute that is on several lists is terminal, else leaf, else result, else special. */
static enum outcome add_entry(struct lookup *k, const struct todo *from, LDAPMessage *entry) {
    bool terminal = false, special = false;
    for (int round = 0; round < 2; round++) {
        BerElement *cursor = NULL;
        enum outcome o = DONE;
        for (char *name = ldap_first_attribute(k->ld, entry, &cursor); name;
             name = ldap_next_attribute(k->ld, entry, cursor)) {
            const struct attribute *a = listed(k->l, str_c(name));
            if (a && o == DONE) {
                bool wanted = a->terminal || (!terminal && (a->leaf ? !special : a->result || a->special));
                if (round == 0) {
                    terminal |= a->terminal;
                    special |= a->special;
                } else if (wanted) {
                    struct berval **values = ldap_get_values_len(k->ld, entry, name);
                    o = add_values(k, from, values, !a->terminal && !a->leaf && !a->result);
                    ldap_value_free_len(values);
                }
            }
            ldap_memfree(name);
        }
        ber_free(cursor, 0);
        if (o != DONE)
            return o;
    }
    return DONE;
}

static enum outcome search_result(struct lookup *k, const struct todo *search, int rc, int64_t entries) {
    if (rc == LDAP_SUCCESS || (rc == LDAP_NO_SUCH_OBJECT && search->depth)) {
        if (search->depth && entries == 0)
            log_warn("%.*s: an entry that a special_result_attribute names is not there; skipped", STR_ARG(k->t->spec));
        return DONE;
    }
    return trouble(k, search, rc == LDAP_NO_SUCH_OBJECT ? "search_base" : "search", rc);
}

static enum outcome run_search(struct lookup *k, const struct todo *search) {
    int64_t deadline = sys->mono_us() + k->l->settings.timeout * SECOND;
    if (deadline > k->deadline)
        deadline = k->deadline;
    struct timeval left = ldap_remaining(deadline);
    if (left.tv_sec == 0 && left.tv_usec == 0)
        return trouble(k, search, "the look-up as a whole", LDAP_TIMEOUT);
    /* a second later: what keeps to its limits is told better */
    if (!ldap_guard_arm(&k->host->guard, deadline + SECOND))
        return trouble(k, search, "no thread to watch over the search", LDAP_LOCAL_ERROR);
    ldap_set_option(k->ld, LDAP_OPT_NETWORK_TIMEOUT, &left); /* of referrals */
    ldap_set_option(k->ld, LDAP_OPT_TIMEOUT, &left);
    int id, limit = k->l->size_limit ? (int)k->l->size_limit : LDAP_NO_LIMIT;
    int rc = ldap_search_ext(k->ld, search->base, search->scope, search->filter, search->attributes, 0, NULL, NULL,
                             &left, limit, &id);
    if (rc != LDAP_SUCCESS)
        return trouble(k, search, "search", rc);
    int64_t entries = 0;
    for (;;) {
        LDAPMessage *message = NULL;
        left = ldap_remaining(deadline);
        int type = ldap_result(k->ld, id, LDAP_MSG_ONE, &left, &message);
        if (type == 0)
            return trouble(k, search, "search", LDAP_TIMEOUT);
        if (type < 0) {
            ldap_get_option(k->ld, LDAP_OPT_RESULT_CODE, &rc);
            return trouble(k, search, "search", rc == LDAP_SUCCESS ? LDAP_SERVER_DOWN : rc);
        }
        if (type == LDAP_RES_SEARCH_RESULT) {
            int result = LDAP_OTHER;
            rc = ldap_parse_result(k->ld, message, &result, NULL, NULL, NULL, NULL, 1);
            return search_result(k, search, rc == LDAP_SUCCESS ? result : rc, entries);
        }
        enum outcome o = DONE;
        if (type == LDAP_RES_SEARCH_ENTRY) {
            if (k->l->size_limit && ++entries > k->l->size_limit)
                o = trouble(k, search, "search", LDAP_SIZELIMIT_EXCEEDED);
            else if (!k->l->size_limit)
                entries++;
            if (o == DONE)
                o = add_entry(k, search, message);
        }
        ldap_msgfree(message);
        if (o != DONE) {
            ldap_abandon_ext(k->ld, id, NULL, NULL);
            return o;
        }
    }
}

static enum outcome run(struct lookup *k) {
    while (k->first) {
        struct todo *item = k->first;
        k->first = item->next;
        if (item->is_search) {
            k->added = &k->first;
            enum outcome o = run_search(k, item);
            if (o != DONE)
                return o;
            continue;
        }
        enum query_rows_result added = query_rows_add(&k->rows, item->value);
        if (added == QUERY_ROWS_LIMIT)
            buf_printf(k->why, "more than expansion_limit = %d values", (int)k->l->common.expansion_limit);
        else if (added != QUERY_ROWS_OK)
            buf_printf(k->why, "the answer is larger than %d bytes", LOOKUP_RESULT_MAX);
        if (added != QUERY_ROWS_OK)
            return FAILED;
    }
    return DONE;
}

static enum outcome ask_host(struct lookup *k, struct ldap_host *h, const struct todo *question) {
    struct todo *search = ARENA_NEW(k->arena, struct todo);
    *search = *question;
    k->first = search;
    k->host = h;
    k->ld = h->ld;
    k->rows.count = 0;
    buf_clear(&k->rows.all);
    enum outcome o = run(k);
    ldap_guard_disarm(&h->guard);
    return o;
}

/* The connection of before may be one that the server has closed meanwhile: that is no failure of the server. */
static enum outcome try_host(struct lookup *k, struct ldap_host *h, const struct todo *question) {
    bool reused = h->ld != NULL;
    for (;;) {
        int64_t started = sys->mono_us();
        buf_clear(k->why);
        if (!h->ld && !ldap_host_connect(h, &k->l->settings, k->why))
            return LOST;
        arena_reset(k->arena);
        enum outcome o = ask_host(k, h, question);
        if (o != LOST)
            return o;
        if (!reused || sys->mono_us() - started > SECOND) {
            ldap_host_failed(h, started);
            return LOST;
        }
        reused = false;
        ldap_host_close(h);
    }
}

static enum outcome try_hosts(struct lookup *k, const struct todo *question) {
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < k->l->host_count; i++) {
            struct ldap_host *h = &k->l->hosts[i];
            if ((round == 0) != (h->ld != NULL) || h->rest_until > sys->mono_us())
                continue;
            enum outcome o = try_host(k, h, question);
            if (o != LOST)
                return o;
            log_warn("%.*s: %.*s", STR_ARG(k->t->spec), STR_ARG(buf_str(k->why)));
        }
    if (k->why->n == 0)
        buf_add(k->why, STR("all servers failed a moment ago"));
    return LOST;
}

static enum table_result ask(struct lookup *k, struct str base, struct str filter, struct arena *a,
                             struct str *ret_value) {
    struct todo question = {
        .is_search = true, .base = base.p, .filter = filter.p, .scope = k->l->scope, .attributes = k->l->names
    };
    if (try_hosts(k, &question) != DONE)
        return table_fail(k->t, "%.*s: %.*s", STR_ARG(k->t->spec), STR_ARG(buf_str(k->why)));
    return query_rows_done(&k->rows, a, ret_value);
}

static enum table_result ldap_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct ldap_state *l = t->state;
    bool failed;
    if (!utf8_valid(key)) /* no text of a directory (RFC 4511, 4.1.2) */
        return TABLE_NOT_FOUND;
    if (query_common_allows(&l->common, t, key, &failed) != QUERY_OK)
        return failed ? TABLE_ERROR : TABLE_NOT_FOUND;
    struct buf base = { 0 }, filter = { 0 }, why = { 0 };
    enum query_result expanded = query_expand(str_c(l->search_base), key, ldap_quote_dn, NULL, &base);
    if (expanded == QUERY_OK)
        expanded = query_expand(str_c(l->query_filter), key, ldap_quote_filter, NULL, &filter);
    enum table_result r;
    if (expanded == QUERY_SUPPRESSED)
        r = TABLE_NOT_FOUND;
    else if (expanded == QUERY_TOO_LONG)
        r = table_fail(t, "%.*s: the key makes the query too long", STR_ARG(t->spec));
    else {
        struct lookup k = {
            .t = t,
            .l = l,
            .arena = arena_new(),
            .rows = { .common = &l->common, .key = key },
            .deadline = sys->mono_us() + LDAP_LOOKUP_TIMEOUTS * l->settings.timeout * SECOND,
            .why = &why,
        };
        r = ask(&k, buf_str(&base), buf_str(&filter), a, ret_value);
        buf_free(&k.rows.all);
        arena_free(k.arena);
    }
    buf_free(&base);
    buf_free(&filter);
    buf_free(&why);
    return r;
}

const struct table_type table_type_ldap = { .name = STR_INIT("ldap"),
                                            .fixed = true,
                                            .kept = true,
                                            .open = ldap_open_table,
                                            .get = ldap_get,
                                            .close = ldap_close_table };
