#include "smtp/outgoing.h"

#include "base/die.h"
#include "base/log.h"
#include "conf/params.h"
#include "inspect/checks.h"
#include "mail/header.h"
#include "mail/header_rewrite.h"
#include "mail/mime.h"
#include "route/route.h"
#include <stdlib.h>

enum { SHOWN_MAX = 60 /* bytes of a field or line in the log */ };

struct check_table {
    struct maps *maps; /* NULL: none */
    struct str parameter;
};

struct outgoing_rules {
    struct router *router; /* with generic maps */
    struct check_table generic, checks[MIME_NESTED + 1], body;
    bool any_checks, parts, convert, lmtp;
    size_t header_limit, nesting_limit, boundary_limit, line_limit, body_size;
};

struct outgoing {
    const struct outgoing_rules *r;
    const char *id;
    struct content_writer *w;
    struct mime *mime;
    struct arena *arena; /* for one field or line at a time */
    struct buf line;     /* the one under way */
    bool line_first;     /* `line` begins a line */
    bool failed, too_deep;
};

/* --- configuration --- */
static struct check_table open_table(const struct conf *conf, enum param p, unsigned flags) {
    struct str list = str_trim(conf_str(conf, p));
    struct check_table t = { .parameter = param_row(p)->name, .maps = list.n ? maps_open(conf, list, flags) : NULL };
    error e = t.maps ? maps_error(t.maps) : NULL;
    if (e)
        log_warn("%.*s: %.*s", STR_ARG(t.parameter), STR_ARG(e->text));
    return t;
}

void outgoing_load(const struct conf *conf, bool lmtp, struct outgoing_rules **ret) {
    struct outgoing_rules r = {
        .lmtp = lmtp,
        .generic = open_table(conf, lmtp ? PARAM_lmtp_generic_maps : PARAM_smtp_generic_maps, TABLE_FOLD),
        .checks = { [MIME_PRIMARY] = open_table(conf, lmtp ? PARAM_lmtp_header_checks : PARAM_smtp_header_checks, 0),
                    [MIME_PART] =
                        open_table(conf, lmtp ? PARAM_lmtp_mime_header_checks : PARAM_smtp_mime_header_checks, 0),
                    [MIME_NESTED] =
                        open_table(conf, lmtp ? PARAM_lmtp_nested_header_checks : PARAM_smtp_nested_header_checks, 0) },
        .body = open_table(conf, lmtp ? PARAM_lmtp_body_checks : PARAM_smtp_body_checks, 0),
        .header_limit = (size_t)conf_int(conf, PARAM_header_size_limit),
        .nesting_limit = (size_t)conf_int(conf, PARAM_mime_nesting_limit),
        .boundary_limit = (size_t)conf_int(conf, PARAM_mime_boundary_length_limit),
        .line_limit = (size_t)conf_int(conf, PARAM_line_length_limit),
        .body_size = (size_t)conf_int(conf, PARAM_body_checks_size_limit),
        .parts = !conf_bool(conf, PARAM_disable_mime_input_processing),
        .convert = !conf_bool(conf, PARAM_disable_mime_output_conversion),
    };
    r.any_checks = r.checks[MIME_PRIMARY].maps || r.checks[MIME_PART].maps || r.checks[MIME_NESTED].maps || r.body.maps;
    *ret = NULL;
    if (!r.any_checks && !r.generic.maps && !r.convert)
        return;
    if (r.generic.maps)
        r.router = router_new(conf);
    *ret = malloc(sizeof r);
    if (!*ret)
        die_no_memory(sizeof r);
    **ret = r;
}

void outgoing_free(struct outgoing_rules *r) {
    if (!r)
        return;
    maps_close(r->generic.maps);
    for (size_t i = 0; i <= MIME_NESTED; i++)
        maps_close(r->checks[i].maps);
    maps_close(r->body.maps);
    if (r->router)
        router_free(r->router);
    free(r);
}

/* --- addresses --- */
bool outgoing_address(const struct outgoing_rules *r, const char *id, struct arena *a, struct str address,
                      struct str *ret) {
    *ret = address;
    error e = r && r->generic.maps && address.n
                  ? route_generic(r->router, a, r->generic.maps, r->generic.parameter, address, ret)
                  : NULL;
    if (e)
        log_warn("%s: %.*s", id, STR_ARG(e->text));
    return !e;
}

static struct str header_address(void *ctx, struct arena *a, struct str address, unsigned header_flags) {
    struct outgoing *o = ctx;
    struct str new = address;
    (void)header_flags;
    if (!o->failed && !outgoing_address(o->r, o->id, a, address, &new))
        o->failed = true;
    return new;
}

/* --- what tables say --- */
static void log_action(const struct outgoing *o, const struct check *c, const char *what, struct str text) {
    struct buf b = { 0 };
    buf_printf(&b, "%s: %.*s: %s ", o->id, STR_ARG(c->log), what);
    buf_printable(&b, text, SHOWN_MAX);
    if (c->value.n)
        buf_printf(&b, ": %.*s", STR_ARG(c->value));
    log_info("%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

static void log_unsupported(const struct check_table *t, const struct check *c) {
    struct buf b = { 0 };
    buf_printf(&b, "unsupported command in %.*s map: ", STR_ARG(t->parameter));
    for (size_t i = 0; i < c->log.n; i++)
        buf_byte(&b, byte_upper(c->log.p[i]));
    if (c->value.n)
        buf_printf(&b, " %.*s", STR_ARG(c->value));
    log_warn("%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

/* False: the field or line goes away. */
static bool ask(struct outgoing *o, const struct check_table *t, bool header, struct str *text) {
    struct check c;
    if (!t->maps || o->failed)
        return true;
    if (check_find(t->maps, t->parameter, header, *text, o->arena, &c) == TABLE_ERROR) {
        log_warn("%s: %s %s checks lookup error", o->id, o->r->lmtp ? "lmtp" : "smtp", header ? "header" : "body");
        o->failed = true;
        return true;
    }
    switch (c.action) {
    case CHECK_NONE:
        if (str_starts(c.fault, STR("unknown"))) /* cleanup's word */
            log_warn("unsupported%.*s", STR_ARG(str_from(c.fault, strlen("unknown"))));
        else if (c.fault.n)
            log_warn("%.*s", STR_ARG(c.fault));
        return true;
    case CHECK_IGNORE:
    case CHECK_STRIP:
    case CHECK_REPLACE:
    case CHECK_PREPEND:
    case CHECK_INFO:
    case CHECK_WARN:
        break;
    default: /* the message has been accepted: nothing else can be done with it here */
        log_unsupported(t, &c);
        return true;
    }
    if (c.log.n)
        log_action(o, &c, header ? "header" : "body", *text);
    if (c.action == CHECK_PREPEND) {
        content_add(o->w, c.value);
        content_add(o->w, STR("\n"));
    }
    if (c.action == CHECK_REPLACE)
        *text = c.value;
    return c.action != CHECK_IGNORE && c.action != CHECK_STRIP;
}

/* Content-Type: and its like are MIME headers wherever they stand (header_checks(5)); but not what says of a converted
 * body that it is one. */
static const struct check_table *table_for(const struct outgoing_rules *r, enum mime_class class, enum header_id id,
                                           struct str text) {
    return &r->checks[mime_is_mime_header(id) && !mime_is_new_field(text) ? MIME_PART : class];
}

static void on_header(void *ctx, enum mime_class class, struct str text) {
    struct outgoing *o = ctx;
    struct str name, value;
    bool is_field = header_split(text, &name, &value);
    const struct header_row *row = is_field ? header_find(name) : NULL;
    bool keep = !row || ask(o, table_for(o->r, class, row->id, text), true, &text);
    if (keep) {
        unsigned kind = row ? row->flags & (HEADER_SENDER_ADDRESS | HEADER_RECIPIENT_ADDRESS) : 0;
        if (kind && class == MIME_PRIMARY && o->r->generic.maps)
            text = header_rewrite(o->arena, text, kind, SIZE_MAX, header_address, o);
        content_add(o->w, text);
        content_add(o->w, STR("\n"));
    }
    arena_reset(o->arena);
}

static void on_body(void *ctx, struct str line, size_t offset, bool whole) {
    struct outgoing *o = ctx;
    if (offset >= o->r->body_size || ask(o, &o->r->body, false, &line)) {
        content_add(o->w, line);
        if (whole)
            content_add(o->w, STR("\n"));
    }
    arena_reset(o->arena);
}

static void on_error(void *ctx, enum mime_error e, struct str about) {
    struct outgoing *o = ctx;
    (void)about;
    if (e == MIME_NESTING)
        o->failed = o->too_deep = true;
}

/* --- the message --- */
bool outgoing_converts(const struct outgoing_rules *r, bool seven_bit) {
    return r && r->convert && seven_bit;
}

struct outgoing *outgoing_begin(const struct outgoing_rules *r, const char *id, bool seven_bit,
                                struct content_writer *w) {
    bool downgrade = outgoing_converts(r, seven_bit);
    if (!downgrade && !(r && (r->any_checks || r->generic.maps)))
        return NULL;
    struct outgoing *o = calloc(1, sizeof *o);
    if (!o)
        die_no_memory(sizeof *o);
    const struct mime_options options = {
        /* addresses change in the message's own header only */
        .parts = downgrade || (r->parts && r->any_checks),
        .downgrade = downgrade,
        .error = downgrade ? on_error : NULL,
        .header_limit = r->header_limit,
        .nesting_limit = r->nesting_limit,
        .boundary_limit = r->boundary_limit,
        .header = on_header,
        .body = on_body,
        .ctx = o,
    };
    *o = (struct outgoing){ .r = r, .id = id, .w = w, .line_first = true, .arena = arena_new() };
    o->mime = mime_new(&options);
    return o;
}

static void line_done(struct outgoing *o, bool whole) {
    mime_piece(o->mime, buf_str(&o->line), o->line_first, whole);
    buf_clear(&o->line);
    o->line_first = whole;
}

bool outgoing_add(struct outgoing *o, struct str s) {
    size_t limit = o->r->line_limit;
    while (s.n && !o->failed) {
        ptrdiff_t lf = str_index(s, '\n');
        size_t n = lf < 0 ? s.n : (size_t)lf;
        bool cut = n > limit - o->line.n;
        if (cut)
            n = limit - o->line.n;
        buf_add(&o->line, str_sub(s, 0, n));
        s = str_from(s, n);
        if (cut) {
            line_done(o, false);
        } else if (lf >= 0) {
            s = str_from(s, 1);
            line_done(o, true);
        }
    }
    return !o->failed;
}

bool outgoing_end(struct outgoing *o) {
    if (o->line.n || !o->line_first)
        line_done(o, true);
    mime_end(o->mime);
    return !o->failed;
}

bool outgoing_too_deep(const struct outgoing *o) {
    return o->too_deep;
}

void outgoing_close(struct outgoing *o) {
    if (!o)
        return;
    mime_free(o->mime);
    arena_free(o->arena);
    buf_free(&o->line);
    free(o);
}
