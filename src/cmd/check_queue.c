/* postfix check: what lies in the queue directory and should not. */
#include "base/buf.h"
#include "base/log.h"
#include "cmd/layout.h"
#include "queue/queue_id.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 8, COMPARE_MAX = 1 << 20, STRAY_LINES_MAX = 20 };

struct queue_check {
    struct str queue;
    struct arena *a;
    int strays;
};

static bool is_dot(const char *name) {
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* --- messages --- */
static void review_corrupt(const struct queue_check *k) {
    struct str dir = arena_printf(k->a, "%.*s/corrupt", STR_ARG(k->queue));
    DIR *d = opendir(dir.p);
    if (!d)
        return;
    for (const struct dirent *e; (e = readdir(d));)
        if (!is_dot(e->d_name))
            log_warn("damaged message: corrupt/%s", e->d_name);
    closedir(d);
}

/* What is not a regular file, or has a name that no message has. Hashed queues have folders of one character; files of
 * ours that are being written begin with a dot or end in a suffix. */
static void review_messages(struct queue_check *k, struct str dir, int depth) {
    DIR *d = opendir(dir.p);
    if (!d)
        return;
    for (const struct dirent *e; (e = readdir(d));) {
        struct stat st;
        struct str path = arena_printf(k->a, "%.*s/%s", STR_ARG(dir), e->d_name);
        if (e->d_name[0] == '.' || lstat(path.p, &st) < 0)
            continue;
        struct str name = str_c(e->d_name);
        if (S_ISDIR(st.st_mode) && name.n == 1 && depth < DEPTH_MAX) {
            review_messages(k, path, depth + 1);
            continue;
        }
        ptrdiff_t dot = str_index(name, '.');
        struct str id = dot > 0 ? str_sub(name, 0, (size_t)dot) : name;
        if (S_ISREG(st.st_mode) && queue_id_valid(id))
            continue;
        if (k->strays++ < STRAY_LINES_MAX)
            check_finding(arena_printf(k->a, "not a message: %.*s", STR_ARG(path)),
                          STR("look what it is, then move it out of the queue"));
    }
    closedir(d);
}

/* --- copies of system files for services that run chrooted --- */
static bool same_content(const char *x, const char *y) {
    struct buf a = { 0 }, b = { 0 };
    bool same =
        !buf_read_file(&a, x, COMPARE_MAX) || !buf_read_file(&b, y, COMPARE_MAX) || str_eq(buf_str(&a), buf_str(&b));
    buf_free(&a);
    buf_free(&b);
    return same;
}

static void review_copies(const struct queue_check *k, struct str below, int depth) {
    struct str dir = arena_printf(k->a, "%.*s%.*s", STR_ARG(k->queue), STR_ARG(below));
    DIR *d = opendir(dir.p);
    if (!d)
        return;
    for (const struct dirent *e; (e = readdir(d));) {
        struct stat copy, original;
        struct str path = arena_printf(k->a, "%.*s/%s", STR_ARG(below), e->d_name);
        struct str here = arena_printf(k->a, "%.*s%.*s", STR_ARG(k->queue), STR_ARG(path));
        if (is_dot(e->d_name) || lstat(here.p, &copy) < 0)
            continue;
        if (S_ISDIR(copy.st_mode) && depth < DEPTH_MAX)
            review_copies(k, path, depth + 1);
        else if (S_ISREG(copy.st_mode) && stat(path.p, &original) == 0 && S_ISREG(original.st_mode) &&
                 !same_content(here.p, path.p))
            check_finding(arena_printf(k->a, "%.*s and %.*s differ", STR_ARG(here), STR_ARG(path)),
                          arena_printf(k->a, "cp %.*s %.*s", STR_ARG(path), STR_ARG(here)));
    }
    closedir(d);
}

void check_queue(const struct conf *c, bool messages) {
    static const char *const queues[] = { "incoming", "active", "deferred", "hold", "maildrop" };
    static const char *const copies[] = { "/etc", "/lib", "/lib64", "/usr" };
    struct arena *a = arena_new();
    struct queue_check k = { .queue = conf_str(c, PARAM_queue_directory), .a = a };
    review_corrupt(&k);
    for (size_t i = 0; messages && i < sizeof queues / sizeof *queues; i++)
        review_messages(&k, arena_printf(a, "%.*s/%s", STR_ARG(k.queue), queues[i]), 0);
    if (k.strays > STRAY_LINES_MAX)
        log_warn("%d more files in the queue that are no messages", k.strays - STRAY_LINES_MAX);
    for (size_t i = 0; i < sizeof copies / sizeof *copies; i++)
        review_copies(&k, str_c(copies[i]), 0);
    arena_free(a);
}
