/* route_ask - what trivial-rewrite(8) would answer, for tests that compare it: no server is needed for a question.
 *
 * route_ask CONFIG_DIRECTORY [NAME=VALUE ...]; each line of standard input is one question, its fields separated by
 * tabs, and gives one line of answer:
 *   rewrite ORIGIN ADDRESS    the complete address; ORIGIN is "local" or "remote"
 *   resolve SENDER ADDRESS    class transport nexthop recipient [routed], or "bad" (no such address), or "later"
 * Rewritten addresses are in external form on both sides, all others in internal form. */
#include "base/buf.h"
#include "base/log.h"
#include "mail/address.h"
#include "route/route.h"

#include <stdio.h>
#include <stdlib.h>

static struct conf *load(int argc, char **argv, struct arena *a) {
    VEC(struct conf_override) own = { 0 };
    for (int i = 2; i < argc; i++) {
        struct str s = str_c(argv[i]);
        ptrdiff_t eq = str_index(s, '=');
        if (eq <= 0)
            log_fatal("not NAME=VALUE: %s", argv[i]);
        *vec_add(a, &own) = (struct conf_override){ .name = str_trim(str_sub(s, 0, (size_t)eq)),
                                                    .value = str_trim(str_from(s, (size_t)eq + 1)) };
    }
    struct conf_source source = { .config_directory = str_c(argv[1]),
                                  .overrides = own.at,
                                  .override_count = own.n,
                                  .process_name = STR("trivial-rewrite"),
                                  .service_name = STR("rewrite") };
    struct conf *c;
    error e = conf_load(&source, a, &c);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    return c;
}

static void answer_rewrite(const struct conf *c, struct router *r, struct arena *a, struct str origin,
                           struct str address) {
    bool local = str_eq(origin, STR("local"));
    struct str internal;
    if (!address_unquote(a, address, &internal)) {
        printf("unreadable\n");
        return;
    }
    struct str done =
        route_rewrite(r, a, internal, conf_str(c, local ? PARAM_myorigin : PARAM_remote_header_rewrite_domain));
    printf("%.*s\n", STR_ARG(done.n > 0 ? address_quote(a, done) : STR("\"\"")));
}

static void answer_resolve(struct router *r, struct arena *a, struct str sender, struct str address) {
    static const char *const classes[] = { [CLASS_LOCAL] = "local",
                                           [CLASS_VIRTUAL_ALIAS] = "alias",
                                           [CLASS_VIRTUAL_MAILBOX] = "virtual",
                                           [CLASS_RELAY] = "relay",
                                           [CLASS_DEFAULT] = "default" };
    struct route route;
    error e = route_resolve(r, a, sender, address, &route);
    if (e)
        printf("%s\n", e->kind == ERR_PERM ? "bad" : "later");
    else
        printf("%s\t%.*s\t%.*s\t%.*s%s\n", classes[route.class], STR_ARG(route.transport), STR_ARG(route.nexthop),
               STR_ARG(route.recipient), route.routed ? "\trouted" : "");
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: route_ask CONFIG_DIRECTORY [NAME=VALUE ...]\n");
        return 2;
    }
    struct arena *all = arena_new();
    struct conf *c = load(argc, argv, all);
    struct router *r = router_new(c);
    char *line = NULL;
    size_t room = 0;
    for (ssize_t n; (n = getline(&line, &room, stdin)) > 0;) {
        struct arena *a = arena_new();
        struct str rest = { line, (size_t)n - (line[n - 1] == '\n') }, field[3] = { STR(""), STR(""), STR("") };
        for (size_t i = 0; i < 3; i++) {
            ptrdiff_t tab = i < 2 ? str_index(rest, '\t') : -1;
            field[i] = tab < 0 ? rest : str_sub(rest, 0, (size_t)tab);
            rest = tab < 0 ? STR("") : str_from(rest, (size_t)tab + 1);
        }
        if (str_eq(field[0], STR("rewrite")))
            answer_rewrite(c, r, a, field[1], field[2]);
        else if (str_eq(field[0], STR("resolve")))
            answer_resolve(r, a, field[1], field[2]);
        else
            printf("what?\n");
        arena_free(a);
    }
    free(line);
    router_free(r);
    conf_free(c);
    arena_free(all);
    return 0;
}
