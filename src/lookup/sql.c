#include "lookup/sql.h"

#include "base/log.h"
#include <errno.h>
#include <poll.h>
#include <time.h>

enum { STALE_MS = 3000 /* a connection that died while nobody used it shows it sooner */ };

int64_t sql_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool sql_wait(int fd, short events, int64_t deadline) {
    for (;;) {
        int64_t left = deadline - sql_now_ms();
        struct pollfd p = { .fd = fd, .events = events };
        int n = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (n > 0 || (n < 0 && errno != EINTR))
            return true; /* what is wrong with it shows when it is used */
        if (left <= 0)
            return false;
    }
}

void sql_first_line(struct buf *b, const char *text) {
    struct str rest = str_trim(str_c(text)), line;
    if (str_next(&rest, STR("\n"), &line))
        buf_add(b, str_trim(line));
}

/* --- open, close --- */

error sql_open(struct table *t, const struct sql_client *client, struct str hosts_default, bool postgres,
               struct sql **ret) {
    struct sql *s = ARENA_NEW(t->gen, struct sql);
    t->state = *ret = s;
    s->client = client;
    error e = source_open(t, &s->source);
    if (!e)
        e = query_common_open(t, s->source, NULL, &s->common);
    if (!e)
        e = query_sql_open(s->source, t, postgres, &s->query);
    if (e)
        return e;
    struct str hosts = source_str(s->source, "hosts", STR(""));
    if (!str_word(&(struct str){ hosts.p, hosts.n }, STR_COMMA_SPACE, &(struct str){ 0 }))
        hosts = hosts_default;
    return query_hosts_open(t, s->source, hosts, postgres, &s->hosts);
}

static void disconnect(struct sql *s, struct query_host *host) {
    if (host->connection)
        s->client->disconnect(host->connection);
    host->connection = NULL;
}

void sql_close(struct table *t) {
    struct sql *s = t->state;
    if (!s)
        return;
    struct query_host *host;
    for (size_t i = 0; (host = query_hosts_at(s->hosts, i)) != NULL; i++)
        disconnect(s, host);
    query_common_close(&s->common);
    source_close(s->source);
    s->source = NULL;
}

/* --- look-up --- */

enum sql_outcome sql_add_value(struct query_rows *rows, struct str value, struct buf *why) {
    switch (query_rows_add(rows, value)) {
    case QUERY_ROWS_OK:
        return SQL_ANSWERED;
    case QUERY_ROWS_LIMIT:
        buf_add(why, STR("more values than expansion_limit allows"));
        return SQL_TOO_MUCH;
    default:
        buf_printf(why, "the answer is longer than %d bytes", LOOKUP_RESULT_MAX);
        return SQL_TOO_MUCH;
    }
}

struct lookup {
    struct sql *s;
    struct table *t;
    struct str key;
    int64_t deadline;
    struct query_rows rows;
    struct buf query, why;
    bool not_representable;
};

static int64_t host_deadline(const struct lookup *l) {
    int64_t d = sql_now_ms() + (int64_t)LOOKUP_HOST_SECONDS * 1000;
    return d < l->deadline ? d : l->deadline;
}

static enum sql_outcome ask_connected(struct lookup *l, struct query_host *host) {
    struct sql *s = l->s;
    if (!s->client->may_ask(host->connection, l->key)) {
        l->not_representable = true;
        return SQL_ANSWERED;
    }
    buf_clear(&l->query);
    if (query_expand(s->query, l->key, s->client->quote, host->connection, &l->query) != QUERY_OK) {
        buf_add(&l->why, STR("the key cannot be put into the query"));
        return SQL_REFUSED;
    }
    return s->client->ask(host->connection, buf_str(&l->query), host_deadline(l), &l->rows, &l->why);
}

static enum sql_outcome ask_host(struct lookup *l, struct query_host *host) {
    bool old = host->connection != NULL;
    for (;;) {
        buf_clear(&l->why);
        buf_clear(&l->rows.all);
        l->rows.count = 0;
        int64_t began = sql_now_ms(), deadline = host_deadline(l);
        if (!host->connection)
            host->connection = l->s->client->connect(l->s, host, deadline, &l->why);
        enum sql_outcome outcome = host->connection ? ask_connected(l, host) : SQL_FAILED;
        if (outcome == SQL_FAILED || outcome == SQL_TOO_MUCH)
            disconnect(l->s, host);
        if (outcome != SQL_FAILED || !old || sql_now_ms() - began > STALE_MS)
            return outcome;
        old = false;
    }
}

static enum table_result ask_hosts(struct lookup *l, struct arena *a, struct str *ret_value) {
    struct sql *s = l->s;
    struct query_host *host, *last = NULL;
    query_hosts_begin(s->hosts);
    while (sql_now_ms() < l->deadline && (host = query_hosts_next(s->hosts))) {
        last = host;
        switch (ask_host(l, host)) {
        case SQL_ANSWERED:
            return l->not_representable ? TABLE_NOT_FOUND : query_rows_done(&l->rows, a, ret_value);
        case SQL_NO_RESULT:
            if (!s->no_result_is_error)
                return TABLE_NOT_FOUND;
            return table_fail(l->t, "%.*s: the statement gave no result set (see require_result_set)",
                              STR_ARG(l->t->spec));
        case SQL_TOO_MUCH:
            return table_fail(l->t, "%.*s: %.*s", STR_ARG(l->t->spec), STR_ARG(buf_str(&l->why)));
        case SQL_FAILED:
            query_host_failed(s->hosts, host);
            log_warn("%.*s: server %.*s: %.*s", STR_ARG(l->t->spec), STR_ARG(host->text), STR_ARG(buf_str(&l->why)));
            break;
        case SQL_REFUSED:
            break;
        }
    }
    if (!last)
        return table_fail(l->t, "%.*s: all servers rest after a failure (see retry_interval)", STR_ARG(l->t->spec));
    return table_fail(l->t, "%.*s: server %.*s: %.*s", STR_ARG(l->t->spec), STR_ARG(last->text),
                      STR_ARG(buf_str(&l->why)));
}

enum table_result sql_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct sql *s = t->state;
    struct query_host *idle;
    while ((idle = query_hosts_idle(s->hosts)))
        disconnect(s, idle);
    bool failed;
    if (query_common_allows(&s->common, t, key, &failed) != QUERY_OK)
        return failed ? TABLE_ERROR : TABLE_NOT_FOUND;
    struct lookup l = { .s = s, .t = t, .key = key, .rows = { .common = &s->common, .key = key } };
    l.deadline = sql_now_ms() + (int64_t)SQL_LOOKUP_SECONDS * 1000;
    enum table_result result = TABLE_NOT_FOUND;
    if (query_expand(s->query, key, NULL, NULL, &l.query) != QUERY_SUPPRESSED) /* before a server is troubled */
        result = ask_hosts(&l, a, ret_value);
    buf_free(&l.query);
    buf_free(&l.why);
    buf_free(&l.rows.all);
    return result;
}
