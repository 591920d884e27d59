#include "base/log.h"
#include "master/master.h"
#include "run/io.h"
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

enum { ADDRESSES_MAX = SERVICE_SOCKETS_MAX, DGRAM_BUFFER = 4 * 1024 * 1024 };

/* known_tcp_ports: "lmtp=24, smtp=25, smtps=submissions=465": names before the number they share. */
bool listen_port(const struct conf *c, struct str name, uint16_t *ret) {
    uint32_t port;
    if (str_to_u32(name, UINT16_MAX, &port)) {
        *ret = (uint16_t)port;
        return port > 0;
    }
    struct str list = conf_str(c, PARAM_known_tcp_ports), item;
    while (str_word(&list, STR_COMMA_SPACE, &item)) {
        ptrdiff_t eq = str_rindex(item, '=');
        if (eq < 0 || !str_to_u32(str_from(item, (size_t)eq + 1), UINT16_MAX, &port))
            continue;
        struct str names = str_sub(item, 0, (size_t)eq), one;
        while (str_next(&names, STR("="), &one))
            if (str_eq_icase(one, name)) {
                *ret = (uint16_t)port;
                return true;
            }
    }
    char text[64];
    if (name.n >= sizeof text)
        return false;
    memcpy(text, name.p, name.n);
    text[name.n] = 0;
    const struct servent *known = getservbyname(text, "tcp");
    if (!known)
        return false;
    *ret = ntohs((uint16_t)known->s_port);
    return true;
}

struct address_list {
    struct endpoint *at;
    size_t n;
    uint16_t port;
    bool ipv4, ipv6;
};

static bool same_endpoint(const struct endpoint *a, const struct endpoint *b) {
    return a->len == b->len && memcmp(&a->u, &b->u, a->len) == 0;
}

static void add(struct address_list *l, const struct sockaddr *sa) {
    struct endpoint e = { 0 };
    if (sa->sa_family == AF_INET && l->ipv4) {
        e.len = sizeof e.u.in;
        memcpy(&e.u.in, sa, e.len);
        e.u.in.sin_port = htons(l->port);
        memset(e.u.in.sin_zero, 0, sizeof e.u.in.sin_zero);
    } else if (sa->sa_family == AF_INET6 && l->ipv6) {
        e.len = sizeof e.u.in6;
        memcpy(&e.u.in6, sa, e.len);
        e.u.in6.sin6_port = htons(l->port);
        e.u.in6.sin6_flowinfo = 0;
    } else {
        return;
    }
    for (size_t i = 0; i < l->n; i++)
        if (same_endpoint(&l->at[i], &e))
            return;
    if (l->n < ADDRESSES_MAX)
        l->at[l->n++] = e;
}

static error add_host(struct address_list *l, struct str host, struct arena *a) {
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found;
    if (str_starts(host, STR("[")) && str_ends(host, STR("]")))
        host = str_sub(host, 1, host.n - 2);
    int failed = getaddrinfo(arena_cstr(a, host), NULL, &hints, &found);
    if (failed)
        return err_make(a, ERR_CONFIG, "bad hostname or network address: %.*s: %s", STR_ARG(host),
                        gai_strerror(failed));
    size_t before = l->n;
    for (const struct addrinfo *ai = found; ai; ai = ai->ai_next)
        add(l, ai->ai_addr);
    freeaddrinfo(found);
    if (l->n == before && before == 0)
        log_debug("%.*s: no address of an enabled protocol", STR_ARG(host));
    return NULL;
}

static bool kernel_has(int family) {
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static error protocols(const struct conf *c, struct address_list *l, struct arena *a) {
    struct str list = conf_str(c, PARAM_inet_protocols), word;
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        bool all = str_eq_icase(word, STR("all"));
        if (all || str_eq_icase(word, STR("ipv4")))
            l->ipv4 = true;
        if (all || str_eq_icase(word, STR("ipv6")))
            l->ipv6 = true;
    }
    l->ipv4 = l->ipv4 && kernel_has(AF_INET);
    l->ipv6 = l->ipv6 && kernel_has(AF_INET6);
    if (!l->ipv4 && !l->ipv6)
        return err_make(a, ERR_CONFIG, "all network protocols are disabled (inet_protocols = %.*s)",
                        STR_ARG(conf_str(c, PARAM_inet_protocols)));
    return NULL;
}

static void add_wildcards(struct address_list *l) {
    const struct sockaddr_in any4 = { .sin_family = AF_INET };
    const struct sockaddr_in6 any6 = { .sin6_family = AF_INET6 };
    add(l, (const struct sockaddr *)&any4);
    add(l, (const struct sockaddr *)&any6);
}

static error add_loopback(struct address_list *l) {
    struct ifaddrs *all;
    if (getifaddrs(&all) < 0)
        return err_errno(errno);
    for (const struct ifaddrs *i = all; i; i = i->ifa_next)
        if (i->ifa_addr && (i->ifa_flags & IFF_LOOPBACK) && (i->ifa_flags & IFF_UP))
            add(l, i->ifa_addr);
    freeifaddrs(all);
    return NULL;
}

/* name = [host ":"] port; IPv6 addresses stand in [ ] (master(5)). */
error listen_addresses(const struct conf *c, const struct master_entry *entry, struct arena *a, struct endpoint **ret,
                       size_t *ret_n) {
    struct address_list l = { .at = arena_array(a, ADDRESSES_MAX, sizeof *l.at) };
    struct str host = STR(""), port = entry->name;
    ptrdiff_t close_bracket = str_rindex(port, ']'), colon = str_rindex(port, ':');
    if (colon >= 0 && colon > close_bracket) {
        host = str_sub(port, 0, (size_t)colon);
        port = str_from(port, (size_t)colon + 1);
    } else if (close_bracket >= 0) {
        return err_make(a, ERR_CONFIG, "missing port in \"%.*s\"", STR_ARG(entry->name));
    }
    if (!listen_port(c, port, &l.port))
        return err_make(a, ERR_CONFIG, "unknown service or port in \"%.*s\"", STR_ARG(entry->name));
    error e = protocols(c, &l, a);
    if (e)
        return e;
    if (host.n) {
        e = add_host(&l, host, a);
    } else {
        struct str list = conf_str(c, PARAM_inet_interfaces), word;
        while (!e && str_word(&list, STR_COMMA_SPACE, &word)) {
            if (str_eq_icase(word, STR("all")))
                add_wildcards(&l);
            else if (str_eq_icase(word, STR("loopback-only")))
                e = add_loopback(&l);
            else
                e = add_host(&l, word, a);
        }
    }
    if (e)
        return e;
    if (l.n == 0)
        return err_make(a, ERR_CONFIG, "no valid IP address found: %.*s", STR_ARG(host.n ? host : entry->name));
    *ret = l.at;
    *ret_n = l.n;
    return NULL;
}

error listen_inet(const struct endpoint *at, struct arena *err_arena, int *ret_fd) {
    error e = listen_on(at, SOMAXCONN, 0, ret_fd);
    char text[INET6_ADDRSTRLEN];
    if (e)
        return err_make(err_arena, ERR_SYS, "bind %.*s port %u: %.*s", STR_ARG(endpoint_address(at, text)),
                        endpoint_port(at), STR_ARG(e->text));
    return NULL;
}

/* All local sockets may be connected to by anybody who can reach them: the directory above says who can. */
static error local(enum service_type type, struct str path, int *ret_fd) {
    struct endpoint at;
    if (!endpoint_unix(path, &at))
        return err_errno(ENAMETOOLONG);
    if (type == SERVICE_UNIX || type == SERVICE_PASS)
        return listen_on(&at, SOMAXCONN, 0666, ret_fd);
    if (unlink(at.u.un.sun_path) < 0 && errno != ENOENT)
        return err_errno(errno);
    if (type == SERVICE_FIFO) {
        if (mkfifo(at.u.un.sun_path, 0622) < 0)
            return err_errno(errno);
        /* for writing, too: else it would be "ended" whenever the last writer has gone */
        *ret_fd = open(at.u.un.sun_path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        return *ret_fd < 0 ? err_errno(errno) : NULL;
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(errno);
    if (bind(fd, &at.u.sa, at.len) < 0 || chmod(at.u.un.sun_path, 0666) < 0) {
        error e = err_errno(errno);
        close(fd);
        return e;
    }
    int size = DGRAM_BUFFER;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    *ret_fd = fd;
    return NULL;
}

/* The socket files belong to mail_owner, and only mail_owner's rights are used in a directory that is its. */
static void as_mail_owner(void) {
    if (master.owner.root && (setegid(master.owner.mail_gid) < 0 || seteuid(master.owner.mail_uid) < 0))
        log_fatal("switch to the mail owner: %s", strerror(errno));
}
static void as_root(void) {
    if (master.owner.root && (seteuid(0) < 0 || setegid(0) < 0))
        log_fatal("switch back from the mail owner: %s", strerror(errno));
}

void unlisten_local(struct str path) {
    as_mail_owner();
    unlink(path.p);
    as_root();
}

error listen_local(enum service_type type, struct str path, struct arena *err_arena, int *ret_fd) {
    as_mail_owner();
    mode_t old = umask(0);
    error e = local(type, path, ret_fd);
    umask(old);
    as_root();
    if (e)
        return err_make(err_arena, ERR_SYS, "listen on %.*s: %.*s", STR_ARG(path), STR_ARG(e->text));
    return NULL;
}
