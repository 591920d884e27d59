#include "smtpd/footer.h"

#include "base/log.h"
#include "mail/address.h"
#include "mail/dsn.h"
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

struct str filtered_text(struct arena *a, const struct settings *set, struct str value) {
    char *out = arena_cstr(a, value);
    for (size_t i = 0; i < value.n; i++)
        if (str_index(set->expansion_filter, out[i]) < 0)
            out[i] = '_';
    return str_n(out, value.n);
}

static struct str local_time(struct arena *a) {
    time_t now = (time_t)(sys->wall_us() / US_PER_S);
    struct tm tm;
    char text[32];
    size_t n = localtime_r(&now, &tm) ? strftime(text, sizeof text, "%b %d %H:%M:%S", &tm) : 0;
    return arena_str(a, str_n(text, n));
}

/* "<>" for the null sender; its parts are "<>" and nothing. */
static struct str address_part(struct str address, struct str part) {
    struct address_parts p = address_split(address);
    if (str_eq(part, STR("domain")))
        return p.domain;
    struct str s = str_eq(part, STR("name")) ? p.local : address;
    return s.n ? s : STR("<>");
}

bool session_value(struct arena *a, const struct session *s, struct str name, struct expand_value *ret) {
    const struct {
        struct str name, value;
    } plain[] = {
        { STR_INIT("client"), s->log_name },
        { STR_INIT("client_address"), s->address },
        { STR_INIT("client_name"), s->name },
        { STR_INIT("client_port"), s->port },
        { STR_INIT("reverse_client_name"), s->reverse_name },
        { STR_INIT("helo_name"), s->helo },
        { STR_INIT("server_name"), s->set->myhostname },
    };
    struct str value = { 0 };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (str_eq(name, plain[i].name))
            value = str_n(plain[i].value.p ? plain[i].value.p : "", plain[i].value.n);
    if (str_eq(name, STR("localtime")))
        value = local_time(a);
    bool sender = str_starts(name, STR("sender")), recipient = str_starts(name, STR("recipient"));
    struct str part = str_from(name, sender ? 6 : 9);
    if ((sender || recipient) && (part.n == 0 || str_eq(part, STR("_name")) || str_eq(part, STR("_domain")))) {
        bool have = sender ? s->tx != NULL : s->check_recipient.n > 0;
        struct str address = sender && s->tx ? s->tx->sender : s->check_recipient;
        value = have ? address_part(address, str_from(part, 1)) : STR("");
    }
    if (!value.p)
        return false;
    *ret = (struct expand_value){ filtered_text(a, s->set, value), true };
    return true;
}

/* --- the footer --- */
struct footer_names {
    struct arena *arena;
    const struct session *s;
    struct str unknown;
};

static bool footer_name(void *ctx, struct str name, struct expand_value *ret) {
    struct footer_names *n = ctx;
    if (session_value(n->arena, n->s, name, ret))
        return true;
    n->unknown = name;
    return false;
}

static bool is_refusal(struct str text) {
    return text.n > 4 && (text.p[0] == '4' || text.p[0] == '5') && byte_is_digit(text.p[1]) &&
           byte_is_digit(text.p[2]) && text.p[3] == ' ';
}

static struct str find_template(struct arena *a, const struct settings *set, struct str reply) {
    struct str template = set->reject_footer;
    if (set->reject_footers) {
        struct str key = str_sub(reply, 0, str_index(reply, '\n') < 0 ? reply.n : (size_t)str_index(reply, '\n'));
        enum table_result found = maps_get(set->reject_footers, key, a, &template, NULL);
        if (found == TABLE_ERROR)
            log_warn("smtpd_reject_footer_maps lookup error for \"%.*s\"", STR_ARG(key));
        if (found != TABLE_FOUND)
            template = set->reject_footer;
    }
    return template;
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

static void add(const struct session *s, struct arena *a, struct str template, struct buf *b) {
    struct footer_names names = { .arena = a, .s = s };
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
        error e = expand(line, footer_name, &names, a, &text);
        if (e || names.unknown.p) {
            log_warn("bad smtpd_reject_footer template: %.*s: %s%.*s", STR_ARG(line),
                     e ? "" : "unknown macro name: ", STR_ARG(e ? e->text : names.unknown));
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

void footer_add(const struct session *s, struct buf *b) {
    if ((s->set->reject_footer.n == 0 && !s->set->reject_footers) || !is_refusal(buf_str(b)))
        return;
    struct arena *a = arena_new();
    struct str template = find_template(a, s->set, buf_str(b));
    if (template.n)
        add(s, a, template, b);
    arena_free(a);
}
