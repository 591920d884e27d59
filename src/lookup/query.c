#include "lookup/query.h"

#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <time.h>

/* --- expansion --- */

enum { LABELS_MAX = 9 };

struct parts {
    struct str whole, user, domain;
    bool has_domain;
};

static struct parts parts_of(struct str address) {
    ptrdiff_t at = str_rindex(address, '@');
    if (at < 0)
        return (struct parts){ address, address, STR(""), false };
    return (struct parts){ address, str_sub(address, 0, (size_t)at), str_from(address, (size_t)at + 1), true };
}

/* %1 is the last label; empty labels do not count. */
static struct str label_from_end(struct str domain, int n) {
    while (n > 0 && domain.n) {
        ptrdiff_t dot = str_rindex(domain, '.');
        struct str label = str_from(domain, (size_t)(dot + 1));
        domain = str_sub(domain, 0, dot < 0 ? 0 : (size_t)dot);
        if (label.n && --n == 0)
            return label;
    }
    return STR("");
}

/* What stands for %c. False: no such expansion. An empty one suppresses. */
static bool part_for(char c, const struct parts *key, const struct parts *value, struct str *ret) {
    if (c >= '1' && c <= '9') {
        *ret = key->has_domain ? label_from_end(key->domain, c - '0') : STR("");
        return true;
    }
    const struct parts *p = byte_lower(c) == c ? value : key;
    switch (byte_lower(c)) {
    case 's':
        *ret = p->whole;
        return true;
    case 'u':
        *ret = p->user;
        return true;
    case 'd':
        *ret = p->domain;
        return true;
    default:
        *ret = STR("");
        return false;
    }
}

error query_check(struct source *s, const char *name, struct str format, bool is_result_format) {
    for (size_t i = 0; i < format.n; i++) {
        if (format.p[i] != '%')
            continue;
        struct parts none = { 0 };
        struct str part;
        char c = ++i < format.n ? format.p[i] : '\0';
        if (c == '%' || (c && part_for(c, &none, &none, &part)))
            continue;
        struct str where = source_where(s, name);
        return err_make(source_arena(s), ERR_CONFIG,
                        "%.*s: Invalid %s template: \"%.*s\" is none of %%s %%u %%d %%S %%U %%D %%1 .. %%9 %%%%",
                        STR_ARG(where), is_result_format ? "result" : "query", STR_ARG(str_sub(format, i - 1, 2)));
    }
    return NULL;
}

/* `only_key`: whether the key has what the template needs of it, `b` is not touched. */
static enum query_result expand(struct str format, const struct parts *key, const struct parts *value, bool only_key,
                                query_quote *quote, void *ctx, struct buf *b) {
    size_t start = b->n;
    for (size_t i = 0; i < format.n; i++) {
        struct str part = str_sub(format, i, 1);
        bool literal = format.p[i] != '%' || i + 1 == format.n;
        if (!literal) {
            char c = format.p[++i];
            literal = !part_for(c, key, value, &part);
            if (literal) /* query_check() has left only %% */
                part = str_sub(format, i, 1);
            else if (only_key && byte_lower(c) == c && !byte_is_digit(c))
                continue;
            if (part.n == 0)
                return QUERY_SUPPRESSED;
        }
        if (only_key)
            continue;
        if (part.n > QUERY_MAX - (b->n - start))
            return QUERY_TOO_LONG;
        if (literal || !quote)
            buf_add(b, part);
        else if (!quote(ctx, b, part))
            return QUERY_TOO_LONG;
        if (b->n - start > QUERY_MAX)
            return QUERY_TOO_LONG;
    }
    return QUERY_OK;
}

enum query_result query_expand(struct str format, struct str key, query_quote *quote, void *ctx, struct buf *b) {
    struct parts parts = parts_of(key);
    return key.n ? expand(format, &parts, &parts, false, quote, ctx, b) : QUERY_SUPPRESSED;
}

/* --- result_format, domain, expansion_limit --- */

error query_common_open(struct table *t, struct source *s, const char *result_format_old, struct query_common *ret) {
    *ret = (struct query_common){ .result_format = STR("%s") };
    const char *name = result_format_old && !source_has(s, "result_format") ? result_format_old : "result_format";
    if (source_has(s, name)) {
        error e = source_required(s, name, &ret->result_format);
        if (e)
            return e;
    }
    if (result_format_old) /* it has been seen, though it does not count */
        source_has(s, result_format_old);
    error e = query_check(s, name, ret->result_format, true);
    if (!e) /* Postfix takes what is below 0 for "no limit", too */
        e = source_int(s, "expansion_limit", 0, INT32_MIN, INT32_MAX, &ret->expansion_limit);
    if (e)
        return e;
    struct str domain = source_str(s, "domain", STR(""));
    if (!str_trim(domain).n)
        return NULL;
    ret->domain = match_open(t->conf, source_where(s, "domain"), domain, MATCH_STRING, TABLE_FOLD);
    e = match_error(ret->domain);
    return e ? err_make(t->gen, e->kind, "%.*s: %.*s", STR_ARG(source_where(s, "domain")), STR_ARG(e->text)) : NULL;
}

void query_common_close(struct query_common *q) {
    if (q->domain)
        match_close(q->domain);
    q->domain = NULL;
}

enum query_result query_common_allows(const struct query_common *q, struct table *t, struct str key, bool *ret_failed) {
    *ret_failed = false;
    struct parts parts = parts_of(key);
    struct buf none = { 0 };
    if (!key.n || expand(q->result_format, &parts, &parts, true, NULL, NULL, &none) == QUERY_SUPPRESSED)
        return QUERY_SUPPRESSED;
    if (!q->domain)
        return QUERY_OK;
    if (!parts.user.n || !parts.domain.n)
        return QUERY_SUPPRESSED;
    switch (match_find(q->domain, parts.domain, STR(""))) {
    case MATCH_YES:
        return QUERY_OK;
    case MATCH_NO:
        return QUERY_SUPPRESSED;
    default:
        *ret_failed = true;
        error e = match_error(q->domain);
        table_fail(t, "%.*s: the domain list cannot be read: %.*s", STR_ARG(t->spec),
                   STR_ARG(e ? e->text : STR("unknown")));
        return QUERY_SUPPRESSED;
    }
}

enum query_rows_result query_rows_add(struct query_rows *r, struct str value) {
    if (!value.n)
        return QUERY_ROWS_OK;
    struct parts key = parts_of(r->key), parts = parts_of(value);
    size_t before = r->all.n;
    if (before)
        buf_byte(&r->all, ',');
    enum query_result result = expand(r->common->result_format, &key, &parts, false, NULL, NULL, &r->all);
    if (result == QUERY_SUPPRESSED) {
        buf_truncate(&r->all, before);
        return QUERY_ROWS_OK;
    }
    if (result != QUERY_OK || r->all.n > LOOKUP_RESULT_MAX)
        return QUERY_ROWS_TOO_LONG;
    r->count++;
    return r->common->expansion_limit > 0 && r->count > r->common->expansion_limit ? QUERY_ROWS_LIMIT : QUERY_ROWS_OK;
}

enum table_result query_rows_done(const struct query_rows *r, struct arena *a, struct str *ret_value) {
    if (!r->all.n)
        return TABLE_NOT_FOUND;
    *ret_value = arena_str(a, buf_str(&r->all));
    return TABLE_FOUND;
}

/* --- SQL --- */

error query_sql_open(struct source *s, struct table *t, bool with_function, struct str *ret) {
    struct str query = source_str(s, "query", STR("")), function, select, from, where;
    const char *name = "query";
    function = with_function ? source_str(s, "select_function", STR("")) : STR("");
    static const char *const older[] = { "select_field", "table", "where_field", "additional_conditions" };
    for (size_t i = 0; i < sizeof older / sizeof older[0]; i++)
        source_has(s, older[i]); /* known, also where they do not count */
    if (query.n) {
        *ret = query;
    } else if (function.n) {
        name = "select_function";
        *ret = arena_printf(t->gen, "SELECT %.*s('%%s')", STR_ARG(function));
    } else {
        name = "where_field";
        error e = source_required(s, "table", &from);
        if (!e)
            e = source_required(s, "select_field", &select);
        if (!e)
            e = source_required(s, "where_field", &where);
        if (e)
            return err_make(t->gen, ERR_CONFIG, "%.*s (or set query instead)", STR_ARG(e->text));
        *ret = arena_printf(t->gen, "SELECT %.*s FROM %.*s WHERE %.*s = '%%s' %.*s", STR_ARG(select), STR_ARG(from),
                            STR_ARG(where), STR_ARG(source_str(s, "additional_conditions", STR(""))));
    }
    return query_check(s, name, *ret, false);
}

/* --- hosts --- */

struct query_hosts {
    struct query_host *at;
    size_t n;
    unsigned long round;
    int64_t idle, retry; /* seconds */
};

static int64_t now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static bool port_find(struct table *t, struct str text, uint16_t *ret) {
    uint32_t number;
    if (str_to_u32(text, UINT16_MAX, &number) && number > 0) {
        *ret = (uint16_t)number;
        return true;
    }
    if (!text.n || !byte_is_alpha(text.p[0]))
        return false;
    /* getservbyname() is not for threads */
    struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
    if (getaddrinfo(NULL, arena_cstr(t->gen, text), &hints, &found) != 0)
        return false;
    struct sockaddr_in in;
    memcpy(&in, found->ai_addr, sizeof in);
    *ret = ntohs(in.sin_port);
    freeaddrinfo(found);
    return true;
}

/* "/folder:5432": PostgreSQL's sockets have a port in their name. */
static const char *socket_parse(struct table *t, struct str path, bool postgres, struct query_host *host) {
    ptrdiff_t colon = postgres ? str_rindex(path, ':') : -1;
    host->is_unix = true;
    host->address = arena_str(t->gen, colon < 0 ? path : str_sub(path, 0, (size_t)colon));
    if (!host->address.n)
        return "unix: without a path";
    if (colon >= 0 && !port_find(t, str_from(path, (size_t)colon + 1), &host->port))
        return "the port is neither a number from 1 to 65535 nor the name of a service";
    return NULL;
}

static const char *host_parse(struct table *t, struct str word, bool postgres, struct query_host *host) {
    host->text = arena_str(t->gen, word);
    if (postgres && (str_starts(word, STR("postgresql://")) || str_starts(word, STR("postgres://")))) {
        host->is_uri = true;
        host->address = host->text;
        return NULL;
    }
    if (str_starts(word, STR("unix:")))
        return socket_parse(t, str_from(word, 5), postgres, host);
    if (postgres && word.p[0] == '/')
        return socket_parse(t, word, true, host);
    if (str_starts(word, STR("inet:")))
        word = str_from(word, 5);
    struct str name = word, port = STR("");
    ptrdiff_t colon = str_rindex(word, ':');
    bool with_port = colon >= 0;
    if (word.n && word.p[0] == '[') {
        ptrdiff_t end = str_index(word, ']');
        if (end < 0)
            return "'[' without ']'";
        name = str_sub(word, 1, (size_t)end - 1);
        struct str behind = str_from(word, (size_t)end + 1);
        with_port = behind.n > 0;
        if (with_port && behind.p[0] != ':')
            return "text behind ']'";
        port = str_from(behind, 1);
    } else if (colon >= 0) {
        name = str_sub(word, 0, (size_t)colon);
        port = str_from(word, (size_t)colon + 1);
    }
    if (!name.n)
        return "no host name";
    if (with_port && !port_find(t, port, &host->port))
        return "the port is neither a number from 1 to 65535 nor the name of a service";
    host->address = arena_str(t->gen, name);
    return NULL;
}

error query_hosts_open(struct table *t, struct source *s, struct str list, bool postgres, struct query_hosts **ret) {
    struct query_hosts *h = ARENA_NEW(t->gen, struct query_hosts);
    h->at = arena_array(t->gen, LOOKUP_HOSTS_MAX, sizeof *h->at);
    error e = source_int(s, "idle_interval", 60, 1, INT32_MAX, &h->idle);
    if (!e)
        e = source_int(s, "retry_interval", 60, 1, INT32_MAX, &h->retry);
    if (e)
        return e;
    struct str word;
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        if (h->n == LOOKUP_HOSTS_MAX)
            return err_make(t->gen, ERR_CONFIG, "%.*s: more than %d hosts", STR_ARG(source_where(s, "hosts")),
                            LOOKUP_HOSTS_MAX);
        struct query_host *host = &h->at[h->n++];
        const char *fault = host_parse(t, word, postgres, host);
        if (fault) /* a URI may hold a password, but those have no faults here */
            return err_make(t->gen, ERR_CONFIG, "%.*s: \"%.*s\": %s", STR_ARG(source_where(s, "hosts")), STR_ARG(word),
                            fault);
    }
    *ret = h;
    return NULL;
}

void query_hosts_begin(struct query_hosts *h) {
    h->round++;
}

/* The lower the sooner. */
static int host_class(const struct query_host *host) {
    return (host->connection ? 0 : 2) + (host->is_unix ? 0 : 1);
}

struct query_host *query_hosts_next(struct query_hosts *h) {
    int64_t now = now_seconds();
    struct query_host *best = NULL;
    uint32_t equals = 0;
    for (size_t i = 0; i < h->n; i++) {
        struct query_host *host = &h->at[i];
        if (host->round == h->round || host->rest_until > now)
            continue;
        int better = best ? host_class(best) - host_class(host) : 1;
        if (better > 0)
            equals = 0;
        /* the n-th of equals takes the place with a chance of 1 in n */
        if (better > 0 || (better == 0 && arc4random_uniform(++equals + 1) == 0))
            best = host;
    }
    if (best) {
        best->round = h->round;
        best->last_used = now;
    }
    return best;
}

void query_host_failed(struct query_hosts *h, struct query_host *host) {
    host->rest_until = now_seconds() + h->retry;
}

struct query_host *query_hosts_idle(struct query_hosts *h) {
    int64_t now = now_seconds();
    for (size_t i = 0; i < h->n; i++)
        if (h->at[i].connection && now - h->at[i].last_used >= h->idle)
            return &h->at[i];
    return NULL;
}

struct query_host *query_hosts_at(struct query_hosts *h, size_t i) {
    return h && i < h->n ? &h->at[i] : NULL;
}
