/* dialogue_test.c - the dialogues of tests/dialogues against a session over a scripted peer, with a fake clock.
 *
 * tests/smtpd/test_dialogues.py plays the same files against a running server; its head comment has the format. */
#include "test/test.h"

#include "smtpd/harness.h"
#include "test/fake_sys.h"
#include <dirent.h>
#include <stdlib.h>

static const char folder[] = "tests/dialogues";
enum { DIALOGUE_MAX = 256 * 1024, DIALOGUES_MAX = 200, LOGS_MAX = 40 };

struct dialogue {
    struct buf text, options, script;
    const char *client;
    bool only_server;
    const char *logs[LOGS_MAX];
    size_t log_count;
    struct str content;
    bool have_content;
    struct arena *arena;
};

/* `> TEXT  < 250 2.1.0`: the last "  < " that a digit follows divides the two. */
static void step(struct dialogue *d, struct str line) {
    struct str expect = STR("");
    for (size_t i = line.n; i-- > 0;) {
        struct str rest = str_from(line, i);
        if (rest.n > 4 && str_starts(rest, STR(" < ")) && byte_is_digit(rest.p[3])) {
            expect = str_trim(str_from(rest, 3));
            line = str_trim_right(str_sub(line, 0, i));
            break;
        }
    }
    if (str_starts(line, STR("< "))) {
        expect = str_trim(str_from(line, 2));
        line = STR("");
    }
    if (line.n)
        buf_printf(&d->script, "%.*s\n", STR_ARG(line));
    if (expect.n)
        buf_printf(&d->script, "<< %.*s\n", STR_ARG(expect));
}

static struct str unescape(struct arena *a, struct str s) {
    struct buf b = { 0 };
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '\\' || i + 1 == s.n) {
            buf_byte(&b, s.p[i]);
            continue;
        }
        char c = s.p[++i];
        if (c == 'x' && i + 2 < s.n) {
            char hex[3] = { s.p[i + 1], s.p[i + 2], 0 };
            buf_byte(&b, (char)strtoul(hex, NULL, 16));
            i += 2;
        } else {
            buf_byte(&b, c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : c == '0' ? '\0' : c);
        }
    }
    struct str r = arena_str(a, buf_str(&b));
    buf_free(&b);
    return r;
}

static void read_dialogue(struct dialogue *d, const char *path) {
    *d = (struct dialogue){ .client = "127.0.0.1", .arena = arena_new() };
    assert_true(buf_read_file(&d->text, path, DIALOGUE_MAX));
    struct str rest = buf_str(&d->text), line;
    while (rest.n && str_next(&rest, STR("\n"), &line)) {
        if (line.n == 0 || line.p[0] == '#')
            continue;
        if (str_starts(line, STR("conf: ")))
            buf_printf(&d->options, "%.*s\n", STR_ARG(str_from(line, 6)));
        else if (str_starts(line, STR("client: ")))
            d->client = arena_cstr(d->arena, str_trim(str_from(line, 8)));
        else if (str_starts(line, STR("only: ")))
            d->only_server = str_contains(line, STR("server"));
        else if (str_starts(line, STR("oracle: ")))
            continue;
        else if (str_starts(line, STR("log: "))) {
            assert_true(d->log_count < LOGS_MAX);
            d->logs[d->log_count++] = arena_cstr(d->arena, str_trim(str_from(line, 5)));
        } else if (str_starts(line, STR("content: "))) {
            d->content = unescape(d->arena, str_from(line, 9));
            d->have_content = true;
        } else
            step(d, line);
    }
}

/* What stands behind our own Received: header. */
static struct str body_of(struct str content) {
    while (content.n) {
        ptrdiff_t lf = str_index(content, '\n');
        if (lf < 0)
            return STR("");
        content = str_from(content, (size_t)lf + 1);
        if (content.n == 0 || content.p[0] != '\t')
            break;
    }
    return content;
}

static void test_dialogue(void **state) {
    const char *name = *state;
    struct arena *a = arena_new();
    struct str path = arena_printf(a, "%s/%s", folder, name);
    struct dialogue d;
    read_dialogue(&d, path.p);
    if (!d.only_server) {
        fake_sys_install();
        struct harness h;
        harness_begin(&h, d.options.p ? d.options.p : "");
        harness_script(&h, d.client, d.script.p ? d.script.p : "");
        for (size_t i = 0; i < d.log_count; i++)
            if (!harness_logged(&h, d.logs[i]))
                fail_msg("%s: no log record like \"%s\" in\n%s", name, d.logs[i], h.log.p);
        if (d.have_content) {
            struct str got = STR("(no message)");
            for (size_t i = 0; i < h.message_count && i < HARNESS_MESSAGES_MAX; i++)
                if (h.messages[i].ended)
                    got = body_of(buf_str(&h.messages[i].content));
            if (!str_eq(got, d.content))
                fail_msg("%s: content is \"%.*s\"", name, STR_ARG(got));
        }
        harness_end(&h);
        fake_sys_remove();
    }
    buf_free(&d.text);
    buf_free(&d.options);
    buf_free(&d.script);
    arena_free(d.arena);
    arena_free(a);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct CMUnitTest *)a)->name, ((const struct CMUnitTest *)b)->name);
}

int main(void) {
    static struct CMUnitTest tests[DIALOGUES_MAX];
    size_t n = 0;
    struct arena *a = arena_new();
    DIR *dir = opendir(folder);
    struct dirent *e;
    while (dir && (e = readdir(dir)) && n < DIALOGUES_MAX)
        if (str_ends(str_c(e->d_name), STR(".dialogue"))) {
            char *name = arena_cstr(a, str_c(e->d_name));
            tests[n++] = (struct CMUnitTest){ name, test_dialogue, NULL, NULL, name };
        }
    if (dir)
        closedir(dir);
    if (n == 0) {
        fprintf(stderr, "no dialogues in %s\n", folder);
        return 1;
    }
    qsort(tests, n, sizeof *tests, by_name);
    int failed = _cmocka_run_group_tests("dialogue", tests, n, NULL, NULL);
    arena_free(a);
    return failed;
}
