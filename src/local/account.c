#include "local/local.h"

#include "conf/expand.h"
#include "deliver/child.h"
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

enum { READ_TIME = 100 /* seconds for a file of a user, which may be on a slow server */ };

/* --- users --- */
struct lookup {
    const char *name; /* NULL: by number */
    uid_t uid;
    struct passwd entry, *found;
    char *room;
    int code;
};

static void look_up(void *arg) {
    struct lookup *l = arg;
    size_t n = 4096;
    enum { ROOM_MAX = 1024 * 1024 };
    for (;;) {
        l->room = malloc(n);
        if (!l->room) {
            l->code = ENOMEM;
            return;
        }
        l->code = l->name ? getpwnam_r(l->name, &l->entry, l->room, n, &l->found)
                          : getpwuid_r(l->uid, &l->entry, l->room, n, &l->found);
        if (l->code != ERANGE || n >= ROOM_MAX)
            return;
        free(l->room);
        n *= 4;
    }
}

static bool find(struct arena *a, struct lookup *l, struct account *ret, bool *ret_failed) {
    offload(look_up, l);
    bool found = l->code == 0 && l->found;
    /* some modules of NSS say these for "no such user" */
    *ret_failed =
        !found && l->code != 0 && l->code != ENOENT && l->code != ESRCH && l->code != EBADF && l->code != EPERM;
    if (found)
        *ret = (struct account){
            .name = arena_str(a, str_c(l->found->pw_name)),
            .home = arena_str(a, str_c(l->found->pw_dir)),
            .shell = arena_str(a, str_c(l->found->pw_shell)),
            .uid = l->found->pw_uid,
            .gid = l->found->pw_gid,
        };
    free(l->room);
    return found;
}

bool account_find(struct arena *a, struct str name, struct account *ret, bool *ret_failed) {
    enum { NAME_MAX_BYTES = 256 };
    *ret_failed = false;
    /* the name becomes a file name */
    if (!name.n || name.n > NAME_MAX_BYTES || str_index(name, '/') >= 0 || memchr(name.p, 0, name.n) ||
        str_eq(name, STR(".")) || str_eq(name, STR("..")))
        return false;
    struct lookup l = { .name = arena_cstr(a, name) };
    return find(a, &l, ret, ret_failed);
}

bool account_find_uid(struct arena *a, uid_t uid, struct account *ret, bool *ret_failed) {
    struct lookup l = { .uid = uid };
    return find(a, &l, ret, ret_failed);
}

bool local_can_act_as(const struct account *rights) {
    return geteuid() == 0 || rights->uid == geteuid();
}

/* --- $names --- */
struct str local_filter(struct arena *a, struct str value, struct str filter) {
    struct str copy = arena_str(a, value);
    char *p = arena_cstr(a, value);
    if (!filter.n)
        return copy;
    for (size_t i = 0; i < value.n; i++)
        if (str_index(filter, p[i]) < 0)
            p[i] = '_';
    return str_n(p, value.n);
}

struct expansion {
    const struct local_names *names;
    struct str filter;
    struct arena *arena;
};

static bool expand_name(void *ctx, struct str name, struct expand_value *ret) {
    struct expansion *e = ctx;
    const struct local_names *n = e->names;
    const struct {
        struct str name, value;
    } rows[] = {
        { STR("user"), n->account.name },   { STR("home"), n->account.home },
        { STR("shell"), n->account.shell }, { STR("recipient"), n->recipient },
        { STR("extension"), n->extension }, { STR("domain"), n->domain },
        { STR("local"), n->local },         { STR("recipient_delimiter"), n->delimiter },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        if (str_eq(name, rows[i].name)) {
            /* peer data: taken as it is, never looked at for more names */
            *ret = (struct expand_value){ local_filter(e->arena, rows[i].value, e->filter), true };
            return rows[i].value.n > 0;
        }
    return false;
}

error local_expand(struct str text, const struct local_names *names, struct str filter, struct arena *a,
                   struct str *ret) {
    struct expansion e = { names, filter, a };
    return expand(text, expand_name, &e, a, ret);
}

/* --- files of users --- */
struct read_job {
    const char *const *paths;
    size_t n;
    unsigned flags; /* LOCAL_NO_LINKS */
    bool any;       /* one may be there */
};

/* Only whether a name is there; what is behind it is looked at under the user's rights. */
static void probe(void *arg) {
    struct read_job *j = arg;
    for (size_t i = 0; i < j->n && !j->any; i++) {
        struct stat st;
        if (sys->fstatat(AT_FDCWD, j->paths[i], &st, AT_SYMLINK_NOFOLLOW) == 0 || (errno != ENOENT && errno != ENOTDIR))
            j->any = true;
    }
}

static bool write_all(int fd, struct str s) {
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            s = str_from(s, (size_t)n);
    }
    return true;
}

static int read_in_child(void *arg, int out_fd) {
    const struct read_job *j = arg;
    struct buf b = { 0 }, text = { 0 };
    size_t which = 0;
    int fd = -1, code = 0;
    struct stat st = { 0 };
    const char *refusal = "";
    int no_links = j->flags & LOCAL_NO_LINKS ? O_NOFOLLOW : 0;
    for (; which < j->n; which++) {
        fd = sys->openat(AT_FDCWD, j->paths[which], O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | no_links, 0);
        if (fd >= 0 || (errno != ENOENT && errno != ENOTDIR))
            break;
    }
    if (which == j->n)
        return 1;
    if (fd < 0 && errno == ELOOP && no_links)
        refusal = "not a regular file";
    else if (fd < 0 || fstat(fd, &st) != 0)
        code = errno;
    else if (!S_ISREG(st.st_mode))
        refusal = "not a regular file";
    else if (st.st_mode & S_IWOTH)
        refusal = "world writable";
    else {
        char piece[4096];
        ssize_t n;
        while ((n = read(fd, piece, sizeof(piece))) != 0) {
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0) {
                code = errno;
                break;
            }
            if (text.n + (size_t)n > LOCAL_FILE_MAX) {
                code = EFBIG;
                break;
            }
            buf_add(&text, str_n(piece, (size_t)n));
        }
    }
    pack_u32(&b, (uint32_t)which);
    pack_u32(&b, (uint32_t)code);
    pack_u32(&b, (uint32_t)st.st_uid);
    pack_u32(&b, (uint32_t)st.st_gid);
    pack_str(&b, str_c(refusal));
    pack_str(&b, code ? STR("") : buf_str(&text));
    return write_all(out_fd, buf_str(&b)) ? 0 : 2;
}

bool local_read_file(struct agent_request *r, const struct account *rights, const struct str *paths, size_t n,
                     unsigned flags, struct local_file *ret) {
    *ret = (struct local_file){ .text = STR(""), .refusal = STR("") };
    const char **names = arena_array(r->arena, n, sizeof(*names));
    for (size_t i = 0; i < n; i++)
        names[i] = arena_cstr(r->arena, paths[i]);
    struct read_job job = { .paths = names, .n = n, .flags = flags };
    offload(probe, &job);
    if (!job.any)
        return false;
    struct child c = {
        .uid = rights->uid,
        .gid = rights->gid,
        .keep_fd = -1,
        .output_max = LOCAL_FILE_MAX + 4096,
        .deadline = deadline_in(READ_TIME),
        .run = read_in_child,
        .arg = &job,
    };
    struct child_result result;
    error e = child_run(&c, r->arena, &result);
    if (e || result.timed_out || result.signal || result.status > 1) {
        ret->code = EAGAIN;
        return true;
    }
    if (result.status == 1)
        return false;
    struct unpack u = unpack_from(result.output);
    ret->which = unpack_u32(&u);
    ret->code = (int)unpack_u32(&u);
    ret->uid = unpack_u32(&u);
    ret->gid = unpack_u32(&u);
    ret->refusal = unpack_str(&u);
    ret->text = unpack_str(&u);
    if (!unpack_done(&u) || ret->which >= n) {
        *ret = (struct local_file){ .code = EAGAIN, .text = STR(""), .refusal = STR("") };
        return true;
    }
    return true;
}

static int stat_in_child(void *arg, int out_fd) {
    (void)out_fd;
    struct stat st;
    if (sys->fstatat(AT_FDCWD, arg, &st, 0) == 0)
        return 0;
    return errno < CHILD_EXIT_RIGHTS ? errno : EIO;
}

int local_home_error(struct agent_request *r, const struct account *user) {
    struct child c = {
        .uid = user->uid,
        .gid = user->gid,
        .keep_fd = -1,
        .deadline = deadline_in(READ_TIME),
        .run = stat_in_child,
        .arg = arena_cstr(r->arena, user->home),
    };
    struct child_result result;
    if (!local_can_act_as(user)) { /* what can be seen of it from here */
        struct stat st;
        return sys->fstatat(AT_FDCWD, c.arg, &st, 0) == 0 ? 0 : errno;
    }
    error e = child_run(&c, r->arena, &result);
    if (e || result.timed_out || result.signal)
        return EAGAIN;
    return result.status == CHILD_EXIT_RIGHTS ? EPERM : result.status;
}
