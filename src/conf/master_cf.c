#include "conf/master_cf.h"
#include "base/map.h"
#include "conf/lines.h"
#include "conf/main_cf.h"

#include <limits.h>

/* The columns, in order, as messages name them. */
enum field {
    FIELD_NAME,
    FIELD_TYPE,
    FIELD_PRIVATE,
    FIELD_UNPRIVILEGED,
    FIELD_CHROOT,
    FIELD_WAKEUP,
    FIELD_MAXPROC,
    FIELD_COMMAND,
    FIELD_COUNT
};

static const char *const field_names[FIELD_COUNT] = { "service", "transport",   "private",  "unprivileged",
                                                      "chroot",  "wakeup_time", "max_proc", "command" };

static const struct {
    struct str name;
    enum service_type type;
} types[] = { { STR_INIT("inet"), SERVICE_INET },
              { STR_INIT("unix"), SERVICE_UNIX },
              { STR_INIT("unix-dgram"), SERVICE_UNIX_DGRAM },
              { STR_INIT("fifo"), SERVICE_FIFO },
              { STR_INIT("pass"), SERVICE_PASS } };

struct reader {
    struct str path;
    size_t line; /* of the entry */
    struct arena *arena;
    bool chroot;
    int maxproc;
};

struct str service_type_name(enum service_type type) {
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].type == type)
            return types[i].name;
    return STR("");
}

static error bad(const struct reader *r, const char *what, struct str text) {
    return err_make(r->arena, ERR_CONFIG, "%.*s: line %zu: %s\"%.*s\"", STR_ARG(r->path), r->line, what,
                    STR_ARG(conf_excerpt(text, r->arena)));
}

static error bad_field(const struct reader *r, enum field field, struct str value) {
    return err_make(r->arena, ERR_CONFIG, "%.*s: line %zu: field \"%s\": bad value: \"%.*s\"", STR_ARG(r->path),
                    r->line, field_names[field], STR_ARG(conf_excerpt(value, r->arena)));
}

/* word = 1*( non-blank / "{" text "}" ); one that is all in braces has these and the blanks inside them taken off, and
 * `*ret_braced` says so. */
static error take_word(const struct reader *r, struct str *s, struct str *ret, bool *ret_braced, bool *ret_more) {
    *s = str_trim_left(*s);
    *ret = STR("");
    *ret_more = s->n > 0;
    *ret_braced = s->n && s->p[0] == '{';
    if (!s->n)
        return NULL;
    if (!*ret_braced) {
        size_t n = 0, open = 0;
        for (; n < s->n && (open || !byte_is_space(s->p[n])); n++)
            open = s->p[n] == '{' ? open + 1 : open - (open && s->p[n] == '}');
        *ret = str_sub(*s, 0, n);
        *s = str_from(*s, n);
        return NULL;
    }
    size_t depth = 0, n = 0;
    do {
        if (n == s->n)
            return bad(r, "missing '}' in ", *s);
        depth += s->p[n] == '{';
        depth -= s->p[n] == '}';
        n++;
    } while (depth);
    if (n < s->n && !byte_is_space(s->p[n])) {
        size_t end = n;
        while (end < s->n && !byte_is_space(s->p[end]))
            end++;
        return bad(r, "syntax error after '}' in ", str_sub(*s, 0, end));
    }
    *ret = str_trim(str_sub(*s, 1, n - 2));
    *s = str_from(*s, n);
    return NULL;
}

static error take_yes_no(const struct reader *r, enum field field, struct str value, bool fallback, bool *ret) {
    if (str_eq(value, STR("-")))
        *ret = fallback;
    else if (str_eq(value, STR("y")))
        *ret = true;
    else if (str_eq(value, STR("n")))
        *ret = false;
    else
        return bad_field(r, field, value);
    return NULL;
}

static error take_number(const struct reader *r, enum field field, struct str value, int fallback, int *ret) {
    uint32_t n;
    *ret = fallback;
    if (str_eq(value, STR("-")))
        return NULL;
    if (!str_to_u32(value, INT_MAX, &n))
        return bad_field(r, field, value);
    *ret = (int)n;
    return NULL;
}

const char *inet_service_split(struct str name, struct str *ret_host, struct str *ret_port) {
    ptrdiff_t colon = str_rindex(name, ':');
    struct str host = STR(""), port = name;
    if (colon >= 0) {
        host = str_sub(name, 0, (size_t)colon);
        port = str_from(name, (size_t)colon + 1);
    }
    if (host.n && host.p[0] == '[') {
        if (host.n < 3 || host.p[host.n - 1] != ']')
            return "missing ']'";
        host = str_sub(host, 1, host.n - 2);
    } else if (str_index(host, ':') >= 0) {
        return "an IPv6 address needs [ ] around it";
    }
    if (str_index_any(host, STR("[]/")) >= 0)
        return "bad hostname or network address";
    if (!port.n)
        return "missing port";
    if (byte_is_digit(port.p[0])) {
        uint32_t number;
        for (size_t i = 0; i < port.n; i++)
            if (!byte_is_digit(port.p[i]))
                return "garbage after numerical service";
        if (!str_to_u32(port, 65535, &number) || number == 0)
            return "port number out of range";
    } else {
        if (!byte_is_alpha(port.p[0]))
            return "bad port";
        for (size_t i = 0; i < port.n; i++)
            if (!byte_is_alnum(port.p[i]) && str_index(STR("-_.+"), port.p[i]) < 0)
                return "bad port";
    }
    *ret_host = host;
    *ret_port = port;
    return NULL;
}

static error check_name(const struct reader *r, const struct master_entry *entry) {
    struct str host, port;
    const char *wrong = NULL;
    if (entry->type == SERVICE_INET) {
        if (entry->is_private)
            return err_make(r->arena, ERR_CONFIG, "%.*s: line %zu: inet service cannot be private", STR_ARG(r->path),
                            r->line);
        wrong = inet_service_split(entry->name, &host, &port);
    } else if (str_index(entry->name, '/') >= 0 || entry->name.p[0] == '.') {
        wrong = "a service name becomes a file name: it can have no '/' and no '.' in front";
    }
    return wrong ? bad(r, arena_printf(r->arena, "%s in ", wrong).p, entry->name) : NULL;
}

/* -o name=value, -o { name = value }, -oname=value; -v, -vv. From the first word that is no option on, and for other
 * options, everything is an argument (pipe(8)'s argv= may hold anything). */
static error take_arguments(const struct reader *r, struct str s, struct master_entry *entry) {
    VEC(struct conf_override) overrides = { 0 };
    VEC(struct str) args = { 0 };
    struct str word;
    bool braced = false, more = false, options = true;
    for (;;) {
        error e = take_word(r, &s, &word, &braced, &more);
        if (e)
            return e;
        if (!more)
            break;
        if (overrides.n + args.n == MASTER_CF_WORDS_MAX)
            return bad(r, "too many arguments for ", entry->command);
        if (options && !braced && str_starts(word, STR("-o"))) {
            struct str text = str_from(word, 2), name, value;
            if (!text.n) {
                if ((e = take_word(r, &s, &text, &braced, &more)))
                    return e;
                if (!more)
                    return bad(r, "option needs a value: ", word);
            }
            const char *wrong = assignment_split(text, &name, &value);
            if (wrong)
                return err_make(r->arena, ERR_CONFIG, "%.*s: line %zu: invalid \"-o %.*s\" option value: %s",
                                STR_ARG(r->path), r->line, STR_ARG(conf_excerpt(text, r->arena)), wrong);
            *vec_add(r->arena, &overrides) =
                (struct conf_override){ arena_str(r->arena, name), arena_str(r->arena, value) };
            continue;
        }
        size_t v = 1;
        while (v < word.n && word.p[v] == 'v')
            v++;
        if (options && !braced && word.n > 1 && word.p[0] == '-' && v == word.n) {
            entry->verbose += (int)(v - 1);
            continue;
        }
        if (braced || !word.n || word.p[0] != '-')
            options = false;
        *vec_add(r->arena, &args) = arena_str(r->arena, word);
    }
    entry->overrides = overrides.at;
    entry->override_count = overrides.n;
    entry->args = args.at;
    entry->arg_count = args.n;
    return NULL;
}

static error take_wakeup(const struct reader *r, struct str value, struct master_entry *entry) {
    struct str number = value;
    entry->wakeup_if_used = number.n > 1 && number.p[number.n - 1] == '?';
    if (entry->wakeup_if_used)
        number = str_sub(number, 0, number.n - 1);
    if (entry->wakeup_if_used && str_eq(number, STR("-")))
        return bad_field(r, FIELD_WAKEUP, value);
    error e = take_number(r, FIELD_WAKEUP, number, 0, &entry->wakeup);
    return e ? bad_field(r, FIELD_WAKEUP, value) : NULL;
}

static error take_entry(const struct reader *r, struct str s, struct master_entry *entry) {
    struct str fields[FIELD_COUNT];
    bool braced = false, more = false;
    error e;
    for (int i = 0; i < FIELD_COUNT; i++) {
        if ((e = take_word(r, &s, &fields[i], &braced, &more)))
            return e;
        if (!more)
            return err_make(r->arena, ERR_CONFIG, "%.*s: line %zu: missing \"%s\" field", STR_ARG(r->path), r->line,
                            field_names[i]);
        if (!fields[i].n)
            return bad_field(r, (enum field)i, fields[i]);
    }
    *entry = (struct master_entry){ .name = arena_str(r->arena, fields[FIELD_NAME]), .line = r->line };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (str_eq(fields[FIELD_TYPE], types[i].name))
            entry->type = types[i].type;
    if (!entry->type)
        return err_make(r->arena, ERR_CONFIG, "%.*s: line %zu: bad transport type: %.*s", STR_ARG(r->path), r->line,
                        STR_ARG(conf_excerpt(fields[FIELD_TYPE], r->arena)));
    if ((e = take_yes_no(r, FIELD_PRIVATE, fields[FIELD_PRIVATE], true, &entry->is_private)))
        return e;
    if ((e = take_yes_no(r, FIELD_UNPRIVILEGED, fields[FIELD_UNPRIVILEGED], true, &entry->unprivileged)))
        return e;
    if ((e = take_yes_no(r, FIELD_CHROOT, fields[FIELD_CHROOT], r->chroot, &entry->chroot)))
        return e;
    if ((e = take_wakeup(r, fields[FIELD_WAKEUP], entry)))
        return e;
    if ((e = take_number(r, FIELD_MAXPROC, fields[FIELD_MAXPROC], r->maxproc, &entry->maxproc)))
        return e;
    entry->command = arena_str(r->arena, fields[FIELD_COMMAND]);
    if (entry->command.p[0] == '/' || entry->command.p[0] == '.' || str_contains(entry->command, STR("/../")))
        return bad_field(r, FIELD_COMMAND, entry->command);
    if ((e = check_name(r, entry)))
        return e;
    return take_arguments(r, s, entry);
}

error master_cf_parse(struct str text, struct str path, bool chroot, int maxproc, struct arena *a,
                      struct master_cf *ret) {
    VEC(struct master_entry) entries = { 0 };
    VEC(struct str) warnings = { 0 };
    struct map seen = { 0 }; /* "type endpoint" -> its index */
    struct reader r = { .path = path, .arena = a, .chroot = chroot, .maxproc = maxproc };
    struct lines lines = { text, path, 0, a };
    struct logical_line line = { STR(""), 0 };
    error e;
    for (;;) {
        if ((e = lines_next(&lines, &line)) || !line.line)
            break;
        if (byte_is_space(line.text.p[0])) {
            *vec_add(a, &warnings) = arena_printf(a, "%.*s: logical line must not start with whitespace: \"%.*s\"",
                                                  STR_ARG(path), STR_ARG(line.text));
            continue;
        }
        struct master_entry entry = { .line = line.line };
        r.line = line.line;
        if ((e = take_entry(&r, line.text, &entry)))
            break;
        struct str endpoint = entry.name;
        if (entry.type != SERVICE_INET)
            endpoint = arena_printf(a, "%s/%.*s", entry.is_private ? "private" : "public", STR_ARG(entry.name));
        struct str key = arena_printf(a, "%d %.*s", (int)entry.type, STR_ARG(endpoint));
        size_t *index = map_get(&seen, key);
        if (index && *index < entries.n) {
            *vec_add(a, &warnings) =
                arena_printf(a, "duplicate master.cf entry for service \"%.*s\" (%.*s) -- using the last entry",
                             STR_ARG(entry.name), STR_ARG(endpoint));
            entries.at[*index] = entry;
            continue;
        }
        if (entries.n == MASTER_CF_ENTRIES_MAX) {
            e = bad(&r, "too many services at ", entry.name);
            break;
        }
        index = ARENA_NEW(a, size_t);
        *index = entries.n;
        map_put(&seen, key, index);
        *vec_add(a, &entries) = entry;
    }
    map_free(&seen);
    *ret = (struct master_cf){ entries.at, entries.n, warnings.at, warnings.n };
    return e;
}

error master_cf_load(struct str path, const struct conf *c, struct arena *a, struct master_cf *ret) {
    struct str text;
    error e = conf_read_file(path, a, &text);
    if (e)
        return e;
    return master_cf_parse(text, path, !conf_level_at_least(c, STR("1")), (int)conf_int(c, PARAM_default_process_limit),
                           a, ret);
}
