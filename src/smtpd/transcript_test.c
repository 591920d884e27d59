/* Transcripts for the postmaster: folding, their size, and what only a scripted cleanup says. The classes of all other
 * errors, and the notices' words, are compared with Debian's postfix in tests/smtpd/test_transcripts.py. */
#include "smtpd/transcript.h"

#include "smtpd/harness.h"
#include "test/fake_sys.h"
#include "test/test.h"
#include <stdlib.h>

static struct harness h;

static ptrdiff_t find(struct str in, const char *what) {
    const char *at = memmem(in.p, in.n, what, strlen(what));
    return at ? at - in.p : -1;
}

static void test_folding(void **state) {
    (void)state;
    static const struct {
        const char *line, *folded;
    } rows[] = {
        { "In:  NOOP", " In:  NOOP\n" },
        { "", " \n" },
        { "In:  1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 123456",
          " In:  1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 123456\n" },
        { "In:  1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 12345678",
          " In:  1234567890 1234567890 1234567890 1234567890 1234567890 1234567890\n     12345678\n" },
        { "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345 x",
          " 1234567890123456789012345678901234567890123456789012345678901234567890123456789012345\n     x\n" },
        { "1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 1234567890         ",
          " 1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 1234567890\n" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = { 0 };
        char *exact = malloc(strlen(rows[i].line) + 1); /* nothing behind it may be read */
        assert_non_null(exact);
        memcpy(exact, rows[i].line, strlen(rows[i].line) + 1);
        transcript_fold(&b, str_n(exact, strlen(exact)));
        buf_byte(&b, 0);
        assert_string_equal(b.p, rows[i].folded);
        free(exact);
        buf_free(&b);
    }
}

static void test_classes(void **state) {
    (void)state;
    assert_int_equal(error_classes_parse(STR("resource, software")), ERROR_RESOURCE | ERROR_SOFTWARE);
    assert_int_equal(error_classes_parse(STR("Bounce,2bounce delay nonsense")), ERROR_BOUNCE);
    assert_int_equal(error_classes_parse(STR("")), ERROR_NONE);
}

/* The notice goes to the same cleanup, which has no room for it either: that there should be one is in the log. */
static void test_resource(void **state) {
    (void)state;
    static const char *const rcpt = "<< 220\n> EHLO client.example\n<< 250\n> MAIL FROM:<a@there.example>\n<< 250\n"
                                    "> RCPT TO:<user@here.example>\n<< 452 4.3.1\n> QUIT\n<< 221\n";
    harness_begin(&h, "notify_classes = resource\nerror_notice_recipient = errors\n");
    h.open_result.status = SUBMIT_NO_SPACE;
    harness_script(&h, "192.0.2.1", rcpt);
    assert_true(harness_logged(&h, "warning: postmaster notice of errors from * to errors failed: *"));
    harness_end(&h);

    harness_begin(&h, "notify_classes = policy, protocol, software, data, bounce\n");
    h.open_result.status = SUBMIT_NO_SPACE;
    harness_script(&h, "192.0.2.1", rcpt);
    assert_false(harness_logged(&h, "warning: postmaster notice*"));
}

/* Of a session that says much, the end is kept. */
static void test_size(void **state) {
    (void)state;
    harness_begin(
        &h, "notify_classes = protocol\nsmtpd_junk_command_limit = 10000\nsmtpd_history_flush_threshold = 5000\n");
    struct buf script = { 0 };
    buf_add(&script, STR("<< 220\n"));
    for (int i = 0; i < 400; i++)
        buf_printf(&script, "> NOOP %d %0800d\n<< 250\n", i, 0);
    buf_add(&script, STR("> FOO last\n<< 500\n> QUIT\n<< 221\n"));
    buf_byte(&script, 0);
    harness_script(&h, "192.0.2.1", script.p);
    buf_free(&script);
    assert_int_equal(h.message_count, 1);
    struct str content = buf_str(&h.messages[0].content);
    assert_in_range(content.n, TRANSCRIPT_MAX / 2, TRANSCRIPT_MAX + 8 * 1024);
    assert_true(find(content, "In:  FOO last\n") >= 0);
    assert_true(find(content, "In:  NOOP 399") >= 0);
    assert_true(find(content, "In:  NOOP 0 ") < 0);
    struct str first;
    ptrdiff_t at = find(content, "follows.\n\n");
    assert_true(at > 0);
    content = str_from(content, (size_t)at + 10);
    assert_true(str_next(&content, STR("\n"), &first));
    assert_true(str_starts(first, STR(" In:  ")) || str_starts(first, STR(" Out: ")));
}

static int set_up(void **state) {
    (void)state;
    fake_sys_install();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    harness_end(&h);
    fake_sys_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folding),
        cmocka_unit_test(test_classes),
        cmocka_unit_test_setup_teardown(test_resource, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_size, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
