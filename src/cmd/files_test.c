#include "test/test.h"

#include "cmd/files.h"

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

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(faults) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
