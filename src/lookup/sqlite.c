/* sqlite.c - SQLite files, only ever read (sqlite_table(5)). A query gives the first column of each row, as in Postfix.
 */
#include "lookup/sql.h"

#include "base/log.h"
#include <sqlite3.h>
#include <sys/stat.h>

enum {
    BUSY_MS = 5000,         /* for a writer to finish */
    STEPS_PER_CHECK = 10000 /* of SQLite's machine, between two looks at the clock */
};

struct sqlite {
    struct source *source;
    struct query_common common;
    struct str path, query;
    bool double_quotes; /* an expansion stands between double quotes */
    sqlite3 *db;        /* NULL: not open */
    dev_t dev;
    ino_t ino; /* of the file that is open */
    int64_t deadline;
};

/* --- the file --- */

static int over_time(void *arg) {
    const struct sqlite *s = arg;
    return sql_now_ms() >= s->deadline;
}

static void close_file(struct sqlite *s) {
    sqlite3_close(s->db);
    s->db = NULL;
}

/* The file that bears the name now, open: one that has been put in the other's place is another database. */
static bool open_file(struct table *t, struct sqlite *s) {
    struct stat st;
    if (stat(s->path.p, &st) != 0) {
        table_fail(t, "%.*s: dbpath %s: %m", STR_ARG(t->spec), s->path.p);
        close_file(s);
        return false;
    }
    if (s->db && s->dev == st.st_dev && s->ino == st.st_ino)
        return true;
    close_file(s);
    int result = sqlite3_open_v2(s->path.p, &s->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (result != SQLITE_OK) {
        table_fail(t, "%.*s: dbpath %s: %s", STR_ARG(t->spec), s->path.p,
                   s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(result));
        close_file(s);
        return false;
    }
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    sqlite3_busy_timeout(s->db, BUSY_MS);
    sqlite3_progress_handler(s->db, STEPS_PER_CHECK, over_time, s);
    return true;
}

/* --- look-up --- */

static bool quote(void *ctx, struct buf *b, struct str text) {
    const struct sqlite *s = ctx;
    if (s->double_quotes && str_index(text, '"') >= 0)
        return false; /* it would end what it stands in */
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\'')
            buf_byte(b, '\'');
        buf_byte(b, text.p[i]);
    }
    return true;
}

static enum table_result take_rows(struct table *t, sqlite3_stmt *statement, struct query_rows *rows, struct arena *a,
                                   struct str *ret_value) {
    const struct sqlite *s = t->state;
    int result;
    struct buf why = { 0 };
    enum sql_outcome outcome = SQL_ANSWERED;
    while (outcome == SQL_ANSWERED && (result = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(statement, 0);
        if (text) /* up to a NUL, for a blob may have one */
            outcome = sql_add_value(rows, str_c(text), &why);
    }
    if (outcome == SQL_ANSWERED && result == SQLITE_DONE) {
        buf_free(&why);
        return query_rows_done(rows, a, ret_value);
    }
    if (outcome == SQL_ANSWERED && result == SQLITE_INTERRUPT)
        buf_printf(&why, "the query takes more than %d seconds", LOOKUP_HOST_SECONDS);
    else if (outcome == SQL_ANSWERED)
        sql_first_line(&why, sqlite3_errmsg(s->db));
    table_fail(t, "%.*s: dbpath %s: %.*s", STR_ARG(t->spec), s->path.p, STR_ARG(buf_str(&why)));
    buf_free(&why);
    return TABLE_ERROR;
}

static enum table_result sqlite_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct sqlite *s = t->state;
    bool failed;
    if (query_common_allows(&s->common, t, key, &failed) != QUERY_OK)
        return failed ? TABLE_ERROR : TABLE_NOT_FOUND;
    struct buf query = { 0 };
    struct query_rows rows = { .common = &s->common, .key = key };
    enum query_result expanded = query_expand(s->query, key, quote, s, &query);
    enum table_result result = TABLE_NOT_FOUND;
    sqlite3_stmt *statement = NULL;
    s->deadline = sql_now_ms() + (int64_t)LOOKUP_HOST_SECONDS * 1000;
    if (expanded == QUERY_TOO_LONG)
        result = table_fail(t, "%.*s: the key cannot be put into the query", STR_ARG(t->spec));
    else if (expanded == QUERY_OK && !open_file(t, s))
        result = TABLE_ERROR;
    else if (expanded == QUERY_OK && sqlite3_prepare_v2(s->db, query.p, (int)query.n, &statement, NULL) != SQLITE_OK)
        result = table_fail(t, "%.*s: dbpath %s: the query cannot be used: %s", STR_ARG(t->spec), s->path.p,
                            sqlite3_errmsg(s->db));
    else if (expanded == QUERY_OK)
        result = take_rows(t, statement, &rows, a, ret_value);
    sqlite3_finalize(statement);
    buf_free(&rows.all);
    buf_free(&query);
    return result;
}

/* --- the table --- */

/* Does %s or one of its kind stand between double quotes? Only single quotes are doubled in what is put in. */
static bool expands_in_double_quotes(struct str query) {
    char inside = 0;
    for (size_t i = 0; i < query.n; i++) {
        char c = query.p[i];
        if (c == '%' && inside == '"' && i + 1 < query.n && query.p[i + 1] != '%')
            return true;
        i += c == '%';
        if (inside && c == inside)
            inside = 0;
        else if (!inside && (c == '"' || c == '\''))
            inside = c;
    }
    return false;
}

static error sqlite_open(struct table *t) {
    struct sqlite *s = ARENA_NEW(t->gen, struct sqlite);
    t->state = s;
    error e = source_open(t, &s->source);
    if (!e)
        e = query_common_open(t, s->source, NULL, &s->common);
    if (!e)
        e = source_required(s->source, "dbpath", &s->path);
    if (!e)
        e = query_sql_open(s->source, t, false, &s->query);
    if (e)
        return e;
    s->double_quotes = expands_in_double_quotes(s->query);
    if (s->double_quotes)
        log_warn("%.*s: the key is put between double quotes, where it is not safe: write '%%s' instead of \"%%s\"",
                 STR_ARG(source_where(s->source, "query")));
    source_warn_unused(s->source);
    return NULL;
}

static void sqlite_close(struct table *t) {
    struct sqlite *s = t->state;
    if (!s)
        return;
    close_file(s);
    query_common_close(&s->common);
    source_close(s->source);
    s->source = NULL;
}

const struct table_type table_type_sqlite = { .name = STR_INIT("sqlite"),
                                              .fixed = true,
                                              .kept = true,
                                              .open = sqlite_open,
                                              .get = sqlite_get,
                                              .close = sqlite_close };
