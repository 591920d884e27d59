/* policy_fuzz.c - replies of policy servers, line by line, and the arguments of check_policy_service. */
#include "base/utf8.h"
#include "smtpd/policy.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void reply(struct str text) {
    struct policy_reply r = { 0 };
    struct str line;
    while (!r.ended && str_next(&text, STR("\n"), &line)) {
        bool had = r.have_action;
        if (!policy_reply_line(&r, line))
            break;
        if (had && !r.ended) /* one action, then the end */
            abort();
        if (r.ended && !r.have_action)
            abort();
    }
    if (memchr(buf_str(&r.action).p, '\n', r.action.n))
        abort();
    buf_free(&r.action);
}

static void argument(struct str text) {
    static struct conf *c;
    struct arena *a = arena_new();
    if (!c) {
        struct conf_source source = { .config_directory = STR("/nonexistent"), .missing_is_empty = true };
        if (conf_load(&source, a, &c))
            abort();
    }
    struct policy_service *p = NULL;
    if (!policy_service_parse(a, c, text, &p) &&
        (p->try_limit == 0 || p->timeout < 1 || p->max_idle < 1 || p->retry_delay > POLICY_WAIT_MAX))
        abort();
    arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str text = str_n((const char *)data, size);
    if (size && data[0] == 'A')
        argument(str_from(text, 1));
    else
        reply(text);
    return 0;
}
