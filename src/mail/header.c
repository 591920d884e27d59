#include "mail/header.h"

#define SENDER HEADER_SENDER_ADDRESS
#define RECIPIENT HEADER_RECIPIENT_ADDRESS

/* Sorted by name, letters compared in lower case. */
static const struct header_row rows[] = {
    { STR_INIT("Apparently-To"), HEADER_APPARENTLY_TO, RECIPIENT },
    { STR_INIT("Auto-Submitted"), HEADER_AUTO_SUBMITTED, 0 },
    { STR_INIT("Bcc"), HEADER_BCC, RECIPIENT | HEADER_EXTRACT | HEADER_DROP },
    { STR_INIT("Cc"), HEADER_CC, RECIPIENT | HEADER_EXTRACT },
    { STR_INIT("Content-Description"), HEADER_CONTENT_DESCRIPTION, 0 },
    { STR_INIT("Content-Disposition"), HEADER_CONTENT_DISPOSITION, 0 },
    { STR_INIT("Content-ID"), HEADER_CONTENT_ID, 0 },
    { STR_INIT("Content-Length"), HEADER_CONTENT_LENGTH, HEADER_DROP },
    { STR_INIT("Content-Transfer-Encoding"), HEADER_CONTENT_TRANSFER_ENCODING, 0 },
    { STR_INIT("Content-Type"), HEADER_CONTENT_TYPE, 0 },
    { STR_INIT("Date"), HEADER_DATE, 0 },
    { STR_INIT("Delivered-To"), HEADER_DELIVERED_TO, 0 },
    { STR_INIT("Disposition-Notification-To"), HEADER_DISPOSITION_NOTIFICATION_TO, SENDER },
    { STR_INIT("Errors-To"), HEADER_ERRORS_TO, SENDER },
    { STR_INIT("From"), HEADER_FROM, SENDER },
    { STR_INIT("Mail-Followup-To"), HEADER_MAIL_FOLLOWUP_TO, SENDER },
    { STR_INIT("Message-Id"), HEADER_MESSAGE_ID, 0 },
    { STR_INIT("MIME-Version"), HEADER_MIME_VERSION, 0 },
    { STR_INIT("Received"), HEADER_RECEIVED, 0 },
    { STR_INIT("Reply-To"), HEADER_REPLY_TO, SENDER },
    { STR_INIT("Resent-Bcc"), HEADER_RESENT_BCC, RECIPIENT | HEADER_EXTRACT | HEADER_RESENT | HEADER_DROP },
    { STR_INIT("Resent-Cc"), HEADER_RESENT_CC, RECIPIENT | HEADER_EXTRACT | HEADER_RESENT },
    { STR_INIT("Resent-Date"), HEADER_RESENT_DATE, HEADER_RESENT },
    { STR_INIT("Resent-From"), HEADER_RESENT_FROM, SENDER | HEADER_RESENT },
    { STR_INIT("Resent-Message-Id"), HEADER_RESENT_MESSAGE_ID, HEADER_RESENT },
    { STR_INIT("Resent-Reply-To"), HEADER_RESENT_REPLY_TO, SENDER | HEADER_RESENT },
    { STR_INIT("Resent-Sender"), HEADER_RESENT_SENDER, SENDER | HEADER_RESENT },
    { STR_INIT("Resent-To"), HEADER_RESENT_TO, RECIPIENT | HEADER_EXTRACT | HEADER_RESENT },
    { STR_INIT("Return-Path"), HEADER_RETURN_PATH, SENDER | HEADER_DROP },
    { STR_INIT("Return-Receipt-To"), HEADER_RETURN_RECEIPT_TO, SENDER },
    { STR_INIT("Sender"), HEADER_SENDER, SENDER },
    { STR_INIT("Subject"), HEADER_SUBJECT, 0 },
    { STR_INIT("TLS-Required"), HEADER_TLS_REQUIRED, 0 },
    { STR_INIT("To"), HEADER_TO, RECIPIENT | HEADER_EXTRACT },
};
static const struct header_row other = { STR_INIT(""), HEADER_OTHER, 0 };

const struct header_row *header_find(struct str name) {
    size_t low = 0, high = sizeof rows / sizeof rows[0];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = str_cmp_icase(name, rows[middle].name);
        if (order == 0)
            return &rows[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return &other;
}

/* optional-field = field-name ":" unstructured     ; RFC 5322, 3.6.8; field-name = 1*(%d33-57 / %d59-126) */
bool header_split(struct str line, struct str *ret_name, struct str *ret_value) {
    size_t n = 0;
    while (n < line.n && line.p[n] > 32 && line.p[n] < 127 && line.p[n] != ':')
        n++;
    size_t colon = n;
    while (colon < line.n && (line.p[colon] == ' ' || line.p[colon] == '\t'))
        colon++;
    if (n == 0 || colon == line.n || line.p[colon] != ':')
        return false;
    *ret_name = str_sub(line, 0, n);
    *ret_value = str_trim(str_from(line, colon + 1));
    return true;
}

struct str header_unfold(struct arena *a, struct str value) {
    char *out = arena_alloc(a, value.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < value.n; i++) {
        size_t eol = value.p[i] == '\n' ? 1 : 0;
        if (value.p[i] == '\r' && i + 1 < value.n && value.p[i + 1] == '\n')
            eol = 2;
        if (eol && i + eol < value.n && (value.p[i + eol] == ' ' || value.p[i + eol] == '\t')) {
            i += eol - 1;
            continue;
        }
        out[n++] = value.p[i];
    }
    out[n] = 0;
    return str_n(out, n);
}
