#include "showq/showq.h"

#include "base/json.h"
#include <stdio.h>
#include <time.h>

enum {
    SHORT_INDENT = 41, /* where recipients begin */
    LONG_INDENT = 47,
    REASON_END = 78, /* reasons end here, at the right, unless they are longer */
    TEXT_MAX = 100000,
};

/* --- the table --- */

static const char *status_of(const struct listing_entry *e) {
    if (e->forced_expire)
        return "#";
    if (str_eq(e->queue_name, STR("active")))
        return "*";
    return str_eq(e->queue_name, STR("hold")) ? "!" : "";
}

static void table_head(const struct showq_writer *w, struct buf *out) {
    buf_add(out, w->long_ids ? STR("----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n")
                             : STR("-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n"));
}

static void format_when(struct showq_writer *w, int64_t when_s) {
    struct tm tm;
    time_t t = (time_t)when_s;
    if (w->when[0] && when_s == w->when_s)
        return;
    w->when_s = when_s;
    if (!localtime_r(&t, &tm) || !strftime(w->when, sizeof w->when, "%a %b %e %H:%M:%S", &tm))
        w->when[0] = 0;
}

static void table_message(struct showq_writer *w, struct buf *out, const struct listing_entry *e) {
    const char *when = w->when;
    char id[QUEUE_ID_MAX + 1];
    format_when(w, e->arrival_s);
    snprintf(id, sizeof id, "%s%s", e->id.text, status_of(e));
    if (w->long_ids)
        buf_printf(out, "%-17s %8llu %-19s ", id, (unsigned long long)e->size, when);
    else
        buf_printf(out, "%-11s%8llu %-20s ", id, (unsigned long long)e->size, when);
    buf_printable(out, e->sender, TEXT_MAX);
    buf_byte(out, '\n');
}

static void table_rcpt(struct showq_writer *w, struct buf *out, const struct listing_rcpt *r) {
    struct str reason = r->bounce_reason.n ? r->bounce_reason : r->delay_reason;
    if (reason.n && !str_eq(reason, buf_str(&w->reason))) {
        struct buf text = { 0 };
        buf_printable(&text, reason, TEXT_MAX);
        buf_printf(out, "%*s(%s)\n", text.n + 2 < REASON_END ? (int)(REASON_END - text.n - 2) : 0, "",
                   text.p ? text.p : "");
        buf_free(&text);
        buf_clear(&w->reason);
        buf_add(&w->reason, reason);
    }
    buf_printf(out, "%*s", w->long_ids ? LONG_INDENT : SHORT_INDENT, "");
    buf_printable(out, r->address, TEXT_MAX);
    buf_byte(out, '\n');
}

/* --- JSON (RFC 8259): one object in a line --- */

static void json_member(struct buf *out, const char *name, struct str value) {
    buf_printf(out, "\"%s\": ", name);
    buf_json(out, value);
}

static void json_message(struct buf *out, const struct listing_entry *e) {
    buf_byte(out, '{');
    json_member(out, "queue_name", e->queue_name);
    buf_add(out, STR(", "));
    json_member(out, "queue_id", queue_id_str(&e->id));
    buf_printf(out, ", \"arrival_time\": %lld, \"message_size\": %llu, \"forced_expire\": %s, ",
               (long long)e->arrival_s, (unsigned long long)e->size, e->forced_expire ? "true" : "false");
    json_member(out, "sender", e->sender);
    buf_add(out, STR(", \"recipients\": ["));
}

static void json_rcpt(struct showq_writer *w, struct buf *out, const struct listing_rcpt *r) {
    buf_add(out, w->rcpts ? STR(", {") : STR("{"));
    json_member(out, "address", r->address);
    if (r->orig.n && !str_eq(r->orig, r->address)) {
        buf_add(out, STR(", "));
        json_member(out, "orig_address", r->orig);
    }
    if (r->delay_reason.n) {
        buf_add(out, STR(", "));
        json_member(out, "delay_reason", r->delay_reason);
    }
    if (r->bounce_reason.n) {
        buf_add(out, STR(", "));
        json_member(out, "bounce_reason", r->bounce_reason);
    }
    buf_byte(out, '}');
}

/* --- both --- */

static void close_message(struct showq_writer *w, struct buf *out) {
    if (w->open && w->form == SHOWQ_JSON)
        buf_add(out, STR("]}\n"));
    else if (w->open)
        buf_byte(out, '\n');
    w->open = false;
}

void showq_write_begin(struct showq_writer *w, struct buf *out, const struct listing_entry *e) {
    close_message(w, out);
    if (w->form == SHOWQ_JSON) {
        json_message(out, e);
    } else {
        if (w->messages == 0)
            table_head(w, out);
        table_message(w, out, e);
    }
    w->open = true;
    w->messages++;
    w->bytes += e->size;
    w->rcpts = 0;
    buf_clear(&w->reason);
    showq_write_rcpts(w, out, e->rcpts, e->rcpt_count);
}

void showq_write_rcpts(struct showq_writer *w, struct buf *out, const struct listing_rcpt *rcpts, size_t count) {
    for (size_t i = 0; i < count; i++, w->rcpts++) {
        if (w->form == SHOWQ_JSON)
            json_rcpt(w, out, &rcpts[i]);
        else
            table_rcpt(w, out, &rcpts[i]);
    }
}

void showq_write_end(struct showq_writer *w, struct buf *out) {
    close_message(w, out);
    if (w->form == SHOWQ_TABLE && w->messages == 0)
        buf_add(out, STR("Mail queue is empty\n"));
    else if (w->form == SHOWQ_TABLE)
        buf_printf(out, "-- %llu Kbytes in %zu Request%s.\n", (unsigned long long)(w->bytes / 1024), w->messages,
                   w->messages == 1 ? "" : "s");
    buf_free(&w->reason);
}
