#include "proto/footer.h"

#include "base/log.h"
#include "mail/dsn.h"
#include "run/sys.h"
#include <time.h>

/* --- values --- */
struct str expansion_filter(struct arena *a, struct str text) {
    char *out = arena_alloc(a, text.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '\\' || i + 1 == text.n) {
            out[n++] = text.p[i];
            continue;
        }
        char c = text.p[++i];
        static const char letters[] = "abfnrtv", bytes[] = "\a\b\f\n\r\t\v";
        const char *letter = strchr(letters, c);
        if (c >= '0' && c <= '7') {
            unsigned value = 0;
            for (int digits = 0; digits < 3 && i < text.n && text.p[i] >= '0' && text.p[i] <= '7'; digits++)
                value = value * 8 + (unsigned)(text.p[i++] - '0');
            i--;
            out[n++] = (char)value;
        } else {
            out[n++] = letter ? bytes[letter - letters] : c;
        }
    }
    out[n] = 0;
    return str_n(out, n);
}

struct str filtered_text(struct arena *a, struct str filter, struct str value) {
    char *out = arena_cstr(a, value);
    for (size_t i = 0; i < value.n; i++)
        if (str_index(filter, out[i]) < 0)
            out[i] = '_';
    return str_n(out, value.n);
}

struct str footer_time(struct arena *a) {
    time_t now = (time_t)(sys->wall_us() / US_PER_S);
    struct tm tm;
    char text[32];
    size_t n = localtime_r(&now, &tm) ? strftime(text, sizeof text, "%b %d %H:%M:%S", &tm) : 0;
    return arena_str(a, str_n(text, n));
}

/* --- the footer --- */
struct names {
    expand_lookup *lookup;
    void *ctx;
    struct str unknown;
};

static bool name_value(void *ctx, struct str name, struct expand_value *ret) {
    struct names *n = ctx;
    if (n->lookup(n->ctx, name, ret))
        return true;
    n->unknown = name;
    return false;
}

static bool is_refusal(struct str text) {
    return text.n > 4 && (text.p[0] == '4' || text.p[0] == '5') && byte_is_digit(text.p[1]) &&
           byte_is_digit(text.p[2]) && text.p[3] == ' ';
}

static struct str find_template(struct arena *a, const struct footer *f, struct str reply) {
    struct str template = f->template;
    if (!f->maps)
        return template;
    struct str key = str_sub(reply, 0, str_index(reply, '\n') < 0 ? reply.n : (size_t)str_index(reply, '\n'));
    enum table_result found = maps_get(f->maps, key, a, &template, NULL);
    if (found == TABLE_ERROR)
        log_warn("%s_maps lookup error for \"%.*s\"", f->parameter, STR_ARG(key));
    return found == TABLE_FOUND ? template : f->template;
}

/* The next part of a template, up to the two characters "\n". */
static bool next_line(struct str *template, struct str *ret) {
    if (!template->p)
        return false;
    for (size_t i = 0; i + 1 < template->n; i++)
        if (template->p[i] == '\\' && template->p[i + 1] == 'n') {
            *ret = str_sub(*template, 0, i);
            *template = str_from(*template, i + 2);
            return true;
        }
    *ret = *template;
    template->p = NULL;
    return true;
}

static void add(const struct footer *f, struct names *names, struct arena *a, struct str template, struct buf *b) {
    struct str reply = arena_str(a, buf_str(b)), text, line;
    /* code and status stand in front of each line */
    size_t status = dsn_status_length(str_from(reply, 4));
    struct str front = str_sub(reply, 0, status ? 4 + status + 1 : 4);
    bool same_line = str_starts(template, STR("\\c"));
    struct buf out = { 0 };
    buf_add(&out, reply);
    if (same_line)
        template = str_from(template, 2);
    bool first = true;
    while (next_line(&template, &line)) {
        error e = expand(line, name_value, names, a, &text);
        if (e || names->unknown.p) {
            log_warn("bad %s template: %.*s: %s%.*s", f->parameter, STR_ARG(line),
                     e ? "" : "unknown macro name: ", STR_ARG(e ? e->text : names->unknown));
            buf_free(&out);
            return;
        }
        if (!first || !same_line) {
            buf_byte(&out, '\n');
            buf_add(&out, front);
        }
        buf_add(&out, text);
        first = false;
    }
    buf_clear(b);
    buf_add(b, buf_str(&out));
    buf_free(&out);
}

void footer_add(const struct footer *f, expand_lookup *lookup, void *ctx, struct buf *b) {
    if ((f->template.n == 0 && !f->maps) || !is_refusal(buf_str(b)))
        return;
    struct arena *a = arena_new();
    struct names names = { .lookup = lookup, .ctx = ctx };
    struct str template = find_template(a, f, buf_str(b));
    if (template.n)
        add(f, &names, a, template, b);
    arena_free(a);
}
