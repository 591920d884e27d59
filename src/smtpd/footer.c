#include "smtpd/footer.h"

#include "mail/address.h"

/* --- values --- */
/* "<>" for the null sender; its parts are "<>" and nothing. */
static struct str address_part(struct str address, struct str part) {
    struct address_parts p = address_split(address);
    if (str_eq(part, STR("domain")))
        return p.domain;
    struct str s = str_eq(part, STR("name")) ? p.local : address;
    return s.n ? s : STR("<>");
}

bool session_value(struct arena *a, const struct session *s, struct str name, struct expand_value *ret) {
    const struct {
        struct str name, value;
    } plain[] = {
        { STR_INIT("client"), s->log_name },
        { STR_INIT("client_address"), s->address },
        { STR_INIT("client_name"), s->name },
        { STR_INIT("client_port"), s->port },
        { STR_INIT("reverse_client_name"), s->reverse_name },
        { STR_INIT("helo_name"), s->helo },
        { STR_INIT("server_name"), s->set->myhostname },
    };
    struct str value = { 0 };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (str_eq(name, plain[i].name))
            value = str_n(plain[i].value.p ? plain[i].value.p : "", plain[i].value.n);
    if (str_eq(name, STR("localtime")))
        value = footer_time(a);
    bool sender = str_starts(name, STR("sender")), recipient = str_starts(name, STR("recipient"));
    struct str part = str_from(name, sender ? 6 : 9);
    if ((sender || recipient) && (part.n == 0 || str_eq(part, STR("_name")) || str_eq(part, STR("_domain")))) {
        bool have = sender ? s->tx != NULL : s->check_recipient.n > 0;
        struct str address = sender && s->tx ? s->tx->sender : s->check_recipient;
        value = have ? address_part(address, str_from(part, 1)) : STR("");
    }
    if (!value.p)
        return false;
    *ret = (struct expand_value){ filtered_text(a, s->set->expansion_filter, value), true };
    return true;
}

/* --- the footer --- */
struct footer_names {
    struct arena *arena;
    const struct session *s;
};

static bool footer_name(void *ctx, struct str name, struct expand_value *ret) {
    struct footer_names *n = ctx;
    return session_value(n->arena, n->s, name, ret);
}

void session_footer(const struct session *s, struct buf *b) {
    const struct settings *set = s->set;
    const struct footer f = { "smtpd_reject_footer", set->reject_footer, set->reject_footers };
    struct footer_names names = { .arena = arena_new(), .s = s };
    footer_add(&f, footer_name, &names, b);
    arena_free(names.arena);
}
