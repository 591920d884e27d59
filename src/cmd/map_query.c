/* Asking and listing tables: postmap -q and -s. */
#include "cmd/map_tool.h"

#include "base/json.h"
#include "base/log.h"
#include "base/utf8.h"
#include "mail/mime.h"
#include "table/table.h"
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { OUTPUT_MAX = 64 * 1024 };

struct asking {
    const struct map_job *j;
    struct table **tables;
    size_t count;
    bool check_utf8;
    bool found;
    bool from_stdin; /* empty lines there are nobody's mistake */
    struct arena *round;
    struct buf out;
};

static void flush_output(void *ctx) {
    struct buf *out = ctx;
    size_t done = 0;
    while (done < out->n) {
        ssize_t n = write(STDOUT_FILENO, out->p + done, out->n - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            log_fatal("write standard output: %s", strerror(errno));
        done += (size_t)n;
    }
    buf_clear(out);
}

static void put_entry(struct buf *out, const struct map_job *j, struct str key, struct str value, bool alias_colon) {
    if (j->o->json) {
        buf_byte(out, '{');
        buf_json(out, key);
        buf_add(out, STR(": "));
        buf_json(out, value);
        buf_add(out, STR("}\n"));
    } else {
        char *at = buf_reserve(out, key.n + value.n + 3);
        at = (char *)mempcpy(at, key.p, key.n);
        if (alias_colon)
            *at++ = ':';
        *at++ = '\t';
        at = (char *)mempcpy(at, value.p, value.n);
        *at++ = '\n';
        out->n = (size_t)(at - out->p);
    }
    if (out->n >= OUTPUT_MAX)
        flush_output(out);
}

/* The first table that has it. */
static bool ask(struct asking *q, struct str key, bool may_be_empty, struct str *ret_value) {
    for (size_t i = 0; i < q->count; i++) {
        struct str name = table_name(q->tables[i]);
        if (key.n == 0 && !may_be_empty && !table_is_pattern(q->tables[i])) {
            if (!q->from_stdin)
                log_warn("table %.*s: empty lookup key value is not allowed", STR_ARG(name));
            continue;
        }
        if (q->check_utf8 && !utf8_valid(key)) {
            log_warn("%.*s: non-UTF-8 key \"%.*s\": malformed UTF-8 or invalid codepoint", STR_ARG(name), STR_ARG(key));
            continue;
        }
        enum table_result r = table_get(q->tables[i], key, q->round, ret_value);
        if (r == TABLE_ERROR) {
            flush_output(&q->out);
            error e = table_error(q->tables[i]);
            log_fatal("table %.*s: query error: %.*s", STR_ARG(name), STR_ARG(e->text));
        }
        if (r == TABLE_NOT_FOUND)
            continue;
        if (ret_value->n == 0) {
            log_warn("table %.*s: key %.*s: empty string result is not allowed", STR_ARG(name), STR_ARG(key));
            log_warn("table %.*s should return NO RESULT in case of NOT FOUND", STR_ARG(name));
        }
        return true;
    }
    return false;
}

static void ask_and_print(struct asking *q, struct str key, bool may_be_empty) {
    struct str value;
    arena_reset(q->round);
    if (!ask(q, key, may_be_empty, &value))
        return;
    q->found = true;
    put_entry(&q->out, q->j, key, value, false);
}

static void ask_keys(struct asking *q, struct map_lines *lines) {
    struct str ahead[TABLE_EXPECT_MAX], key;
    for (size_t expected = 0;; expected -= expected > 0) {
        if (expected == 0) {
            expected = map_lines_ahead(lines, ahead, TABLE_EXPECT_MAX);
            for (size_t i = 0; i < q->count; i++)
                table_expect(q->tables[i], ahead, expected);
        }
        if (!map_next_line(lines, &key))
            return;
        ask_and_print(q, key, false);
    }
}

/* --- a message on standard input: -h, -b --- */

static void ask_header(void *ctx, enum mime_class class, struct str header) {
    struct asking *q = ctx;
    (void)class;
    if (q->j->o->header)
        ask_and_print(q, header, false);
}

static void ask_body(void *ctx, struct str line, size_t offset, bool whole) {
    struct asking *q = ctx;
    (void)offset, (void)whole;
    if (q->j->o->body)
        ask_and_print(q, line, true);
}

static void ask_message(struct asking *q, struct map_lines *lines) {
    const struct conf *c = q->j->c;
    struct mime_options o = {
        .parts = q->j->o->mime,
        .header_limit = (size_t)conf_int(c, PARAM_header_size_limit),
        .nesting_limit = (size_t)conf_int(c, PARAM_mime_nesting_limit),
        .boundary_limit = (size_t)conf_int(c, PARAM_mime_boundary_length_limit),
        .header = ask_header,
        .body = ask_body,
        .ctx = q,
    };
    struct mime *m = mime_new(&o);
    struct str line;
    while (map_next_line(lines, &line))
        mime_line(m, line);
    mime_end(m);
    mime_free(m);
}

/* --- */

static struct table *open_table(const struct map_job *j, const char *spec, unsigned more) {
    unsigned flags = more | (j->o->no_fold ? 0u : TABLE_FOLD) | (j->o->any_bytes ? TABLE_ASCII : 0u) |
                     (j->tool->aliases ? TABLE_ALIASES : 0u) | (j->o->files ? TABLE_FILES : 0u);
    struct table *t = table_open(j->c, str_c(spec), flags);
    if (table_error(t))
        log_fatal("%.*s", STR_ARG(table_error(t)->text));
    return t;
}

int map_query(const struct map_job *j, char **specs, size_t count) {
    struct arena *a = arena_new();
    bool message = j->o->body || j->o->header;
    struct asking q = {
        .j = j,
        .tables = arena_array(a, count, sizeof(struct table *)),
        .count = count,
        /* a message may be in any character set */
        .check_utf8 = !j->o->any_bytes && (!message || j->o->force_utf8),
        .from_stdin = strcmp(j->o->query, "-") == 0,
        .round = arena_new(),
    };
    for (size_t i = 0; i < count; i++)
        q.tables[i] = open_table(j, specs[i], 0);
    struct str key = str_c(j->o->query), value;
    if (str_eq(key, STR("-"))) {
        struct map_lines lines = { .waits = flush_output, .ctx = &q.out };
        if (message)
            ask_message(&q, &lines);
        else
            ask_keys(&q, &lines);
        buf_free(&lines.bytes);
    } else if (ask(&q, key, false, &value)) {
        q.found = true;
        if (j->o->json) {
            put_entry(&q.out, j, key, value, false);
        } else {
            buf_add(&q.out, value);
            buf_byte(&q.out, '\n');
        }
    }
    flush_output(&q.out);
    for (size_t i = 0; i < count; i++)
        table_close(q.tables[i]);
    buf_free(&q.out);
    arena_free(q.round);
    arena_free(a);
    return q.found ? 0 : 1;
}

/* The index, or the text where that is what look-ups would use. */
void map_list(const struct map_job *j, struct str spec) {
    struct arena *last = arena_new(), *now = arena_new();
    struct buf out = { 0 };
    /* the look-up process lists for those who may write only: a worker that was broken into shall not read it all */
    unsigned flags = str_starts(spec, STR("proxy:")) ? TABLE_WRITE : 0;
    struct table *t = open_table(j, arena_cstr(last, spec), flags);
    if (str_starts(table_name(t), STR("fail:")))
        log_fatal("table %.*s: sequence error: Application error", STR_ARG(table_name(t)));
    if (!table_is_listable(t))
        log_fatal("table %.*s: sequence operation is not supported", STR_ARG(table_name(t)));
    struct str key = STR(""), value;
    enum table_result r;
    while ((r = table_next(t, key, now, &key, &value)) == TABLE_FOUND) {
        put_entry(&out, j, key, value, j->tool->aliases);
        struct arena *used = last; /* `key` is asked behind once more */
        last = now;
        now = used;
        arena_reset(now);
    }
    flush_output(&out);
    if (r == TABLE_ERROR)
        log_fatal("table %.*s: sequence error: %.*s", STR_ARG(table_name(t)), STR_ARG(table_error(t)->text));
    table_close(t);
    buf_free(&out);
    arena_free(last);
    arena_free(now);
}
