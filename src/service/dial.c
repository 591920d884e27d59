#include "service/dial.h"

#include "service/internal.h"
#include <netdb.h>
#include <stdio.h>

static struct {
    struct arena *arena;
    struct str *paths;
    size_t n;
} declared;

/* --- what the administrator writes --- */
static error parse_port(struct arena *a, struct str text, uint16_t *ret) {
    uint32_t n;
    if (str_to_u32(text, UINT16_MAX, &n) && n > 0) {
        *ret = (uint16_t)n;
        return NULL;
    }
    const struct servent *known = getservbyname(arena_cstr(a, text), "tcp");
    if (!known)
        return err_make(a, ERR_SYNTAX, "\"%.*s\" is neither a port number (1 to 65535) nor a service name",
                        STR_ARG(text));
    *ret = ntohs((uint16_t)known->s_port);
    return NULL;
}

static error parse_inet(struct arena *a, struct str text, struct dial_target *ret) {
    struct str port = text;
    ret->host = STR("localhost");
    if (str_starts(text, STR("["))) {
        ptrdiff_t end = str_index(text, ']');
        if (end < 0 || (size_t)end + 1 >= text.n || text.p[end + 1] != ':')
            return err_make(a, ERR_SYNTAX, "\"%.*s\" wants the form [address]:port", STR_ARG(text));
        ret->host = str_sub(text, 1, (size_t)end - 1);
        port = str_from(text, (size_t)end + 2);
    } else {
        ptrdiff_t colon = str_rindex(text, ':');
        if (colon >= 0) {
            ret->host = str_sub(text, 0, (size_t)colon);
            port = str_from(text, (size_t)colon + 1);
        }
    }
    if (ret->host.n == 0 || port.n == 0)
        return err_make(a, ERR_SYNTAX, "\"%.*s\" wants the form host:port", STR_ARG(text));
    return parse_port(a, port, &ret->port);
}

error dial_parse(struct arena *a, struct str text, struct dial_target *ret) {
    *ret = (struct dial_target){ .text = arena_str(a, text) };
    if (str_starts(text, STR("inet:")))
        return parse_inet(a, str_from(ret->text, 5), ret);
    if (!str_starts(text, STR("unix:")))
        return err_make(a, ERR_SYNTAX, "\"%.*s\" begins with neither inet: nor unix:", STR_ARG(text));
    struct endpoint at;
    ret->local = true;
    ret->path = str_from(ret->text, 5);
    if (!endpoint_unix(ret->path, &at))
        return err_make(a, ERR_SYNTAX, "\"%.*s\" is no path of a socket, or too long for one", STR_ARG(text));
    return NULL;
}

/* --- what master is told --- */
error dial_declare(struct service_ctx *ctx, const struct dial_target *t) {
    static const struct err too_many = { .kind = ERR_LIMIT,
                                         .text = STR_INIT("too many unix sockets are named in the configuration") };
    if (!t->local || ctx->standalone)
        return NULL;
    for (size_t i = 0; i < declared.n; i++)
        if (str_eq(declared.paths[i], t->path))
            return NULL;
    if (declared.n == CONTROL_DIALS_MAX)
        return &too_many;
    if (!declared.arena) {
        declared.arena = arena_new();
        declared.paths = arena_array(declared.arena, CONTROL_DIALS_MAX, sizeof *declared.paths);
    }
    declared.paths[declared.n++] = arena_str(declared.arena, t->path);
    return NULL;
}

void dial_tell(void) {
    for (size_t i = 0; i < declared.n; i++)
        link_may_dial(declared.paths[i]);
    arena_free(declared.arena);
    declared.arena = NULL;
    declared.paths = NULL;
    declared.n = 0;
}

/* --- connecting --- */
static error dial_local(struct service_ctx *ctx, struct str path, int64_t deadline, struct io **ret) {
    if (ctx->standalone) {
        struct endpoint at;
        return endpoint_unix(path, &at) ? io_connect(&at, NULL, deadline, ret) : &err_limit;
    }
    int fd = -1;
    error e = link_dial(path, deadline, &fd);
    if (!e)
        *ret = io_new(fd);
    return e;
}

static error lookup_failed(struct str host, struct str why) {
    static struct err failed = { .kind = ERR_TEMP };
    static char text[400];
    snprintf(text, sizeof text, "host %.*s: %.*s", STR_ARG(host), STR_ARG(why));
    failed.text = str_c(text);
    return &failed;
}

error dial(struct service_ctx *ctx, struct dns *dns, const struct dial_target *t, int64_t deadline, struct io **ret) {
    struct endpoint at;
    *ret = NULL;
    if (t->local)
        return dial_local(ctx, t->path, deadline, ret);
    if (endpoint_ip(t->host, t->port, &at))
        return io_connect(&at, NULL, deadline, ret);
    if (!dns)
        return lookup_failed(t->host, STR("this process has no name service"));
    struct arena *a = arena_new();
    struct dns_answer found;
    dns_addresses(dns, a, t->host, DNS_FAMILY_ANY, true, deadline, &found);
    error e = found.count ? NULL : lookup_failed(t->host, dns_status_text(found.status));
    for (size_t i = 0; i < found.count; i++) {
        at = found.records[i].addr;
        if (at.u.sa.sa_family == AF_INET6)
            at.u.in6.sin6_port = htons(t->port);
        else
            at.u.in.sin_port = htons(t->port);
        e = io_connect(&at, NULL, deadline, ret);
        if (!e || e == &err_cancelled || e == &err_timeout)
            break;
    }
    arena_free(a);
    return e;
}
