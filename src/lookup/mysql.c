/* mysql.c - MariaDB and MySQL, through MariaDB Connector/C (mysql_table(5)).
 *
 * The library's non-blocking calls are used, because its own timeouts are per read: a server that sends a byte now and
 * then would stay for ever. Rows are fetched one by one, so that a careless query does not fill the memory. It keeps
 * nothing per thread (its mysql_thread_init() is empty), so a connection may be used by one thread after the other. */
#include "lookup/sql.h"

#include "base/utf8.h"
#include <mysql.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LIBRARY_STACK = 256 * 1024,    /* on which the library runs while it can be interrupted; TLS needs some */
    PACKET_MAX = 4 * 1024 * 1024,  /* bytes of a row, or of a statement */
    SERVER_SHUTDOWN = 1053,        /* ER_SERVER_SHUTDOWN */
    QUERY_INTERRUPTED = 1317,      /* ER_QUERY_INTERRUPTED */
    CONNECTION_KILLED = 1927,      /* ER_CONNECTION_KILLED */
    STATEMENT_TIMEOUT = 1969,      /* ER_STATEMENT_TIMEOUT */
    STATEMENT_TIMEOUT_MYSQL = 3024 /* ER_QUERY_TIMEOUT */
};

struct settings {
    const char *user, *password, *dbname; /* NULL: not set, the option file may have them */
    const char *charset, *option_file, *option_group;
    const char *tls_key, *tls_cert, *tls_ca_file, *tls_ca_path, *tls_ciphers;
    bool charset_is_set, tls, tls_verify_is_set, tls_verify;
};

static pthread_once_t library = PTHREAD_ONCE_INIT;
static void library_start(void) {
    mysql_server_init(0, NULL, NULL);
}

/* --- waiting --- */

/* What the library waits for has happened, or (MYSQL_WAIT_TIMEOUT) the time is over. */
static int wait_for(MYSQL *m, int status, int64_t deadline) {
    short events = 0;
    if (status & MYSQL_WAIT_READ)
        events |= POLLIN;
    if (status & MYSQL_WAIT_WRITE)
        events |= POLLOUT;
    if (status & MYSQL_WAIT_EXCEPT)
        events |= POLLPRI;
    int fd = mysql_get_socket(m);
    if (sql_wait(fd, events, deadline))
        return status & ~MYSQL_WAIT_TIMEOUT;
    shutdown(fd, SHUT_RDWR); /* whatever it does next fails */
    return MYSQL_WAIT_TIMEOUT;
}

static int run(MYSQL *m, struct str query, int64_t deadline) {
    int failed = 0;
    int status = mysql_real_query_start(&failed, m, query.p, query.n);
    while (status)
        status = mysql_real_query_cont(&failed, m, wait_for(m, status, deadline));
    return failed;
}

static int set_charset(MYSQL *m, const char *name, int64_t deadline) {
    int failed = 0;
    int status = mysql_set_character_set_start(&failed, m, name);
    while (status)
        status = mysql_set_character_set_cont(&failed, m, wait_for(m, status, deadline));
    return failed;
}

static void describe(MYSQL *m, int64_t deadline, struct buf *why) {
    if (sql_now_ms() >= deadline)
        buf_add(why, STR("no answer in time: "));
    sql_first_line(why, mysql_error(m));
}

/* --- connections --- */

static void disconnect(void *connection) {
    mysql_close(connection);
}

static const char *name_or_null(struct str s) {
    return s.n ? s.p : NULL;
}

static void set_options(MYSQL *m, const struct settings *o) {
    size_t stack = LIBRARY_STACK, packet = PACKET_MAX;
    unsigned seconds = LOOKUP_HOST_SECONDS, no = 0;
    my_bool yes = 1, verify = o->tls_verify;
    mysql_options(m, MYSQL_OPT_NONBLOCK, &stack);
    mysql_options(m, MYSQL_OPT_CONNECT_TIMEOUT, &seconds);
    mysql_options(m, MYSQL_OPT_READ_TIMEOUT, &seconds);
    mysql_options(m, MYSQL_OPT_WRITE_TIMEOUT, &seconds);
    mysql_options(m, MYSQL_OPT_MAX_ALLOWED_PACKET, &packet);
    mysql_options(m, MYSQL_OPT_LOCAL_INFILE, &no); /* a server may not ask for our files */
    mysql_options(m, MYSQL_SET_CHARSET_NAME, o->charset);
    if (o->option_file)
        mysql_options(m, MYSQL_READ_DEFAULT_FILE, o->option_file);
    if (o->option_group)
        mysql_options(m, MYSQL_READ_DEFAULT_GROUP, o->option_group);
    if (o->tls) {
        mysql_ssl_set(m, o->tls_key, o->tls_cert, o->tls_ca_file, o->tls_ca_path, o->tls_ciphers);
        mysql_options(m, MYSQL_OPT_SSL_ENFORCE, &yes);
    }
    if (o->tls_verify_is_set)
        mysql_options(m, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
}

/* So that the server, too, gives up a statement we do not wait for any more. Not every server can: its error does not
 * count. A shorter time that is set there stays. */
static bool limit_statements(MYSQL *m, int64_t deadline) {
    struct buf b = { 0 };
    if (mariadb_connection(m))
        buf_printf(&b,
                   "SET SESSION max_statement_time = IF(@@max_statement_time BETWEEN 0.001 AND %d.%03d, "
                   "@@max_statement_time, %d.%03d)",
                   SQL_STATEMENT_MS / 1000, SQL_STATEMENT_MS % 1000, SQL_STATEMENT_MS / 1000, SQL_STATEMENT_MS % 1000);
    else
        buf_printf(&b,
                   "SET SESSION max_execution_time = IF(@@max_execution_time BETWEEN 1 AND %d, "
                   "@@max_execution_time, %d)",
                   SQL_STATEMENT_MS, SQL_STATEMENT_MS);
    int failed = run(m, buf_str(&b), deadline);
    buf_free(&b);
    unsigned e = mysql_errno(m);
    return !failed || (e >= 1000 && e < 2000 && e != SERVER_SHUTDOWN && e != CONNECTION_KILLED);
}

static void *connect_host(struct sql *s, const struct query_host *host, int64_t deadline, struct buf *why) {
    const struct settings *o = s->own;
    MYSQL *m = mysql_init(NULL), *connected = NULL;
    if (!m) {
        buf_add(why, STR("out of memory"));
        return NULL;
    }
    set_options(m, o);
    const char *name = host->is_unix ? NULL : host->address.p, *path = host->is_unix ? host->address.p : NULL;
    int status = mysql_real_connect_start(&connected, m, name, o->user, o->password, o->dbname, host->port, path,
                                          CLIENT_MULTI_RESULTS);
    while (status)
        status = mysql_real_connect_cont(&connected, m, wait_for(m, status, deadline));
    /* MYSQL_OPT_SSL_ENFORCE alone does not keep MariaDB's library from going on without TLS */
    bool no_tls = connected && o->tls && !mysql_get_ssl_cipher(m);
    if (connected && !no_tls &&
        (!o->charset_is_set || strcmp(mysql_character_set_name(m), o->charset) == 0 ||
         set_charset(m, o->charset, deadline) == 0) &&
        limit_statements(m, deadline))
        return m;
    buf_add(why, STR("connect: "));
    if (no_tls)
        buf_add(why, STR("the server has no TLS, which a tls_ setting of this table asks for"));
    else
        describe(m, deadline, why);
    mysql_close(m);
    return NULL;
}

/* --- questions --- */

static bool quote(void *connection, struct buf *b, struct str text) {
    char *at = buf_reserve(b, 2 * text.n + 1);
    unsigned long n = mysql_real_escape_string(connection, at, text.p, text.n);
    if (n == (unsigned long)-1)
        return false;
    b->n += n;
    b->p[b->n] = 0;
    return true;
}

/* What is not UTF-8 cannot be in a table that is asked in UTF-8. */
static bool may_ask(void *connection, struct str key) {
    return strncmp(mysql_character_set_name(connection), "utf8", 4) != 0 || utf8_valid(key);
}

static enum sql_outcome failure(MYSQL *m, int64_t deadline, struct buf *why) {
    describe(m, deadline, why);
    unsigned e = mysql_errno(m);
    bool of_server = (e >= 1000 && e < 2000) || (e >= 3000 && e < 5000);
    bool ends = e == SERVER_SHUTDOWN || e == CONNECTION_KILLED || e == QUERY_INTERRUPTED || e == STATEMENT_TIMEOUT ||
                e == STATEMENT_TIMEOUT_MYSQL;
    return of_server && !ends ? SQL_REFUSED : SQL_FAILED;
}

static enum sql_outcome add_row(MYSQL_RES *result, MYSQL_ROW row, struct query_rows *rows, struct buf *why) {
    unsigned columns = mysql_num_fields(result);
    const unsigned long *lengths = mysql_fetch_lengths(result);
    enum sql_outcome outcome = SQL_ANSWERED;
    for (unsigned i = 0; i < columns && outcome == SQL_ANSWERED; i++)
        if (row[i])
            outcome = sql_add_value(rows, str_n(row[i], lengths[i]), why);
    return outcome;
}

/* Also reads a result to its end. */
static enum sql_outcome take_rows(MYSQL *m, int64_t deadline, struct query_rows *rows, struct buf *why) {
    MYSQL_RES *result = mysql_use_result(m);
    if (!result)
        return failure(m, deadline, why);
    enum sql_outcome outcome = SQL_ANSWERED;
    MYSQL_ROW row = NULL;
    do {
        int status = mysql_fetch_row_start(&row, result);
        while (status)
            status = mysql_fetch_row_cont(&row, result, wait_for(m, status, deadline));
        if (row)
            outcome = add_row(result, row, rows, why);
    } while (row && outcome == SQL_ANSWERED);
    if (outcome == SQL_ANSWERED && mysql_errno(m))
        outcome = failure(m, deadline, why);
    if (outcome != SQL_ANSWERED && outcome != SQL_REFUSED)
        shutdown(mysql_get_socket(m), SHUT_RDWR); /* or free_result() would read what is left */
    mysql_free_result(result);
    return outcome;
}

static enum sql_outcome ask(void *connection, struct str query, int64_t deadline, struct query_rows *rows,
                            struct buf *why) {
    MYSQL *m = connection;
    enum sql_outcome outcome = run(m, query, deadline) ? failure(m, deadline, why) : SQL_ANSWERED;
    bool any = false;
    int more = 0;
    while (outcome == SQL_ANSWERED && more == 0) {
        if (mysql_field_count(m) > 0 && any) {
            buf_add(why, STR("the statement gave more than one result set"));
            outcome = SQL_TOO_MUCH;
            break;
        }
        if (mysql_field_count(m) > 0) {
            any = true;
            outcome = take_rows(m, deadline, rows, why);
        }
        if (outcome == SQL_ANSWERED) {
            int status = mysql_next_result_start(&more, m);
            while (status)
                status = mysql_next_result_cont(&more, m, wait_for(m, status, deadline));
            if (more > 0)
                outcome = failure(m, deadline, why);
        }
    }
    return outcome == SQL_ANSWERED && !any ? SQL_NO_RESULT : outcome;
}

static const struct sql_client client = { connect_host, disconnect, quote, ask, may_ask };

/* --- the table --- */

static error option_file_check(struct table *t, struct source *s, const char *path) {
    if (!path || access(path, R_OK) == 0)
        return NULL;
    return err_make(t->gen, ERR_TEMP, "%.*s: %s: %m", STR_ARG(source_where(s, "option_file")), path);
}

static error read_settings(struct table *t, struct source *s, struct settings *o) {
    struct str dbname;
    error e = source_required(s, "dbname", &dbname);
    if (e)
        return e;
    o->dbname = dbname.p;
    o->user = name_or_null(source_str(s, "user", STR("")));
    o->password = name_or_null(source_str(s, "password", STR("")));
    o->charset_is_set = source_has(s, "charset");
    o->charset = source_str(s, "charset", STR("utf8mb4")).p;
    if (!mariadb_get_charset_by_name(o->charset))
        return err_make(t->gen, ERR_CONFIG, "%.*s: \"%s\" is no character set of the client library",
                        STR_ARG(source_where(s, "charset")), o->charset);
    o->option_file = name_or_null(source_str(s, "option_file", STR("")));
    o->option_group = name_or_null(source_str(s, "option_group", STR("client")));
    o->tls_key = name_or_null(source_str(s, "tls_key_file", STR("")));
    o->tls_cert = name_or_null(source_str(s, "tls_cert_file", STR("")));
    o->tls_ca_file = name_or_null(source_str(s, "tls_CAfile", STR("")));
    o->tls_ca_path = name_or_null(source_str(s, "tls_CApath", STR("")));
    o->tls_ciphers = name_or_null(source_str(s, "tls_ciphers", STR("")));
    o->tls_verify_is_set = source_has(s, "tls_verify_cert");
    e = source_bool(s, "tls_verify_cert", false, &o->tls_verify);
    o->tls = o->tls_key || o->tls_cert || o->tls_ca_file || o->tls_ca_path || o->tls_ciphers || o->tls_verify;
    return e ? e : option_file_check(t, s, o->option_file);
}

static error mysql_open(struct table *t) {
    pthread_once(&library, library_start);
    struct sql *s;
    error e = sql_open(t, &client, STR("localhost"), false, &s);
    if (!e)
        e = source_bool(s->source, "require_result_set", true, &s->no_result_is_error);
    s->own = ARENA_NEW(t->gen, struct settings);
    if (!e)
        e = read_settings(t, s->source, s->own);
    if (!e)
        source_warn_unused(s->source);
    return e;
}

const struct table_type table_type_mysql = {
    .name = STR_INIT("mysql"), .fixed = true, .kept = true, .open = mysql_open, .get = sql_get, .close = sql_close
};
