/* hand_over.c - from smtpd, which knows the session, to cleanup, which has the message: what cleanup must know of a
 * filter to go on with its conversation. */
#include "milter/milter.h"

#include "base/pack.h"
#include <sys/socket.h>
#include <unistd.h>

enum { FLUSH_SECONDS = 30, SECONDS_MAX = 1000 * 604800, NAME_MAX_BYTES = 1000 };

static const enum milter_stage content_stages[] = { MILTER_AT_EOH, MILTER_AT_EOM };

static void pack_one(struct milters *ms, const struct milter *m, struct buf *b) {
    const struct milter_config *c = m->config;
    pack_str(b, c->target.text);
    pack_i64(b, c->content_timeout);
    pack_u8(b, (uint8_t)c->on_error);
    pack_u8(b, c->mute_header);
    pack_u8(b, (uint8_t)m->version);
    pack_u32(b, m->protocol);
    for (size_t i = 0; i < sizeof content_stages / sizeof *content_stages; i++) {
        struct buf macros = { 0 };
        milter_make_macros(ms, m, content_stages[i], &macros);
        pack_str(b, buf_str(&macros));
        buf_free(&macros);
    }
}

size_t milters_pack(struct milters *ms, struct buf *b, int ret_fds[MILTERS_MAX]) {
    size_t n = 0;
    for (size_t i = 0; i < ms->n && n < MILTERS_MAX; i++) {
        struct milter *m = &ms->at[i];
        /* what it says without being asked would be taken for an answer later */
        if (m->io && (io_flush(m->io, deadline_in(FLUSH_SECONDS)) || io_pending(m->io, false) > 0))
            milter_give_up(m);
        if (!milter_wants_content(m) || !m->io)
            continue;
        pack_one(ms, m, b);
        ret_fds[n++] = io_fd(m->io);
    }
    return n;
}

static bool unpack_one(struct unpack *u, struct arena *a, struct milter *m, struct milter_config *c) {
    c->target.text = arena_str(a, unpack_str(u));
    c->content_timeout = unpack_i64(u);
    uint8_t on_error = unpack_u8(u);
    c->on_error = (enum milter_default)on_error;
    c->mute_header = unpack_u8(u);
    m->version = unpack_u8(u);
    m->protocol = unpack_u32(u);
    for (size_t i = 0; i < sizeof content_stages / sizeof *content_stages; i++)
        m->macros_made[content_stages[i]] = arena_str(a, unpack_str(u));
    m->config = c;
    m->state = MILTER_OPEN;
    m->in_message = true;
    return !u->bad && on_error <= MILTER_DEFAULT_SHUTDOWN && c->content_timeout > 0 &&
           c->content_timeout <= SECONDS_MAX && c->target.text.n <= NAME_MAX_BYTES;
}

bool milters_unpack(struct milters *ms, struct arena *a, struct str packed, int *fds, size_t n) {
    struct unpack u = unpack_from(packed);
    struct milter_config *configs = arena_array(a, n, sizeof *configs);
    bool good = n <= MILTERS_MAX;
    ms->arena = a;
    ms->n = n;
    ms->at = arena_array(a, n, sizeof *ms->at);
    for (size_t i = 0; i < n && good; i++) {
        good = unpack_one(&u, a, &ms->at[i], &configs[i]);
        if (good) {
            ms->at[i].io = io_new(fds[i]);
            fds[i] = -1;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return unpack_done(&u) && good;
}

void milters_hand_back(struct milters *ms) {
    for (size_t i = 0; i < ms->n; i++) {
        struct milter *m = &ms->at[i];
        io_close(m->io);
        m->io = NULL;
    }
    ms->n = 0;
}
