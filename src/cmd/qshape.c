/* qshape(1): how old the mail in the queue is, by domain. */
#include "base/log.h"
#include "base/map.h"
#include "cmd/files.h"
#include "cmd/queue_access.h"
#include "queue/queue_file.h"
#include "showq/showq.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    BUCKETS = 10,
    BUCKETS_MAX = 50,
    BUCKET_MINUTES = 5,
    MIN_SUBDOMAINS = 5,
    WIDTH = 80,    /* also the least */
    NAME_MIN = 18, /* columns for a name, whatever the width */
    BATCH = 1000,
    TOP = 20,
    LABELS_MAX = 128,
};

struct row {
    struct str name;
    bool parent;       /* ".example.com" */
    size_t subdomains; /* of a parent: rows below it */
    uint64_t total, bucket[BUCKETS_MAX];
};

struct shape {
    struct arena *arena;
    struct map rows; /* name -> struct row */
    struct row all;
    size_t messages;
    int64_t now_s;
    /* options */
    bool senders, parents, linear, terminal;
    unsigned buckets, min_subdomains;
    double minutes;
    size_t width, batch, top;
};

/* --- counting --- */

/* Upper end of a bucket, minutes; the last one has none. */
static double limit_of(const struct shape *s, unsigned bucket) {
    return s->linear ? s->minutes * (bucket + 1) : s->minutes * (double)((uint64_t)1 << bucket);
}

static unsigned bucket_of(const struct shape *s, int64_t arrival_s) {
    double minutes = (double)(s->now_s - arrival_s) / 60;
    unsigned b = 0;
    while (b + 1 < s->buckets && minutes >= limit_of(s, b))
        b++;
    return b;
}

static struct row *row_of(struct shape *s, struct str name, bool *ret_new) {
    struct row *r = map_get(&s->rows, name);
    *ret_new = !r;
    if (r)
        return r;
    r = ARENA_NEW(s->arena, struct row);
    r->name = arena_str(s->arena, name);
    map_put(&s->rows, r->name, r);
    return r;
}

static void add(struct row *r, unsigned bucket) {
    r->total++;
    r->bucket[bucket]++;
}

/* ".b.example", ".example"... for "a.b.example": not for the top level. */
static void add_parents(struct shape *s, struct str domain, unsigned bucket, bool new_domain) {
    for (int label = 0; label < LABELS_MAX; label++) {
        ptrdiff_t dot = str_index(domain, '.');
        if (dot < 0 || str_index(str_from(domain, (size_t)dot + 1), '.') < 0)
            return;
        bool is_new;
        struct row *r = row_of(s, str_from(domain, (size_t)dot), &is_new);
        r->parent = true;
        r->subdomains += new_domain;
        add(r, bucket);
        domain = str_from(domain, (size_t)dot + 1);
    }
}

static void count_address(struct shape *s, struct str address, int64_t arrival_s) {
    ptrdiff_t at = str_rindex(address, '@');
    unsigned bucket = bucket_of(s, arrival_s);
    struct arena *a = arena_new();
    /* without a domain: the null sender, as it is listed */
    struct str domain = at < 0 ? address : arena_lower(a, str_from(address, (size_t)at + 1));
    bool is_new;
    add(row_of(s, domain, &is_new), bucket);
    add(&s->all, bucket);
    if (s->parents)
        add_parents(s, domain, bucket, is_new);
    arena_free(a);
}

/* --- the table --- */

static int by_size(const void *a, const void *b) {
    const struct row *const *r = a, *const *o = b;
    if ((*r)->total != (*o)->total)
        return (*r)->total > (*o)->total ? -1 : 1;
    if ((*r)->name.n != (*o)->name.n)
        return (*r)->name.n < (*o)->name.n ? -1 : 1;
    return memcmp((*r)->name.p, (*o)->name.p, (*r)->name.n);
}

static void head_of(const struct shape *s, unsigned bucket, char ret[32]) {
    if (bucket + 1 < s->buckets)
        snprintf(ret, 32, "%.15g", limit_of(s, bucket));
    else
        snprintf(ret, 32, "%.15g+", s->buckets > 1 ? limit_of(s, bucket - 1) : 0);
}

static int digits(uint64_t n) {
    return snprintf(NULL, 0, "%llu", (unsigned long long)n);
}

static int widest(int a, int b) {
    return a > b ? a : b;
}

static void print_name(const struct row *r, size_t columns) {
    struct buf text = { 0 };
    struct str name = r->name;
    const char *cut = r->parent ? ".+" : "+";
    if (name.n > columns) {
        buf_add(&text, str_c(cut));
        name = str_from(name, name.n - (columns - strlen(cut)));
    }
    buf_printable(&text, name, name.n);
    printf("%*s", (int)columns, text.p ? text.p : "");
    buf_free(&text);
}

static void print_row(const struct shape *s, const struct row *r, size_t columns, const int *widths, int total_width) {
    print_name(r, columns);
    printf(" %*llu", total_width, (unsigned long long)r->total);
    for (unsigned i = 0; i < s->buckets; i++)
        printf(" %*llu", widths[i], (unsigned long long)r->bucket[i]);
    putchar('\n');
}

static void print_table(struct shape *s) {
    int widths[BUCKETS_MAX], total_width = widest(2, digits(s->all.total));
    char head[32];
    size_t taken = (size_t)total_width + 1;
    for (unsigned i = 0; i < s->buckets; i++) {
        head_of(s, i, head);
        widths[i] = widest(widest(2, (int)strlen(head)), digits(s->all.bucket[i]));
        taken += (size_t)widths[i] + 1;
    }
    size_t columns = s->width > taken + NAME_MIN ? s->width - taken : NAME_MIN;
    printf("%*s %*s", (int)columns, "", total_width, "T");
    for (unsigned i = 0; i < s->buckets; i++) {
        head_of(s, i, head);
        printf(" %*s", widths[i], head);
    }
    putchar('\n');
    print_row(s, &s->all, columns, widths, total_width);

    const struct row **sorted = arena_array(s->arena, s->rows.n, sizeof *sorted);
    size_t n = 0, at = 0;
    struct map_entry *e;
    while (map_next(&s->rows, &at, &e)) {
        const struct row *r = e->value;
        if (!r->parent || r->subdomains >= s->min_subdomains)
            sorted[n++] = r;
    }
    if (n)
        qsort(sorted, n, sizeof *sorted, by_size);
    for (size_t i = 0; i < n && !(s->terminal && i >= s->top); i++)
        print_row(s, sorted[i], columns, widths, total_width);
    fflush(stdout);
}

/* --- reading --- */

static bool count_entry(void *ctx, const struct listing_entry *e) {
    struct shape *s = ctx;
    if (s->senders)
        count_address(s, e->sender, e->arrival_s);
    for (size_t i = 0; i < e->rcpt_count && !s->senders; i++)
        count_address(s, e->rcpts[i].address, e->arrival_s);
    if (++s->messages % s->batch == 0 && s->terminal) {
        print_table(s);
        putchar('\n');
    }
    return true;
}

/* A file somewhere: what is no message is passed over. */
static bool count_file(void *ctx, int folder, const char *name, struct str path, const struct stat *st) {
    struct shape *s = ctx;
    (void)path;
    if (!S_ISREG(st->st_mode))
        return S_ISDIR(st->st_mode);
    struct arena *a = arena_new();
    struct queue_file f;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && !queue_file_read(fd, a, &f)) {
        struct listing_entry e = { .arrival_s = f.env.arrival_us / US_PER_S };
        e.sender = f.env.sender.n ? f.env.sender : STR("MAILER-DAEMON");
        e.rcpts = arena_array(a, f.env.rcpt_count, sizeof *e.rcpts);
        for (size_t i = 0; i < f.env.rcpt_count; i++)
            if (f.env.rcpts[i].state != RCPT_DONE)
                e.rcpts[e.rcpt_count++].address = f.env.rcpts[i].address;
        count_entry(s, &e);
    }
    if (fd >= 0)
        close(fd);
    arena_free(a);
    return false;
}

static unsigned queue_named(struct str name) {
    for (enum spool_state st = 0; st < SPOOL_CORRUPT; st++)
        if (str_eq(name, spool_state_name(st)))
            return queue_states(st);
    return str_eq(name, STR("maildrop")) ? (unsigned)SHOWQ_MAILDROP : 0;
}

static void count_queue(struct shape *s, struct showq *q, const struct conf *c, struct str name) {
    unsigned mask = queue_named(name);
    if (mask) {
        showq_walk(q, mask, count_entry, s);
        return;
    }
    struct arena *a = arena_new();
    struct str path = name;
    struct stat st;
    if (!str_starts(name, STR("/")))
        path = arena_printf(a, "%.*s/%.*s", STR_ARG(conf_str(c, PARAM_queue_directory)), STR_ARG(name));
    path = str_c(arena_cstr(a, path));
    if (lstat(path.p, &st) < 0 || !S_ISDIR(st.st_mode))
        log_warn("Can't stat %.*s: %s", STR_ARG(name), errno ? strerror(errno) : "Not a directory");
    else
        files_walk(path, a, count_file, s);
    arena_free(a);
}

/* --- the command line --- */

static const char usage[] = "usage: qshape [-s] [-p] [-m min_subdomains] [-b bucket_count] [-t bucket_time] [-l] "
                            "[-w terminal_width] [-N batch_msg_count] [-n batch_top_domains] [-c config_directory] "
                            "[queue_name ...]";

static size_t number(const char *text, size_t least, size_t most, char option) {
    uint64_t n;
    if (!str_to_u64(str_c(text), most, &n) || n < least)
        log_fatal("-%c: not a number from %zu to %zu: %s", option, least, most, text);
    return (size_t)n;
}

static double minutes_of(const char *text) {
    char *end;
    double n = strtod(text, &end);
    if (end == text || *end || !(n > 0) || n > 1e9)
        log_fatal("-t: not a number of minutes above 0: %s", text);
    return n;
}

int main(int argc, char **argv) {
    static char name[] = "qshape";
    static char *none[] = { NULL };
    static const char *const usual[] = { "incoming", "active" };
    struct shape s = { .arena = arena_new(),
                       .buckets = BUCKETS,
                       .min_subdomains = MIN_SUBDOMAINS,
                       .minutes = BUCKET_MINUTES,
                       .width = WIDTH,
                       .batch = BATCH,
                       .top = TOP };
    const char *directory = NULL;
    argv[0] = name;
    log_set_name(str_c(name));
    for (int o; (o = getopt(argc, argv, "b:c:lm:N:n:pst:w:")) != -1;) {
        switch (o) {
        case 'b':
            s.buckets = (unsigned)number(optarg, 1, BUCKETS_MAX, 'b');
            break;
        case 'c':
            directory = optarg;
            break;
        case 'l':
            s.linear = true;
            break;
        case 'm':
            s.min_subdomains = (unsigned)number(optarg, 0, 1000000, 'm');
            break;
        case 'N':
            s.batch = number(optarg, 1, SIZE_MAX, 'N');
            break;
        case 'n':
            s.top = number(optarg, 1, SIZE_MAX, 'n');
            break;
        case 'p':
            s.parents = true;
            break;
        case 's':
            s.senders = true;
            break;
        case 't':
            s.minutes = minutes_of(optarg);
            break;
        case 'w':
            s.width = number(optarg, 1, 10000, 'w');
            break;
        default:
            log_fatal(usage);
        }
    }
    if (s.width < WIDTH)
        s.width = WIDTH;
    s.all.name = STR("TOTAL");
    s.terminal = isatty(STDOUT_FILENO);
    s.now_s = sys->wall_us() / US_PER_S;
    struct conf *c = queue_command_conf(directory, name, s.arena, false);
    struct showq q;
    error e = showq_open(&q, c, s.arena);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    q.no_reasons = true;
    char **queues = optind < argc ? argv + optind : none;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0] && !*queues; i++)
        count_queue(&s, &q, c, str_c(usual[i]));
    for (; *queues; queues++)
        count_queue(&s, &q, c, str_c(*queues));
    print_table(&s);
    showq_close(&q);
    map_free(&s.rows);
    conf_free(c);
    arena_free(s.arena);
    return 0;
}
