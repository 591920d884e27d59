#include "test/test.h"

#include "conf/main_edit.h"
#include "conf/master_edit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test/fixture.h"

/* `warning` is the last one. */
static const struct {
    enum edit_kind kind;
    const char *args[4], *before, *after, *error, *warning;
} main_cases[] = {
    { EDIT_SET, { "a=1" }, "a = b\n", "a = 1\n", NULL, NULL },
    { EDIT_SET, { " b =  x  y " }, "a = b\n", "a = b\nb = x  y\n", NULL, NULL },
    { EDIT_SET, { "c=d" }, "a = b", "a = b\nc = d\n", NULL, NULL }, /* CF-05 */
    { EDIT_SET, { "c=d" }, "# x", "# x\nc = d\n", NULL, NULL },
    { EDIT_SET, { "c=d" }, "", "c = d\n", NULL, NULL },
    { EDIT_SET, { "c=" }, "c = d\n", "c = \n", NULL, NULL },
    { EDIT_SET, { "z=1", "c=2", "a=3" }, "c=d\n", "c = 2\nz = 1\na = 3\n", NULL, NULL },
    { EDIT_SET, { "a=1" }, "a = b\n  c\n#x\n d\n\n  e\nf=g", "a = 1\n#x\n\nf=g", NULL, NULL },
    { EDIT_SET, { "a=1" }, "a=b\r\n\r\n c\r\nd=e\r\n", "a = 1\n\r\nd=e\r\n", NULL, NULL },
    { EDIT_SET, { "x=1" }, "  x = y\n z\na=b\n", "  x = y\n z\na=b\nx = 1\n", NULL, NULL },
    { EDIT_SET, { "a=1" }, "a\n", "a = 1\n", NULL, NULL },
    { EDIT_SET, { "a=1" }, "ab=c\n", "ab=c\na = 1\n", NULL, NULL },
    { EDIT_SET,
      { "a=1" },
      "a = b\na = c\na = d\nz=1\n",
      "a = 1\na = 1\na = 1\nz=1\n",
      NULL,
      "main.cf: multiple entries for \"a\"" },
    { EDIT_SET, { "a=1", "b=2", "a=3" }, "", "b = 2\na = 3\n", NULL, "ignoring earlier request: 'a = 1'" },
    { EDIT_SET, { "a" }, "", "", "missing '=' after attribute name: \"a\"", NULL },
    { EDIT_SET, { "=1" }, "", "", "missing attribute name: \"=1\"", NULL },
    { EDIT_SET, { "a=1\nb=2" }, "", "", "-e, -X, or -# accepts no multi-line input", NULL },
    { EDIT_SET, { " #a=1" }, "", "", "-e, -X, or -# accepts no comment input", NULL },
    { EDIT_REMOVE, { "c" }, "a=b\nc=d\n # k\n x\ne=f\n", "a=b\n # k\ne=f\n", NULL, NULL },
    { EDIT_REMOVE, { "a" }, "a=b", "", NULL, NULL },
    { EDIT_REMOVE, { "z" }, "a=b", "a=b", NULL, NULL },
    { EDIT_REMOVE, { "c", "c" }, "c=d\n", "", NULL, "ignoring earlier request: 'c'" }, /* CF-06 */
    { EDIT_REMOVE, { " " }, "", "", "-X or -# requires non-blank parameter names", NULL },
    { EDIT_REMOVE, { "a", "c=d" }, "", "", "-X or -# requires parameter names without value", NULL },
    { EDIT_COMMENT, { "c" }, "c=d\n # k\n x\n\n y\ne=f", "#c=d\n # k\n# x\n\n# y\ne=f", NULL, NULL },
    { EDIT_COMMENT, { "e" }, "c=d\ne=f", "c=d\n#e=f", NULL, NULL },
};

static void test_main_cf(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof main_cases / sizeof main_cases[0]; i++) {
        struct main_edits edits;
        struct buf out = { 0 };
        char *args[5] = { 0 };
        for (int j = 0; j < 4 && main_cases[i].args[j]; j++)
            args[j] = arena_cstr(arena, str_c(main_cases[i].args[j]));
        error e = main_edits_parse(main_cases[i].kind, args, arena, &edits);
        edits.path = STR("main.cf");
        if (!e)
            e = main_edits_apply(&edits, str_c(main_cases[i].before), arena, &out);
        assert_str(e ? e->text : STR("no error"), main_cases[i].error ? main_cases[i].error : "no error");
        if (!e) {
            assert_str(buf_str(&out), main_cases[i].after);
            assert_str(edits.warnings.n ? edits.warnings.at[edits.warnings.n - 1] : STR("none"),
                       main_cases[i].warning ? main_cases[i].warning : "none");
        }
        buf_free(&out);
    }
}

#define SMTP "smtp       inet  n       -       n       -       -       smtpd"
#define WRITTEN(name, type, rest) name "       " type "  n       -       n       -       -       " rest "\n"
static const struct {
    enum master_scope scope;
    enum edit_kind kind;
    const char *args[4], *before, *after, *error, *warning;
} master_cases[] = {
    { MASTER_SERVICES, EDIT_SET, { "x/inet=smtp inet n - n - - smtpd" }, "", SMTP "\n", NULL, NULL },
    { MASTER_SERVICES, EDIT_SET, { "x/inet=smtp inet n - n - - smtpd" }, "# a", "# a\n" SMTP "\n", NULL, NULL },
    { MASTER_SERVICES,
      EDIT_SET,
      { "smtp/inet=smtp inet n - n - - smtpd -o {a = b c} -oq=r {x y}" },
      "smtp inet n - y - -\n#in\n smtpd\n# after\nb unix n - n - - b\n",
      SMTP "\n    -o {a=b c}\n    -o q=r\n    {x y}\n#in\n# after\nb unix n - n - - b\n",
      NULL,
      NULL },
    /* all that match, and what would be the same service, become one */
    { MASTER_SERVICES,
      EDIT_SET,
      { "*/unix=smtp inet n - n - - smtpd" },
      "a unix x\n#1\nb unix y\n#2\nsmtp inet z\n",
      SMTP "\n#1\n#2\n",
      NULL,
      NULL },
    { MASTER_SERVICES,
      EDIT_SET,
      { "a/unix=a unix - - - - - a", "*/unix=smtp inet n - n - - smtpd" },
      "a unix x\n",
      SMTP "\n",
      NULL,
      NULL },
    { MASTER_SERVICES,
      EDIT_SET,
      { "a/unix=a unix - - - - - a", "a/unix=smtp inet n - n - - smtpd" },
      "a unix x\n",
      SMTP "\n",
      NULL,
      "ignoring earlier request: 'a/unix=a unix - - - - - a'" },
    { MASTER_SERVICES, EDIT_SET, { "a/unix=a unix" }, "", "", "bad field count: \"a/unix=a unix\"", NULL },
    { MASTER_SERVICES,
      EDIT_SET,
      { "a/unix=a unix - - - - -" },
      "",
      "",
      "bad field count: \"a/unix=a unix - - - - -\"",
      NULL },
    { MASTER_SERVICES,
      EDIT_SET,
      { "a/unix=a unix q - - - - b" },
      "",
      "",
      "invalid private field \"q\" in \"a unix q - - - - b\"",
      NULL },
    { MASTER_SERVICES,
      EDIT_SET,
      { "a/unix=a tcp - - - - - b" },
      "",
      "",
      "invalid type field \"tcp\" in \"a tcp - - - - - b\"",
      NULL },
    { MASTER_SERVICES,
      EDIT_SET,
      { "a=a unix - - - - - b" },
      "",
      "",
      "-Me, -MX or -M# requires service_name/type",
      NULL },
    { MASTER_SERVICES,
      EDIT_SET,
      { "a/unix=b\nc" },
      "",
      "",
      "-Me, -Fe, -Pe, -X, or -# accept no multi-line input",
      NULL },
    { MASTER_SERVICES,
      EDIT_REMOVE,
      { "a/unix" },
      "a unix x\n#in\n\n y\n# out\nb unix z",
      "#in\n\n# out\nb unix z",
      NULL,
      NULL },
    { MASTER_SERVICES, EDIT_REMOVE, { "a/unix" }, "b unix x", "b unix x", NULL, NULL },
    { MASTER_SERVICES, EDIT_REMOVE, { "a/unix=b" }, "", "", "-X or -# requires names without value", NULL },
    { MASTER_SERVICES,
      EDIT_REMOVE,
      { "a/unix" },
      "\n  \n#\n\na\n x\n",
      "",
      "file master.cf: line 5: specify service name and type on the same line",
      NULL },
    { MASTER_SERVICES,
      EDIT_COMMENT,
      { "a/*" },
      "a unix x\n#in\n\n y\n# out\nb unix z",
      "#a unix x\n#in\n\n# y\n# out\nb unix z",
      NULL,
      NULL },
    { MASTER_FIELDS,
      EDIT_SET,
      { "smtp/inet/chroot=n" },
      "smtp inet n - y - - smtpd\n# out\n\nb unix z",
      SMTP "\n# out\n\nb unix z",
      NULL,
      NULL },
    { MASTER_FIELDS,
      EDIT_SET,
      { "*/*/command=smtpd -v", "*/inet/chroot=n" },
      "smtp inet n - y - - smtpd",
      SMTP " -v\n",
      NULL,
      NULL },
    { MASTER_FIELDS,
      EDIT_SET,
      { "a/inet/chroot=n" },
      "",
      "",
      NULL,
      "unmatched service_name/type: \"a/inet/chroot=n\"" },
    { MASTER_FIELDS, EDIT_SET, { "a/inet/chroot=q" }, "", "", "invalid chroot field \"q\" in \"q\"", NULL },
    { MASTER_FIELDS, EDIT_SET, { "a/inet/chroot=" }, "", "", "invalid chroot field \"\" in \"\"", NULL },
    { MASTER_FIELDS, EDIT_SET, { "a/inet/command=" }, "", "", "invalid command field \"\" in \"\"", NULL },
    { MASTER_FIELDS, EDIT_SET, { "a/inet/wakeup=5x" }, "", "", "invalid wakeup field \"5x\" in \"5x\"", NULL },
    { MASTER_FIELDS,
      EDIT_SET,
      { "a/inet/process_limit=-3" },
      "",
      "",
      "invalid process_limit field \"-3\" in \"-3\"",
      NULL },
    { MASTER_FIELDS, EDIT_SET, { "a/inet/zork=1" }, "", "", "invalid service attribute name: \"zork\"", NULL },
    { MASTER_FIELDS, EDIT_SET, { "a/inet/*=1" }, "", "", "-Fe does not accept wild-card field name", NULL },
    { MASTER_FIELDS,
      EDIT_SET,
      { "a/inet/service=b c" },
      "",
      "",
      "-Fe does not accept whitespace in non-command field",
      NULL },
    { MASTER_FIELDS, EDIT_SET, { "a/inet=b" }, "", "", "-Fe or -FX requires service_name/type/field_name", NULL },
    { MASTER_FIELDS,
      EDIT_SET,
      { "a/inet/chroot=y" },
      "#\na inet n -\n  n\n",
      "",
      "file master.cf: line 2: bad field count",
      NULL },
    { MASTER_PARAMETERS,
      EDIT_SET,
      { "smtp/inet/a=1" },
      "smtp inet n - n - - smtpd -o a=0 -v -o a=9 x -o a=5",
      SMTP "\n    -o a=1\n    -v\n    -o a=1\n    x -o a=5\n",
      NULL,
      NULL },
    { MASTER_PARAMETERS,
      EDIT_SET,
      { "smtp/inet/b=1" },
      "smtp inet n - n - - smtpd -v -- -o a=5",
      SMTP " -v\n    -o b=1\n    -- -o a=5\n",
      NULL,
      NULL },
    { MASTER_PARAMETERS,
      EDIT_SET,
      { "smtp/inet/b=" },
      "smtp inet n - n - - smtpd x",
      SMTP "\n    -o b=\n    x\n",
      NULL,
      NULL },
    { MASTER_PARAMETERS,
      EDIT_SET,
      { "a/inet/b=1 2" },
      "",
      "",
      "-Pe does not accept whitespace in parameter value",
      NULL },
    { MASTER_PARAMETERS, EDIT_SET, { "a/inet/*=1" }, "", "", "-Pe does not accept wild-card parameter name", NULL },
    { MASTER_PARAMETERS,
      EDIT_REMOVE,
      { "smtp/inet/a", "smtp/inet/b" },
      "smtp inet n - n - - smtpd -o a=0 -o b=1 -o a=3\n",
      SMTP "\n",
      NULL,
      NULL },
    { MASTER_PARAMETERS,
      EDIT_REMOVE,
      { "*/*/a" },
      "x inet n  - n - - y -o b=1",
      "x inet n  - n - - y -o b=1",
      NULL,
      NULL },
};

static void test_master_cf(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof master_cases / sizeof master_cases[0]; i++) {
        struct master_edits edits;
        struct buf out = { 0 };
        char *args[5] = { 0 };
        for (int j = 0; j < 4 && master_cases[i].args[j]; j++)
            args[j] = arena_cstr(arena, str_c(master_cases[i].args[j]));
        error e = master_edits_parse(master_cases[i].scope, master_cases[i].kind, args, arena, &edits);
        edits.path = STR("master.cf");
        if (!e)
            e = master_edits_apply(&edits, str_c(master_cases[i].before), arena, &out);
        assert_str(e ? e->text : STR("no error"), master_cases[i].error ? master_cases[i].error : "no error");
        if (!e) {
            assert_str(buf_str(&out), master_cases[i].after);
            assert_str(edits.notes.warnings.n ? edits.notes.warnings.at[edits.notes.warnings.n - 1] : STR("none"),
                       master_cases[i].warning ? master_cases[i].warning : "none");
        }
        buf_free(&out);
    }
}

/* A service, and how it is written: again the same service. */
static void test_format(void **state) {
    static const struct {
        const char *text, *line, *folded;
    } rows[] = {
        { "a inet n - n - - b", "a          inet  n       -       n       -       -       b", NULL },
        { "127.0.0.1:10025 inet n - n 1? 0 b", "127.0.0.1:10025 inet n   -       n       1?      0       b", NULL },
        { "a unix-dgram - - - - - b -o { c = d  e }",
          "a          unix-dgram -  -       -       -       -       b -o {c=d  e}",
          "a          unix-dgram -  -       -       -       -       b\n    -o {c=d  e}" },
        { "a unix - - - - - b {} {c} {{d} e} { f g }",
          "a          unix  -       -       -       -       -       b {} c {{d} e} {f g}", NULL },
        { "m unix - - - - - pipe aaaaaaaaaaaaaaaaa",
          "m          unix  -       -       -       -       -       pipe aaaaaaaaaaaaaaaaa", NULL },
        { "m unix - - - - - pipe aaaaaaaaaaaaaaaaaa b",
          "m          unix  -       -       -       -       -       pipe aaaaaaaaaaaaaaaaaa b",
          "m          unix  -       -       -       -       -       pipe\n    aaaaaaaaaaaaaaaaaa b" },
        { "a unix - - - - - b -o c -o", "a          unix  -       -       -       -       -       b -o c -o",
          "a          unix  -       -       -       -       -       b\n    -o c\n    -o" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int fold = 0; fold < 2; fold++) {
            const char *want = fold && rows[i].folded ? rows[i].folded : rows[i].line;
            struct master_text into = { 0 };
            struct service_text s;
            struct buf b = { 0 };
            assert_null(service_text_parse(str_c(rows[i].text), arena, &into, &s));
            service_text_format(&b, &s, fold);
            assert_str(buf_str(&b), want);
            assert_null(service_text_parse(arena_str(arena, buf_str(&b)), arena, &into, &s));
            buf_clear(&b);
            service_text_format(&b, &s, fold);
            assert_str(buf_str(&b), want);
            assert_int_equal(into.warnings.n, 0);
            buf_free(&b);
        }
    }
}

static void test_braces(void **state) {
    static const struct {
        const char *text, *value, *warning;
    } rows[] = {
        { "a unix - - - - - b -o {c=d", "d", "master.cf: missing '}' in \"{c=d\"" },
        { "a unix - - - - - b -o {c=d}x", "d", "master.cf: syntax error after '}' in \"{c=d}x\"" },
        { "a unix - - - - - b -o {c={d e}}", "{d e}", NULL },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct master_text into = { 0 };
        struct service_text s;
        assert_null(service_text_parse(str_c(rows[i].text), arena, &into, &s));
        assert_str(s.args.at[0].value, rows[i].value);
        assert_str(into.warnings.n ? into.warnings.at[0] : STR("none"), rows[i].warning ? rows[i].warning : "none");
    }
}

static void test_services_for_review(void **state) {
    struct master_text m;
    struct master_cf got;
    (void)state;
    assert_null(master_text_parse(STR("# x\na unix - - - - - b -o c=1 -o d=2 -o c=3 -o e\n\n f -o g=h\n"), STR("m"),
                                  arena, &m));
    master_text_services(&m, arena, &got);
    assert_int_equal(got.count, 1);
    assert_int_equal(got.entries[0].line, 2);
    assert_int_equal(got.entries[0].type, SERVICE_UNIX);
    assert_int_equal(got.entries[0].override_count, 2);
    assert_str(got.entries[0].overrides[0].value, "3");
}

/* --- the file --- */

static char directory[] = "/tmp/edit_test.XXXXXX";

static struct str in_directory(const char *name) {
    return arena_printf(arena, "%s/%s", directory, name);
}

static void put(const char *name, const char *text) {
    FILE *f = fopen(in_directory(name).p, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static struct str get(const char *name) {
    struct buf b = { 0 };
    assert_true(buf_read_file(&b, in_directory(name).p, 1 << 20));
    struct str text = arena_str(arena, buf_str(&b));
    buf_free(&b);
    return text;
}

static error append_x(void *ctx, struct str text, struct arena *a, struct buf *ret) {
    if (ctx)
        return err_make(a, ERR_CONFIG, "no");
    buf_add(ret, text);
    buf_byte(ret, 'x');
    return NULL;
}

static void test_file(void **state) {
    struct stat st;
    char no;
    (void)state;
    assert_non_null(mkdtemp(directory));
    put("f", "a");
    assert_int_equal(chmod(in_directory("f").p, 0640), 0);
    put("f.tmp", "what a killed editor left");
    assert_null(conf_file_edit(in_directory("f"), append_x, NULL, arena));
    assert_str(get("f"), "ax");
    assert_int_equal(stat(in_directory("f").p, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(access(in_directory("f.tmp").p, F_OK), -1);

    error e = conf_file_edit(in_directory("f"), append_x, &no, arena);
    assert_str(e->text, "no");
    assert_str(get("f"), "ax");
    assert_int_equal(access(in_directory("f.tmp").p, F_OK), -1);

    e = conf_file_edit(in_directory("none"), append_x, NULL, arena);
    assert_str(e->text, arena_printf(arena, "open %s/none for reading: No such file or directory", directory).p);
    assert_int_equal(access(in_directory("none.tmp").p, F_OK), -1);

    assert_int_equal(symlink("f", in_directory("link").p), 0);
    assert_null(conf_file_edit(in_directory("link"), append_x, NULL, arena));
    assert_str(get("link"), "axx");
    assert_str(get("f"), "ax");

    assert_int_equal(symlink("f", in_directory("f.tmp").p), 0); /* nobody writes through it */
    assert_non_null(conf_file_edit(in_directory("f"), append_x, NULL, arena));
    assert_str(get("f"), "ax");
    unlink(in_directory("f.tmp").p);

    FILE *binary = fopen(in_directory("f").p, "w");
    fwrite("a\0b", 1, 3, binary);
    fclose(binary);
    e = conf_file_edit(in_directory("f"), append_x, NULL, arena);
    assert_str(e->text, arena_printf(arena, "%s/f: NUL byte: this is not a text file", directory).p);
    unlink(in_directory("f").p);
    unlink(in_directory("link").p);
    rmdir(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_main_cf, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_master_cf, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_format, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_braces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_services_for_review, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_file, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("edit", tests, NULL, NULL);
}
