#include "smtp/resolved.h"

static struct resolved_slot *slot_of(struct resolved *r, const struct destination *d) {
    return &r->slots[(str_hash(d->host) ^ d->port) % RESOLVED_SLOTS];
}

static bool same(const struct destination *a, const struct destination *b) {
    return a->port == b->port && a->literal == b->literal && str_eq(a->host, b->host);
}

static void copy(struct arena *a, const struct target_list *from, struct target_list *to) {
    *to = (struct target_list){ .at = arena_array(a, from->n, sizeof *to->at), .n = from->n, .room = from->n };
    for (size_t i = 0; i < from->n; i++) {
        to->at[i] = from->at[i];
        to->at[i].name = arena_str(a, from->at[i].name);
    }
}

bool resolved_get(struct resolved *r, const struct destination *d, struct arena *a, struct target_list *ret) {
    struct resolved_slot *s = slot_of(r, d);
    if (!s->arena || !same(&s->destination, d) || sys->mono_us() >= s->until)
        return false;
    copy(a, &s->targets, ret);
    return true;
}

void resolved_put(struct resolved *r, const struct destination *d, const struct target_list *targets, uint32_t ttl) {
    struct resolved_slot *s = slot_of(r, d);
    arena_free(s->arena);
    s->arena = NULL;
    if (ttl == 0)
        return;
    s->arena = arena_new();
    s->destination = *d;
    s->destination.host = arena_str(s->arena, d->host);
    copy(s->arena, targets, &s->targets);
    s->until = deadline_in(ttl < RESOLVED_MAX_S ? ttl : RESOLVED_MAX_S);
}

void resolved_free(struct resolved *r) {
    for (size_t i = 0; i < RESOLVED_SLOTS; i++) {
        arena_free(r->slots[i].arena);
        r->slots[i].arena = NULL;
    }
}
