/* address.h - mailboxes as SMTP writes them (RFC 5321, 4.1.2) and as we keep them.
 *
 * Inside the server an address is in internal form: `local@domain` with the local part unquoted (it may hold blanks,
 * quotes, any byte but NUL, CR, LF) and the domain as written; the null sender is the empty string. External form has
 * the local part quoted where RFC 5321 wants it. Never logs, never blocks. Results live as long as the arena. */
#ifndef ANGARIUM_MAIL_ADDRESS_H
#define ANGARIUM_MAIL_ADDRESS_H

#include "base/arena.h"

enum {
    ADDRESS_MAX = 1000,      /* bytes of one address; longer is refused, never cut */
    ADDRESS_LOCAL_MAX = 256, /* not enforced here: RFC 5321 4.5.3.1.1 says 64, the world does not keep to it */
};

enum address_flags {
    ADDRESS_STRICT = 1, /* strict_rfc821_envelopes: angle brackets needed, no comments, no white space */
};

/* Read the path of MAIL FROM: or RCPT TO: from the front of `in` (which begins after the colon); a source route
 * (RFC 5321, 4.1.2 A-d-l) is dropped. `*ret_rest` is what follows, without blanks in front: the ESMTP parameters.
 * `*ret_address` is in internal form, empty for <>. False: not a path, nothing is set (the caller knows whether
 * that makes it 5.1.7 or 5.1.3). */
bool address_parse_path(struct arena *a, struct str in, enum address_flags flags, struct str *ret_address,
                        struct str *ret_rest);

/* Internal form to external form (quotes added where needed) and back. From external: false when malformed. */
struct str address_quote(struct arena *a, struct str internal);
/* The form of info_log_address_format: internal, or external as above (which it is until the first is called). Set
 * once, before the process does anything else. */
void address_log_internal(bool internal);
struct str address_logged(struct arena *a, struct str internal);
/* A local part that is its own external form: Dot-string, with bytes over 127 as letters (RFC 6531, 3.3). */
bool address_is_dot_string(struct str local);
bool address_unquote(struct arena *a, struct str external, struct str *ret_internal);

/* At the last '@'. Without one, domain is empty and has_domain false. */
struct address_parts {
    struct str local, domain;
    bool has_domain;
};
struct address_parts address_split(struct str internal);

/* What an extension is: at the first byte of `delimiters` (recipient_delimiter). Where '-' is one of them owner-foo and
 * foo-request are whole names if `owner_request_special`. */
struct extension_rules {
    struct str delimiters;
    bool owner_request_special;
};
/* user+ext. The reserved names mailer-daemon, double-bounce are never split. False: no extension. */
bool address_split_extension(struct str local, struct extension_rules rules, struct str *ret_user,
                             struct str *ret_extension);

/* [1.2.3.4], [IPv6:...]: brackets there and the inside a valid literal (RFC 5321, 4.1.3). */
bool address_domain_is_literal(struct str domain);
/* A host name that Postfix's valid_hostname accepts: labels of letters, digits, '-', '_', at most 63 and 255
 * bytes, not all numeric. */
bool hostname_valid(struct str name);

/* --- header fields: RFC 5322, 3.4 --- */
struct header_address {
    struct str address; /* internal form, as written otherwise: no domain is added */
    struct str source;  /* the bytes of the header it stood in, comments and display name included */
    bool one_word;      /* in quotes and without a domain: an '@' in it is no separator */
};
enum { HEADER_ADDRESS_MAX = 20000 }; /* mailboxes taken from one header; the rest is ignored with `truncated` */
struct header_addresses {
    struct header_address *at;
    size_t n;
    bool truncated;
};
/* All mailboxes of a To/Cc/From... value, groups opened. Malformed pieces are taken as well as can be, as Postfix
 * does; it never fails. Linear in time, no recursion. */
struct header_addresses header_addresses_parse(struct arena *a, struct str value);
/* The same with another limit than HEADER_ADDRESS_MAX: the members of an alias. */
struct header_addresses header_addresses_parse_most(struct arena *a, struct str value, size_t most);
#endif
