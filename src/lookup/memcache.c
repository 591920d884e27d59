/* memcache: (memcache_table(5)). The text protocol over a socket of our own: libmemcached waits in places without a
 * limit (name service, reconnecting), brings the C++ runtime with it, and has none of line_size_limit, data_size_limit
 * and retry_pause. Three commands are used: get, set and delete. */
#include "base/log.h"
#include "lookup/memcache_reply.h"
#include "lookup/query.h"
#include "lookup/wire.h"
#include "run/sys.h"
#include <inttypes.h>
#include <openssl/evp.h>
#include <sys/un.h>
#include <time.h>

enum {
    MEMCACHE_KEY_MAX = 250, /* bytes, of the protocol */
    MEMCACHE_TRIES_MAX = 100,
    MEMCACHE_REST_SECONDS = 1, /* a server that failed rests so long, or as long as it made us wait */
    MEMCACHE_LINES = 2 * 1024, /* room for what ends a line or an answer, beside the limits */
    SECOND = 1000000,
};

struct memcache_state {
    struct str host, port, path; /* `path`: a unix socket */
    struct str where;            /* as written */
    struct query_common common;
    const char *key_format;
    EVP_MD *digest;
    struct table *backup;
    int64_t ttl, flags, timeout, max_try, retry_pause, line_size_limit, data_size_limit;
    struct wire wire;
    int64_t rest_until;
};

/* --- settings --- */

static error read_server(struct table *t, struct source *s, struct memcache_state *m) {
    m->where = arena_str(t->gen, source_str(s, "memcache", STR("inet:localhost:11211")));
    if (str_starts(m->where, STR("unix:/"))) {
        m->path = str_from(m->where, 5);
        if (m->path.n < sizeof((struct sockaddr_un *)NULL)->sun_path)
            return NULL;
    } else if (str_starts(m->where, STR("inet:"))) {
        struct str rest = str_from(m->where, 5);
        ptrdiff_t colon = str_rindex(rest, ':');
        struct str host = str_sub(rest, 0, colon < 0 ? 0 : (size_t)colon), port = str_from(rest, (size_t)(colon + 1));
        if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
            host = str_sub(host, 1, host.n - 2);
        m->host = host;
        m->port = port;
        if (host.n && port.n && str_index_any(host, STR("[]")) < 0)
            return NULL;
    }
    struct str place = source_where(s, "memcache");
    return err_make(t->gen, ERR_CONFIG, "%.*s: memcache = %.*s: expecting inet:host:port or unix:/path", STR_ARG(place),
                    STR_ARG(m->where));
}

static error read_key(struct table *t, struct source *s, struct memcache_state *m) {
    struct str format = source_str(s, "key_format", STR("%s")), digest = source_str(s, "key_digest", STR(""));
    error e = query_check(s, "key_format", format, false);
    if (e)
        return e;
    m->key_format = arena_cstr(t->gen, format);
    if (digest.n && !(m->digest = EVP_MD_fetch(NULL, digest.p, NULL))) {
        struct str place = source_where(s, "key_digest");
        return err_make(t->gen, ERR_CONFIG, "%.*s: key_digest = %.*s: OpenSSL has no such digest", STR_ARG(place),
                        STR_ARG(digest));
    }
    return NULL;
}

static error read_settings(struct table *t, struct source *s, struct memcache_state *m) {
    error e;
    if ((e = query_common_open(t, s, NULL, &m->common)) || (e = read_server(t, s, m)) || (e = read_key(t, s, m)) ||
        (e = source_int(s, "ttl", 3600, INT32_MIN, INT32_MAX, &m->ttl)) ||
        (e = source_int(s, "flags", 0, 0, UINT32_MAX, &m->flags)) ||
        (e = source_int(s, "timeout", 2, 0, 24 * 3600, &m->timeout)) ||
        (e = source_int(s, "max_try", 2, 1, MEMCACHE_TRIES_MAX, &m->max_try)) ||
        (e = source_int(s, "retry_pause", 1, 1, 3600, &m->retry_pause)) ||
        (e = source_int(s, "line_size_limit", 1024, 1, 1024 * 1024, &m->line_size_limit)) ||
        (e = source_int(s, "data_size_limit", 10240, 1, LOOKUP_RESULT_MAX, &m->data_size_limit)))
        return e;
    m->common.result_format = STR("%s"); /* memcache: has no such setting */
    if (m->timeout == 0)
        m->timeout = LOOKUP_HOST_SECONDS;
    struct str backup = source_str(s, "backup", STR(""));
    source_warn_unused(s);
    if (!backup.n)
        return NULL;
    m->backup = table_open_nested(t->conf, backup, t->flags & (TABLE_FOLD | TABLE_WRITE), t->nesting + 1);
    error fault = table_error(m->backup);
    return fault && fault->kind == ERR_CONFIG
               ? err_make(t->gen, ERR_CONFIG, "%.*s: backup: %.*s", STR_ARG(t->spec), STR_ARG(fault->text))
               : NULL;
}

static error memcache_open(struct table *t) {
    struct memcache_state *m = ARENA_NEW(t->gen, struct memcache_state);
    t->state = m;
    m->wire.fd = -1;
    struct source *s;
    error e = source_open(t, &s);
    if (e)
        return e;
    e = read_settings(t, s, m);
    source_close(s);
    return e;
}

static void memcache_close(struct table *t) {
    struct memcache_state *m = t->state;
    if (!m)
        return;
    wire_close(&m->wire);
    query_common_close(&m->common);
    EVP_MD_free(m->digest);
    table_close(m->backup);
}

/* --- one connection; what fails sets `why` --- */

static bool fail(struct buf *why, const struct memcache_state *m, const char *what, error e) {
    buf_clear(why);
    buf_printf(why, "server %.*s: %s: %.*s", STR_ARG(m->where), what, STR_ARG(e->text));
    return false;
}

/* Of a reply we do not know, the first word: what follows may be a value. */
static void unexpected(struct buf *why, const struct memcache_state *m, struct str line) {
    struct str word = STR("(nothing)"), rest = line;
    str_word(&rest, STR(" "), &word);
    buf_clear(why);
    buf_printf(why, "server %.*s: unexpected reply, over line_size_limit or data_size_limit, or an error: %.*s",
               STR_ARG(m->where), STR_ARG(str_sub(word, 0, 32)));
}

struct command {
    struct str text;
    struct str key;     /* get; empty: a command with a one-line answer */
    struct str good[2]; /* its answers */
};

static bool exchange(struct memcache_state *m, const struct command *c, int64_t deadline, enum memcache_reply *ret,
                     struct str *ret_text, struct buf *why) {
    size_t line = (size_t)m->line_size_limit, data = (size_t)m->data_size_limit;
    error e = wire_write(&m->wire, c->text, deadline);
    if (e)
        return fail(why, m, "sending", e);
    buf_clear(&m->wire.in);
    do {
        if ((e = wire_read(&m->wire, 2 * line + data + MEMCACHE_LINES, deadline)))
            return fail(why, m, "waiting for the reply", e);
        struct str got = buf_str(&m->wire.in);
        *ret =
            c->key.n ? memcache_reply_get(got, c->key, line, data, ret_text) : memcache_reply_line(got, line, ret_text);
    } while (*ret == MEMCACHE_MORE);
    bool good = *ret != MEMCACHE_BAD;
    if (good && !c->key.n)
        good = str_eq(*ret_text, c->good[0]) || (c->good[1].n && str_eq(*ret_text, c->good[1]));
    if (!good)
        unexpected(why, m, *ret_text);
    return good;
}

static bool connect_server(struct memcache_state *m, int64_t deadline, struct buf *why) {
    error e =
        m->path.n ? wire_connect_unix(&m->wire, m->path, deadline) : wire_connect(&m->wire, m->host, m->port, deadline);
    return !e || fail(why, m, "cannot connect", e);
}

/* max_try times; a server that takes no connection is not tried again (max_try of memcache_table(5)). What `*ret_text`
 * holds lives until the next command. */
static bool run(struct memcache_state *m, const struct command *c, enum memcache_reply *ret, struct str *ret_text,
                struct buf *why) {
    int64_t started = sys->mono_us();
    if (started < m->rest_until) {
        buf_clear(why);
        buf_printf(why, "server %.*s: failed a moment ago", STR_ARG(m->where));
        return false;
    }
    buf_clear(&m->wire.in);
    if (wire_is_open(&m->wire) && wire_is_stale(&m->wire))
        wire_close(&m->wire);
    for (int64_t i = 0; i < m->max_try; i++) {
        if (i > 0)
            nanosleep(&(struct timespec){ .tv_sec = m->retry_pause }, NULL);
        int64_t deadline = sys->mono_us() + m->timeout * SECOND;
        if (!wire_is_open(&m->wire) && !connect_server(m, deadline, why))
            break;
        if (exchange(m, c, deadline, ret, ret_text, why))
            return true;
        wire_close(&m->wire);
    }
    int64_t waited = sys->mono_us() - started, least = MEMCACHE_REST_SECONDS * SECOND;
    m->rest_until = sys->mono_us() + (waited > least ? waited : least);
    return false;
}

/* --- the table --- */

enum key_result { KEY_OK, KEY_NONE /* nothing in memcached can have it */, KEY_ERROR };

/* The key as memcached knows it. */
static enum key_result make_key(struct memcache_state *m, struct str key, struct buf *b, struct buf *why) {
    enum query_result expanded = query_expand(str_c(m->key_format), key, NULL, NULL, b);
    if (expanded == QUERY_SUPPRESSED)
        return KEY_NONE;
    if (expanded == QUERY_OK && m->digest) {
        unsigned char sum[EVP_MAX_MD_SIZE];
        unsigned n = 0;
        if (!EVP_Digest(b->p ? b->p : "", b->n, sum, &n, m->digest, NULL)) {
            buf_add(why, STR("key_digest failed"));
            return KEY_ERROR;
        }
        buf_clear(b);
        for (unsigned i = 0; i < n; i++)
            buf_printf(b, "%02x", sum[i]);
    }
    if (expanded != QUERY_OK || b->n > MEMCACHE_KEY_MAX) {
        buf_printf(why, "the key is longer than the %d bytes that memcached takes; see key_digest", MEMCACHE_KEY_MAX);
        return KEY_ERROR;
    }
    for (size_t i = 0; i < b->n; i++)
        if ((unsigned char)b->p[i] <= ' ' || b->p[i] == 0x7f)
            return KEY_NONE;
    return b->n ? KEY_OK : KEY_NONE;
}

static bool store(struct memcache_state *m, struct str key, struct str value, struct buf *why) {
    struct buf text = { 0 };
    buf_printf(&text, "set %.*s %" PRId64 " %" PRId64 " %zu\r\n", STR_ARG(key), m->flags, m->ttl, value.n);
    buf_add(&text, value);
    buf_add(&text, STR("\r\n"));
    struct command c = { .text = buf_str(&text), .good = { STR("STORED") } };
    enum memcache_reply reply;
    struct str answer;
    bool ok = run(m, &c, &reply, &answer, why);
    buf_free(&text);
    return ok;
}

static bool fetch(struct memcache_state *m, struct str key, enum memcache_reply *ret, struct str *ret_value,
                  struct buf *why) {
    struct buf text = { 0 };
    buf_printf(&text, "get %.*s\r\n", STR_ARG(key));
    struct command c = { .text = buf_str(&text), .key = key };
    bool ok = run(m, &c, ret, ret_value, why);
    buf_free(&text);
    return ok;
}

static enum table_result backup_failed(struct table *t) {
    struct memcache_state *m = t->state;
    error e = table_error(m->backup);
    return table_fail(t, "%.*s: backup: %.*s", STR_ARG(t->spec), STR_ARG(e ? e->text : STR("failed")));
}

static enum table_result get_backup(struct table *t, struct str key, bool usable, struct str memcache_key,
                                    struct arena *a, struct str *ret_value) {
    struct memcache_state *m = t->state;
    enum table_result r = table_get(m->backup, key, a, ret_value);
    if (r == TABLE_ERROR)
        return backup_failed(t);
    struct buf why = { 0 };
    if (r == TABLE_FOUND && usable && !store(m, memcache_key, *ret_value, &why))
        log_warn("%.*s: %.*s", STR_ARG(t->spec), STR_ARG(buf_str(&why)));
    buf_free(&why);
    return r;
}

static enum table_result get(struct table *t, struct str key, struct arena *a, struct str *ret_value,
                             struct buf *memcache_key, struct buf *why) {
    struct memcache_state *m = t->state;
    enum key_result made = make_key(m, key, memcache_key, why);
    struct str value = STR("");
    enum memcache_reply reply = MEMCACHE_NONE;
    bool asked = made == KEY_OK && fetch(m, buf_str(memcache_key), &reply, &value, why);
    if (asked && reply == MEMCACHE_VALUE && str_index(value, 0) >= 0) {
        buf_printf(why, "the value has a NUL byte");
        asked = false;
    } else if (asked && reply == MEMCACHE_VALUE) {
        *ret_value = arena_str(a, value);
        return TABLE_FOUND;
    }
    if (m->backup)
        return get_backup(t, key, asked, buf_str(memcache_key), a, ret_value);
    return asked || made == KEY_NONE ? TABLE_NOT_FOUND
                                     : table_fail(t, "%.*s: %.*s", STR_ARG(t->spec), STR_ARG(buf_str(why)));
}

static enum table_result memcache_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct memcache_state *m = t->state;
    bool failed;
    if (query_common_allows(&m->common, t, key, &failed) != QUERY_OK)
        return failed ? TABLE_ERROR : TABLE_NOT_FOUND;
    struct buf memcache_key = { 0 }, why = { 0 };
    enum table_result r = get(t, key, a, ret_value, &memcache_key, &why);
    buf_free(&memcache_key);
    buf_free(&why);
    return r;
}

/* An update of a key that `domain` or key_format excludes is skipped with a warning. */
static bool may_change(struct table *t, struct str key, struct buf *memcache_key, enum table_result *ret_result) {
    struct memcache_state *m = t->state;
    struct buf why = { 0 };
    bool failed = false;
    enum key_result made =
        query_common_allows(&m->common, t, key, &failed) == QUERY_OK ? make_key(m, key, memcache_key, &why) : KEY_NONE;
    *ret_result = TABLE_NOT_FOUND;
    if (failed)
        *ret_result = TABLE_ERROR;
    else if (made == KEY_ERROR)
        *ret_result = table_fail(t, "%.*s: %.*s", STR_ARG(t->spec), STR_ARG(buf_str(&why)));
    else if (made == KEY_NONE)
        log_warn("%.*s: an update is skipped: the key is outside of domain or key_format, or none of memcached's",
                 STR_ARG(t->spec));
    buf_free(&why);
    return made == KEY_OK;
}

/* With a backup it is the backup that counts; memcached is told first, so that it never keeps what the backup has not.
 */
static enum table_result memcache_put(struct table *t, struct str key, struct str value) {
    struct memcache_state *m = t->state;
    struct buf memcache_key = { 0 }, why = { 0 };
    enum table_result r;
    if (may_change(t, key, &memcache_key, &r)) {
        bool stored = value.n <= (size_t)m->data_size_limit && store(m, buf_str(&memcache_key), value, &why);
        if (!stored && why.n == 0)
            buf_printf(&why, "the value is over data_size_limit = %" PRId64, m->data_size_limit);
        r = TABLE_FOUND;
        if (m->backup) {
            if (!stored)
                log_warn("%.*s: %.*s", STR_ARG(t->spec), STR_ARG(buf_str(&why)));
            if ((r = table_put(m->backup, key, value)) == TABLE_ERROR)
                backup_failed(t);
        } else if (!stored)
            r = table_fail(t, "%.*s: %.*s", STR_ARG(t->spec), STR_ARG(buf_str(&why)));
    }
    buf_free(&memcache_key);
    buf_free(&why);
    return r;
}

static enum table_result memcache_delete(struct table *t, struct str key) {
    struct memcache_state *m = t->state;
    struct buf memcache_key = { 0 }, why = { 0 }, text = { 0 };
    enum table_result r;
    if (may_change(t, key, &memcache_key, &r)) {
        buf_printf(&text, "delete %.*s\r\n", STR_ARG(buf_str(&memcache_key)));
        struct command c = { .text = buf_str(&text), .good = { STR("DELETED"), STR("NOT_FOUND") } };
        enum memcache_reply reply;
        struct str answer;
        if (!run(m, &c, &reply, &answer, &why)) /* it would come back from there: the backup is not touched */
            r = table_fail(t, "%.*s: %.*s", STR_ARG(t->spec), STR_ARG(buf_str(&why)));
        else {
            r = str_eq(answer, STR("DELETED")) ? TABLE_FOUND : TABLE_NOT_FOUND;
            enum table_result behind = m->backup ? table_delete(m->backup, key) : TABLE_NOT_FOUND;
            if (behind == TABLE_ERROR)
                r = backup_failed(t);
            else if (m->backup)
                r = behind;
        }
    }
    buf_free(&memcache_key);
    buf_free(&text);
    buf_free(&why);
    return r;
}

/* memcached cannot be listed: the backup is. */
static enum table_result memcache_next(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                                       struct str *ret_value) {
    struct memcache_state *m = t->state;
    if (!m->backup)
        return table_fail(t, "%.*s: only a table with a backup can be listed", STR_ARG(t->spec));
    enum table_result r = table_next(m->backup, after, a, ret_key, ret_value);
    return r == TABLE_ERROR ? backup_failed(t) : r;
}

const struct table_type table_type_memcache = {
    .name = STR_INIT("memcache"),
    .fixed = true,
    .listable = true, /* where its backup is */
    .kept = true,
    .open = memcache_open,
    .get = memcache_get,
    .close = memcache_close,
    .put = memcache_put,
    .del = memcache_delete,
    .next = memcache_next,
};
