/* dns.h - a stub resolver for coroutines (RFC 1035; MX: RFC 5321, 5.1; null MX: RFC 7505).
 *
 * ldns reads and writes the packets, run/ does the waiting. Queries go to the name servers given (`address:port` or
 * `[address]:port`), else to those of resolv.conf, by UDP with a random port and id, by TCP when an answer is cut.
 * Files (resolv.conf, hosts) are read once, in dns_open(), so that a confined process can resolve. Answers are data
 * from strangers: at most DNS_RECORDS_MAX records, DNS_CHAIN_MAX aliases, only names that are names. */
#ifndef ANGARIUM_DNS_DNS_H
#define ANGARIUM_DNS_DNS_H

#include "base/err.h"
#include "run/io.h"

enum {
    DNS_RECORDS_MAX = 100, /* records taken from one answer; the rest is ignored */
    DNS_CHAIN_MAX = 10,    /* CNAMEs followed in one answer */
    DNS_SERVERS_MAX = 8,
    DNS_HOSTS_MAX = 10000, /* lines of the hosts file */
    DNS_TRIES = 2,         /* rounds over the servers */
    DNS_TIMEOUT_S = 5,     /* for one server in one round; resolv.conf's "options timeout:" changes it */
};

/* The record types we ask for, with their numbers (RFC 1035, 3.2.2; RFC 3596). */
enum dns_type { DNS_A = 1, DNS_NS = 2, DNS_CNAME = 5, DNS_PTR = 12, DNS_MX = 15, DNS_TXT = 16, DNS_AAAA = 28 };
struct str dns_type_name(enum dns_type t);

enum dns_status {
    DNS_OK,        /* records */
    DNS_NOT_FOUND, /* the name does not exist */
    DNS_NO_DATA,   /* the name exists, without records of this type */
    DNS_NULL_MX,   /* "this domain takes no mail" */
    DNS_RETRY,     /* no answer, SERVFAIL: temporary */
    DNS_INVALID,   /* malformed name or answer */
};
/* "Host not found", "Host found but no data record of requested type", ...: what follows the colon in
 * `Name service error for name=N type=T: `. */
struct str dns_status_text(enum dns_status s);

struct dns_record {
    enum dns_type type;
    uint32_t ttl;
    uint16_t preference;  /* MX */
    struct str name;      /* MX, NS, PTR, CNAME: without the trailing dot, valid as a host name; empty: invalid one */
    struct str text;      /* TXT */
    struct endpoint addr; /* A, AAAA: port 0 */
};
struct dns_answer {
    enum dns_status status;
    struct dns_record *records;
    size_t count;
    struct str canonical; /* the last name of the CNAME chain, or the name asked for */
    bool secure;          /* the resolver says so (AD bit) */
};

/* What is to become of a record of an answer: "name. ttl IN type data", MX with its preference before the data. */
enum dns_verdict { DNS_KEEP, DNS_DROP, DNS_FAIL /* the whole answer: temporary */ };

struct dns;
struct dns_options {
    enum dns_verdict (*filter)(void *ctx, struct str record); /* NULL: all are kept. May wait */
    void *filter_ctx;
    bool idna2003;           /* enable_idna2003_compatibility: the older forms of names that are not ASCII */
    struct str servers;      /* dns_resolvers; empty: resolv.conf */
    const char *resolv_conf; /* NULL: /etc/resolv.conf */
    const char *hosts;       /* NULL: /etc/hosts */
};
/* Errors: a malformed `servers` entry (ERR_CONFIG). A missing file is no error. */
error dns_open(const struct dns_options *o, struct arena *err_arena, struct dns **ret);
void dns_close(struct dns *d);

/* Never fails otherwise than by status; cancellation and the deadline give DNS_RETRY. Records are in `a`. */
void dns_query(struct dns *d, struct arena *a, struct str name, enum dns_type type, int64_t deadline,
               struct dns_answer *ret);

/* Addresses of a host: the hosts file first (when `native`), then AAAA and A. */
enum dns_family { DNS_FAMILY_IPV4 = 1, DNS_FAMILY_IPV6 = 2, DNS_FAMILY_ANY = 3 };
void dns_addresses(struct dns *d, struct arena *a, struct str host, enum dns_family family, bool native,
                   int64_t deadline, struct dns_answer *ret);

/* The hosts file alone (smtp_host_lookup = native). */
void dns_hosts_addresses(struct dns *d, struct arena *a, struct str host, enum dns_family family,
                         struct dns_answer *ret);

/* The name of an SMTP client (RFC 1912, 2.1: the reverse name must lead back to the address). */
struct dns_client {
    struct str name;             /* "unknown" unless both ways agree */
    struct str reverse_name;     /* what PTR says, "unknown" without one */
    enum dns_status name_status; /* DNS_OK; DNS_RETRY: ask again later (450); else: there is none (550) */
    enum dns_status reverse_status;
    bool mismatch; /* the name exists, but not with this address: log it */
    enum dns_status forward_status;
};
void dns_client_name(struct dns *d, struct arena *a, const struct endpoint *client, int64_t deadline,
                     struct dns_client *ret);
#endif
