#include "base/utf8.h"
#include "cmd/postconf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char *program = "postconf";

void postconf_set_program(const char *name) {
    program = name;
}

void warn(struct str text) {
    fflush(stdout);
    fprintf(stderr, "%s: warning: %.*s\n", program, STR_ARG(text));
}

void note(struct str text) {
    fflush(stdout);
    fprintf(stderr, "%s: %.*s\n", program, STR_ARG(text));
}

_Noreturn void fail(struct str text) {
    fflush(stdout);
    fprintf(stderr, "%s: fatal: %.*s\n", program, STR_ARG(text));
    exit(1);
}

void must(error e) {
    if (e)
        fail(e->text);
}

void warn_findings(const struct listing *l, enum finding_kind kind, bool master_cf_only) {
    struct str place = arena_printf(l->arena, "%.*s/master.cf: ", STR_ARG(l->request->directory));
    for (size_t i = 0; i < l->finding_count; i++)
        if (l->findings[i].kind == kind && (!master_cf_only || str_starts(l->findings[i].text, place)))
            warn(l->findings[i].text);
}

bool postconf_is_unused(const struct listing *l, struct str name) {
    for (size_t i = 0; i < l->finding_count; i++)
        if (l->findings[i].kind == FINDING_UNUSED && str_eq(l->findings[i].name, name))
            return true;
    return false;
}

void postconf_directory_source(const struct request *r, struct conf_source *ret) {
    *ret = (struct conf_source){ .config_directory = r->directory,
                                 .overrides = r->overrides.at,
                                 .override_count = r->overrides.n,
                                 .process_name = STR("postconf") };
}

/* --- values --- */

static void print_word(const struct request *r, struct str word, size_t *column) {
    if (*column && r->fold && *column + 1 + word.n > SERVICE_LINE_WIDTH) {
        printf("\n    %.*s", STR_ARG(word));
        *column = 4 + word.n;
        return;
    }
    printf("%s%.*s", *column ? " " : "", STR_ARG(word));
    *column += (*column ? 1 : 0) + word.n;
}

void print_value(const struct request *r, struct str name, struct str value) {
    struct str rest = value, word;
    size_t column = 0;
    if (r->no_values) {
        printf("%.*s\n", STR_ARG(name));
        return;
    }
    if (!r->no_names) {
        print_word(r, name, &column);
        print_word(r, STR("="), &column);
    }
    while (str_word(&rest, STR_SPACE, &word))
        print_word(r, word, &column);
    putchar('\n');
}

/* RFC 8259, 7. Bytes that are not UTF-8 become U+FFFD: a strict reader must take the line. */
static void json_string(struct buf *b, struct str s) {
    buf_byte(b, '"');
    while (s.n) {
        size_t n = utf8_length(s);
        char c = s.p[0];
        if (n == 0)
            buf_add(b, STR("\\ufffd"));
        else if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if ((unsigned char)c < 0x20 || c == 0x7f)
            buf_printf(b, "\\u%04x", (unsigned)c);
        else
            buf_add(b, str_sub(s, 0, n));
        s = str_from(s, n ? n : 1);
    }
    buf_byte(b, '"');
}

void print_json(const struct str *members, size_t count) {
    struct buf b = { 0 };
    buf_byte(&b, '{');
    for (size_t i = 0; i < count; i++) {
        json_string(&b, members[i]);
        buf_add(&b, i % 2 == 0 ? STR(": ") : i + 1 < count ? STR(", ") : STR("}\n"));
    }
    fwrite(b.p, 1, b.n, stdout);
    buf_free(&b);
}
