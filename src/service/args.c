#include "service/args.h"

#include <stdlib.h>
#include <unistd.h>

bool service_override_parse(struct str text, struct arena *a, struct conf_override *ret) {
    bool braced = str_starts(text, STR("{")) && str_ends(text, STR("}")) && text.n >= 2;
    if (braced)
        text = str_trim(str_sub(text, 1, text.n - 2));
    ptrdiff_t eq = str_index(text, '=');
    if (eq < 0)
        return false;
    struct str name = str_sub(text, 0, (size_t)eq), value = str_from(text, (size_t)eq + 1);
    if (braced) {
        name = str_trim(name);
        value = str_trim(value);
    }
    if (name.n == 0 || str_index_any(name, STR_SPACE) >= 0)
        return false;
    *ret = (struct conf_override){ arena_str(a, name), arena_str(a, value) };
    return true;
}

error service_args_parse(int argc, char **argv, struct arena *a, struct service_args *ret) {
    VEC(struct conf_override) overrides = { 0 };
    *ret = (struct service_args){ 0 };
    opterr = 0;
    optind = 0; /* glibc: start anew, so that tests may call this often */
    for (int c; (c = getopt(argc, argv, "+cdDi:lm:n:o:r:s:St:uvVx:z")) != -1;) {
        switch (c) {
        case 'c':
            ret->chroot = true;
            break;
        case 'D':
            ret->debug = true;
            break;
        case 'l':
            ret->single = true;
            break;
        case 'n':
            ret->name = str_c(optarg);
            break;
        case 'o':
            if (!service_override_parse(str_c(optarg), a, vec_add(a, &overrides)))
                return err_make(a, ERR_CONFIG, "invalid \"-o %s\" option value: missing '=' after attribute name",
                                optarg);
            break;
        case 's':
            if (!str_to_u32(str_c(optarg), SERVICE_SOCKETS_MAX, &ret->sockets))
                return err_make(a, ERR_CONFIG, "invalid socket count: %s", optarg);
            break;
        case 'S':
            ret->stdio = true;
            break;
        case 't':
            ret->type = str_c(optarg);
            break;
        case 'u':
            ret->unprivileged = true;
            break;
        case 'v':
            ret->verbose++;
            break;
        case 'x':
            if (!str_to_u32(str_c(optarg), INT32_MAX, &ret->sessions))
                return err_make(a, ERR_CONFIG, "invalid session limit: %s", optarg);
            break;
        case 'd': /* options of Postfix's daemons that mean a process per session */
        case 'i':
        case 'm':
        case 'r':
        case 'V':
        case 'z':
            break;
        default:
            return err_make(a, ERR_CONFIG, "unknown option: -%c", optopt);
        }
    }
    ret->overrides = overrides.at;
    ret->override_count = overrides.n;
    struct str *rest = arena_array(a, (size_t)(argc - optind) + 1, sizeof *rest);
    for (int i = optind; i < argc; i++)
        rest[ret->arg_count++] = str_c(argv[i]);
    ret->args = rest;
    return NULL;
}

char **service_args_make(const struct service_args *args, struct str program, struct arena *a) {
    VEC(char *) argv = { 0 };
#define ADD(text) (*vec_add(a, &argv) = arena_cstr(a, (text)))
    ADD(program);
    ADD(STR("-n"));
    ADD(args->name);
    ADD(STR("-t"));
    ADD(args->type);
    if (args->unprivileged)
        ADD(STR("-u"));
    if (args->chroot)
        ADD(STR("-c"));
    if (args->single)
        ADD(STR("-l"));
    if (args->debug)
        ADD(STR("-D"));
    if (args->sockets) {
        ADD(STR("-s"));
        ADD(arena_printf(a, "%u", args->sockets));
    }
    if (args->sessions) {
        ADD(STR("-x"));
        ADD(arena_printf(a, "%u", args->sessions));
    }
    for (int i = 0; i < args->verbose; i++)
        ADD(STR("-v"));
    for (size_t i = 0; i < args->override_count; i++) {
        ADD(STR("-o"));
        ADD(arena_printf(a, "%.*s=%.*s", STR_ARG(args->overrides[i].name), STR_ARG(args->overrides[i].value)));
    }
    if (args->arg_count) {
        ADD(STR("--"));
        for (size_t i = 0; i < args->arg_count; i++)
            ADD(args->args[i]);
    }
#undef ADD
    *vec_add(a, &argv) = NULL;
    return argv.at;
}
