/* sendmail(1): the interface that programs have known for forty years. Mail is handed to postdrop; the other modes run
 * the program whose business it is. Every failure ends with 75 (EX_TEMPFAIL), as in Postfix: callers keep the mail
 * then. */
#include "base/log.h"
#include "cmd/mail_input.h"
#include "cmd/submit_users.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "queue/maildrop.h"
#include "service/logging.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

enum { REPLY_MAX = 2000, READ_SIZE = 16 * 1024, WRITE_SIZE = 64 * 1024, ARGS_MAX = 8 };

enum mode { MODE_SUBMIT, MODE_MAILQ, MODE_NEWALIASES, MODE_DAEMON, MODE_STDIO, MODE_FLUSH };

struct request {
    enum mode mode;
    bool extract, dot_is_data, gateway, smtputf8, eight_bit, verify;
    const char *sender, *full_name, *envid, *alias_database;
    const char *verp;                  /* -XV: the delimiters, or empty for those of main.cf */
    const char *flush_id, *flush_site; /* -qI, -qR */
    unsigned notify, ret;
    int verbose;
};

static struct arena *arena;
static struct conf *conf;

/* --- options --- */

static void parse_mode(struct request *r, const char *mode) {
    switch (mode[0]) {
    case 'd':
    case 'l':
        r->mode = MODE_DAEMON;
        break;
    case 'h':
    case 'H': /* host status: there is none here */
        break;
    case 'i':
        r->mode = MODE_NEWALIASES;
        break;
    case 'm':
        r->mode = MODE_SUBMIT;
        break;
    case 'p':
        r->mode = MODE_MAILQ;
        break;
    case 's':
        r->mode = MODE_STDIO;
        break;
    case 'v':
        r->verify = true;
        break;
    default:
        log_fatal("unsupported: -b%c", mode[0]);
    }
}

static void parse_flush(struct request *r, const char *what) {
    if (!what) {
        r->mode = MODE_FLUSH;
    } else if (what[0] == 'I' || what[0] == 'R') {
        if (!what[1])
            log_fatal("specify: -q%c%s", what[0], what[0] == 'I' ? "queueid" : "sitename");
        r->mode = MODE_FLUSH;
        *(what[0] == 'I' ? &r->flush_id : &r->flush_site) = what + 1;
    } else if (!byte_is_digit(what[0])) { /* a number: the time between two queue runs, of which qmgr has its own */
        log_fatal("-q%c is not implemented", what[0]);
    }
}

static unsigned parse_notify(const char *value) {
    struct str s = str_c(value), word;
    while (str_next(&s, STR(","), &word))
        if (!dsn_notify_parse(word))
            log_warn("unknown DSN NOTIFY command value \"%.*s\" in \"%s\"", STR_ARG(word), value);
    unsigned mask = dsn_notify_parse(str_c(value));
    if (!mask)
        log_warn("bad -N option value -- ignored");
    return mask;
}

static unsigned parse_ret(const char *value) {
    if (str_eq_icase(str_c(value), STR("full")))
        return DSN_RET_FULL;
    if (str_eq_icase(str_c(value), STR("hdrs")))
        return DSN_RET_HDRS;
    log_warn("bad -R option value -- ignored");
    return 0;
}

/* -V is about the envelope id (RFC 3461, 4.4), and in guides from before it about VERP: then nothing follows, or the
 * two delimiters in the same word. */
static void parse_envid(struct request *r, const char *value, bool same_word) {
    if (value[0] == '-' && !same_word) { /* it is the next option */
        optind--;
        r->verp = "";
    } else if (same_word && strlen(value) == VERP_DELIMITERS && !byte_is_alnum(value[0]) && !byte_is_alnum(value[1])) {
        r->verp = value;
    }
    if (r->verp) {
        log_warn("option -V%s is deprecated with Postfix 2.3; specify -XV%s instead", r->verp, r->verp);
        return;
    }
    for (const char *p = value; *p; p++)
        if (!byte_is_print(*p)) {
            log_warn("bad -V option value -- ignored");
            return;
        }
    r->envid = value;
}

static void parse_body(struct request *r, const char *value) {
    r->eight_bit = str_eq_icase(str_c(value), STR("8BITMIME"));
    if (!r->eight_bit && !str_eq_icase(str_c(value), STR("7BIT")))
        log_fatal("-B option needs 8BITMIME or 7BIT");
}

/* -o: Sendmail's options of old. */
static void parse_old_option(struct request *r, const char *value) {
    if (value[0] == 'i')
        r->dot_is_data = true;
    else if (value[0] == 'A')
        r->alias_database = value[1] ? value + 1 : NULL;
}

/* A file or a directory. */
static void use_config(const char *path) {
    struct stat st;
    struct str s = str_c(path);
    ptrdiff_t slash = str_rindex(s, '/');
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        path = slash > 0 ? arena_cstr(arena, str_sub(s, 0, (size_t)slash)) : slash == 0 ? "/" : ".";
    setenv("MAIL_CONFIG", path, 1);
}

static void parse_options(struct request *r, int argc, char **argv) {
    for (int c; (c = getopt(argc, argv, "+A:B:C:F:GIL:N:O:R:UV:X:b:ce:f:h:imno:p:q::r:tvx")) != -1;)
        switch (c) {
        case 'B':
            parse_body(r, optarg);
            break;
        case 'C':
            use_config(optarg);
            break;
        case 'F':
            r->full_name = optarg;
            break;
        case 'G':
            r->gateway = true;
            break;
        case 'I':
            r->mode = MODE_NEWALIASES;
            break;
        case 'N':
            r->notify = parse_notify(optarg);
            break;
        case 'O':
            r->smtputf8 = r->smtputf8 || str_eq_icase(str_c(optarg), STR("smtputf8=yes"));
            break;
        case 'R':
            r->ret = parse_ret(optarg);
            break;
        case 'V':
            parse_envid(r, optarg, optarg != argv[optind - 1]);
            break;
        case 'X':
            if (optarg[0] == 'V')
                r->verp = optarg + 1;
            break;
        case 'b':
            parse_mode(r, optarg);
            break;
        case 'f':
        case 'r':
            r->sender = optarg;
            break;
        case 'i':
            r->dot_is_data = true;
            break;
        case 'n':
            log_fatal("-n option not supported");
        case 'o':
            parse_old_option(r, optarg);
            break;
        case 'q':
            parse_flush(r, optarg);
            break;
        case 't':
            r->extract = true;
            break;
        case 'v':
            r->verbose++;
            break;
        case '?':
            log_fatal("usage: sendmail [options]");
        default: /* -A -L -U -c -e -h -m -p -x: they mean nothing to a mail system that is not Sendmail's */
            break;
        }
}

static void check_options(const struct request *r, int rcpt_count) {
    static const char *const names[] = { "",       "display queue", "alias initialization",
                                         "daemon", "stand-alone",   "flush queue" };
    if (r->verify && r->extract)
        log_fatal("-t option cannot be used with -bv");
    if (r->mode == MODE_SUBMIT)
        return;
    if (rcpt_count > 0 && (r->flush_id || r->flush_site))
        log_fatal("flush %s requires no recipient", r->flush_id ? "queue_id" : "site");
    if (rcpt_count > 0)
        log_fatal("%s mode requires no recipient", names[r->mode]);
    if (r->extract)
        log_fatal("-t can be used only in delivery mode");
}

/* --- other programs --- */

static char *program(enum param directory, const char *name) {
    struct str path = arena_printf(arena, "%.*s/%s", STR_ARG(conf_str(conf, directory)), name);
    return arena_cstr(arena, path);
}

static _Noreturn void become(enum param directory, const char *name, const char *arg1, const char *arg2) {
    char *path = program(directory, name);
    char *const argv[] = { arena_cstr(arena, str_c(name)), arg1 ? arena_cstr(arena, str_c(arg1)) : NULL,
                           arg1 && arg2 ? arena_cstr(arena, str_c(arg2)) : NULL, NULL };
    execv(path, argv);
    log_fatal("execvp %s: %s", path, strerror(errno));
}

static _Noreturn void rebuild_aliases(const struct request *r) {
    VEC(char *) argv = { 0 };
    struct str list = r->alias_database ? str_c(r->alias_database) : conf_str(conf, PARAM_alias_database), word;
    *vec_add(arena, &argv) = arena_cstr(arena, STR("postalias"));
    *vec_add(arena, &argv) = arena_cstr(arena, STR("--"));
    while (str_word_braced(&list, STR_COMMA_SPACE, &word))
        *vec_add(arena, &argv) = arena_cstr(arena, word);
    if (argv.n == 2)
        exit(0);
    *vec_add(arena, &argv) = NULL;
    char *path = program(PARAM_command_directory, "postalias");
    execv(path, argv.at);
    log_fatal("execvp %s: %s", path, strerror(errno));
}

/* --- handing mail in --- */

struct submission {
    const char *user; /* for messages: the sender as known so far */
    int to, from;     /* postdrop's standard input and output */
    pid_t pid;
    struct buf out, content; /* records to send; content that is no record yet */
    bool broken;             /* postdrop does not read any more: its answer says why */
};

/* Without END postdrop would complain; told to go it leaves nothing behind. */
static _Noreturn void submit_fatal(const struct submission *s, const char *text) {
    if (s->pid > 0) {
        kill(s->pid, SIGTERM);
        waitpid(s->pid, NULL, 0);
    }
    log_fatal("%s(%ld): %s", s->user, (long)getuid(), text);
}

static void start_postdrop(struct submission *s, char *path) {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        log_fatal("pipe: %s", strerror(errno));
    s->pid = fork();
    if (s->pid < 0)
        log_fatal("fork: %s", strerror(errno));
    if (s->pid == 0) {
        char *const argv[] = { path, arena_cstr(arena, STR("-r")), NULL };
        if (dup2(in[0], STDIN_FILENO) >= 0 && dup2(out[1], STDOUT_FILENO) >= 0)
            execv(path, argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    s->to = in[1];
    s->from = out[0];
}

static void send_out(struct submission *s) {
    for (size_t at = 0; at < s->out.n && !s->broken;) {
        ssize_t n = write(s->to, s->out.p + at, s->out.n - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            s->broken = true;
        else
            at += (size_t)n;
    }
    buf_clear(&s->out);
}

static void flush_content(struct submission *s) {
    if (s->content.n == 0)
        return;
    maildrop_put(&s->out, MAILDROP_CONTENT, buf_str(&s->content));
    buf_clear(&s->content);
    send_out(s);
}

static void send_content(void *ctx, struct str bytes) {
    struct submission *s = ctx;
    if (s->content.n + bytes.n > MAILDROP_CONTENT_MAX)
        flush_content(s);
    buf_add(&s->content, bytes);
}

/* The answer, one line; postdrop's own complaints have gone to standard error and the log already. */
static void finish_postdrop(struct submission *s, const char *path) {
    char reply[REPLY_MAX];
    size_t n = 0;
    ssize_t got;
    close(s->to);
    while ((got = read(s->from, reply + n, sizeof reply - n)) > 0 || (got < 0 && errno == EINTR))
        n += got > 0 ? (size_t)got : 0;
    close(s->from);
    int status = 0;
    while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
        ;
    s->pid = 0;
    struct str answer = str_trim((struct str){ reply, n });
    if (str_starts(answer, STR("OK ")) && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    if (str_starts(answer, STR("ERR ")))
        submit_fatal(s, arena_cstr(arena, str_from(answer, 4)));
    log_warn("command \"%s -r\" exited with status %d", path, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    submit_fatal(s, arena_printf(arena, "unable to execute %s -r: Application error", path).p);
}

/* The name in the password file: up to the first comma, '&' is the login name with a capital (finger(1)). */
static struct str gecos_name(const struct passwd *user) {
    struct buf b = { 0 };
    struct str gecos = str_c(user->pw_gecos ? user->pw_gecos : ""), login = str_c(user->pw_name);
    for (size_t i = 0; i < gecos.n && !memchr(",;%", gecos.p[i], 3); i++) {
        if (gecos.p[i] == '&' && login.n > 0) {
            buf_byte(&b, byte_upper(login.p[0]));
            buf_add(&b, str_from(login, 1));
        } else {
            buf_byte(&b, gecos.p[i]);
        }
    }
    struct str name = arena_str(arena, buf_str(&b));
    buf_free(&b);
    return name;
}

static struct str sender_address(const struct request *r, const char *login) {
    if (!r->sender)
        return str_c(login);
    struct header_addresses list = header_addresses_parse(arena, str_c(r->sender));
    if (list.n > 1)
        log_warn("-f option specified malformed sender: %s", r->sender);
    return list.n > 0 ? list.at[0].address : STR("");
}

static void put_rcpt(struct submission *s, const struct request *r, struct str address) {
    maildrop_put_rcpt(&s->out, r->notify, address);
    if (s->out.n >= WRITE_SIZE)
        send_out(s);
}

static void read_message(struct submission *s, struct mail_input *in) {
    static char bytes[READ_SIZE];
    while (!in->done) {
        ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            submit_fatal(s, arena_printf(arena, "error reading input: %s", strerror(errno)).p);
        if (n == 0)
            break;
        mail_input_feed(in, (struct str){ bytes, (size_t)n });
    }
    mail_input_end(in);
    flush_content(s);
}

static enum line_endings endings_of(const struct conf *c) {
    struct str s = conf_str(c, PARAM_sendmail_fix_line_endings);
    if (str_eq(s, STR("strict")))
        return LINE_ENDINGS_STRICT;
    if (str_eq(s, STR("never")))
        return LINE_ENDINGS_NEVER;
    if (!str_eq(s, STR("always")))
        log_fatal("bad parameter value: sendmail_fix_line_endings = %.*s", STR_ARG(s));
    return LINE_ENDINGS_ALWAYS;
}

static void put_head(struct submission *s, const struct request *r, const struct passwd *user) {
    struct str sender = sender_address(r, user->pw_name);
    const char *name = r->full_name ? r->full_name : getenv("NAME");
    struct str full_name = name ? str_c(name) : gecos_name(user);
    s->user = arena_cstr(arena, sender);
    if (sender.n > ADDRESS_MAX || str_index_any(sender, STR("\0\r\n")) >= 0)
        submit_fatal(s, "malformed sender address");
    maildrop_put(&s->out, MAILDROP_SENDER, sender);
    if (full_name.n > 0)
        maildrop_put(&s->out, MAILDROP_FULL_NAME, str_sub(full_name, 0, MAILDROP_FULL_NAME_MAX));
    if (r->envid)
        maildrop_put(&s->out, MAILDROP_ENVID, str_c(r->envid));
    if (r->ret)
        maildrop_put_u8(&s->out, MAILDROP_RET, (uint8_t)r->ret);
    char delimiters[VERP_DELIMITERS] = { 0 };
    if (r->verp) {
        struct str verp = r->verp[0] ? str_c(r->verp) : conf_str(conf, PARAM_default_verp_delimiters);
        struct str filter = conf_str(conf, PARAM_verp_delimiter_filter);
        if (!verp_delimiters_parse(verp, filter, delimiters))
            submit_fatal(s, arena_printf(arena, "-V requires two characters from %.*s", STR_ARG(filter)).p);
    }
    bool report = r->verbose == 1 && !r->verify; /* more of them are about our own log */
    unsigned flags = (r->eight_bit ? (unsigned)MAILDROP_8BIT : 0) | (r->smtputf8 ? (unsigned)MAILDROP_SMTPUTF8 : 0) |
                     (r->gateway ? (unsigned)MAILDROP_GATEWAY : 0) | (r->verify ? (unsigned)MAILDROP_VERIFY : 0) |
                     (report ? (unsigned)MAILDROP_TRACE : 0) | (r->verp ? (unsigned)MAILDROP_VERP : 0);
    if (flags)
        maildrop_put_flags(&s->out, (uint8_t)flags, str_n(delimiters, r->verp ? sizeof delimiters : 0));
}

/* sendmail -bv: what is given to those who would only be asked about. */
static void put_probe(struct submission *s, char **rcpts, int rcpt_count) {
    struct buf text = { 0 };
    struct str from = address_quote(arena, str_c(s->user));
    buf_printf(&text, "From: %.*s\nSubject: probe\nTo:", STR_ARG(from));
    for (int i = 0; i < rcpt_count; i++) {
        struct header_addresses list = header_addresses_parse(arena, str_c(rcpts[i]));
        for (size_t k = 0; k < list.n; k++) {
            struct str to = address_quote(arena, list.at[k].address);
            buf_printf(&text, "%s\t%.*s", i || k ? ",\n" : "", STR_ARG(to));
        }
    }
    buf_byte(&text, '\n');
    for (struct str rest = buf_str(&text); rest.n > 0; rest = str_from(rest, str_sub(rest, 0, READ_SIZE).n))
        send_content(s, str_sub(rest, 0, READ_SIZE));
    flush_content(s);
    buf_free(&text);
}

static void submit(const struct request *r, char **rcpts, int rcpt_count) {
    struct submission s = { .user = "unknown" };
    const struct passwd *user = getpwuid(getuid());
    if (!user)
        log_fatal("unable to find login name for user ID %ld", (long)getuid());
    put_head(&s, r, user);
    if (rcpt_count == 0 && !r->extract)
        submit_fatal(&s, "Recipient addresses must be specified on the command line or via the -t option");

    char *path = program(PARAM_command_directory, "postdrop");
    start_postdrop(&s, path);
    for (int i = 0; i < rcpt_count; i++) {
        struct header_addresses list = header_addresses_parse(arena, str_c(rcpts[i]));
        if (list.n == 0)
            put_rcpt(&s, r, STR("")); /* '' or '<>': mail for MAILER-DAEMON */
        for (size_t k = 0; k < list.n; k++)
            put_rcpt(&s, r, list.at[k].address);
    }
    struct mail_input in = { .arena = arena,
                             .dot_ends = !r->dot_is_data,
                             .extract = r->extract,
                             .endings = endings_of(conf),
                             .field_max = (size_t)conf_int(conf, PARAM_header_size_limit),
                             .content = send_content,
                             .ctx = &s };
    if (r->verify)
        put_probe(&s, rcpts, rcpt_count);
    else
        read_message(&s, &in);
    /* Resent mail goes to those it is resent to, and to nobody else (RFC 5322, 3.6.6). */
    bool resent = in.resent.n > 0;
    size_t n = resent ? in.resent.n : in.plain.n;
    struct str *found = resent ? in.resent.at : in.plain.at;
    for (size_t i = 0; i < n; i++)
        put_rcpt(&s, r, found[i]);
    if (rcpt_count == 0 && n == 0)
        submit_fatal(&s, "No recipient addresses found in message header");
    if (in.too_many)
        submit_fatal(&s, "too many recipient addresses in message header");
    maildrop_put(&s.out, MAILDROP_END, STR(""));
    send_out(&s);
    finish_postdrop(&s, path);
    mail_input_free(&in);
    buf_free(&s.out);
    buf_free(&s.content);
}

/* --- all of it --- */

static enum mode mode_of_name(const char *name) {
    const char *base = strrchr(name, '/');
    base = base ? base + 1 : name;
    return strcmp(base, "mailq") == 0        ? MODE_MAILQ
           : strcmp(base, "newaliases") == 0 ? MODE_NEWALIASES
           : strcmp(base, "smtpd") == 0      ? MODE_STDIO
                                             : MODE_SUBMIT;
}

int main(int argc, char **argv) {
    struct request r = { .mode = mode_of_name(argc > 0 && argv[0] ? argv[0] : "sendmail") };
    static char names[][sizeof "newaliases"] = { "sendmail", "mailq", "newaliases" };
    char *name = names[r.mode == MODE_MAILQ ? 1 : r.mode == MODE_NEWALIASES ? 2 : 0];
    struct str tag = str_c(name);
    if (argc > 0)
        argv[0] = name; /* getopt()'s messages begin with it */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) /* a file of ours must not get one of their numbers */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return EX_TEMPFAIL;
    log_set_fatal_status(EX_TEMPFAIL);
    logging_start_early(tag, LOGGING_COMMAND);
    arena = arena_new();
    parse_options(&r, argc, argv);
    struct conf_source source = { .process_name = tag };
    error e = conf_load(&source, arena, &conf);
    if (!e)
        e = logging_start(conf, tag, LOGGING_COMMAND, arena);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    if (r.verbose > 1)
        log_set_verbose(r.verbose - 1);
    check_options(&r, argc - optind);
    /* what we run finds the same configuration */
    setenv("MAIL_CONFIG", conf_directory(conf).p, 1);

    switch (r.mode) {
    case MODE_SUBMIT:
        submit_users_check(conf);
        submit(&r, argv + optind, argc - optind);
        break;
    case MODE_MAILQ:
        become(PARAM_command_directory, "postqueue", "-p", NULL);
    case MODE_NEWALIASES:
        rebuild_aliases(&r);
    case MODE_DAEMON:
        become(PARAM_command_directory, "postfix", "start", NULL);
    case MODE_STDIO:
        become(PARAM_daemon_directory, "smtpd", "-S", NULL);
    case MODE_FLUSH:
        if (r.flush_id)
            become(PARAM_command_directory, "postqueue", "-i", r.flush_id);
        if (r.flush_site)
            become(PARAM_command_directory, "postqueue", "-s", r.flush_site);
        become(PARAM_command_directory, "postqueue", "-f", NULL);
    }
    logging_end();
    conf_free(conf);
    arena_free(arena);
    return 0;
}
