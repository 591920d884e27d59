/* pgsql.c - PostgreSQL, through libpq's non-blocking calls (pgsql_table(5)). Rows are fetched one by one, so that a
 * careless query does not fill the memory. */
#include "lookup/sql.h"

#include "base/utf8.h"
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>

struct settings {
    const char *user, *password, *dbname, *encoding;
};

static void no_notice(void *arg, const char *message) {
    (void)arg, (void)message;
}

/* --- connections --- */

static void disconnect(void *connection) {
    PQfinish(connection);
}

/* Add the reason, without the lines of explanation behind it. */
static void describe(PGconn *c, bool in_time, struct buf *why) {
    if (!in_time)
        buf_add(why, STR("no answer in time"));
    else
        sql_first_line(why, PQerrorMessage(c));
}

static PGconn *start(const struct settings *o, const struct query_host *host) {
    char port[8] = "";
    if (host->port)
        snprintf(port, sizeof port, "%u", host->port);
    if (host->is_uri) { /* who writes a URI says everything there, but for what all the tables have */
        const char *const names[] = { "dbname", "client_encoding", NULL };
        const char *const values[] = { host->address.p, o->encoding, NULL };
        return PQconnectStartParams(names, values, 1);
    }
    const char *const names[] = { "host", "port", "user", "password", "dbname", "client_encoding", NULL };
    const char *const values[] = { host->address.p, port, o->user, o->password, o->dbname, o->encoding, NULL };
    return PQconnectStartParams(names, values, 0);
}

/* The end of one result after the other, up to the last. `rows` may be NULL. */
static enum sql_outcome take_results(PGconn *c, int64_t deadline, struct query_rows *rows, struct buf *why);

/* So that the server, too, gives up a statement we do not wait for any more. A time that is set there stays; a server
 * that knows no such setting (there are others that speak the protocol) is used all the same. */
static bool limit_statements(PGconn *c, int64_t deadline, struct buf *why) {
    struct buf b = { 0 };
    buf_printf(&b,
               "SELECT set_config('statement_timeout', '%d', false) "
               "WHERE current_setting('statement_timeout') = '0'",
               SQL_STATEMENT_MS);
    struct buf ignored = { 0 };
    enum sql_outcome outcome = PQsendQuery(c, b.p) ? take_results(c, deadline, NULL, &ignored) : SQL_FAILED;
    if (outcome == SQL_FAILED)
        buf_add(why, buf_str(&ignored));
    buf_free(&ignored);
    buf_free(&b);
    return outcome != SQL_FAILED;
}

static void *connect_host(struct sql *s, const struct query_host *host, int64_t deadline, struct buf *why) {
    PGconn *c = start(s->own, host);
    if (!c) {
        buf_add(why, STR("out of memory"));
        return NULL;
    }
    PQsetNoticeProcessor(c, no_notice, NULL);
    PostgresPollingStatusType state = PQstatus(c) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    bool in_time = true;
    while (in_time && state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
        in_time = sql_wait(PQsocket(c), state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline);
        if (in_time)
            state = PQconnectPoll(c);
    }
    buf_add(why, STR("connect: "));
    if (in_time && state == PGRES_POLLING_OK && PQsetnonblocking(c, 1) == 0) {
        if (limit_statements(c, deadline, why)) {
            buf_clear(why);
            return c;
        }
    } else {
        describe(c, in_time, why);
    }
    PQfinish(c);
    return NULL;
}

/* --- questions --- */

static bool quote(void *connection, struct buf *b, struct str text) {
    int failed = 0;
    char *at = buf_reserve(b, 2 * text.n + 1);
    size_t n = PQescapeStringConn(connection, at, text.p, text.n, &failed);
    if (failed)
        return false;
    b->n += n;
    b->p[b->n] = 0;
    return true;
}

/* What is not UTF-8 cannot be in a table that is asked in UTF-8. */
static bool may_ask(void *connection, struct str key) {
    return strcmp(pg_encoding_to_char(PQclientEncoding(connection)), "UTF8") != 0 || utf8_valid(key);
}

static enum sql_outcome failure(PGconn *c, const PGresult *r, struct buf *why) {
    const char *state = r ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : NULL;
    const char *text = r ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    sql_first_line(why, text ? text : r ? PQresultErrorMessage(r) : PQerrorMessage(c));
    if (PQstatus(c) != CONNECTION_OK || !state)
        return SQL_FAILED;
    /* 08: the connection; 57: shut down, cancelled by the timeout ("operator intervention") */
    return strncmp(state, "08", 2) == 0 || strncmp(state, "57", 2) == 0 ? SQL_FAILED : SQL_REFUSED;
}

static enum sql_outcome add_rows(const PGresult *r, struct query_rows *rows, struct buf *why) {
    enum sql_outcome outcome = SQL_ANSWERED;
    int columns = PQnfields(r), values = rows ? PQntuples(r) * columns : 0;
    for (int i = 0; i < values && outcome == SQL_ANSWERED; i++) {
        int row = i / columns, column = i % columns;
        if (!PQgetisnull(r, row, column))
            outcome = sql_add_value(rows, str_n(PQgetvalue(r, row, column), (size_t)PQgetlength(r, row, column)), why);
    }
    return outcome;
}

static enum sql_outcome add_result(PGconn *c, const PGresult *r, struct query_rows *rows, struct buf *why) {
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_SINGLE_TUPLE || status == PGRES_TUPLES_OK)
        return add_rows(r, rows, why);
    if (status == PGRES_COMMAND_OK)
        return SQL_ANSWERED;
    if (status == PGRES_EMPTY_QUERY) {
        buf_add(why, STR("the query is empty"));
        return SQL_REFUSED;
    }
    if (status != PGRES_FATAL_ERROR) { /* COPY: there is no way back from it */
        buf_add(why, STR("the query is none that gives rows"));
        return SQL_TOO_MUCH;
    }
    return failure(c, r, why);
}

/* A result is ready to be taken, or there are no more. */
static enum sql_outcome wait_result(PGconn *c, int64_t deadline, struct buf *why) {
    int unsent;
    while ((unsent = PQflush(c)) == 1) {
        if (!sql_wait(PQsocket(c), POLLIN | POLLOUT, deadline))
            break;
        if (!PQconsumeInput(c))
            return failure(c, NULL, why);
    }
    if (unsent < 0)
        return failure(c, NULL, why);
    while (unsent == 0 && PQisBusy(c)) {
        if (!sql_wait(PQsocket(c), POLLIN, deadline)) {
            unsent = 1;
            break;
        }
        if (!PQconsumeInput(c))
            return failure(c, NULL, why);
    }
    if (unsent == 0)
        return SQL_ANSWERED;
    describe(c, false, why);
    return SQL_FAILED;
}

static enum sql_outcome take_results(PGconn *c, int64_t deadline, struct query_rows *rows, struct buf *why) {
    enum sql_outcome outcome = SQL_ANSWERED;
    bool ended = false; /* the result before: of several statements, the last one's rows count */
    PQsetSingleRowMode(c);
    for (;;) {
        enum sql_outcome waited = wait_result(c, deadline, why);
        if (waited != SQL_ANSWERED)
            return waited;
        PGresult *r = PQgetResult(c);
        if (!r)
            return outcome;
        if (ended && rows && outcome == SQL_ANSWERED) {
            buf_clear(&rows->all);
            rows->count = 0;
        }
        ended = PQresultStatus(r) != PGRES_SINGLE_TUPLE;
        if (outcome == SQL_ANSWERED)
            outcome = add_result(c, r, rows, why);
        PQclear(r);
        if (outcome == SQL_FAILED || outcome == SQL_TOO_MUCH)
            return outcome;
    }
}

static enum sql_outcome ask(void *connection, struct str query, int64_t deadline, struct query_rows *rows,
                            struct buf *why) {
    PGconn *c = connection;
    if (!PQsendQuery(c, query.p))
        return failure(c, NULL, why);
    return take_results(c, deadline, rows, why);
}

static const struct sql_client client = { connect_host, disconnect, quote, ask, may_ask };

/* --- the table --- */

/* The text of a URI may hold a password: in messages the server's name stands for it. */
static error check_uri(struct table *t, struct source *s, struct query_host *host, size_t index) {
    char *fault = NULL;
    PQconninfoOption *options = PQconninfoParse(host->address.p, &fault);
    PQfreemem(fault); /* it, too, shows the URI */
    if (!options)
        return err_make(t->gen, ERR_CONFIG, "%.*s: the URI at place %zu is malformed",
                        STR_ARG(source_where(s, "hosts")), index + 1);
    const char *name = NULL, *port = NULL;
    for (const PQconninfoOption *o = options; o->keyword; o++) {
        if (strcmp(o->keyword, "host") == 0 || (strcmp(o->keyword, "hostaddr") == 0 && !name))
            name = o->val ? o->val : name;
        if (strcmp(o->keyword, "port") == 0)
            port = o->val;
    }
    host->text = arena_printf(t->gen, "postgresql://%s%s%s", name ? name : "", port ? ":" : "", port ? port : "");
    PQconninfoFree(options);
    return NULL;
}

static error read_settings(struct table *t, struct sql *s, struct settings *o) {
    struct source *source = s->source;
    struct query_host *host;
    bool all_uris = true;
    error e = NULL;
    for (size_t i = 0; !e && (host = query_hosts_at(s->hosts, i)) != NULL; i++) {
        all_uris = all_uris && host->is_uri;
        if (host->is_uri)
            e = check_uri(t, source, host, i);
    }
    struct str dbname = source_str(source, "dbname", STR(""));
    if (!e && !all_uris)
        e = source_required(source, "dbname", &dbname);
    o->dbname = dbname.p;
    o->user = source_str(source, "user", STR("")).p;
    o->password = source_str(source, "password", STR("")).p;
    o->encoding = source_str(source, "encoding", STR("UTF8")).p;
    if (!e && pg_char_to_encoding(o->encoding) < 0)
        e = err_make(t->gen, ERR_CONFIG, "%.*s: \"%s\" is no encoding of PostgreSQL",
                     STR_ARG(source_where(source, "encoding")), o->encoding);
    return e;
}

static error pgsql_open(struct table *t) {
    struct sql *s;
    error e = sql_open(t, &client, STR("localhost"), true, &s);
    s->own = ARENA_NEW(t->gen, struct settings);
    if (!e)
        e = read_settings(t, s, s->own);
    if (!e)
        source_warn_unused(s->source);
    return e;
}

const struct table_type table_type_pgsql = {
    .name = STR_INIT("pgsql"), .fixed = true, .kept = true, .open = pgsql_open, .get = sql_get, .close = sql_close
};
