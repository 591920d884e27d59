#include "cleanup/cleanup.h"

#include "base/log.h"
#include "cleanup/filter.h"

#include <errno.h>

static void serve_message(void *ctx, struct submit_in *in);

error cleanup_open(struct cleanup *s, const struct conf *c, struct arena *err_arena) {
    struct str name = conf_str(c, PARAM_non_empty_end_of_header_action);
    enum header_end_action action;
    if (!header_end_action(name, &action))
        return err_make(
            err_arena, ERR_CONFIG,
            "bad non_empty_end_of_header_action setting: \"%.*s\"; specify fix_quietly, add_header or reject",
            STR_ARG(name));
    *s = (struct cleanup){ .c = c,
                           .rules = content_rules(c),
                           .server = { .message = serve_message, .ctx = s, .held_max = CLEANUP_HELD_MAX } };
    struct spool_options options = spool_options_from(c, SPOOL_WRITER);
    error e = spool_open(&options, err_arena, &s->spool);
    if (e)
        return e;
    e = filter_open(s, err_arena);
    if (e) {
        spool_close(s->spool);
        return e;
    }
    checks_open(&s->checks, c);
    s->router = router_new(c);
    s->sender_bcc = maps_open(c, conf_str(c, PARAM_sender_bcc_maps), TABLE_FOLD | TABLE_NO_REGSUB);
    s->recipient_bcc = maps_open(c, conf_str(c, PARAM_recipient_bcc_maps), TABLE_FOLD | TABLE_NO_REGSUB);
    return NULL;
}

void cleanup_close(struct cleanup *s) {
    checks_close(&s->checks);
    maps_close(s->sender_bcc);
    maps_close(s->recipient_bcc);
    router_free(s->router);
    arena_free(s->filter_arena);
    spool_close(s->spool);
}

/* The records of one message up to END. False: there is nothing to commit. */
static bool receive(struct message *m, struct submit_in *in) {
    for (;;) {
        struct submit_record r;
        error e = submit_in_next(in, &r);
        if (e && e->kind != ERR_SYNTAX) {
            log_info("%s: removed (canceled)", m->id.text);
            return false;
        }
        bool good = false;
        switch (e ? 0 : r.type) {
        case SUBMIT_MSG_ENVELOPE:
            good = message_envelope(m, r.payload);
            break;
        case SUBMIT_MSG_FULL_NAME:
            good = message_full_name(m, r.payload);
            break;
        case SUBMIT_MSG_RCPT:
            good = message_rcpt(m, r.payload);
            break;
        case SUBMIT_MSG_ACTION:
            good = message_action(m, r.payload);
            break;
        case SUBMIT_MSG_CONTENT:
            good = message_content(m, r.payload);
            break;
        case SUBMIT_MSG_MILTERS:
            good = filter_take(m, in, r.payload);
            break;
        case SUBMIT_MSG_END:
            if (m->has_envelope && r.payload.n == 0)
                return true;
            break;
        }
        if (good)
            continue;
        if (e)
            log_warn("%s: %.*s", m->id.text, STR_ARG(e->text));
        else
            log_warn("%s: unexpected or malformed request of type %u", m->id.text, r.type);
        submit_in_result(in, &(struct submit_result){ .status = SUBMIT_BAD,
                                                      .id = m->id,
                                                      .dsn = STR("4.3.0"),
                                                      .text = STR("Error: internal protocol error") });
        return false;
    }
}

static void refuse_open(struct submit_in *in, error e) {
    bool full = e->kind == ERR_SYS && (e->sys == ENOSPC || e->sys == EDQUOT);
    log_warn("create queue file: %.*s", STR_ARG(e->text));
    struct submit_result r = { .status = SUBMIT_TEMP,
                               .dsn = STR("4.3.0"),
                               .text = STR("Error: queue file write error") };
    if (full)
        r = (struct submit_result){ .status = SUBMIT_NO_SPACE,
                                    .dsn = STR("4.3.1"),
                                    .text = STR("Insufficient system storage") };
    submit_in_result(in, &r);
}

static void take_message(struct cleanup *s, struct submit_in *in, unsigned flags) {
    struct message m = {
        .s = s, .flags = flags, .status = SUBMIT_OK, .full_name = STR(""), .redirect = STR(""), .filter_rcpt = STR("")
    };
    error e = spool_create(s->spool, &m.file);
    if (e) {
        refuse_open(in, e);
        return;
    }
    m.id = *spool_new_id(m.file);
    m.arena = arena_new();
    submit_in_opened(in, &m.id);
    if (receive(&m, in)) {
        struct submit_result result;
        message_end(&m, &result);
        submit_in_result(in, &result);
    }
    filter_end(&m);
    if (m.file)
        spool_abort(m.file);
    if (m.content_begun)
        content_free(&m.content);
    arena_free(m.arena);
}

static void serve_message(void *ctx, struct submit_in *in) {
    struct submit_record r;
    error e = submit_in_next(in, &r);
    if (e && e->kind != ERR_SYNTAX)
        return;
    struct unpack u = unpack_from(e ? STR("") : r.payload);
    unsigned flags = unpack_u32(&u);
    if (!e && r.type == SUBMIT_MSG_OPEN && unpack_done(&u))
        take_message(ctx, in, flags);
    else
        log_warn("unexpected or malformed request of type %u instead of a new message", e ? 0 : r.type);
}

void cleanup_serve(struct cleanup *s, struct ipc *ipc) {
    error e = submit_serve(&s->server, ipc);
    if (e)
        log_warn("submission: %.*s", STR_ARG(e->text));
}

void cleanup_drain(struct cleanup *s) {
    submit_drain(&s->server);
}
