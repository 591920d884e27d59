#include "bounce/notice.h"

#include "base/utf8.h"
#include "mail/address.h"
#include "mail/date.h"
#include "mail/dsn.h"
#include <errno.h>
#include <stdio.h>

enum { PIECE = 8192, BOUNDARY_TRIES = 20, BOUNDARY_HOST_MAX = 60, MESSAGE_ID_MAX = 900, LINE_MAX_BYTES = 998 };

/* --- text --- */
void notice_fold(struct buf *b, struct str text, size_t column) {
    struct buf clean = { 0 };
    buf_printable(&clean, text, SIZE_MAX); /* byte for byte */
    for (size_t i = 0; i < clean.n; i++)
        if (byte_is_space(text.p[i]))
            clean.p[i] = ' ';
    struct str rest = buf_str(&clean), word;
    bool first = true;
    while (str_word(&rest, STR(" "), &word)) {
        if (!first && column + 1 + word.n > NOTICE_LINE) {
            buf_add(b, STR("\n    "));
            column = 4;
        } else if (!first) {
            buf_byte(b, ' ');
            column++;
        }
        buf_add(b, word);
        column += word.n;
        first = false;
    }
    buf_free(&clean);
}

static void field(struct buf *b, const char *name, struct str value) {
    buf_printf(b, "%s: ", name);
    notice_fold(b, value, strlen(name) + 2);
    buf_byte(b, '\n');
}

/* Addresses stay on one line, as programs that look for them expect, where RFC 5322, 2.1.1 lets them. */
static void address_field(struct buf *b, const char *name, struct str value) {
    if (strlen(name) + value.n + 2 > LINE_MAX_BYTES) {
        field(b, name, value);
        return;
    }
    buf_printf(b, "%s: ", name);
    buf_printable(b, value, SIZE_MAX);
    buf_byte(b, '\n');
}

static bool is_utf8_mail(const struct notice *n) {
    return n->env->flags & ENVELOPE_SMTPUTF8;
}

/* Addresses of the message keep their bytes when it was SMTPUTF8 or they are valid UTF-8; one line in any case. */
static struct str shown(struct arena *a, struct str address) {
    return address_quote(a, address);
}

static struct str sender_shown(const struct notice *n, struct arena *a) {
    return n->env->sender.n ? shown(a, n->env->sender) : arena_printf(a, "MAILER-DAEMON@%.*s", STR_ARG(n->origin));
}

/* RFC 6533, 3: addresses that need it have a type of their own, in mail that may hold it. */
static const char *address_type(const struct notice *n, struct str address) {
    return is_utf8_mail(n) && !str_is_ascii(address) ? "utf-8" : "rfc822";
}

/* --- the message header --- */
static void write_header(const struct notice *n, struct arena *a, struct buf *b) {
    struct str date = date_rfc5322(a, n->now);
    buf_printf(b, "Received: by %.*s (%.*s)\n\tid %.*s; %.*s\n", STR_ARG(n->host), STR_ARG(n->mail_name),
               STR_ARG(n->own_id), STR_ARG(date));
    buf_printf(b, "Date: %.*s\n", STR_ARG(date));
    const struct bounce_template *t = n->template;
    if (t->own_from)
        buf_printf(b, "From: %.*s\n", STR_ARG(t->from));
    else if (n->old_from)
        buf_printf(b, "From: MAILER-DAEMON@%.*s (Mail Delivery System)\n", STR_ARG(n->origin));
    else
        buf_printf(b, "From: Mail Delivery System <MAILER-DAEMON@%.*s>\n", STR_ARG(n->origin));
    buf_printf(b, "Subject: %.*s\n",
               STR_ARG(n->postmaster && t->postmaster_subject.n ? t->postmaster_subject : t->subject));
    address_field(b, "To", shown(a, n->to));
    if (n->message_id.n) {
        buf_printf(b, "References: %.*s\n", STR_ARG(n->message_id));
        buf_printf(b, "In-Reply-To: %.*s\n", STR_ARG(n->message_id));
    }
    if (n->tls_optional)
        buf_add(b, STR("TLS-Required: no\n"));
    /* RFC 3834, 5 */
    buf_printf(b, "Auto-Submitted: %s\n", n->postmaster ? "auto-generated" : "auto-replied");
    buf_printf(b, "MIME-Version: 1.0\nContent-Type: multipart/report; report-type=%s;\n\tboundary=\"%s\"\n",
               is_utf8_mail(n) ? "global-delivery-status" : "delivery-status", n->boundary);
    if (n->eight_bit)
        buf_add(b, STR("Content-Transfer-Encoding: 8bit\n"));
    buf_add(b, STR("\nThis is a MIME-encapsulated message.\n"));
}

static void begin_part(const struct notice *n, struct buf *b, const char *description, const char *type,
                       bool eight_bit) {
    buf_printf(b, "\n--%s\nContent-Description: %s\nContent-Type: %s\n", n->boundary, description, type);
    if (eight_bit)
        buf_add(b, STR("Content-Transfer-Encoding: 8bit\n"));
    buf_byte(b, '\n');
}

/* --- the notification --- */
static void notification(const struct notice *n, struct arena *a, struct buf *b) {
    struct str charset = n->template->charset;
    if (n->eight_bit && str_eq_icase(charset, STR("us-ascii")))
        charset = STR("utf-8"); /* of the addresses and reasons below */
    begin_part(n, b, "Notification", arena_printf(a, "text/plain; charset=%.*s", STR_ARG(charset)).p, n->eight_bit);
    if (!n->postmaster)
        buf_add(b, n->text);
    for (size_t i = 0; i < n->rcpt_count; i++) {
        const struct spool_failure *f = &n->rcpts[i];
        struct str line = arena_printf(a, "<%.*s>", STR_ARG(shown(a, f->address)));
        if (f->orig.n && !str_eq_icase(f->orig, f->address))
            line = arena_printf(a, "%.*s (expanded from <%.*s>)", STR_ARG(line), STR_ARG(shown(a, f->orig)));
        line = arena_printf(a, "%.*s: %.*s", STR_ARG(line), STR_ARG(f->reason));
        buf_byte(b, '\n');
        notice_fold(b, line, 0);
        buf_byte(b, '\n');
    }
}

/* --- the delivery report: RFC 3464, 2.2 and 2.3 --- */
static void report_recipient(const struct notice *n, struct arena *a, struct buf *b, const struct spool_failure *f) {
    static const char *const actions[] = {
        [BOUNCE_FAILED] = "failed", [BOUNCE_DELAYED] = "delayed", [BOUNCE_SUCCESS] = "delivered"
    };
    static const char digits[] = { [BOUNCE_FAILED] = '5', [BOUNCE_DELAYED] = '4', [BOUNCE_SUCCESS] = '2' };
    struct str final = shown(a, f->address);
    buf_byte(b, '\n');
    address_field(b, "Final-Recipient", arena_printf(a, "%s; %.*s", address_type(n, final), STR_ARG(final)));
    if (f->dsn_orcpt.n) {
        address_field(b, "Original-Recipient", f->dsn_orcpt);
    } else if (f->orig.n) {
        struct str orig = shown(a, f->orig);
        address_field(b, "Original-Recipient", arena_printf(a, "%s;%.*s", address_type(n, orig), STR_ARG(orig)));
    }
    struct str action = f->action.n ? f->action : str_c(actions[n->kind]);
    field(b, "Action", action);
    struct str status = f->status;
    if (dsn_status_length(status) != status.n || !status.n)
        status = arena_printf(a, "%c.0.0", digits[n->kind]);
    /* mail that expired failed for good with a reason of the other class; that stays (RFC 3464, 2.3.4) */
    field(b, "Status", status);
    if (f->remote_mta.n)
        field(b, "Remote-MTA",
              arena_printf(a, "%.*s; %.*s", STR_ARG(f->remote_type.n ? f->remote_type : STR("dns")),
                           STR_ARG(f->remote_mta)));
    if (f->diagnostic.n)
        field(b, "Diagnostic-Code",
              arena_printf(a, "%.*s; %.*s", STR_ARG(f->diagnostic_type.n ? f->diagnostic_type : STR("smtp")),
                           STR_ARG(f->diagnostic)));
    else
        field(b, "Diagnostic-Code", arena_printf(a, "X-Postfix; %.*s", STR_ARG(f->reason)));
    if (n->kind == BOUNCE_DELAYED) {
        int64_t until = n->env->arrival_us / US_PER_S + n->lifetime;
        field(b, "Will-Retry-Until", date_rfc5322(a, until));
    }
}

static void report_fields(const struct notice *n, struct arena *a, struct buf *b) {
    struct str sender = sender_shown(n, a);
    field(b, "Reporting-MTA", arena_printf(a, "dns; %.*s", STR_ARG(n->host)));
    if (n->env->dsn_envid.n)
        field(b, "Original-Envelope-Id", n->env->dsn_envid);
    /* programs that read reports know these two names */
    field(b, "X-Postfix-Queue-ID", n->id);
    address_field(b, "X-Postfix-Sender", arena_printf(a, "%s; %.*s", address_type(n, sender), STR_ARG(sender)));
    field(b, "Arrival-Date", date_rfc5322(a, n->env->arrival_us / US_PER_S));
    for (size_t i = 0; i < n->rcpt_count; i++)
        report_recipient(n, a, b, &n->rcpts[i]);
}

static void delivery_report(const struct notice *n, struct arena *a, struct buf *b) {
    if (is_utf8_mail(n))
        begin_part(n, b, "Delivery report", "message/global-delivery-status", n->eight_bit);
    else /* 7bit (RFC 3464, 2), but for what the world puts into its replies */
        begin_part(n, b, "Delivery report", "message/delivery-status", n->eight_bit_report);
    report_fields(n, a, b);
}

/* --- the message --- */
static void begin_message(const struct notice *n, struct arena *a, struct buf *b) {
    bool utf8 = is_utf8_mail(n);
    if (n->full)
        begin_part(n, b, n->kind == BOUNCE_FAILED ? "Undelivered Message" : "Message",
                   utf8 ? "message/global" : "message/rfc822", n->eight_bit);
    else
        begin_part(n, b, n->kind == BOUNCE_SUCCESS ? "Message Headers" : "Undelivered Message Headers",
                   utf8 ? "message/global-headers" : "text/rfc822-headers", n->eight_bit);
    address_field(b, "Return-Path", arena_printf(a, "<%.*s>", STR_ARG(sender_shown(n, a))));
}

static error read_error(struct arena *a) {
    return err_make(a, ERR_TEMP, "error reading the message: %s", strerror(errno));
}

static ssize_t read_piece(const struct notice *n, uint64_t at, uint64_t end, char *p) {
    uint64_t left = end - at;
    ssize_t got = n->read(n->ctx, at, p, left < PIECE ? (size_t)left : PIECE);
    if (got == 0)
        errno = EIO;
    return got > 0 ? got : -1;
}

/* How far the header goes: up to the empty line, and to the last whole line when there is more than will be returned.
 */
static error measure_headers(struct notice *n, struct arena *a) {
    char piece[PIECE];
    bool line_start = true;
    uint64_t whole = 0, end = n->content_size < NOTICE_HEADERS_MAX ? n->content_size : NOTICE_HEADERS_MAX;
    for (uint64_t at = 0; at < end;) {
        ssize_t got = read_piece(n, at, end, piece);
        if (got < 0)
            return read_error(a);
        for (ssize_t i = 0; i < got; i++) {
            if (piece[i] == '\n') {
                if (line_start) {
                    n->copied = at + (uint64_t)i;
                    return NULL;
                }
                line_start = true;
                whole = at + (uint64_t)i + 1;
            } else {
                line_start = false;
            }
        }
        at += (uint64_t)got;
    }
    n->copied = end == n->content_size || !whole ? end : whole;
    return NULL;
}

/* A search that goes on over pieces: the last bytes of one are kept for the next. */
static error scan_content(struct notice *n, struct arena *a, bool *ret_found) {
    size_t keep = strlen(n->boundary) - 1;
    char *window = arena_alloc(a, PIECE + NOTICE_BOUNDARY_MAX);
    size_t kept = 0;
    *ret_found = false;
    for (uint64_t at = 0; at < n->copied;) {
        ssize_t got = read_piece(n, at, n->copied, window + kept);
        if (got < 0)
            return read_error(a);
        struct str all = str_n(window, kept + (size_t)got);
        *ret_found |= str_contains(all, str_c(n->boundary));
        n->eight_bit |= !str_is_ascii(str_from(all, kept));
        size_t next = all.n < keep ? all.n : keep;
        memmove(window, window + all.n - next, next);
        kept = next;
        at += (uint64_t)got;
    }
    return NULL;
}

/* "Message-Id: <id>", perhaps folded: the one identifier in there, or empty (a hostile one makes no field of ours). */
static struct str clean_message_id(struct arena *a, struct str value) {
    size_t brackets = 0;
    bool clean = true;
    struct str id = arena_str(a, str_trim(value));
    for (size_t i = 0; i < id.n; i++) {
        char c = id.p[i];
        brackets += c == '<' || c == '>';
        clean = clean && byte_is_print(c) && c != ' ';
    }
    bool whole = id.n > 2 && id.n <= MESSAGE_ID_MAX && id.p[0] == '<' && id.p[id.n - 1] == '>' && brackets == 2;
    return clean && whole ? id : STR("");
}

static error find_message_id(struct notice *n, struct arena *a) {
    uint64_t end = n->content_size < NOTICE_HEADERS_MAX ? n->content_size : NOTICE_HEADERS_MAX;
    struct buf header = { 0 };
    char piece[PIECE];
    for (uint64_t at = 0; at < end && !str_contains(buf_str(&header), STR("\n\n"));) {
        ssize_t got = read_piece(n, at, end, piece);
        if (got < 0) {
            buf_free(&header);
            return read_error(a);
        }
        buf_add(&header, str_n(piece, (size_t)got));
        at += (uint64_t)got;
    }
    struct str rest = buf_str(&header), line;
    while (rest.n && str_next(&rest, STR("\n"), &line) && line.n) {
        ptrdiff_t colon = str_index(line, ':');
        if (colon < 0 || !str_eq_icase(str_trim_right(str_sub(line, 0, (size_t)colon)), STR("Message-Id")))
            continue;
        struct str value = str_from(line, (size_t)colon + 1), more;
        while (rest.n && (rest.p[0] == ' ' || rest.p[0] == '\t') && str_next(&rest, STR("\n"), &more))
            value = arena_cat(a, str_trim(value), more);
        n->message_id = clean_message_id(a, value);
        break;
    }
    buf_free(&header);
    return NULL;
}

/* All that is said but the returned content. */
static void write_text(const struct notice *n, struct arena *a, struct buf *b) {
    write_header(n, a, b);
    notification(n, a, b);
    delivery_report(n, a, b);
    if (!n->redacted)
        begin_message(n, a, b);
}

error notice_prepare(struct notice *n, struct arena *a) {
    struct buf report = { 0 };
    report_fields(n, a, &report);
    n->eight_bit_report = !str_is_ascii(buf_str(&report));
    buf_free(&report);
    n->eight_bit = n->utf8;
    n->copied = n->redacted ? 0 : n->content_size;
    n->message_id = STR("");
    error e = n->threaded ? find_message_id(n, a) : NULL;
    if (!e && !n->full && !n->redacted)
        e = measure_headers(n, a);
    const int places = n->redacted ? 3 : 4;
    /* queue id and time do not come together again, but somebody may have put them there on purpose */
    for (int i = 0; !e && i < BOUNDARY_TRIES; i++) {
        bool in_content = false;
        struct str host = str_sub(n->host, 0, BOUNDARY_HOST_MAX);
        struct str more = i ? arena_printf(a, ".%d", i) : STR("");
        snprintf(n->boundary, sizeof(n->boundary), "%.*s.%lld%.*s/%.*s", STR_ARG(n->id), (long long)n->now,
                 STR_ARG(more), STR_ARG(host));
        struct buf b = { 0 };
        write_text(n, a, &b);
        n->eight_bit |= !str_is_ascii(buf_str(&b));
        /* in the header, and before each part */
        struct str rest = buf_str(&b), mark = str_c(n->boundary);
        int times = 0;
        while (str_contains(rest, mark)) {
            const char *found = memmem(rest.p, rest.n, mark.p, mark.n);
            rest = str_from(rest, (size_t)(found - rest.p) + mark.n);
            times++;
        }
        buf_free(&b);
        e = scan_content(n, a, &in_content);
        if (!e && !in_content && times == places)
            return NULL;
    }
    return e ? e : err_make(a, ERR_TEMP, "no boundary can be found");
}

error notice_write(const struct notice *n, struct arena *a, error (*put)(void *ctx, struct str bytes), void *ctx) {
    struct buf b = { 0 };
    write_text(n, a, &b);
    error e = put(ctx, buf_str(&b));
    char piece[PIECE];
    char last = '\n';
    for (uint64_t at = 0; !e && at < n->copied;) {
        ssize_t got = read_piece(n, at, n->copied, piece);
        if (got < 0) {
            e = read_error(a);
            break;
        }
        e = put(ctx, str_n(piece, (size_t)got));
        last = piece[got - 1];
        at += (uint64_t)got;
    }
    buf_clear(&b);
    if (last != '\n')
        buf_byte(&b, '\n');
    buf_printf(&b, "\n--%s--\n", n->boundary);
    if (!e)
        e = put(ctx, buf_str(&b));
    buf_free(&b);
    return e;
}
