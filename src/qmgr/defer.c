/* What became of recipients, and of a message when its attempt is over. */
#include "qmgr/qmgr.h"

#include "base/log.h"
#include "deliver/agent.h"
#include "mail/address.h"
#include "mail/date.h"
#include "mail/dsn.h"
#include "proto/bounce.h"
#include "proto/verify.h"
#include <errno.h>

enum {
    DEFERRED_KEPT = 1000,    /* records of deferred recipients kept in memory; more are read again when needed */
    REASONS_MAX = 64 * 1024, /* bytes of packed reasons gathered before they are written */
    SHOW_AFTER_S = 1,        /* an attempt that takes longer has its reasons in lists before it is over */
    DEFER_YIELD = 50,        /* entries deferred at once before others get their turn */
    STUCK_RETRY_S = 60,      /* a message that cannot be moved or removed: the disk's trouble, tried again */
    BOUNCE_TIMEOUT_S = 600,  /* the notice is written to the queue meanwhile: like cleanup's, not like a question's */
};

/* --- log lines, as deliver/agent.c writes them for agents --- */

static void log_result(const struct message *m, const struct rcpt *r, struct str dsn, const char *status,
                       struct str text, struct arena *a) {
    struct buf line = { 0 };
    int limit = (int)conf_int(m->q->conf, PARAM_delay_logging_resolution_limit);
    int64_t now = sys->wall_us();
    buf_printf(&line, "%s: to=<%.*s>", m->id.text, STR_ARG(address_logged(a, r->address)));
    if (r->orig.n && !str_eq_icase(r->orig, r->address))
        buf_printf(&line, ", orig_to=<%.*s>", STR_ARG(address_logged(a, r->orig)));
    struct str delay = delay_format(a, now - m->env.arrival_us, limit);
    struct str before = delay_format(a, m->active_us - m->env.arrival_us, limit);
    struct str here = delay_format(a, now - m->active_us, limit);
    buf_printf(&line, ", relay=none, delay=%.*s, delays=%.*s/%.*s/0/0, dsn=%.*s, status=%s (%.*s)", STR_ARG(delay),
               STR_ARG(before), STR_ARG(here), STR_ARG(dsn), status, STR_ARG(text));
    log_record(LOG_LEVEL_INFO, buf_str(&line));
    buf_free(&line);
}

/* --- recipients --- */

static bool wants_failure_notice(unsigned dsn_notify) {
    return !dsn_notify || (dsn_notify & DSN_NOTIFY_FAILURE);
}
static bool wants_delay_notice(unsigned dsn_notify) {
    return !dsn_notify || (dsn_notify & DSN_NOTIFY_DELAY);
}
static bool is_of_interest(unsigned dsn_notify) {
    (void)dsn_notify;
    return true;
}

/* Is there a copy for the postmaster, who hears of what senders do not want to hear of, too? */
static bool has_class(const struct message *m, struct str class) {
    struct str list = conf_str(m->q->conf, PARAM_notify_classes), word;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        if (str_eq_icase(word, class))
            return true;
    return false;
}
static bool has_copy(const struct message *m) {
    return has_class(m, m->env.sender.n ? STR("bounce") : STR("2bounce"));
}

static struct spool_failure failure_of(const struct message *m, uint32_t slot, const struct result *r) {
    const struct rcpt *rcpt = message_rcpt(m, slot);
    bool member = r->address.n > 0;
    return (struct spool_failure){
        .rcpt_index = slot_index(m, slot),
        .address = member ? r->address : rcpt->address,
        .orig = member && !rcpt->orig.n ? rcpt->address : rcpt->orig,
        .dsn_orcpt = rcpt->dsn_orcpt,
        .dsn_notify = rcpt->dsn_notify,
        .status = r->dsn,
        .action = r->action,
        .reason = r->reason,
        .diagnostic_type = r->diagnostic_type,
        .diagnostic = r->diagnostic,
        .remote_type = r->remote_type,
        .remote_mta = r->remote_mta,
        .when_us = sys->wall_us(),
    };
}

static bool mark_index(struct message *m, size_t index) {
    error e = spool_mark_done(m->q->spool, &m->id, SPOOL_ACTIVE, index);
    if (e)
        log_warn("%s: mark recipient as done: %.*s", m->id.text, STR_ARG(e->text));
    return !e;
}

static void rcpt_mark(struct message *m, uint32_t slot) {
    if (mark_index(m, slot_index(m, slot)))
        slot_set_marked(m, slot);
}

static struct spool_failure failure_copy(struct arena *a, const struct spool_failure *from) {
    struct spool_failure f = *from;
    struct str *texts[] = { &f.address,         &f.orig,       &f.dsn_orcpt,   &f.status,    &f.action, &f.reason,
                            &f.diagnostic_type, &f.diagnostic, &f.remote_type, &f.remote_mta };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        *texts[i] = arena_str(a, *texts[i]);
    return f;
}

static void keep_deferred(struct message *m, uint32_t slot, const struct spool_failure *f) {
    *message_outcome(m, slot) = OUTCOME_DEFERRED;
    m->deferred_count++;
    if (m->deferred.n < DEFERRED_KEPT)
        *vec_add(m->arena, &m->deferred) = failure_copy(m->arena, f);
}

/* mailq's reasons, those not written yet. */
static void write_reasons(struct message *m, bool goes_on) {
    error e = spool_reasons_add(m->q->spool, &m->id, SPOOL_ACTIVE, buf_str(&m->reasons), goes_on);
    if (e) {
        log_warn("%s: write why recipients wait: %.*s", m->id.text, STR_ARG(e->text));
        m->deferred_lost = true;
    }
    buf_free(&m->reasons);
}

static void rcpt_deferred(struct message *m, uint32_t slot, const struct result *r) {
    struct spool_failure f = failure_of(m, slot, r);
    if (f.action.n == 0)
        f.action = STR("delayed");
    if (!spool_record_pack(&m->reasons, &f)) {
        log_warn("%s: why %.*s waits is too long to be written down", m->id.text, STR_ARG(f.address));
        m->deferred_lost = true;
    }
    bool goes_on = m->answered < m->todo && sys->wall_us() - m->active_us >= SHOW_AFTER_S * US_PER_S;
    if (goes_on || m->reasons.n > REASONS_MAX)
        write_reasons(m, goes_on);
    keep_deferred(m, slot, &f);
    fast_flush_rcpt(m, message_rcpt(m, slot)->address);
}

void rcpt_expired(struct message *m, uint32_t slot, const struct spool_failure *known) {
    struct result r = { .dsn = STR("4.3.0"), .reason = STR("message is administratively expired") };
    r.address = r.action = r.diagnostic_type = r.diagnostic = r.remote_type = r.remote_mta = STR("");
    m->answered++;
    if (known) /* it is in the log already */
        keep_deferred(m, slot, known);
    else
        rcpt_deferred(m, slot, &r);
}

static error bounce_record(struct message *m, uint32_t slot, const struct result *r) {
    struct spool_failure f = failure_of(m, slot, r);
    if (f.action.n == 0)
        f.action = STR("failed");
    error e = spool_log_add(m->q->spool, &m->id, SPOOL_LOG_BOUNCE, &f);
    /* Before the mark: otherwise a crash could leave a recipient that is done and that nobody tells of. */
    return e ? e : spool_log_sync(m->q->spool, &m->id, SPOOL_LOG_BOUNCE);
}

/* --- reports to the sender that are no bad news --- */

/* sendmail -bv: the one attempt says what would become of the recipient, and that is all. */
static bool is_rehearsal(const struct message *m) {
    return m->tracing && (m->env.flags & ENVELOPE_VERIFY);
}

/* The sender has been told of a delay that is over now. */
static bool clears_delay(const struct message *m, const struct rcpt *rcpt) {
    return (m->env.flags & ENVELOPE_WARNED) && wants_delay_notice(rcpt->dsn_notify) &&
           conf_bool(m->q->conf, PARAM_confirm_delay_cleared);
}

static bool wants_trace(const struct message *m, const struct rcpt *rcpt, const struct result *r) {
    if (!m->env.sender.n)
        return false;
    if (m->tracing)
        return true;
    if (r->status != DELIVERY_SENT)
        return false;
    return (!r->passed_on && (rcpt->dsn_notify & DSN_NOTIFY_SUCCESS)) || clears_delay(m, rcpt);
}

static struct str traced_action(const struct message *m, const struct result *r) {
    static const struct str usual[] = { [DELIVERY_SENT] = STR_INIT("delivered"),
                                        [DELIVERY_DEFERRED] = STR_INIT("delayed"),
                                        [DELIVERY_BOUNCED] = STR_INIT("failed") };
    if (is_rehearsal(m))
        return r->status == DELIVERY_SENT ? STR("deliverable") : STR("undeliverable");
    return r->action.n ? r->action : usual[r->status];
}

static void trace_record(struct message *m, uint32_t slot, const struct result *r) {
    struct spool_failure f = failure_of(m, slot, r);
    f.action = traced_action(m, r);
    f.dsn_notify = m->tracing ? 0 : (unsigned)DSN_NOTIFY_SUCCESS; /* that is what the report is for */
    error e = spool_log_add(m->q->spool, &m->id, SPOOL_LOG_TRACE, &f);
    if (e)
        log_warn("%s: trace log: %.*s", m->id.text, STR_ARG(e->text));
    else
        m->traced = true;
}

/* --- probes of addresses: one attempt, whose result is verify's --- */
static bool is_probe(const struct message *m) {
    return (m->env.flags & ENVELOPE_VERIFY) && (m->env.flags & ENVELOPE_INTERNAL);
}

static void report_probe(struct message *m, uint32_t slot, const struct result *r) {
    static const enum verify_status statuses[] = {
        [DELIVERY_SENT] = VERIFY_OK, [DELIVERY_DEFERRED] = VERIFY_DEFER, [DELIVERY_BOUNCED] = VERIFY_BOUNCE
    };
    struct qmgr *q = m->q;
    const struct rcpt *rcpt = message_rcpt(m, slot);
    const struct verify_answer is = { statuses[r->status], r->reason };
    int64_t deadline = deadline_in(conf_time(q->conf, PARAM_qmgr_ipc_timeout));
    struct arena *a = arena_new();
    struct str endpoint = arena_cat(a, STR("private/"), conf_str(q->conf, PARAM_address_verify_service_name));
    /* what was asked about, not what aliases have made of it */
    struct str address = arena_str(a, rcpt->orig.n ? rcpt->orig : rcpt->address);
    struct ipc *ipc = NULL;
    error e = q->outside.connect(q->outside.ctx, endpoint, deadline, &ipc);
    if (!e)
        e = verify_update(ipc, address, &is, deadline);
    ipc_close(ipc);
    if (e)
        log_warn("%s: report to %.*s: %.*s", m->id.text, STR_ARG(endpoint), STR_ARG(e->text));
    arena_free(a);
}

void rcpt_result(struct message *m, uint32_t slot, const struct result *r) {
    if (!slot_is_there(m, slot) || *message_outcome(m, slot) != OUTCOME_NONE)
        return;
    m->answered++;
    if (m->asked == QUEUE_DELETE) { /* nothing is left to write it down in */
        *message_outcome(m, slot) = OUTCOME_DONE;
        slot_set_marked(m, slot);
        return;
    }
    if (is_probe(m)) {
        *message_outcome(m, slot) = OUTCOME_DONE;
        report_probe(m, slot, r);
        return;
    }
    bool rehearsal = is_rehearsal(m);
    if (r->status != DELIVERY_DEFERRED || rehearsal)
        *message_outcome(m, slot) = OUTCOME_DONE; /* before a wait: a second answer finds it taken */
    if (wants_trace(m, message_rcpt(m, slot), r))
        trace_record(m, slot, r);
    if (r->status == DELIVERY_DEFERRED && !rehearsal) {
        rcpt_deferred(m, slot, r);
        return;
    }
    if (r->status == DELIVERY_BOUNCED && !rehearsal &&
        (wants_failure_notice(message_rcpt(m, slot)->dsn_notify) || has_copy(m))) {
        error e = bounce_record(m, slot, r);
        if (e) {
            log_warn("%s: bounce log: %.*s", m->id.text, STR_ARG(e->text));
            log_info("%s: status=deferred (bounce failed)", m->id.text);
            rcpt_deferred(m, slot, r);
            return;
        }
        m->bounced = true;
    }
    /* When nothing is left to do the file goes; message_end() marks what it then cannot remove. */
    if (m->answered < m->todo || m->deferred_count > 0 || m->bounced || m->traced)
        rcpt_mark(m, slot);
}

void rcpt_decide(struct message *m, uint32_t slot, enum delivery_status status, struct str dsn, struct str reason) {
    static const char *const names[] = {
        [DELIVERY_SENT] = "sent", [DELIVERY_DEFERRED] = "deferred", [DELIVERY_BOUNCED] = "bounced"
    };
    if (*message_outcome(m, slot) != OUTCOME_NONE)
        return;
    const char *name = names[status];
    static const char digits[] = { [DELIVERY_SENT] = '2', [DELIVERY_DEFERRED] = '4', [DELIVERY_BOUNCED] = '5' };
    if (m->env.flags & ENVELOPE_VERIFY) {
        name = status == DELIVERY_SENT ? "deliverable" : "undeliverable";
    } else if (status == DELIVERY_BOUNCED && conf_bool(m->q->conf, PARAM_soft_bounce)) {
        status = DELIVERY_DEFERRED;
        name = "SOFTBOUNCE";
    }
    struct arena *a = arena_new();
    struct result r = { .status = status, .dsn = dsn_with_class(a, dsn, digits[status]), .reason = reason };
    r.action = r.diagnostic_type = r.diagnostic = r.remote_type = r.remote_mta = STR("");
    log_result(m, message_rcpt(m, slot), r.dsn, name, reason, a);
    rcpt_result(m, slot, &r);
    arena_free(a);
}

void entry_defer(struct entry *e, struct str dsn, struct str reason) {
    struct message *m = e->message;
    if (dsn.n == 0)
        dsn = STR("4.4.0");
    for (size_t i = 0; i < e->rcpt_count; i++)
        if (*message_outcome(m, e->rcpts[i]) == OUTCOME_NONE)
            rcpt_decide(m, e->rcpts[i], DELIVERY_DEFERRED, dsn, reason);
    entry_free(e);
    message_release(m);
}

void entries_defer(struct entry *list, struct str dsn, struct str reason) {
    for (size_t n = 1; list; n++) {
        struct entry *e = list;
        list = e->next;
        entry_defer(e, dsn, reason);
        if (n % DEFER_YIELD == 0)
            coro_yield();
    }
}

void entry_abandon(struct entry *e) {
    struct message *m = e->message;
    entry_free(e);
    message_release(m);
}

/* --- notices --- */

/* True: the notice is in the queue, or there is nobody to tell. */
static bool send_notice(struct message *m, enum bounce_kind kind, enum param service, const struct spool_failure *f,
                        size_t count) {
    struct qmgr *q = m->q;
    if (count == 0)
        return true;
    struct ipc *ipc = NULL;
    enum bounce_status status = BOUNCE_TEMP;
    struct queue_id notice;
    if (!message_content(m))
        return false;
    struct str name = conf_str(q->conf, service);
    error e = q->outside.connect(q->outside.ctx, arena_cat(m->arena, STR("private/"), name),
                                 deadline_in(conf_time(q->conf, PARAM_qmgr_ipc_timeout)), &ipc);
    if (!e) {
        struct bounce_request r = {
            .kind = kind,
            .id = m->id,
            .env = m->env,
            .rcpts = f,
            .rcpt_count = count,
            .content = m->content,
        };
        r.env.rcpts = NULL;
        r.env.rcpt_count = 0;
        e = bounce_send(ipc, &r, deadline_in(BOUNCE_TIMEOUT_S), &status, &notice);
    }
    ipc_close(ipc);
    message_content_done(m);
    if (e)
        log_warn("%s: private/%.*s service: %.*s", m->id.text, STR_ARG(name), STR_ARG(e->text));
    return !e && status != BOUNCE_TEMP;
}

/* What a log says of recipients is told to the sender. False: not yet. */
static bool tell_from_log(struct message *m, enum spool_log log, enum bounce_kind kind, enum param service,
                          const char *name) {
    struct qmgr *q = m->q;
    struct spool_failure *f;
    size_t count;
    error e = spool_log_read(q->spool, &m->id, log, m->arena, &f, &count);
    if (e) {
        log_warn("%s: %s log: %.*s", m->id.text, name, STR_ARG(e->text));
        return false;
    }
    if (!send_notice(m, kind, service, f, count))
        return false;
    /* One that cannot be removed now makes a second notice: said, because an administrator will wonder. */
    if (count && (e = spool_log_clear(q->spool, &m->id, log)))
        log_warn("%s: remove %s log: %.*s", m->id.text, name, STR_ARG(e->text));
    return true;
}

/* Recipients that failed for good. */
static bool tell_of_failures(struct message *m) {
    bool told = tell_from_log(m, SPOOL_LOG_BOUNCE, BOUNCE_FAILED, PARAM_bounce_service_name, "bounce");
    m->bounced = !told;
    return told;
}

/* What senders have asked to be told of. */
static bool tell_of_trace(struct message *m) {
    bool told = tell_from_log(m, SPOOL_LOG_TRACE, BOUNCE_SUCCESS, PARAM_trace_service_name, "trace");
    m->traced = !told;
    return told;
}

/* What is deferred, and why: all of it, or NULL. */
static struct spool_failure *deferred_all(struct message *m, size_t *ret_count) {
    struct spool_failure *f = m->deferred.at;
    *ret_count = m->deferred.n;
    if (m->deferred.n == m->deferred_count)
        return f;
    error e = m->deferred_lost ? err_errno(ENODATA)
                               : spool_reasons_read(m->q->spool, &m->id, SPOOL_ACTIVE, m->arena, &f, ret_count);
    if (!e && *ret_count >= m->deferred_count)
        return f;
    log_warn("%s: read why recipients wait: %.*s", m->id.text, STR_ARG(e ? e->text : STR("records are missing")));
    return NULL;
}

static struct spool_failure *deferred_who(struct arena *a, const struct spool_failure *all, size_t all_count,
                                          bool (*who)(unsigned dsn_notify), struct str action, size_t *ret_count) {
    struct spool_failure *f = arena_array(a, all_count, sizeof *f);
    size_t n = 0;
    for (size_t i = 0; i < all_count; i++) {
        if (!who(all[i].dsn_notify))
            continue;
        f[n] = all[i];
        f[n++].action = action;
    }
    *ret_count = n;
    return f;
}

/* The time is up: what is deferred is returned. `stays`: the message has to stay for another reason. */
static bool give_up(struct message *m, bool stays) {
    struct arena *a = m->arena;
    log_info("%s: from=<%.*s>, status=%s, returned to sender", m->id.text, STR_ARG(address_logged(a, m->env.sender)),
             m->env.flags & ENVELOPE_EXPIRED ? "force-expired" : "expired");
    size_t count, all_count;
    const struct spool_failure *all = deferred_all(m, &all_count);
    if (!all)
        return false;
    const struct spool_failure *f =
        deferred_who(a, all, all_count, has_copy(m) ? is_of_interest : wants_failure_notice, STR("failed"), &count);
    if (!send_notice(m, BOUNCE_FAILED, PARAM_bounce_service_name, f, count))
        return false;
    for (size_t i = 0; stays && i < all_count; i++)
        mark_index(m, all[i].rcpt_index);
    return true;
}

static void warn_of_delay(struct message *m) {
    size_t count, all_count;
    const struct spool_failure *all = deferred_all(m, &all_count);
    if (!all)
        return;
    const struct spool_failure *f =
        deferred_who(m->arena, all, all_count, has_class(m, STR("delay")) ? is_of_interest : wants_delay_notice,
                     STR("delayed"), &count);
    if (!send_notice(m, BOUNCE_DELAYED, PARAM_defer_service_name, f, count))
        return;
    error e = spool_mark_warned(m->q->spool, &m->id, SPOOL_ACTIVE);
    if (e)
        log_warn("%s: mark delay warning: %.*s", m->id.text, STR_ARG(e->text));
}

/* --- the end of an attempt --- */

static int64_t lifetime_us(const struct message *m) {
    const struct conf *c = m->q->conf;
    return US_PER_S * conf_time(c, m->env.sender.n ? PARAM_maximal_queue_lifetime : PARAM_bounce_queue_lifetime);
}

/* As long as the message is old already, so that the times between tries double. */
static int64_t next_try(const struct message *m, int64_t now) {
    const struct conf *c = m->q->conf;
    int64_t least = US_PER_S * conf_time(c, PARAM_minimal_backoff_time);
    int64_t most = US_PER_S * conf_time(c, PARAM_maximal_backoff_time);
    int64_t delay = now - m->env.arrival_us;
    if (delay > most)
        delay = most;
    if (delay < least)
        delay = least;
    return now + delay;
}

static void move_to_deferred(struct message *m, int64_t now) {
    struct spool *s = m->q->spool;
    error e;
    while ((e = spool_defer(s, &m->id, next_try(m, now)))) {
        if (e->sys == ENOENT || e->sys == EEXIST || m->q->draining) {
            if (!m->q->draining)
                log_warn("%s: move to deferred: %.*s", m->id.text, STR_ARG(e->text));
            return;
        }
        log_warn("%s: move to deferred: %.*s", m->id.text, STR_ARG(e->text));
        if (wait_until(deadline_in(STUCK_RETRY_S)))
            return;
    }
    enum spool_state state;
    if ((m->env.flags & ENVELOPE_EXPIRED) && spool_find(s, &m->id, &state))
        spool_mark_expired(s, &m->id, state); /* it may have been one without a file until now */
    fast_flush_add(m);
}

static void mark_the_rest(struct message *m) {
    uint32_t at = 0, slot;
    while (slot_unmarked(m, &at, &slot))
        rcpt_mark(m, slot);
}

static void remove_file(struct message *m) {
    error e = spool_remove(m->q->spool, &m->id, SPOOL_ACTIVE);
    if (!e) {
        log_info("%s: removed", m->id.text);
        return;
    }
    log_warn("%s: remove: %.*s", m->id.text, STR_ARG(e->text));
    mark_the_rest(m);
    move_to_deferred(m, sys->wall_us());
}

void message_end(struct message *m) {
    const struct conf *c = m->q->conf;
    int64_t now = sys->wall_us(), age = now - m->env.arrival_us;
    if (m->reasons.n > 0 && m->asked != QUEUE_DELETE)
        write_reasons(m, false);
    if (m->answered < m->todo && !m->asked) { /* draining, or not readable: the rest is found again in active */
        mark_the_rest(m);
        message_forget(m);
        return;
    }
    bool keep = m->asked != QUEUE_DELETE && m->bounced && !tell_of_failures(m);
    if (keep)
        log_info("%s: status=deferred (bounce failed)", m->id.text);
    if (m->asked != QUEUE_DELETE && m->traced && !tell_of_trace(m)) {
        log_info("%s: status=deferred (trace failed)", m->id.text);
        keep = true;
    }
    if (m->asked) {
        keep = keep || m->answered < m->todo || m->deferred_count > 0;
    } else if (m->deferred_count > 0) {
        int64_t warn_after = US_PER_S * conf_time(c, PARAM_delay_warning_time);
        if (age >= lifetime_us(m) || (m->env.flags & ENVELOPE_EXPIRED)) {
            if (!give_up(m, keep)) {
                log_info("%s: status=deferred (bounce failed)", m->id.text);
                keep = true;
            }
        } else {
            keep = true;
            if (warn_after > 0 && age >= warn_after - US_PER_S && !(m->env.flags & ENVELOPE_WARNED))
                warn_of_delay(m);
        }
    }
    if (m->asked == QUEUE_DELETE) {
        ; /* perhaps in the meantime: it is gone */
    } else if (keep) {
        mark_the_rest(m);
        if (m->asked)
            control_end(m);
        else
            move_to_deferred(m, now);
    } else {
        remove_file(m);
    }
    message_forget(m);
}
