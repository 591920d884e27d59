#include "run/loop.h"

#include "base/die.h"

/* Waiters are woken by unlinking them and putting them in the ready queue; they run later, from the loop. So nobody's
 * code runs while a list is walked, and a waiter that was woken and then leaves is on no list any more. */

void cond_leave(struct waiter *w) {
    struct cond *c = w->on;
    if (w->prev)
        w->prev->next = w->next;
    else
        c->first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        c->last = w->prev;
    *w = (struct waiter){ .coro = w->coro };
}

error cond_wait(struct cond *c, int64_t deadline) {
    struct coro *self = coro_self();
    if (!self)
        die("cond_wait: not in a coroutine");
    error e = loop_may_wait();
    if (e)
        return e;
    struct waiter *w = &self->waiter;
    *w = (struct waiter){ .prev = c->last, .on = c, .coro = self };
    if (c->last)
        c->last->next = w;
    else
        c->first = w;
    c->last = w;
    return loop_wait(self, deadline, &err_timeout);
}

void cond_signal(struct cond *c) {
    if (c->first)
        loop_wake(c->first->coro, NULL);
}

void cond_broadcast(struct cond *c) {
    while (c->first)
        loop_wake(c->first->coro, NULL);
}

void group_enter(struct group *g) {
    g->running++;
}

void group_leave(struct group *g) {
    if (g->running == 0)
        die("group_leave: nobody is in the group");
    if (--g->running == 0)
        cond_broadcast(&g->done);
}

error group_wait(struct group *g, int64_t deadline) {
    while (g->running > 0) {
        error e = cond_wait(&g->done, deadline);
        if (e && g->running > 0)
            return e;
    }
    return NULL;
}
