/* postcat(1): a queue file for people to read. The names of records are those administrators know from Postfix, with
 * its numbers (-d) and the same order; what stands for them is our own form (queue/spool_file.h). */
#include "base/log.h"
#include "cmd/queue_access.h"
#include "mail/dsn.h"
#include "queue/maildrop.h"
#include "queue/queue_file.h"
#include "run/sys.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    CHUNK = 64 * 1024, /* a line longer than this is shown in pieces */
    VALUE_MAX = 64 * 1024,
};

/* Postfix's record types. */
enum type {
    TYPE_SIZE = 'C',
    TYPE_TIME = 'T',
    TYPE_FILTER = 'L', /* also a piece of a line */
    TYPE_SENDER = 'S',
    TYPE_NAME = 'F',
    TYPE_ATTRIBUTE = 'A',
    TYPE_RCPT = 'R',
    TYPE_DONE = 'D',
    TYPE_ORIG = 'O',
    TYPE_MESSAGE = 'M',
    TYPE_LINE = 'N',
    TYPE_EXTRACTED = 'X',
    TYPE_END = 'E',
};

enum { SHOW_ENVELOPE = 1, SHOW_HEADER = 2, SHOW_BODY = 4, SHOW_ALL = 7 };

struct options {
    unsigned show;
    bool by_id, offsets, types, verbose, in_file_order, prefix;
    uint64_t skip; /* -s: records before this offset are not shown */
};

struct shown { /* one message */
    const struct options *o;
    struct str path;
    uint64_t at; /* offset of the record that is written */
};

/* --- one line of output --- */

static void begin_line(const struct shown *s, enum type type) {
    if (s->o->prefix)
        printf("%.*s: ", STR_ARG(s->path));
    if (s->o->offsets)
        printf("%9llu ", (unsigned long long)s->at);
    if (s->o->types)
        printf("%3d ", (int)type);
}

static bool skipped(const struct shown *s) {
    return s->at < s->o->skip;
}

static void record(const struct shown *s, enum type type, const char *name, struct str value) {
    if (skipped(s))
        return;
    struct buf text = { 0 };
    buf_printable(&text, value, VALUE_MAX);
    begin_line(s, type);
    printf("%s: %s\n", name, text.p ? text.p : "");
    buf_free(&text);
}

static void attribute(const struct shown *s, const char *name, struct str value) {
    struct buf text = { 0 };
    buf_printf(&text, "%s=%.*s", name, STR_ARG(value));
    record(s, TYPE_ATTRIBUTE, "named_attribute", buf_str(&text));
    buf_free(&text);
}

static void attribute_number(const struct shown *s, const char *name, unsigned value) {
    char text[16];
    snprintf(text, sizeof text, "%u", value);
    attribute(s, name, str_c(text));
}

static void mark(const struct shown *s, enum type type, const char *what) {
    if (!(s->o->show & SHOW_ENVELOPE) || skipped(s))
        return;
    if (type) /* the first one is no record */
        begin_line(s, type);
    else if (s->o->prefix)
        printf("%.*s: ", STR_ARG(s->path));
    printf("*** %s %.*s ***\n", what, STR_ARG(s->path));
}

/* --- a message --- */

/* Where a string of the envelope begins in the file: it is borrowed from there. */
static uint64_t offset_of(const struct queue_file *f, struct str value, uint64_t otherwise) {
    const char *p = value.p;
    if (p < f->packed.p || p > f->packed.p + f->packed.n)
        return otherwise;
    return f->head.envelope_at + (uint64_t)(p - f->packed.p) - sizeof(uint32_t); /* its length goes before it */
}

static void show_sizes(struct shown *s, const struct queue_file *f) {
    char text[120];
    snprintf(text, sizeof text, "%15llu %15llu %15lu %15d %15llu %15d", (unsigned long long)f->head.content_size,
             (unsigned long long)f->content_at, (unsigned long)f->head.rcpt_count, 0,
             (unsigned long long)f->head.content_size, f->env.flags & ENVELOPE_SMTPUTF8 ? 1 : 0);
    s->at = 0;
    record(s, TYPE_SIZE, "message_size", str_c(text));
    time_t when = (time_t)(f->env.arrival_us / US_PER_S);
    struct tm tm;
    char date[40] = "";
    if (localtime_r(&when, &tm))
        strftime(date, sizeof date, "%a %b %e %H:%M:%S %Y", &tm);
    s->at = f->head.envelope_at;
    record(s, TYPE_TIME, "message_arrival_time", str_c(date));
}

static void show_client(struct shown *s, const struct queue_file *f) {
    const struct client_info *c = &f->env.client;
    const struct {
        const char *name;
        struct str value;
    } rows[] = {
        { "client_name", c->name },        { "reverse_client_name", c->reverse_name },
        { "client_address", c->address },  { "client_port", c->port },
        { "helo_name", c->helo },          { "protocol_name", c->protocol },
        { "sasl_method", c->sasl_method }, { "sasl_username", c->sasl_username },
        { "sasl_sender", c->sasl_sender },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        s->at = offset_of(f, rows[i].value, s->at);
        if (rows[i].value.n)
            attribute(s, rows[i].name, rows[i].value);
    }
}

static void show_rcpt(struct shown *s, const struct queue_file *f, const struct rcpt *r) {
    s->at = offset_of(f, r->dsn_orcpt, s->at);
    if (r->dsn_notify)
        attribute_number(s, "notify_flags", r->dsn_notify);
    if (r->dsn_orcpt.n)
        attribute(s, "dsn_orig_rcpt", r->dsn_orcpt);
    s->at = offset_of(f, r->orig, s->at);
    if (r->orig.n)
        record(s, TYPE_ORIG, "original_recipient", r->orig);
    s->at = offset_of(f, r->address, s->at);
    if (r->state == RCPT_DONE)
        record(s, TYPE_DONE, "done_recipient", r->address);
    else
        record(s, TYPE_RCPT, "recipient", r->address);
}

static void show_envelope(struct shown *s, const struct queue_file *f) {
    const struct envelope *e = &f->env;
    show_sizes(s, f);
    s->at = offset_of(f, e->client.ident, s->at);
    if (e->client.ident.n)
        attribute(s, "log_ident", e->client.ident);
    s->at = f->head.envelope_at;
    attribute(s, "rewrite_context", e->flags & ENVELOPE_REMOTE ? STR("remote") : STR("local"));
    s->at = offset_of(f, e->dsn_envid, s->at);
    if (e->dsn_envid.n)
        attribute(s, "envelope_id", e->dsn_envid);
    if (e->dsn_ret)
        attribute_number(s, "ret_flags", e->dsn_ret);
    s->at = offset_of(f, e->content_filter, s->at);
    if (e->content_filter.n)
        record(s, TYPE_FILTER, "content_filter", e->content_filter);
    s->at = offset_of(f, e->sender, s->at);
    record(s, TYPE_SENDER, "sender", e->sender);
    if (e->flags & ENVELOPE_8BIT)
        attribute(s, "encoding", STR("8bit"));
    else if (e->flags & ENVELOPE_7BIT)
        attribute(s, "encoding", STR("7bit"));
    show_client(s, f);
    for (size_t i = 0; i < e->rcpt_count; i++)
        show_rcpt(s, f, &e->rcpts[i]);
}

/* --- content, a line at a time --- */

struct lines {
    struct buf text;  /* of the line that is not whole yet */
    bool in_line;     /* a piece of it has been shown */
    bool body, begun; /* begun: there was a header line */
};

/* A field's first line (RFC 5322, 2.2), or one that goes on with it. */
static bool is_header_line(const struct lines *l, struct str line) {
    if (line.n && (line.p[0] == ' ' || line.p[0] == '\t'))
        return l->begun;
    ptrdiff_t colon = str_index(line, ':');
    if (colon <= 0)
        return false;
    struct str name = str_trim_right(str_sub(line, 0, (size_t)colon));
    for (size_t i = 0; i < name.n; i++)
        if (!byte_is_print(name.p[i]) || name.p[i] == ' ')
            return false;
    return name.n > 0;
}

static void show_piece(struct shown *s, struct lines *l, struct str text, bool ends) {
    if (!l->in_line && !l->body) {
        l->body = !is_header_line(l, text);
        l->begun = true;
    }
    if ((s->o->show & (l->body ? SHOW_BODY : SHOW_HEADER)) && !skipped(s)) {
        begin_line(s, ends ? TYPE_LINE : TYPE_FILTER);
        if (s->o->verbose)
            fputs(ends ? "regular_text: " : "unterminated_text: ", stdout);
        fwrite(text.p, 1, text.n, stdout);
        if (ends || s->o->verbose || s->o->offsets || s->o->types)
            putchar('\n');
    }
    l->in_line = !ends;
    s->at += text.n + ends;
}

static void show_text(struct shown *s, struct lines *l, struct str bytes) {
    buf_add(&l->text, bytes);
    struct str rest = buf_str(&l->text);
    for (ptrdiff_t end; (end = str_index(rest, '\n')) >= 0;) {
        show_piece(s, l, str_sub(rest, 0, (size_t)end), true);
        rest = str_from(rest, (size_t)end + 1);
    }
    if (rest.n >= CHUNK) {
        show_piece(s, l, rest, false);
        rest = STR("");
    }
    buf_consume(&l->text, l->text.n - rest.n);
}

static void end_text(struct shown *s, struct lines *l) {
    if (l->text.n)
        show_piece(s, l, buf_str(&l->text), false);
    buf_free(&l->text);
}

/* False: it cannot be read to its end. */
static bool show_content(struct shown *s, int fd, const struct queue_file *f) {
    struct lines l = { 0 };
    uint64_t left = f->head.content_size, at = f->content_at;
    char *chunk = malloc(CHUNK);
    s->at = at;
    while (chunk && left > 0 && (s->o->show & (SHOW_BODY | (l.body ? 0 : SHOW_HEADER)))) {
        ssize_t n = pread(fd, chunk, left < CHUNK ? (size_t)left : CHUNK, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        show_text(s, &l, str_n(chunk, (size_t)n));
        left -= (uint64_t)n;
        at += (uint64_t)n;
    }
    end_text(s, &l);
    bool all = chunk && (left == 0 || l.body);
    free(chunk);
    s->at = f->content_at + f->head.content_size;
    return all;
}

static void warn_of(struct str path, struct str what) {
    fflush(stdout);
    log_warn("%.*s: %.*s", STR_ARG(path), STR_ARG(what));
}

static void show_message(struct shown *s, int fd, struct arena *a) {
    struct queue_file f;
    error e = queue_file_read(fd, a, &f);
    if (e) {
        warn_of(s->path, e->text);
        return;
    }
    mark(s, 0, "ENVELOPE RECORDS");
    bool envelope = s->o->show & SHOW_ENVELOPE;
    if (envelope && !s->o->in_file_order)
        show_envelope(s, &f);
    s->at = f.content_at;
    mark(s, TYPE_MESSAGE, "MESSAGE CONTENTS");
    bool whole = show_content(s, fd, &f);
    mark(s, TYPE_EXTRACTED, "HEADER EXTRACTED");
    if (envelope && s->o->in_file_order)
        show_envelope(s, &f);
    mark(s, TYPE_END, "MESSAGE FILE END");
    if (!whole)
        warn_of(s->path, STR("the content cannot be read to its end"));
    else if ((s->o->show & SHOW_BODY) && (e = queue_file_check_content(fd, &f)))
        warn_of(s->path, e->text);
}

/* --- a submission in maildrop/ --- */

static void show_submission_record(struct shown *s, const struct maildrop_record *r) {
    switch (r->type) {
    case MAILDROP_SENDER:
        record(s, TYPE_SENDER, "sender", r->bytes);
        break;
    case MAILDROP_FULL_NAME:
        record(s, TYPE_NAME, "sender_fullname", r->bytes);
        break;
    case MAILDROP_ENVID:
        attribute(s, "envelope_id", r->bytes);
        break;
    case MAILDROP_RET:
        attribute_number(s, "ret_flags", r->value);
        break;
    case MAILDROP_FLAGS:
        if (r->value & MAILDROP_8BIT)
            attribute(s, "encoding", STR("8bit"));
        if (r->value & MAILDROP_GATEWAY)
            attribute(s, "rewrite_context", STR("remote"));
        break;
    case MAILDROP_RCPT:
        if (r->value)
            attribute_number(s, "notify_flags", r->value);
        record(s, TYPE_RCPT, "recipient", r->bytes);
        break;
    case MAILDROP_CONTENT:
    case MAILDROP_END:
        break;
    }
}

/* Its records, from the start: those of the envelope, or the content. */
static error each_record(struct shown *s, int fd, bool content) {
    struct maildrop_reader reader = { 0 };
    struct maildrop_record r;
    struct lines l = { 0 };
    error e = lseek(fd, 0, SEEK_SET) < 0 ? err_errno(errno) : NULL;
    uint64_t at = 0;
    while (!e && !(e = maildrop_read(&reader, fd, &r)) && r.type != MAILDROP_END) {
        bool is_content = r.type == MAILDROP_CONTENT;
        size_t head = 5 + (r.type == MAILDROP_RCPT); /* type and length; the mask of a recipient */
        if (is_content == content) {
            s->at = at + (is_content ? head : 0);
            if (is_content)
                s->at -= l.text.n; /* a line may have begun in the record before */
            if (is_content)
                show_text(s, &l, r.bytes);
            else
                show_submission_record(s, &r);
        }
        bool a_byte = r.type == MAILDROP_RET || r.type == MAILDROP_FLAGS;
        at += head + (a_byte ? 1 : r.bytes.n);
    }
    end_text(s, &l);
    maildrop_reader_free(&reader);
    s->at = at;
    return e;
}

static void show_submission(struct shown *s, int fd) {
    mark(s, 0, "ENVELOPE RECORDS");
    error e = s->o->show & SHOW_ENVELOPE ? each_record(s, fd, false) : NULL;
    mark(s, TYPE_MESSAGE, "MESSAGE CONTENTS");
    if (!e && (s->o->show & (SHOW_HEADER | SHOW_BODY)))
        e = each_record(s, fd, true);
    mark(s, TYPE_EXTRACTED, "HEADER EXTRACTED");
    mark(s, TYPE_END, "MESSAGE FILE END");
    if (e)
        warn_of(s->path, e->kind == ERR_SYNTAX ? STR("damaged or cut submission") : e->text);
}

static void show(const struct options *o, struct str path, int fd, struct arena *a) {
    struct shown s = { .o = o, .path = path };
    enum queue_file_kind kind = QUEUE_FILE_OTHER;
    error e = queue_file_kind(fd, &kind);
    if (e)
        warn_of(path, e->text);
    else if (kind == QUEUE_FILE_MESSAGE)
        show_message(&s, fd, a);
    else if (kind == QUEUE_FILE_SUBMISSION)
        show_submission(&s, fd);
    else if (kind == QUEUE_FILE_UNFINISHED)
        warn_of(path, STR("unfinished: its writer has not come to the end, or has died"));
    else
        warn_of(path, STR("input is not a valid queue file"));
}

/* --- where from --- */

static FILE *make_temporary(void) {
    FILE *f = tmpfile();
    if (!f)
        log_fatal("make a temporary file: %s", strerror(errno));
    return f;
}

static void show_bytes(const struct options *o, struct str path, struct str bytes, struct arena *a) {
    FILE *f = make_temporary();
    if (fwrite(bytes.p, 1, bytes.n, f) != bytes.n || fflush(f) != 0)
        log_fatal("write a temporary file: %s", strerror(errno));
    show(o, path, fileno(f), a);
    fclose(f);
}

static void show_input(const struct options *o, struct arena *a) {
    FILE *f = make_temporary();
    char chunk[8192];
    size_t n, all = 0;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0) {
        if (fwrite(chunk, 1, n, f) != n)
            log_fatal("write a temporary file: %s", strerror(errno));
        all += n;
    }
    if (fflush(f) != 0)
        log_fatal("write a temporary file: %s", strerror(errno));
    if (all)
        show(o, STR("stdin"), fileno(f), a);
    fclose(f);
}

static void show_id(const struct options *o, struct spool *spool, const char *text) {
    struct arena *a = arena_new();
    struct queue_id id;
    struct str path, form;
    int fd;
    if (!queue_id_from(str_c(text), &id))
        log_fatal("bad mail queue ID: %s", text);
    error e = queue_file_find(spool, &id, a, &path, &fd, &form);
    fflush(stdout);
    if (e)
        log_fatal("open queue file %s: %.*s", text, STR_ARG(e->text));
    if (fd < 0) {
        show_bytes(o, path, form, a);
    } else {
        show(o, path, fd, a);
        close(fd);
    }
    arena_free(a);
}

static void show_file(const struct options *o, const char *name) {
    struct arena *a = arena_new();
    int fd = open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    fflush(stdout);
    if (fd < 0)
        log_fatal("open %s: %s", name, strerror(errno));
    show(o, str_c(name), fd, a);
    close(fd);
    arena_free(a);
}

static const char usage[] = "usage: postcat [-b (body text)] [-c config_dir] [-d (decimal record type)] [-e (envelope "
                            "records)] [-f (prefix with file name)] [-h (header text)] [-o (record offset)] "
                            "[-q (access queue)] [-r (file order)] [-s offset] [-v] [file(s)...]";

int main(int argc, char **argv) {
    static char name[] = "postcat";
    struct options o = { 0 };
    struct arena *a = arena_new();
    const char *directory = NULL;
    argv[0] = name;
    log_set_name(str_c(name));
    for (int c; (c = getopt(argc, argv, "bc:defhoqrs:v")) != -1;) {
        switch (c) {
        case 'b':
            o.show |= SHOW_BODY;
            break;
        case 'c':
            directory = optarg;
            break;
        case 'd':
            o.types = true;
            break;
        case 'e':
            o.show |= SHOW_ENVELOPE;
            break;
        case 'f':
            o.prefix = true;
            break;
        case 'h':
            o.show |= SHOW_HEADER;
            break;
        case 'o':
            o.offsets = true;
            break;
        case 'q':
            o.by_id = true;
            break;
        case 'r':
            o.in_file_order = true;
            break;
        case 's':
            if (!str_to_u64(str_c(optarg), UINT64_MAX, &o.skip))
                log_fatal("bad offset: %s", optarg);
            break;
        case 'v':
            o.verbose = true;
            break;
        default:
            log_fatal(usage);
        }
    }
    if (!o.show)
        o.show = SHOW_ALL;
    if (o.by_id) {
        struct conf *c = queue_command_conf(directory, name, a, false);
        struct spool_options so = spool_options_from(c, SPOOL_LISTER);
        struct spool *spool;
        error e = spool_open(&so, a, &spool);
        if (e)
            log_fatal("%.*s", STR_ARG(e->text));
        for (int i = optind; i < argc; i++)
            show_id(&o, spool, argv[i]);
        spool_close(spool);
        conf_free(c);
    } else if (optind == argc) {
        show_input(&o, a);
    } else {
        for (int i = optind; i < argc; i++)
            show_file(&o, argv[i]);
    }
    arena_free(a);
    return fflush(stdout) == 0 || errno == EPIPE ? 0 : 1;
}
