/* header.h - message header fields (RFC 5322, 2.2). Borrowed slices; no limits but those the caller sets. */
#ifndef ANGARIUM_MAIL_HEADER_H
#define ANGARIUM_MAIL_HEADER_H

#include "base/arena.h"

enum header_id { /* fields that some part of the server treats specially */
                 HEADER_OTHER,
                 HEADER_APPARENTLY_TO,
                 HEADER_AUTO_SUBMITTED,
                 HEADER_BCC,
                 HEADER_CC,
                 HEADER_CONTENT_DESCRIPTION,
                 HEADER_CONTENT_DISPOSITION,
                 HEADER_CONTENT_ID,
                 HEADER_CONTENT_LENGTH,
                 HEADER_CONTENT_TRANSFER_ENCODING,
                 HEADER_CONTENT_TYPE,
                 HEADER_DATE,
                 HEADER_DELIVERED_TO,
                 HEADER_DISPOSITION_NOTIFICATION_TO,
                 HEADER_ERRORS_TO,
                 HEADER_FROM,
                 HEADER_MAIL_FOLLOWUP_TO,
                 HEADER_MESSAGE_ID,
                 HEADER_MIME_VERSION,
                 HEADER_RECEIVED,
                 HEADER_REPLY_TO,
                 HEADER_RESENT_BCC,
                 HEADER_RESENT_CC,
                 HEADER_RESENT_DATE,
                 HEADER_RESENT_FROM,
                 HEADER_RESENT_MESSAGE_ID,
                 HEADER_RESENT_REPLY_TO,
                 HEADER_RESENT_SENDER,
                 HEADER_RESENT_TO,
                 HEADER_RETURN_PATH,
                 HEADER_RETURN_RECEIPT_TO,
                 HEADER_SENDER,
                 HEADER_SUBJECT,
                 HEADER_TLS_REQUIRED,
                 HEADER_TO,
};

enum header_flags {
    HEADER_SENDER_ADDRESS = 1,    /* holds sender addresses that are rewritten */
    HEADER_RECIPIENT_ADDRESS = 2, /* holds recipient addresses that are rewritten */
    HEADER_EXTRACT = 4,           /* sendmail -t takes recipients from it */
    HEADER_RESENT = 8,            /* Resent-*: when there is one, -t takes only from these (RFC 5322, 3.6.6) */
    HEADER_ONE_WORD = 32,         /* not in the table: of an address that is one quoted word (address.h) */
    HEADER_DROP = 16,             /* removed from mail by default: Bcc, Content-Length, Return-Path, Resent-Bcc */
};

/* The header table row for a name, in any case; never NULL (HEADER_OTHER, no flags). */
struct header_row {
    struct str name;
    enum header_id id;
    unsigned flags;
};
const struct header_row *header_find(struct str name);

/* "Name: value" at the front of a logical line (folded lines joined by their LF). A name is 1 or more printable ASCII
 * bytes but ':' ; blanks before the colon are tolerated (RFC 5322, 4.5). False: no header. `value` is without blanks
 * at its ends. */
bool header_split(struct str line, struct str *ret_name, struct str *ret_value);
/* A value with its folding undone: each CRLF or LF before a blank removed. */
struct str header_unfold(struct arena *a, struct str value);
#endif
