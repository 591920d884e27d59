/* Changes of the queue that postsuper asks for (proto/edit.h). A message that is not active is changed on the disk by
 * queue/queue_edit.h; of one that is, what no agent has yet is taken out of the schedule here, and the rest is done
 * when the agents have ended (message_end()). */
#include "qmgr/qmgr.h"

#include "base/log.h"
#include "proto/edit.h"
#include <errno.h>
#include <stdlib.h>

enum { EDIT_YIELD = 20 /* messages changed before others get their turn */ };

static const char *const names[] = {
    [QUEUE_DELETE] = "delete",   [QUEUE_HOLD] = "hold",     [QUEUE_RELEASE] = "release",
    [QUEUE_REQUEUE] = "requeue", [QUEUE_EXPIRE] = "expire",
};

static void log_failure(const struct queue_id *id, enum queue_edit what, error e) {
    log_warn("%s: %s, asked for by postsuper: %.*s", id->text, names[what], STR_ARG(e->text));
}

/* --- a message in memory --- */

static enum queue_edited expire_active(struct message *m) {
    if (m->env.flags & ENVELOPE_EXPIRED)
        return QUEUE_NOTHING;
    m->env.flags |= ENVELOPE_EXPIRED;
    /* What it is in memory is written down when it is deferred; now where that costs nothing. */
    spool_mark_expired(m->q->spool, &m->id, SPOOL_ACTIVE);
    return QUEUE_EDITED;
}

/* What no agent has yet is not tried any more. `m` may be gone after this. */
static void stop(struct message *m) {
    struct entry *e = scheduler_take(&m->arrival);
    while (e) {
        struct entry *next = e->next;
        entry_abandon(e);
        e = next;
    }
}

static enum queue_edited edit_active(struct message *m, enum queue_edit what) {
    if (what == QUEUE_RELEASE || m->asked == QUEUE_DELETE || m->asked == what)
        return QUEUE_NOTHING;
    if (what == QUEUE_EXPIRE)
        return expire_active(m);
    if (what == QUEUE_DELETE) {
        /* At once, whatever agents are doing with their copies: deleted is deleted, also after a crash. */
        error e = spool_remove(m->q->spool, &m->id, SPOOL_ACTIVE);
        if (e) {
            log_failure(&m->id, what, e);
            return QUEUE_FAILED;
        }
    }
    m->asked = what;
    stop(m);
    return QUEUE_EDITED;
}

void control_end(struct message *m) {
    error e = NULL;
    if (m->asked != QUEUE_DELETE && queue_edit_in(m->q->spool, &m->id, m->asked, SPOOL_ACTIVE, &e) != QUEUE_EDITED && e)
        log_failure(&m->id, m->asked, e);
}

static int by_rcpt(const void *a, const void *b) {
    const struct spool_failure *f = a, *g = b;
    if (f->rcpt_index != g->rcpt_index)
        return f->rcpt_index < g->rcpt_index ? -1 : 1;
    return f->when_us < g->when_us ? 1 : f->when_us > g->when_us ? -1 : 0; /* the last one first */
}

/* Why it was deferred the last time; NULL: not known. */
static const struct spool_failure *known_failure(struct message *m, uint32_t index) {
    if (!m->known_read) {
        m->known_read = true;
        if (spool_reasons_read(m->q->spool, &m->id, SPOOL_ACTIVE, m->arena, &m->known, &m->known_count))
            m->known_count = 0;
        if (m->known_count)
            qsort(m->known, m->known_count, sizeof *m->known, by_rcpt);
    }
    size_t low = 0, high = m->known_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->known[middle].rcpt_index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low < m->known_count && m->known[low].rcpt_index == index ? &m->known[low] : NULL;
}

void control_expired(struct message *m, uint32_t slot) {
    rcpt_expired(m, slot, known_failure(m, slot_index(m, slot)));
}

/* --- the conversation --- */

static enum queue_edited edit_one(struct qmgr *q, const struct edit_request *r, const struct queue_id *id) {
    struct message *m = map_get(&q->active, queue_id_str(id));
    if (m) {
        if (!(r->states & queue_edit_states(r->what) & queue_states(SPOOL_ACTIVE)))
            return QUEUE_NOTHING;
        return edit_active(m, r->what);
    }
    error e;
    enum queue_edited did = queue_edit(q->spool, id, r->what, r->states, &e);
    if (e)
        log_failure(id, r->what, e);
    return did;
}

static void edit_frame(struct qmgr *q, struct ipc *ipc, const struct edit_request *r, struct arena *a) {
    enum queue_edited *results = arena_array(a, r->count, sizeof *results);
    for (size_t i = 0; i < r->count; i++) {
        results[i] = edit_one(q, r, &r->ids[i]);
        if (i % EDIT_YIELD == EDIT_YIELD - 1)
            coro_yield();
    }
    deliver_start(q); /* others may be in front now */
    edit_answer(ipc, results, r->count);
}

void control_session(struct qmgr *q, struct ipc *ipc, bool allowed, bool in_office) {
    int64_t limit = conf_time(q->conf, PARAM_ipc_timeout);
    struct ipc_msg m = { .fd = -1 };
    bool serve = allowed && in_office && !q->draining;
    edit_welcome(ipc, !allowed ? EDIT_FORBIDDEN : serve ? EDIT_WELCOME : EDIT_LATER);
    while (!ipc_flush(ipc, deadline_in(limit)) && serve && !ipc_recv(ipc, deadline_in(limit), &m)) {
        struct arena *a = arena_new();
        struct edit_request r;
        /* A queue manager that is ending has handed the spool over: its successor is asked again. */
        serve = !q->draining && edit_unpack(&m, a, &r);
        if (serve)
            edit_frame(q, ipc, &r, a);
        arena_free(a);
    }
    ipc_msg_drop(&m);
}
