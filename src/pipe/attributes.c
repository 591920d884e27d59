#include "pipe/attributes.h"

enum { ARGUMENTS_MAX = 1000 };

static error bad(struct arena *a, const char *what, struct str value) {
    return err_make(a, ERR_CONFIG, "%s \"%.*s\": need flags=... user=name[:group] argv=command...", what,
                    STR_ARG(value));
}

struct str pipe_unescape(struct arena *a, struct str s) {
    static const char letters[] = "abfnrtv", bytes[] = "\a\b\f\n\r\t\v";
    char *out = arena_cstr(a, s);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '\\' && i + 1 < s.n) {
            c = s.p[++i];
            const char *letter = c ? strchr(letters, c) : NULL;
            if (letter) {
                c = bytes[letter - letters];
            } else if (c >= '0' && c <= '7') {
                unsigned value = 0, digits = 0;
                for (; digits < 3 && i < s.n && s.p[i] >= '0' && s.p[i] <= '7'; digits++, i++)
                    value = value * 8 + (unsigned)(s.p[i] - '0');
                i--;
                c = (char)value;
            }
        }
        out[n++] = c;
    }
    out[n] = 0;
    return str_n(out, n);
}

static error parse_flags(struct arena *a, struct str value, unsigned *ret) {
    static const char letters[] = "BDFORXhqu.>"; /* in the order of enum pipe_flags */
    for (size_t i = 0; i < value.n; i++) {
        const char *at = value.p[i] ? strchr(letters, value.p[i]) : NULL;
        if (!at)
            return bad(a, "unknown flag in flags=", value);
        *ret |= 1U << (at - letters);
    }
    return NULL;
}

static error parse_one(struct arena *a, struct str arg, struct pipe_attributes *ret) {
    ptrdiff_t equal = str_index(arg, '=');
    struct str name = equal < 0 ? arg : str_sub(arg, 0, (size_t)equal);
    struct str value = equal < 0 ? STR("") : arena_str(a, str_from(arg, (size_t)equal + 1));
    if (equal < 0)
        return bad(a, "unknown attribute", arg);
    if (str_eq(name, STR("flags")))
        return parse_flags(a, value, &ret->flags);
    if (str_eq(name, STR("user")))
        ret->user = value;
    else if (str_eq(name, STR("chroot")))
        ret->chroot = value.p;
    else if (str_eq(name, STR("directory")))
        ret->directory = value.p;
    else if (str_eq(name, STR("eol")))
        ret->eol = pipe_unescape(a, value);
    else if (str_eq(name, STR("null_sender")))
        ret->null_sender = value;
    else if (str_eq(name, STR("size"))) {
        if (!str_to_u64(value, INT64_MAX, &ret->size_limit))
            return bad(a, "bad size= value:", value);
    } else {
        return bad(a, "unknown attribute", arg);
    }
    return NULL;
}

error pipe_attributes_parse(struct arena *a, const struct str *args, size_t count, bool root, uid_t owner,
                            gid_t owner_group, struct pipe_attributes *ret) {
    *ret = (struct pipe_attributes){ .eol = STR("\n"), .null_sender = STR("MAILER-DAEMON") };
    size_t at = 0;
    for (; at < count && !str_starts(args[at], STR("argv=")); at++) {
        error e = parse_one(a, args[at], ret);
        if (e)
            return e;
    }
    if (ret->user.n == 0)
        return bad(a, "missing user= attribute in", STR("master.cf"));
    if (at == count)
        return bad(a, "missing argv= attribute behind", ret->user);
    if (count - at > ARGUMENTS_MAX)
        return bad(a, "too many arguments behind", args[at]);
    if (ret->chroot && !root)
        return bad(a, "only root can chroot, to", str_c(ret->chroot));
    error e = run_as_parse(a, ret->user, root, owner, owner_group, &ret->as);
    if (e)
        return e;
    struct str *argv = arena_array(a, count - at, sizeof *argv);
    for (size_t i = at; i < count; i++)
        argv[i - at] = i == at ? str_from(args[i], 5) : args[i];
    ret->argv = argv;
    ret->argc = count - at;
    return NULL;
}
