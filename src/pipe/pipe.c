#include "pipe/pipe.h"

#include "base/log.h"
#include "deliver/environment.h"
#include "deliver/mailbox.h"
#include "deliver/pipe_command.h"
#include "mail/address.h"
#include "pipe/form.h"
#include "pipe/macros.h"
#include "table/table.h"
#include <unistd.h>

enum { PIECE = 32 * 1024 };

struct state { /* service_ctx.state */
    struct arena *arena;
    struct pipe_attributes attributes;
    char **environment;
    const char *directory;
    int64_t time_limit; /* seconds */
};

static void finish_all(struct agent_request *r, struct str dsn, struct str reason) {
    struct agent_status s = { .relay = r->ctx->name, .dsn = dsn, .reason = reason };
    for (size_t i = 0; i < r->req.env.rcpt_count; i++)
        agent_finish(r, i, &s);
}

static void misconfigured(struct agent_request *r) {
    finish_all(r, STR("4.3.5"), STR("mail system configuration error"));
}

/* --- the message --- */
struct message {
    const struct pipe_attributes *attributes;
    const struct spool_content *content;
    struct str head;
};

/* pipe_command.h */
static bool write_message(void *arg, pipe_command_put *put, void *to) {
    const struct message *m = arg;
    struct pipe_form form = pipe_form_start(m->attributes);
    bool plain = pipe_form_is_plain(&form), good = put(to, m->head), read = true, lf = true;
    struct buf room = { 0 }, out = { 0 };
    struct str piece;
    for (uint64_t done = 0; good && done < m->content->size; done += piece.n) {
        if (content_read(m->content, done, buf_reserve(&room, PIECE), PIECE, &piece)) {
            read = false;
            break;
        }
        lf = piece.p[piece.n - 1] == '\n';
        if (plain) {
            good = put(to, piece);
            continue;
        }
        buf_clear(&out);
        pipe_form_add(&form, &out, piece);
        good = put(to, buf_str(&out));
    }
    buf_clear(&out);
    form.inside |= plain && !lf;
    pipe_form_end(&form, &out);
    if (good && read)
        put(to, buf_str(&out));
    buf_free(&room);
    buf_free(&out);
    return read;
}

/* From_, Return-Path:, X-Original-To:, Delivered-To:, with the service's line ends. */
static struct str head(struct agent_request *r, const struct pipe_attributes *a) {
    const struct rcpt *rcpt = &r->req.env.rcpts[0];
    struct arena *arena = r->arena;
    struct str sender = r->req.env.sender.n ? r->req.env.sender : a->null_sender;
    struct buf plain = { 0 }, out = { 0 };
    if (a->flags & PIPE_FROM_LINE)
        buf_add(&plain, mailbox_from_line(arena, sender, sys->wall_us() / US_PER_S));
    if (a->flags & PIPE_RETURN_PATH)
        buf_printf(&plain, "Return-Path: <%.*s>\n", STR_ARG(address_quote(arena, sender)));
    if (a->flags & PIPE_ORIGINAL_TO && rcpt->orig.n)
        buf_printf(&plain, "X-Original-To: %.*s\n", STR_ARG(address_quote(arena, rcpt->orig)));
    if (a->flags & PIPE_DELIVERED_TO)
        buf_printf(&plain, "Delivered-To: %.*s\n", STR_ARG(address_quote(arena, rcpt->address)));
    struct pipe_form form = { .eol = a->eol };
    pipe_form_add(&form, &out, buf_str(&plain));
    struct str s = arena_str(arena, buf_str(&out));
    buf_free(&plain);
    buf_free(&out);
    return s;
}

/* --- one request --- */
static bool has_one_recipient(struct agent_request *r, const struct pipe_attributes *a) {
    unsigned flags = a->flags & (PIPE_DELIVERED_TO | PIPE_ORIGINAL_TO);
    if (!flags || r->req.env.rcpt_count == 1)
        return true;
    log_warn("pipe flag `%c' requires %.*s_destination_recipient_limit = 1", flags & PIPE_ORIGINAL_TO ? 'O' : 'D',
             STR_ARG(r->ctx->name));
    misconfigured(r);
    return false;
}

static bool loops(struct agent_request *r, const struct pipe_attributes *a) {
    if (!(a->flags & PIPE_DELIVERED_TO))
        return false;
    struct map seen = { 0 };
    struct str address = r->req.env.rcpts[0].address;
    delivered_to_read(r, &seen);
    bool found = delivered_to_has(&seen, r->arena, address);
    map_free(&seen);
    if (found)
        finish_all(r, STR("5.4.6"), arena_printf(r->arena, "mail forwarding loop for %.*s", STR_ARG(address)));
    return found;
}

static void report(struct agent_request *r, const struct pipe_attributes *a, struct str command,
                   const struct child_result *result) {
    struct agent_status s = { .relay = r->ctx->name };
    struct str output;
    pipe_command_verdict(r->arena, result, command, &s, &output);
    if (s.dsn.p[0] == '2') {
        output = str_trim_right(str_sub(output, 0, PIPE_COMMAND_SENT_OUTPUT));
        s.action = a->flags & PIPE_FINAL ? STR("delivered") : STR("relayed");
        s.reason = output.n ? arena_printf(r->arena, "delivered via %.*s service (%.*s)", STR_ARG(r->ctx->name),
                                           STR_ARG(output))
                            : arena_printf(r->arena, "delivered via %.*s service", STR_ARG(r->ctx->name));
    }
    for (size_t i = 0; i < r->req.env.rcpt_count; i++)
        agent_finish(r, i, &s);
}

void pipe_deliver(struct agent_request *r) {
    const struct conf *c = r->ctx->conf;
    const struct state *state = r->ctx->state;
    const struct pipe_attributes *a = &state->attributes;
    if (!has_one_recipient(r, a) || !agent_go_on(r))
        return;
    if (a->size_limit && r->req.content.size > a->size_limit) {
        finish_all(r, STR("5.2.3"), STR("message too large"));
        return;
    }
    if (loops(r, a))
        return;
    char **argv;
    error e = pipe_arguments(r->arena, a, &r->req, addr_extension_rules(c), &argv);
    if (e) {
        log_warn("file %.*s/master.cf: service %.*s: %.*s", STR_ARG(conf_directory(c)), STR_ARG(r->ctx->name),
                 STR_ARG(e->text));
        misconfigured(r);
        return;
    }
    struct str name = str_c(argv[0]);
    if (r->req.flags & DELIVERY_VERIFY) {
        finish_all(r, STR("2.0.0"), arena_printf(r->arena, "delivers to command: %.*s", STR_ARG(name)));
        return;
    }
    struct message message = { .attributes = a, .content = &r->req.content, .head = head(r, a) };
    const struct pipe_command command = {
        .argv = argv,
        .envp = state->environment,
        .program = "pipe",
        .chroot = a->chroot,
        .directory = a->directory ? a->directory : state->directory,
        .uid = a->as.uid,
        .gid = a->as.gid,
        .deadline = deadline_in(state->time_limit),
        .message = write_message,
        .arg = &message,
        .size = r->req.content.size,
        .message_fd = r->req.content.fd,
    };
    struct child_result result;
    e = pipe_command_run(&command, r->arena, &result);
    if (e)
        finish_all(r, STR("4.3.0"), arena_printf(r->arena, "cannot start the command: %.*s", STR_ARG(e->text)));
    else
        report(r, a, name, &result);
}

error pipe_init(struct service_ctx *ctx, struct arena *err_arena) {
    static struct state state; /* a process is one agent */
    const struct conf *c = ctx->conf;
    state = (struct state){ .arena = arena_new(), .time_limit = conf_service_time(c, ctx->name, STR("_time_limit")) };
    state.directory = arena_cstr(state.arena, conf_str(c, PARAM_queue_directory));
    struct environment env = { .arena = state.arena };
    environment_add(&env, "PATH", STR("/usr/bin:/bin"));
    environment_export(&env, conf_str(c, PARAM_export_environment));
    state.environment = environment_end(&env);
    ctx->state = &state;
    error e = pipe_attributes_parse(state.arena, ctx->args, ctx->arg_count, geteuid() == 0, ctx->mail_uid,
                                    ctx->mail_gid, &state.attributes);
    return e ? err_make(err_arena, ERR_CONFIG, "service %.*s: %.*s", STR_ARG(ctx->name), STR_ARG(e->text)) : NULL;
}

void pipe_end(struct service_ctx *ctx) {
    struct state *state = ctx->state;
    arena_free(state->arena);
    ctx->state = NULL;
}
