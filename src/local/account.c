#include "local/local.h"

#include "conf/expand.h"
#include "deliver/user_thread.h"
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

/* 0 or an errno value. */
static int read_whole(int fd, struct buf *text) {
    char piece[4096];
    ssize_t n;
    while ((n = read(fd, piece, sizeof(piece))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (text->n + (size_t)n > LOCAL_FILE_MAX)
            return EFBIG;
        buf_add(text, str_n(piece, (size_t)n));
    }
    return 0;
}

/* In a thread; all of it, results included, in an arena of its own. */
struct user_read {
    struct read_job job;
    struct local_file file;
    bool found;
    struct arena *arena;
};

static void read_as_user(void *arg) {
    struct user_read *u = arg;
    const struct read_job *j = &u->job;
    struct local_file *f = &u->file;
    int fd = -1, no_links = j->flags & LOCAL_NO_LINKS ? O_NOFOLLOW : 0;
    for (; f->which < j->n; f->which++) {
        fd = sys->openat(AT_FDCWD, j->paths[f->which], O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | no_links, 0);
        if (fd >= 0 || (errno != ENOENT && errno != ENOTDIR))
            break;
    }
    u->found = f->which < j->n;
    if (!u->found)
        return;
    struct stat st = { 0 };
    struct buf text = { 0 };
    if (fd < 0 && errno == ELOOP && no_links)
        f->refusal = STR("not a regular file");
    else if (fd < 0 || fstat(fd, &st) != 0)
        f->code = errno;
    else if (!S_ISREG(st.st_mode))
        f->refusal = STR("not a regular file");
    else if (st.st_mode & S_IWOTH)
        f->refusal = STR("world writable");
    else
        f->code = read_whole(fd, &text);
    f->uid = st.st_uid;
    f->gid = st.st_gid;
    if (!f->code)
        f->text = arena_str(u->arena, buf_str(&text));
    buf_free(&text);
    if (fd >= 0)
        sys->close(fd);
}

bool local_read_file(struct agent_request *r, const struct account *rights, const struct str *paths, size_t n,
                     unsigned flags, struct local_file *ret) {
    *ret = (struct local_file){ .code = EAGAIN, .text = STR(""), .refusal = STR("") };
    struct arena *own = arena_new();
    struct user_read *u = ARENA_NEW(own, struct user_read);
    const char **names = arena_array(own, n, sizeof(*names));
    for (size_t i = 0; i < n; i++)
        names[i] = arena_cstr(own, paths[i]);
    u->job = (struct read_job){ .paths = names, .n = n, .flags = flags };
    u->file = (struct local_file){ .text = STR(""), .refusal = STR("") };
    u->arena = own;
    offload(probe, &u->job);
    if (!u->job.any) {
        arena_free(own);
        return false;
    }
    if (user_thread_run(own, rights->uid, rights->gid, deadline_in(READ_TIME), read_as_user, u) != USER_THREAD_DONE)
        return true;
    bool found = u->found;
    *ret = u->file;
    ret->text = arena_str(r->arena, ret->text);
    arena_free(own);
    return found;
}

struct home_look {
    const char *path;
    int code;
};

static void look_at_home(void *arg) {
    struct home_look *l = arg;
    struct stat st;
    l->code = sys->fstatat(AT_FDCWD, l->path, &st, 0) == 0 ? 0 : errno;
}

int local_home_error(const struct account *user) {
    struct arena *own = arena_new();
    struct home_look *l = ARENA_NEW(own, struct home_look);
    l->path = arena_cstr(own, user->home);
    if (!local_can_act_as(user)) { /* what can be seen of it from here */
        look_at_home(l);
    } else {
        enum user_thread_result done =
            user_thread_run(own, user->uid, user->gid, deadline_in(READ_TIME), look_at_home, l);
        if (done != USER_THREAD_DONE)
            return done == USER_THREAD_NO_RIGHTS ? EPERM : EAGAIN;
    }
    int code = l->code;
    arena_free(own);
    return code;
}
