/* postqueue(1), mailq: list the queue, try deferred mail now. Set-gid: whoever runs it reaches the sockets below
 * public/. */
#include "base/log.h"
#include "cmd/setgid.h"
#include "cmd/trigger.h"
#include "proto/flush.h"
#include "proto/notice.h"
#include "service/logging.h"
#include "showq/select.h"
#include "showq/showq.h"
#include "table/match.h"
#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    EXIT_UNAVAILABLE = 69, /* sysexits.h's EX_UNAVAILABLE: what every failure of postqueue ends with */
    CONNECT_SECONDS = 10,
    OUT_CHUNK = 64 * 1024,
};

#define USAGE "usage: postqueue -f | postqueue -i queueid | postqueue -j | postqueue -p | postqueue -s site"

struct command {
    struct arena *arena;
    struct conf *conf;
    struct selection selection;
    int64_t now_s;
};

/* --- who may --- */

/* Root, or whoever the mail system runs as: mail_owner, or the user a private one belongs to. */
static bool is_owner(const struct conf *c) {
    if (getuid() == 0)
        return true;
    struct stat st;
    if (stat(conf_str(c, PARAM_queue_directory).p, &st) == 0 && st.st_uid == getuid())
        return true;
    const struct passwd *owner = getpwnam(conf_str(c, PARAM_mail_owner).p);
    return owner && owner->pw_uid == getuid();
}

static void must_be_listed(const struct conf *c, struct str parameter, struct str list, const char *what) {
    if (is_owner(c))
        return;
    const struct passwd *user = getpwuid(getuid());
    struct str name = user ? str_c(user->pw_name) : STR("unknown");
    struct match *m = match_open(c, parameter, list, MATCH_STRING, TABLE_FOLD);
    enum match_result found = match_find(m, name, STR(""));
    if (found == MATCH_ERROR)
        log_fatal("%.*s lookup error for %.*s: %.*s", STR_ARG(parameter), STR_ARG(name), STR_ARG(match_error(m)->text));
    match_close(m);
    if (found == MATCH_NO)
        log_fatal("User %.*s(%ld) is not allowed to %s the mail queue", STR_ARG(name), (long)getuid(), what);
}

/* --- the listing --- */

static struct showq_writer writer_for(const struct conf *c, enum showq_form form) {
    return (struct showq_writer){ .form = form, .long_ids = conf_bool(c, PARAM_enable_long_queue_ids) };
}

/* Whoever reads our output may have gone away: then there is nothing left to do, and nothing to complain about. */
static void put_out(struct buf *out) {
    if (out->n && fwrite(out->p, 1, out->n, stdout) != out->n)
        exit(errno == EPIPE ? 0 : EXIT_UNAVAILABLE);
    buf_clear(out);
}

static void finish(struct showq_writer *w, struct buf *out) {
    showq_write_end(w, out);
    put_out(out);
    if (fflush(stdout) != 0 && errno != EPIPE)
        log_fatal("write error: %s", strerror(errno));
    buf_free(out);
}

static error connect_public(const struct conf *c, struct str service, struct ipc **ret) {
    struct buf path = { 0 };
    buf_printf(&path, "%.*s/public/%.*s", STR_ARG(conf_str(c, PARAM_queue_directory)), STR_ARG(service));
    error e = ipc_connect(buf_str(&path), deadline_in(CONNECT_SECONDS), ret);
    buf_free(&path);
    return e;
}

struct lister {
    const struct command *m;
    struct showq_writer w;
    struct buf out;
};

static bool write_entry(void *ctx, const struct listing_entry *e) {
    struct lister *l = ctx;
    if (!selection_takes(&l->m->selection, e, l->m->now_s))
        return true;
    showq_write_begin(&l->w, &l->out, e);
    if (l->out.n >= OUT_CHUNK)
        put_out(&l->out);
    return true;
}

/* One frame, as it comes. */
static bool write_frame(struct lister *l, const struct ipc_msg *msg, struct arena *a) {
    struct listing_entry entry;
    struct unpack u = unpack_from(msg->payload);
    arena_reset(a);
    while (u.rest.n > 0) {
        if (!listing_unpack(&u, msg->type, a, &entry) || (msg->type == LISTING_MSG_RCPTS && l->w.messages == 0))
            return false;
        if (msg->type == LISTING_MSG_ENTRIES)
            write_entry(l, &entry);
        else
            showq_write_rcpts(&l->w, &l->out, entry.rcpts, entry.rcpt_count);
    }
    return true;
}

/* For a selection a message is looked at as a whole: its recipients may be in several frames. */
struct gathered {
    struct arena *arena;
    bool begun;
    struct listing_entry whole;
    VEC(struct listing_rcpt) rcpts;
};

static void write_gathered(struct lister *l, struct gathered *g) {
    g->whole.rcpts = g->rcpts.at;
    g->whole.rcpt_count = g->rcpts.n;
    if (g->begun)
        write_entry(l, &g->whole);
    g->begun = false;
}

static bool gather_frame(struct lister *l, const struct ipc_msg *msg, struct gathered *g) {
    struct listing_entry entry;
    if (msg->type == LISTING_MSG_ENTRIES) {
        write_gathered(l, g);
        arena_reset(g->arena);
    }
    struct unpack u = unpack_from(arena_str(g->arena, msg->payload));
    while (u.rest.n > 0) {
        if (!listing_unpack(&u, msg->type, g->arena, &entry) || (msg->type == LISTING_MSG_RCPTS && !g->begun))
            return false;
        if (msg->type == LISTING_MSG_ENTRIES) {
            write_gathered(l, g);
            g->rcpts.at = NULL;
            g->rcpts.n = g->rcpts.room = 0;
            g->whole = entry;
            g->begun = true;
        }
        for (size_t i = 0; i < entry.rcpt_count; i++)
            *vec_add(g->arena, &g->rcpts) = entry.rcpts[i];
    }
    return true;
}

static void list_from_service(const struct command *m, struct ipc *ipc, enum showq_form form) {
    struct lister l = { .m = m, .w = writer_for(m->conf, form) };
    struct ipc_msg msg = { .fd = -1 };
    int64_t limit = conf_time(m->conf, PARAM_ipc_timeout);
    bool gather = selection_is_set(&m->selection);
    struct gathered g = { .arena = arena_new() };
    error e;
    while (!(e = ipc_recv(ipc, deadline_in(limit), &msg)) && msg.type != LISTING_MSG_END) {
        if (!(gather ? gather_frame(&l, &msg, &g) : write_frame(&l, &msg, g.arena)))
            log_fatal("malformed showq server response");
        if (l.out.n >= OUT_CHUNK)
            put_out(&l.out);
    }
    write_gathered(&l, &g);
    arena_free(g.arena);
    if (e) {
        put_out(&l.out);
        fflush(stdout);
        log_fatal("malformed showq server response: %.*s", STR_ARG(e->text));
    }
    finish(&l.w, &l.out);
    ipc_close(ipc);
}

/* What showq would say, without it. */
static void list_directly(const struct command *m, enum showq_form form) {
    struct showq q;
    struct lister d = { .m = m, .w = writer_for(m->conf, form) };
    error e = showq_open(&q, m->conf, m->arena);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    showq_walk(&q, SHOWQ_ALL, write_entry, &d);
    showq_close(&q);
    finish(&d.w, &d.out);
}

static void list(const struct command *m, enum showq_form form) {
    must_be_listed(m->conf, STR("authorized_mailq_users"), conf_str(m->conf, PARAM_authorized_mailq_users), "view");
    struct ipc *ipc = NULL;
    error e = connect_public(m->conf, conf_str(m->conf, PARAM_showq_service_name), &ipc);
    if (!e) {
        list_from_service(m, ipc, form);
        return;
    }
    const char *what = "Connect to the Postfix showq service";
    if (e->sys == EACCES || e->sys == EPERM)
        log_fatal("%s: %.*s", what, STR_ARG(e->text));
    if (!is_owner(m->conf))
        log_fatal("Queue report unavailable - mail system is down (%s: %.*s)", what, STR_ARG(e->text));
    log_warn("Mail system is down -- accessing queue directly (%s: %.*s)", what, STR_ARG(e->text));
    list_directly(m, form);
}

/* --- flushing --- */

static void may_flush(const struct command *m) {
    must_be_listed(m->conf, STR("authorized_flush_users"), conf_str(m->conf, PARAM_authorized_flush_users), "flush");
}

static void flush_all(const struct command *m) {
    may_flush(m);
    if (trigger_send(m->conf, STR("public"), conf_str(m->conf, PARAM_queue_service_name), STR("FAD")))
        log_fatal("Cannot flush mail queue - mail system is down");
}

static void flush_one(const struct command *m, const char *text) {
    may_flush(m);
    struct queue_id id;
    if (!queue_id_from(str_c(text), &id))
        log_fatal("Cannot flush queue ID - invalid name: \"%.100s%s\"", text, strlen(text) > 100 ? "..." : "");
    struct str service = conf_str(m->conf, PARAM_queue_service_name);
    struct ipc *ipc = NULL;
    error e = connect_public(m->conf, service, &ipc);
    if (!e) {
        notice_flush_id(ipc, &id);
        e = ipc_flush(ipc, deadline_in(CONNECT_SECONDS));
        ipc_close(ipc);
    }
    if (e) {
        log_warn("connect to public/%.*s: %.*s", STR_ARG(service), STR_ARG(e->text));
        log_fatal("Cannot flush mail queue - mail system is down");
    }
}

/* Who cannot read its tables leaves it to the flush service to say no. */
static bool is_denied(const struct conf *c, struct str site) {
    struct match *m =
        match_open(c, STR("fast_flush_domains"), conf_str(c, PARAM_fast_flush_domains), MATCH_DOMAIN, TABLE_FOLD);
    bool no = match_find(m, site, STR("")) == MATCH_NO;
    match_close(m);
    return no;
}

static enum flush_status ask_flush(const struct command *m, struct str site) {
    struct str service = conf_str(m->conf, PARAM_flush_service_name);
    enum flush_status status = FLUSH_FAIL;
    struct ipc *ipc = NULL;
    error e = connect_public(m->conf, service, &ipc);
    if (e)
        log_warn("connect to public/%.*s: %.*s", STR_ARG(service), STR_ARG(e->text));
    else if ((e = flush_send_site(ipc, site, deadline_in(conf_time(m->conf, PARAM_ipc_timeout)), &status)))
        log_warn("public/%.*s: %.*s", STR_ARG(service), STR_ARG(e->text));
    ipc_close(ipc);
    return status;
}

static void flush_site(const struct command *m, const char *text) {
    may_flush(m);
    struct str site = str_c(text), normal;
    enum flush_status status = FLUSH_BAD;
    if (flush_site_normal(site, m->arena, &normal))
        status = is_denied(m->conf, site) ? FLUSH_DENIED : ask_flush(m, site);
    switch (status) {
    case FLUSH_OK:
        return;
    case FLUSH_BAD:
        log_fatal("Cannot flush mail queue - invalid destination: \"%.100s%s\"", text, site.n > 100 ? "..." : "");
    case FLUSH_DENIED:
        log_fatal("Flush service is not configured for destination \"%s\"", text);
    default:
        log_fatal("Cannot flush mail queue - mail system is down");
    }
}

/* --- the command line --- */

static bool called_mailq(const char *argv0) {
    const char *slash = strrchr(argv0, '/');
    return strcmp(slash ? slash + 1 : argv0, "mailq") == 0;
}

int main(int argc, char **argv) {
    static const struct option long_options[] = { SELECT_OPTIONS };
    struct command m = { .arena = arena_new(), .now_s = sys->wall_us() / US_PER_S };
    const char *directory = NULL, *argument = NULL;
    int mode = 0, verbose = 0;
    bool bad = false;
    signal(SIGPIPE, SIG_IGN);
    logging_start_early(STR("postqueue"), LOGGING_COMMAND);
    log_set_fatal_status(EXIT_UNAVAILABLE);
    const char *options = "c:fi:jps:v";
    if (argc > 0 && called_mailq(argv[0])) {
        mode = 'p';
        options = "c:C:v";
    }
    for (int c; (c = getopt_long(argc, argv, options, long_options, NULL)) != -1;) {
        const char *why = NULL;
        if (selection_option(&m.selection, c, optarg, &why)) {
            if (why)
                log_fatal("%s", why);
            continue;
        }
        switch (c) {
        case 'c':
        case 'C':
            directory = optarg;
            break;
        case 'v':
            verbose++;
            break;
        case 'f':
        case 'i':
        case 'j':
        case 'p':
        case 's':
            bad = bad || mode;
            mode = c;
            argument = optarg;
            break;
        default:
            bad = true;
        }
    }
    if (bad || !mode || optind < argc || (selection_is_set(&m.selection) && mode != 'p' && mode != 'j'))
        log_fatal(USAGE);
    if (getuid() == 0) /* what else is logged then is not everybody's */
        log_set_verbose(verbose);
    struct conf_source source = { .process_name = STR("postqueue") };
    setgid_begin(directory, m.arena, &source);
    error e = conf_load(&source, m.arena, &m.conf);
    if (!e)
        e = logging_start(m.conf, STR("postqueue"), LOGGING_COMMAND, m.arena);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    switch (mode) {
    case 'p':
        list(&m, SHOWQ_TABLE);
        break;
    case 'j':
        list(&m, SHOWQ_JSON);
        break;
    case 'f':
        flush_all(&m);
        break;
    case 'i':
        flush_one(&m, argument);
        break;
    default:
        flush_site(&m, argument);
        break;
    }
    conf_free(m.conf);
    arena_free(m.arena);
    return 0;
}
