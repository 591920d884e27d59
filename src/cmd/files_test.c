#include "test/test.h"

#include "base/buf.h"
#include "cmd/files.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void faults(void **state) {
    (void)state;
    static const struct {
        bool directory;
        gid_t gid; /* of the row; NO_GROUP: any */
        mode_t want;
        mode_t mode; /* of the file, with its type */
        uid_t uid;   /* of the file; the row's is 7 */
        gid_t is_gid;
        unsigned faults;
    } rows[] = {
        { true, (gid_t)NO_GROUP, 0755, S_IFDIR | 0755, 7, 1, 0 },
        { true, (gid_t)NO_GROUP, 0755, S_IFDIR | 0700, 7, 1, 0 }, /* less is no fault */
        { true, (gid_t)NO_GROUP, 0755, S_IFDIR | 0755, 8, 1, FAULT_OWNER },
        { true, (gid_t)NO_GROUP, 0755, S_IFDIR | 0775, 7, 1, FAULT_WRITABLE },
        { true, (gid_t)NO_GROUP, 0755, S_IFDIR | 0757, 8, 1, FAULT_WRITABLE | FAULT_OWNER },
        { true, 3, 0730, S_IFDIR | 0730, 7, 3, 0 }, /* the group may: it says so */
        { true, 3, 0730, S_IFDIR | 0730, 7, 4, FAULT_GROUP },
        { true, 3, 0730, S_IFDIR | 0732, 7, 3, FAULT_WRITABLE },
        { true, (gid_t)NO_GROUP, 0755, S_IFREG | 0755, 7, 1, FAULT_TYPE },
        { false, (gid_t)NO_GROUP, 0644, S_IFDIR | 0755, 7, 1, FAULT_TYPE },
        { false, (gid_t)NO_GROUP, 0644, S_IFREG | 0600, 7, 1, 0 },
        { false, 3, 02755, S_IFREG | 02755, 7, 3, 0 },
        { false, 3, 02755, S_IFREG | 0755, 7, 3, FAULT_SETGID },
        { false, 3, 02755, S_IFREG | 02750, 7, 3, FAULT_SETGID },
        { false, 3, 02755, S_IFREG | 0755, 7, 4, FAULT_SETGID | FAULT_GROUP },
        { false, (gid_t)NO_GROUP, 0644, S_IFLNK | 0777, 7, 1, 0 }, /* the mode of a link says nothing */
        { false, (gid_t)NO_GROUP, 0644, S_IFLNK | 0777, 0, 1, 0 },
        { false, (gid_t)NO_GROUP, 0644, S_IFLNK | 0777, 8, 1, FAULT_OWNER },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct file_row row = { .directory = rows[i].directory, .uid = 7, .gid = rows[i].gid, .mode = rows[i].want };
        struct stat st = { .st_mode = rows[i].mode, .st_uid = rows[i].uid, .st_gid = rows[i].is_gid };
        if (file_faults(&row, &st) != rows[i].faults)
            fail_msg("row %zu: %u, not %u", i, file_faults(&row, &st), rows[i].faults);
    }
}

struct walked {
    struct buf seen;
    bool swap;
};

/* The owner of the folders puts a link where a folder was just seen, and one where a file was. */
static bool swap(void *ctx, int folder, const char *name, struct str path, const struct stat *st) {
    struct walked *w = ctx;
    (void)path, (void)st;
    buf_printf(&w->seen, "%s ", name);
    if (!w->swap)
        return strcmp(name, "left") != 0;
    if (strcmp(name, "folder") == 0 || strcmp(name, "file") == 0) {
        assert_int_equal(renameat(folder, name, folder, "away"), 0);
        assert_int_equal(symlinkat(strcmp(name, "file") == 0 ? "../outside/secret" : "../outside", folder, name), 0);
    }
    if (strcmp(name, "file") == 0) {
        assert_int_equal(file_mend(folder, name, false, getuid(), (gid_t)NO_GROUP, 0777), EINVAL);
        assert_int_equal(file_mend(folder, "away", false, getuid(), (gid_t)NO_GROUP, 0640), 0);
    }
    return true;
}

static void below(void **state) {
    (void)state;
    char top[] = "/tmp/files_test.XXXXXX";
    assert_non_null(mkdtemp(top));
    struct arena *a = arena_new();
    static const char *const folders[] = { "outside",         "queue",  "queue/folder",
                                           "queue/folder/in", "queue2", "queue2/left" };
    static const char *const files[] = { "outside/secret", "queue/folder/in/x", "queue2/left/y", "queue2/file" };
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        assert_int_equal(mkdir(arena_printf(a, "%s/%s", top, folders[i]).p, 0700), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        close(open(arena_printf(a, "%s/%s", top, files[i]).p, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    struct walked w = { .swap = false };
    files_walk(arena_printf(a, "%s/queue", top), a, swap, &w);
    assert_string_equal(w.seen.p, "folder in x ");
    buf_clear(&w.seen);
    w.swap = true;
    files_walk(arena_printf(a, "%s/queue", top), a, swap, &w);
    assert_false(str_contains(buf_str(&w.seen), STR("secret")));
    buf_clear(&w.seen);
    w.swap = false; /* what the visitor wants to have left out */
    files_walk(arena_printf(a, "%s/queue2", top), a, swap, &w);
    assert_true(str_contains(buf_str(&w.seen), STR("file")) && !str_contains(buf_str(&w.seen), STR("y")));
    w.swap = true;
    files_walk(arena_printf(a, "%s/queue2", top), a, swap, &w);
    struct stat st;
    assert_int_equal(stat(arena_printf(a, "%s/outside/secret", top).p, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(arena_printf(a, "%s/queue2/away", top).p, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(system(arena_printf(a, "rm -r %s", top).p), 0);
    buf_free(&w.seen);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(faults), cmocka_unit_test(below) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
