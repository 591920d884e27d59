#include "dns/dns.h"

#include "base/utf8.h"
#include "dns/internal.h"
#include <errno.h>
#include <idn2.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

enum { FILE_MAX = 1024 * 1024, UDP_MAX = 4096, TCP_MAX = 65535, RCODE_FORMERR = 1, RCODE_NOTIMP = 4 };

struct str dns_type_name(enum dns_type t) {
    switch (t) {
    case DNS_A:
        return STR("A");
    case DNS_NS:
        return STR("NS");
    case DNS_CNAME:
        return STR("CNAME");
    case DNS_PTR:
        return STR("PTR");
    case DNS_MX:
        return STR("MX");
    case DNS_TXT:
        return STR("TXT");
    case DNS_AAAA:
        return STR("AAAA");
    }
    return STR("unknown");
}

struct str dns_status_text(enum dns_status s) {
    static const struct str text[] = {
        [DNS_OK] = STR_INIT("Success"),
        [DNS_NOT_FOUND] = STR_INIT("Host not found"),
        [DNS_NO_DATA] = STR_INIT("Host found but no data record of requested type"),
        [DNS_NULL_MX] = STR_INIT("Domain does not accept mail (nullMX)"),
        [DNS_RETRY] = STR_INIT("Host not found, try again"),
        [DNS_INVALID] = STR_INIT("Malformed or unexpected name server reply"),
    };
    return text[s];
}

error dns_open(const struct dns_options *o, struct arena *err_arena, struct dns **ret) {
    struct arena *arena = arena_new();
    struct dns *d = ARENA_NEW(arena, struct dns);
    *d = (struct dns){ .arena = arena,
                       .timeout_us = DNS_TIMEOUT_S * US_PER_S,
                       .tries = DNS_TRIES,
                       .idna2003 = o->idna2003,
                       .filter = o->filter,
                       .filter_ctx = o->filter_ctx };
    struct buf file = { 0 };
    if (o->servers.n) {
        error e = dns_read_servers(d, o->servers, err_arena);
        if (e) {
            dns_close(d);
            return e;
        }
    } else if (buf_read_file(&file, o->resolv_conf ? o->resolv_conf : "/etc/resolv.conf", FILE_MAX)) {
        dns_read_resolv_conf(d, buf_str(&file));
    }
    if (d->server_count == 0) /* resolv.conf(5): without a server line, the one on this host */
        endpoint_ip(STR("127.0.0.1"), 53, &d->servers[d->server_count++]);
    buf_clear(&file);
    if (buf_read_file(&file, o->hosts ? o->hosts : "/etc/hosts", FILE_MAX))
        dns_read_hosts(d, buf_str(&file));
    buf_free(&file);
    *ret = d;
    return NULL;
}

void dns_close(struct dns *d) {
    if (d)
        arena_free(d->arena);
}

/* One question to one server by UDP. NULL when an answer was read into *ret. */
static error ask_udp(const struct endpoint *server, struct arena *a, struct str question, uint16_t id, struct str name,
                     enum dns_type type, int64_t deadline, struct dns_answer *ret, bool *ret_cut, unsigned *ret_rcode) {
    /* a socket for each question: the kernel gives it a random port (RFC 5452, 9.2) */
    int fd = sys->socket(server->u.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(errno);
    error e = NULL;
    struct iovec out = { (void *)(uintptr_t)question.p, question.n };
    struct msghdr send_msg = { .msg_iov = &out, .msg_iovlen = 1 };
    if (sys->connect(fd, &server->u.sa, server->len) < 0 ||
        sys->sendmsg(fd, &send_msg, MSG_NOSIGNAL) != (ssize_t)question.n)
        e = err_errno(errno);
    while (!e) {
        char *packet = NULL;
        if ((e = wait_readable(fd, deadline)))
            break;
        packet = malloc(UDP_MAX);
        if (!packet) {
            e = err_errno(ENOMEM);
            break;
        }
        struct iovec in = { packet, UDP_MAX };
        struct msghdr recv_msg = { .msg_iov = &in, .msg_iovlen = 1 };
        ssize_t got = sys->recvmsg(fd, &recv_msg, MSG_DONTWAIT);
        bool answered = false;
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            e = err_errno(errno); /* nobody listens there: ICMP said so */
        else if (got > 0)
            answered = dns_read_answer(a, str_n(packet, (size_t)got), id, name, type, ret, ret_cut, ret_rcode);
        free(packet);
        if (answered)
            break; /* anything else that came is not for us (RFC 5452, 9.1): wait on */
    }
    sys->close(fd);
    return e;
}

/* By TCP: two bytes of length in front of each packet (RFC 1035, 4.2.2). */
static error ask_tcp(const struct endpoint *server, struct arena *a, struct str question, uint16_t id, struct str name,
                     enum dns_type type, int64_t deadline, struct dns_answer *ret, unsigned *ret_rcode) {
    struct io *io;
    error e = io_connect(server, NULL, deadline, &io);
    if (e)
        return e;
    unsigned char head[2] = { (unsigned char)(question.n >> 8), (unsigned char)(question.n & 0xff) };
    io_write(io, str_n((const char *)head, 2));
    io_write(io, question);
    if (!(e = io_flush(io, deadline)) && !(e = io_full(io, head, 2, deadline))) {
        size_t size = (size_t)head[0] << 8 | head[1];
        char *packet = malloc(size + 1);
        bool cut;
        if (!packet)
            e = err_errno(ENOMEM);
        else if (!(e = io_full(io, packet, size, deadline)) &&
                 !dns_read_answer(a, str_n(packet, size), id, name, type, ret, &cut, ret_rcode))
            e = err_errno(EBADMSG);
        free(packet);
    }
    io_close(io);
    return e;
}

static error ask_server(const struct endpoint *server, struct arena *a, struct str name, enum dns_type type,
                        int64_t deadline, struct dns_answer *ret) {
    for (int edns = 1; edns >= 0; edns--) {
        uint16_t id;
        struct str question;
        bool cut = false;
        unsigned rcode = 0;
        if (getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id)
            return err_errno(EIO);
        if (!dns_make_question(a, name, type, id, edns, &question)) {
            ret->status = DNS_INVALID;
            return NULL;
        }
        error e = ask_udp(server, a, question, id, name, type, deadline, ret, &cut, &rcode);
        if (!e && cut)
            e = ask_tcp(server, a, question, id, name, type, deadline, ret, &rcode);
        if (e || (rcode != RCODE_FORMERR && rcode != RCODE_NOTIMP))
            return e;
        /* an old server that does not know EDNS (RFC 6891, 7): once more without */
    }
    return NULL;
}

static struct str record_text(struct arena *a, struct str owner, const struct dns_record *r) {
    char shown[INET6_ADDRSTRLEN];
    struct str data = r->type == DNS_TXT                        ? r->text
                      : r->type == DNS_A || r->type == DNS_AAAA ? endpoint_address(&r->addr, shown)
                                                                : arena_cat(a, r->name, STR("."));
    struct str preference = r->type == DNS_MX ? arena_printf(a, "%u ", r->preference) : STR("");
    return arena_printf(a, "%.*s. %u IN %.*s %.*s%.*s", STR_ARG(owner), r->ttl, STR_ARG(dns_type_name(r->type)),
                        STR_ARG(preference), STR_ARG(data));
}

/* An answer of which nothing is left is one without data. */
static void filter_answer(struct dns *d, struct arena *a, struct dns_answer *answer) {
    size_t kept = 0;
    for (size_t i = 0; i < answer->count; i++)
        switch (d->filter(d->filter_ctx, record_text(a, answer->canonical, &answer->records[i]))) {
        case DNS_KEEP:
            answer->records[kept++] = answer->records[i];
            break;
        case DNS_DROP:
            break;
        case DNS_FAIL:
            *answer = (struct dns_answer){ .status = DNS_RETRY, .canonical = answer->canonical };
            return;
        }
    if (answer->count && kept == 0)
        answer->status = DNS_NO_DATA;
    answer->count = kept;
}

/* A-labels (RFC 5891, 4.4). False: the name has none. */
static bool to_ascii(const struct dns *d, struct arena *a, struct str *name) {
    char *ascii = NULL;
    if (str_is_ascii(*name))
        return true;
    int flags = IDN2_NFC_INPUT | (d->idna2003 ? IDN2_TRANSITIONAL : IDN2_NONTRANSITIONAL);
    if (idn2_to_ascii_8z(arena_cstr(a, *name), &ascii, flags) != IDN2_OK)
        return false;
    *name = arena_str(a, str_c(ascii));
    idn2_free(ascii);
    return true;
}

void dns_query(struct dns *d, struct arena *a, struct str name, enum dns_type type, int64_t deadline,
               struct dns_answer *ret) {
    *ret = (struct dns_answer){ .status = DNS_RETRY, .canonical = name };
    if (!to_ascii(d, a, &name)) {
        ret->status = DNS_NOT_FOUND; /* what has no such form is in no zone */
        return;
    }
    for (unsigned try = 0; try < d->tries; try++) {
        for (size_t i = 0; i < d->server_count; i++) {
            int64_t until = deadline_in_us(d->timeout_us);
            error e = ask_server(&d->servers[i], a, name, type, until < deadline ? until : deadline, ret);
            if (!e && ret->status != DNS_RETRY) {
                if (d->filter)
                    filter_answer(d, a, ret);
                return;
            }
            *ret = (struct dns_answer){ .status = DNS_RETRY, .canonical = name };
            if (e == &err_cancelled || sys->mono_us() >= deadline)
                return;
        }
    }
}

void dns_hosts_addresses(struct dns *d, struct arena *a, struct str host, enum dns_family family,
                         struct dns_answer *ret) {
    *ret = (struct dns_answer){ .status = DNS_NOT_FOUND, .canonical = host };
    VEC(struct dns_record) found = { 0 };
    for (const struct dns_host *h = d->hosts; h && found.n < DNS_RECORDS_MAX; h = h->next) {
        bool six = h->addr.u.sa.sa_family == AF_INET6;
        if (!(family & (six ? DNS_FAMILY_IPV6 : DNS_FAMILY_IPV4)) || !str_eq_icase(h->name, host))
            continue;
        *vec_add(a, &found) =
            (struct dns_record){ .type = six ? DNS_AAAA : DNS_A, .name = STR(""), .text = STR(""), .addr = h->addr };
    }
    if (found.n)
        *ret = (struct dns_answer){ .status = DNS_OK, .records = found.at, .count = found.n, .canonical = host };
}

void dns_addresses(struct dns *d, struct arena *a, struct str host, enum dns_family family, bool native,
                   int64_t deadline, struct dns_answer *ret) {
    if (native) {
        dns_hosts_addresses(d, a, host, family, ret);
        if (ret->count)
            return;
    }
    struct dns_answer six = { .status = DNS_NO_DATA, .canonical = host }, four = six;
    if (family & DNS_FAMILY_IPV6)
        dns_query(d, a, host, DNS_AAAA, deadline, &six);
    if (family & DNS_FAMILY_IPV4)
        dns_query(d, a, host, DNS_A, deadline, &four);
    size_t n = six.count + four.count;
    if (n == 0) { /* "try again" wins over "no data", which wins over "no such name" */
        *ret = six.status == DNS_RETRY || four.status == DNS_NOT_FOUND ? six : four;
        if (four.status == DNS_RETRY || six.status == DNS_NO_DATA)
            *ret = four;
        return;
    }
    *ret = six.count ? six : four;
    ret->records = arena_array(a, n, sizeof *ret->records);
    ret->count = n;
    if (six.count)
        memcpy(ret->records, six.records, six.count * sizeof *six.records);
    if (four.count)
        memcpy(ret->records + six.count, four.records, four.count * sizeof *four.records);
    ret->secure = (six.secure || !six.count) && (four.secure || !four.count);
}
