#include "master/roles.h"

enum { TARGETS_MAX = 12 };

/* ANY_PRIVATE: every private/ service, for whoever hands mail to transports that the administrator names freely. */
enum { END = PARAM_COUNT, ANY_PRIVATE, ROLE_ANVIL };

struct role {
    struct str program;
    int connect[TARGETS_MAX]; /* enum param, up to END */
    int trigger[TARGETS_MAX];
};

#define CLEANUP PARAM_cleanup_service_name
#define REWRITE PARAM_rewrite_service_name
#define QMGR PARAM_queue_service_name
#define PICKUP PARAM_pickup_service_name
#define BOUNCE PARAM_bounce_service_name
#define DEFER PARAM_defer_service_name
#define TRACE PARAM_trace_service_name
#define FLUSH PARAM_flush_service_name
#define VERIFY PARAM_address_verify_service_name
#define PROXYMAP PARAM_proxymap_service_name
#define PROXYWRITE PARAM_proxywrite_service_name
#define TLSMGR PARAM_tlsmgr_service_name
#define SMTPD PARAM_smtpd_service_name
#define ANVIL ROLE_ANVIL

static const struct role roles[] = {
    { STR_INIT("smtpd"), { CLEANUP, REWRITE, ANVIL, VERIFY, PROXYMAP, FLUSH, TLSMGR, END }, { QMGR, END } },
    { STR_INIT("qmqpd"), { CLEANUP, REWRITE, PROXYMAP, END }, { QMGR, END } },
    { STR_INIT("postscreen"), { SMTPD, PROXYMAP, PROXYWRITE, ANVIL, END }, { END } },
    { STR_INIT("tlsproxy"), { TLSMGR, PROXYMAP, END }, { END } },
    { STR_INIT("pickup"), { CLEANUP, REWRITE, PROXYMAP, END }, { QMGR, END } },
    { STR_INIT("cleanup"), { QMGR, REWRITE, PROXYMAP, BOUNCE, TRACE, VERIFY, END }, { QMGR, END } },
    { STR_INIT("trivial-rewrite"), { PROXYMAP, VERIFY, END }, { END } },
    { STR_INIT("qmgr"), { ANY_PRIVATE, BOUNCE, DEFER, TRACE, REWRITE, FLUSH, VERIFY, CLEANUP, END }, { QMGR, END } },
    { STR_INIT("oqmgr"), { ANY_PRIVATE, BOUNCE, DEFER, TRACE, REWRITE, FLUSH, VERIFY, CLEANUP, END }, { QMGR, END } },
    { STR_INIT("bounce"), { CLEANUP, REWRITE, PROXYMAP, END }, { QMGR, END } },
    { STR_INIT("local"),
      { CLEANUP, REWRITE, BOUNCE, DEFER, TRACE, VERIFY, PROXYMAP, ANY_PRIVATE, END },
      { QMGR, END } },
    /* What agents have to say goes to the queue manager, who has asked them. */
    { STR_INIT("virtual"), { PROXYMAP, END }, { END } },
    { STR_INIT("smtp"), { PROXYMAP, PROXYWRITE, END }, { END } },
    { STR_INIT("lmtp"), { PROXYMAP, PROXYWRITE, END }, { END } },
    { STR_INIT("pipe"), { BOUNCE, DEFER, TRACE, VERIFY, PROXYMAP, END }, { QMGR, END } },
    { STR_INIT("error"), { END }, { END } },
    { STR_INIT("discard"), { END }, { END } },
    { STR_INIT("verify"), { CLEANUP, PROXYMAP, END }, { QMGR, END } },
    { STR_INIT("flush"), { QMGR, PROXYMAP, END }, { END } },
    { STR_INIT("showq"), { END }, { END } },
    /* spawn, proxymap, anvil, scache, tlsmgr, dnsblog, postlogd: nobody */
};

static const struct role *role_of(struct str program) {
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (str_eq(roles[i].program, program))
            return &roles[i];
    return NULL;
}

static const struct {
    enum param param;
    struct str name;
} name_rows[] = {
    { CLEANUP, STR_INIT("cleanup_service_name") },
    { REWRITE, STR_INIT("rewrite_service_name") },
    { QMGR, STR_INIT("queue_service_name") },
    { PICKUP, STR_INIT("pickup_service_name") },
    { BOUNCE, STR_INIT("bounce_service_name") },
    { DEFER, STR_INIT("defer_service_name") },
    { TRACE, STR_INIT("trace_service_name") },
    { FLUSH, STR_INIT("flush_service_name") },
    { VERIFY, STR_INIT("address_verify_service_name") },
    { PROXYMAP, STR_INIT("proxymap_service_name") },
    { PROXYWRITE, STR_INIT("proxywrite_service_name") },
    { TLSMGR, STR_INIT("tlsmgr_service_name") },
    { SMTPD, STR_INIT("smtpd_service_name") },
};

/* The name this entry means: its own -o comes before main.cf. */
static struct str service_name(const struct conf *c, const struct master_entry *from, int target, struct arena *a) {
    if (target == ANVIL)
        return STR("anvil");
    enum param p = (enum param)target;
    for (size_t i = 0; i < sizeof name_rows / sizeof *name_rows; i++) {
        if (name_rows[i].param != p)
            continue;
        for (size_t o = from->override_count; o > 0; o--) {
            struct str value;
            if (!str_eq(from->overrides[o - 1].name, name_rows[i].name))
                continue;
            return conf_expand(c, from->overrides[o - 1].value, a, &value) ? STR("") : value;
        }
    }
    return conf_str(c, p);
}

static bool matches(const struct conf *c, const struct master_entry *from, const int *targets, struct str class,
                    struct str name) {
    struct arena *a = arena_new();
    bool found = false;
    for (size_t i = 0; i < TARGETS_MAX && targets[i] != END && !found; i++)
        found = targets[i] == ANY_PRIVATE ? str_eq(class, STR("private"))
                                          : str_eq(name, service_name(c, from, targets[i], a));
    arena_free(a);
    return found;
}

static bool split(struct str endpoint, struct str *class, struct str *name) {
    ptrdiff_t slash = str_index(endpoint, '/');
    if (slash < 0)
        return false;
    *class = str_sub(endpoint, 0, (size_t)slash);
    *name = str_from(endpoint, (size_t)slash + 1);
    return (str_eq(*class, STR("private")) || str_eq(*class, STR("public"))) && name->n && str_index(*name, '/') < 0;
}

bool role_may_connect(const struct conf *c, const struct master_entry *from, struct str endpoint) {
    struct str class, name;
    const struct role *r = role_of(from->command);
    return r && split(endpoint, &class, &name) && matches(c, from, r->connect, class, name);
}
bool role_may_trigger(const struct conf *c, const struct master_entry *from, struct str endpoint) {
    struct str class, name;
    const struct role *r = role_of(from->command);
    return r && split(endpoint, &class, &name) &&
           (matches(c, from, r->trigger, class, name) || matches(c, from, r->connect, class, name));
}

bool role_may_scratch(const struct master_entry *from) {
    return str_eq(from->command, STR("smtpd"));
}

bool role_may_keep(const struct master_entry *from) {
    return str_eq(from->command, STR("tlsmgr"));
}
