/* tcp:host:port (tcp_table(5)) and socketmap:inet:host:port:name, socketmap:unix:path:name (socketmap_table(5)): one
 * connection, kept; one question, one reply. A kept connection that turns out dead is made anew once. */
#include "lookup/lookup.h"
#include "lookup/reply.h"
#include "lookup/wire.h"
#include "run/sys.h"

struct server {
    struct wire wire;
    struct str host, port;       /* host empty: `path` */
    struct str path, name;       /* name: socketmap: */
    size_t query_max, reply_max; /* socketmap: */
    int64_t rest_until;
};

static void server_close(struct table *t) {
    struct server *s = t->state;
    if (s)
        wire_close(&s->wire);
}

/* "host:port", "[address]:port" */
static bool split_host(struct str s, struct str *ret_host, struct str *ret_port) {
    ptrdiff_t colon = str_rindex(s, ':');
    if (colon <= 0 || (size_t)colon + 1 == s.n)
        return false;
    *ret_host = str_sub(s, 0, (size_t)colon);
    *ret_port = str_from(s, (size_t)colon + 1);
    if (str_starts(*ret_host, STR("[")) && str_ends(*ret_host, STR("]")))
        *ret_host = str_sub(*ret_host, 1, ret_host->n - 2);
    return ret_host->n > 0;
}

static struct server *server_new(struct table *t) {
    struct server *s = ARENA_NEW(t->gen, struct server);
    *s = (struct server){ .wire = { .fd = -1 } };
    t->state = s;
    return s;
}

static error server_connect(struct server *s, int64_t deadline) {
    return s->host.n ? wire_connect(&s->wire, s->host, s->port, deadline)
                     : wire_connect_unix(&s->wire, s->path, deadline);
}

/* Sends the request and reads until `take` says that the reply is whole. */
typedef error take_reply(const struct server *s, struct str in, struct str *ret_reply, size_t *ret_used);

static error talk(struct server *s, struct str request, size_t most, take_reply *take, struct arena *a,
                  struct str *ret_reply) {
    int64_t deadline = deadline_in(LOOKUP_HOST_SECONDS);
    bool kept = wire_is_open(&s->wire);
    if (kept && wire_is_stale(&s->wire)) {
        wire_close(&s->wire);
        kept = false;
    }
    for (;;) {
        error e = kept ? NULL : server_connect(s, deadline);
        if (e)
            return e;
        size_t used = 0;
        *ret_reply = STR("");
        e = wire_write(&s->wire, request, deadline);
        while (!e && used == 0) {
            e = wire_read(&s->wire, most, deadline);
            if (!e)
                e = take(s, buf_str(&s->wire.in), ret_reply, &used);
        }
        if (!e) {
            *ret_reply = arena_str(a, *ret_reply);
            buf_consume(&s->wire.in, used);
            return NULL;
        }
        bool hung_up = e->kind == ERR_EOF || e->kind == ERR_SYS;
        wire_close(&s->wire);
        if (!kept || !hung_up)
            return e;
        kept = false;
    }
}

/* Everything a look-up has in common; the answer is read from `*ret_reply`. */
static bool ask(struct table *t, struct str request, size_t most, take_reply *take, struct arena *a,
                struct str *ret_reply) {
    struct server *s = t->state;
    int64_t now = sys->mono_us();
    if (now < s->rest_until) {
        table_fail(t, "%.*s: the server failed a moment ago", STR_ARG(t->spec));
        return false;
    }
    error e = talk(s, request, most, take, a, ret_reply);
    if (!e)
        return true;
    s->rest_until = sys->mono_us() + US_PER_S * LOOKUP_REST_SECONDS;
    table_fail(t, "%.*s: %.*s", STR_ARG(t->spec), STR_ARG(e->text));
    return false;
}

/* --- tcp: --- */

static error tcp_open(struct table *t) {
    struct server *s = server_new(t);
    if (split_host(t->name, &s->host, &s->port))
        return NULL;
    return err_make(t->gen, ERR_CONFIG, "bad syntax: \"%.*s\"; need \"tcp:host:port\"", STR_ARG(t->spec));
}

static error take_line(const struct server *s, struct str in, struct str *ret_reply, size_t *ret_used) {
    (void)s;
    ptrdiff_t end = str_index(in, '\n');
    if (end < 0)
        return NULL;
    *ret_reply = str_sub(in, 0, (size_t)end);
    *ret_used = (size_t)end + 1;
    return NULL;
}

static enum table_result tcp_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct server *s = t->state;
    struct buf request = { 0 };
    struct str line;
    bool good = tcp_request(&request, key);
    if (!good)
        table_fail(t, "%.*s: the key is too long for the protocol", STR_ARG(t->spec));
    else
        good = ask(t, buf_str(&request), TCP_LINE_MAX, take_line, a, &line);
    buf_free(&request);
    if (!good)
        return TABLE_ERROR;
    enum table_result r = tcp_reply(line, a, ret_value);
    if (r == TABLE_FOUND)
        return r;
    struct str why = *ret_value;
    *ret_value = STR("");
    if (r == TABLE_NOT_FOUND)
        return r;
    if (!str_starts(line, STR("400 ")))
        wire_close(&s->wire); /* what else it would say is not to be trusted */
    return table_fail(t, "%.*s: server error: %.*s", STR_ARG(t->spec), STR_ARG(why));
}

const struct table_type table_type_tcp = {
    .name = STR_INIT("tcp"), .pattern = true, .open = tcp_open, .get = tcp_get, .close = server_close
};

/* --- socketmap: --- */

static error socketmap_open(struct table *t) {
    struct server *s = server_new(t);
    const struct conf *c = t->conf;
    s->query_max = c ? (size_t)conf_int(c, PARAM_socketmap_max_query_size) : 10000;
    s->reply_max = c ? (size_t)conf_int(c, PARAM_socketmap_max_reply_size) : 100000;
    ptrdiff_t colon = str_rindex(t->name, ':');
    struct str server = colon > 0 ? str_sub(t->name, 0, (size_t)colon) : STR("");
    s->name = colon > 0 ? str_from(t->name, (size_t)colon + 1) : STR("");
    bool good = s->name.n > 0;
    if (str_starts(server, STR("inet:"))) {
        good = good && split_host(str_from(server, 5), &s->host, &s->port);
    } else {
        good = good && str_starts(server, STR("unix:")) && server.n > 5;
        s->path = str_from(server, 5);
    }
    if (good)
        return NULL;
    return err_make(t->gen, ERR_CONFIG,
                    "bad syntax: \"%.*s\"; need \"socketmap:inet:host:port:name\" or \"socketmap:unix:path:name\"",
                    STR_ARG(t->spec));
}

static error take_netstring(const struct server *s, struct str in, struct str *ret_reply, size_t *ret_used) {
    static const struct err malformed = {
        .kind = ERR_SYNTAX, .dsn = STR_INIT(""), .text = STR_INIT("input format error"), .detail = STR_INIT("")
    };
    return netstring_take(in, s->reply_max, ret_reply, ret_used) == NETSTRING_BAD ? &malformed : NULL;
}

static enum table_result socketmap_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    enum { AROUND = 32 /* bytes of a netstring beside its content */ };
    struct server *s = t->state;
    if (s->name.n + 1 + key.n > s->query_max)
        return table_fail(t, "%.*s: the query is longer than socketmap_max_query_size", STR_ARG(t->spec));
    struct buf request = { 0 };
    struct str reply;
    netstring_add(&request, arena_printf(a, "%.*s %.*s", STR_ARG(s->name), STR_ARG(key)));
    bool good = ask(t, buf_str(&request), s->reply_max + AROUND, take_netstring, a, &reply);
    buf_free(&request);
    if (!good)
        return TABLE_ERROR;
    enum table_result r = socketmap_reply(reply, ret_value);
    if (r != TABLE_ERROR)
        return r;
    struct str why = *ret_value;
    *ret_value = STR("");
    return table_fail(t, "%.*s: server error: %.*s", STR_ARG(t->spec), STR_ARG(why));
}

const struct table_type table_type_socketmap = {
    .name = STR_INIT("socketmap"), .pattern = true, .open = socketmap_open, .get = socketmap_get, .close = server_close
};
