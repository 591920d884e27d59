#include "verify/verify.h"

#include "base/log.h"

enum { CLEAN_MAX = 10000000 /* entries of one pass: an order that has a loop ends all the same */ };

/* --- entries --- */
static bool take_number(struct str *s, int64_t max, int64_t *ret) {
    struct str piece;
    return str_next(s, STR(":"), &piece) && str_to_i64(piece, 0, max, ret) && s->p;
}

bool verify_entry_parse(struct str raw, struct verify_entry *ret) {
    int64_t status;
    struct str rest = raw;
    if (!take_number(&rest, VERIFY_TODO, &status) || !take_number(&rest, INT64_MAX, &ret->probed) ||
        !take_number(&rest, INT64_MAX, &ret->updated))
        return false;
    ret->status = (enum verify_status)status;
    ret->text = rest;
    return true;
}

struct str verify_entry_format(struct arena *a, const struct verify_entry *e) {
    return arena_printf(a, "%d:%lld:%lld:%.*s", (int)e->status, (long long)e->probed, (long long)e->updated,
                        STR_ARG(e->text));
}

/* Could it have been made later than now? Then the clock was wrong, and so is the entry. */
static bool is_expired(const struct verify *v, const struct verify_entry *e, int64_t now) {
    if (e->updated == 0) /* only a probe, which may be lost */
        return now - e->probed > VERIFY_PROBE_LIFE || e->probed > now;
    int64_t life = e->status == VERIFY_OK ? v->positive_expire : v->negative_expire;
    return now - e->updated > life || e->updated > now;
}

static bool needs_refresh(const struct verify *v, const struct verify_entry *e, int64_t now) {
    int64_t fresh = e->status == VERIFY_OK ? v->positive_refresh : v->negative_refresh;
    return e->updated == 0 || now - e->updated > fresh;
}

/* --- the cache --- */
static bool load(struct verify *v, struct arena *a, struct str address, struct verify_entry *ret) {
    struct str raw;
    enum table_result found = table_get(v->cache, address, a, &raw);
    if (found == TABLE_ERROR)
        log_warn("%.*s: %.*s", STR_ARG(table_name(v->cache)), STR_ARG(table_error(v->cache)->text));
    if (found != TABLE_FOUND)
        return false;
    if (verify_entry_parse(raw, ret))
        return true;
    log_warn("%.*s: entry of %.*s is malformed; it is asked about anew", STR_ARG(table_name(v->cache)),
             STR_ARG(address));
    return false;
}

static void save(struct verify *v, struct arena *a, struct str address, const struct verify_entry *e) {
    if (table_put(v->cache, address, verify_entry_format(a, e)) == TABLE_ERROR)
        log_warn("%.*s: %.*s", STR_ARG(table_name(v->cache)), STR_ARG(table_error(v->cache)->text));
}

void verify_open(struct verify *v, const struct conf *c) {
    struct str map = conf_str(c, PARAM_address_verify_map);
    v->cache = table_open(c, map.n ? map : STR("internal:verify"), TABLE_WRITE | TABLE_FOLD);
    v->keep_negative = conf_bool(c, PARAM_address_verify_negative_cache);
    v->positive_expire = conf_time(c, PARAM_address_verify_positive_expire_time);
    v->positive_refresh = conf_time(c, PARAM_address_verify_positive_refresh_time);
    v->negative_expire = conf_time(c, PARAM_address_verify_negative_expire_time);
    v->negative_refresh = conf_time(c, PARAM_address_verify_negative_refresh_time);
    v->pending_max = (size_t)conf_int(c, PARAM_address_verify_pending_request_limit);
}

struct verify_answer verify_ask(struct verify *v, struct arena *a, struct str address, int64_t now) {
    const struct verify_entry unknown = { .status = VERIFY_TODO, .text = STR("Address verification in progress") };
    struct verify_entry e;
    if (!load(v, a, address, &e) || is_expired(v, &e, now))
        e = unknown;
    struct verify_answer answer = { e.status, e.text };
    bool under_way = e.probed && now - e.probed <= VERIFY_PROBE_LIFE;
    if (under_way || !needs_refresh(v, &e, now))
        return answer;
    if (v->pending >= v->pending_max)
        return e.updated ? answer
                         : (struct verify_answer){ VERIFY_DEFER, STR("Too many address verification requests") };
    if (!v->probe(v->ctx, address))
        return e.updated ? answer
                         : (struct verify_answer){ VERIFY_DEFER, STR("Address verification is not possible now") };
    e.probed = now;
    save(v, a, address, &e);
    return answer;
}

void verify_tell(struct verify *v, struct str address, const struct verify_answer *is, int64_t now) {
    struct arena *a = arena_new();
    struct verify_entry e;
    bool known = load(v, a, address, &e);
    if (is->status != VERIFY_OK && known && e.status == VERIFY_OK && e.updated && !is_expired(v, &e, now)) {
        /* it took mail, and may again: it is believed until it expires, and asked again when that is due */
        e.probed = now;
        save(v, a, address, &e);
    } else if (is->status == VERIFY_OK || v->keep_negative) {
        e = (struct verify_entry){ .status = is->status, .updated = now, .text = is->text };
        save(v, a, address, &e);
    } else if (known) {
        (void)table_delete(v->cache, address);
    }
    arena_free(a);
}

void verify_clean(struct verify *v, int64_t now, size_t *ret_kept, size_t *ret_dropped) {
    struct arena *a = arena_new();
    struct buf after = { 0 };
    *ret_kept = *ret_dropped = 0;
    for (size_t i = 0; i < CLEAN_MAX; i++) {
        struct str key, raw;
        struct verify_entry e;
        if (table_next(v->cache, buf_str(&after), a, &key, &raw) != TABLE_FOUND)
            break;
        buf_clear(&after);
        buf_add(&after, key);
        if (verify_entry_parse(raw, &e) && !is_expired(v, &e, now)) {
            ++*ret_kept;
        } else {
            (void)table_delete(v->cache, key);
            ++*ret_dropped;
        }
        arena_reset(a);
        coro_yield();
    }
    buf_free(&after);
    arena_free(a);
}
