#include "pipe/macros.h"

#include "mail/address.h"

/* Who the values of a command are made for. */
struct subject {
    struct arena *a;
    const struct pipe_attributes *attributes;
    const struct delivery_request *r;
    struct extension_rules extensions;
    const struct rcpt *rcpt; /* NULL: an argument that is there once */
};

/* --- values --- */
static struct str folded(const struct subject *s, struct str text, unsigned flag) {
    return s->attributes->flags & flag ? arena_lower(s->a, text) : text;
}

static struct str quoted(const struct subject *s, struct str address) {
    return s->attributes->flags & PIPE_QUOTE ? address_quote(s->a, address) : address;
}

static struct str whole(const struct subject *s, struct str address) {
    struct address_parts p = address_split(address);
    struct str local = folded(s, p.local, PIPE_FOLD_USER), domain = folded(s, p.domain, PIPE_FOLD_DOMAIN);
    return quoted(s, p.has_domain ? arena_printf(s->a, "%.*s@%.*s", STR_ARG(local), STR_ARG(domain)) : local);
}

static struct str value_recipient(const struct subject *s) {
    return whole(s, s->rcpt->address);
}
static struct str value_original_recipient(const struct subject *s) {
    return whole(s, s->rcpt->orig);
}
static struct str value_mailbox(const struct subject *s) {
    return folded(s, address_split(s->rcpt->address).local, PIPE_FOLD_USER);
}
static struct str value_domain(const struct subject *s) {
    return folded(s, address_split(s->rcpt->address).domain, PIPE_FOLD_DOMAIN);
}
static struct str split(const struct subject *s, bool want_user) {
    struct str local = address_split(s->rcpt->address).local, user = local, extension = STR("");
    if (!address_split_extension(local, s->extensions, &user, &extension))
        user = local, extension = STR("");
    return folded(s, want_user ? user : extension, PIPE_FOLD_USER);
}
static struct str value_user(const struct subject *s) {
    return split(s, true);
}
static struct str value_extension(const struct subject *s) {
    return split(s, false);
}
static struct str value_sender(const struct subject *s) {
    struct str sender = s->r->env.sender.n ? s->r->env.sender : s->attributes->null_sender;
    return sender.n ? quoted(s, sender) : sender;
}
static struct str value_nexthop(const struct subject *s) {
    return folded(s, s->r->nexthop, PIPE_FOLD_DOMAIN);
}
static struct str value_queue_id(const struct subject *s) {
    return str_c(s->r->id.text);
}
static struct str value_size(const struct subject *s) {
    return arena_printf(s->a, "%llu", (unsigned long long)s->r->content.size);
}
#define CLIENT(macro, field)                                                                                           \
    static struct str value_##macro(const struct subject *s) {                                                         \
        return s->r->env.client.field;                                                                                 \
    }
CLIENT(client_address, address)
CLIENT(client_helo, helo)
CLIENT(client_hostname, name)
CLIENT(client_port, port)
CLIENT(client_protocol, protocol)
CLIENT(sasl_method, sasl_method)
CLIENT(sasl_sender, sasl_sender)
CLIENT(sasl_username, sasl_username)

#define ONCE(name)                                                                                                     \
    { STR_INIT(#name), false, value_##name }
#define EACH(name)                                                                                                     \
    { STR_INIT(#name), true, value_##name }
static const struct macro {
    struct str name;
    bool each; /* recipient */
    struct str (*value)(const struct subject *s);
} macros[] = {
    EACH(recipient),
    EACH(original_recipient),
    EACH(user),
    EACH(extension),
    EACH(mailbox),
    EACH(domain),
    ONCE(sender),
    ONCE(nexthop),
    ONCE(queue_id),
    ONCE(size),
    ONCE(client_address),
    ONCE(client_helo),
    ONCE(client_hostname),
    ONCE(client_port),
    ONCE(client_protocol),
    ONCE(sasl_method),
    ONCE(sasl_sender),
    ONCE(sasl_username),
};

/* --- text --- */
static bool is_name(char c) {
    return byte_is_alnum(c) || c == '_';
}

/* Cut a reference from the front of `*text`, which begins with "$"; `*ret` NULL: "$$". */
static error take_reference(struct arena *a, struct str *text, const struct macro **ret) {
    struct str start = *text, s = str_from(*text, 1), name;
    char open = s.n ? s.p[0] : 0, close = open == '{' ? '}' : open == '(' ? ')' : 0;
    *ret = NULL;
    if (open == '$') {
        *text = str_from(s, 1);
        return NULL;
    }
    if (close) {
        ptrdiff_t end = str_index(s, close);
        if (end < 0)
            return err_make(a, ERR_CONFIG, "truncated macro reference: \"%.*s\"", STR_ARG(start));
        name = str_sub(s, 1, (size_t)end - 1);
        *text = str_from(s, (size_t)end + 1);
    } else {
        size_t n = 0;
        while (n < s.n && is_name(s.p[n]))
            n++;
        name = str_sub(s, 0, n);
        *text = str_from(s, n);
    }
    if (!name.n)
        return err_make(a, ERR_CONFIG, "empty macro name: \"%.*s\"", STR_ARG(start));
    for (size_t i = 0; i < sizeof macros / sizeof *macros; i++)
        if (str_eq(name, macros[i].name)) {
            *ret = &macros[i];
            return NULL;
        }
    return err_make(a, ERR_CONFIG, "unknown macro name: \"%.*s\"", STR_ARG(name));
}

/* One argument, for s->rcpt or for all; `*ret_each` says whether it differs between recipients. */
static error expand(const struct subject *s, struct str text, struct str *ret, bool *ret_each) {
    struct buf out = { 0 };
    error e = NULL;
    *ret_each = false;
    while (text.n && !e) {
        ptrdiff_t at = str_index(text, '$');
        buf_add(&out, at < 0 ? text : str_sub(text, 0, (size_t)at));
        text = at < 0 ? STR("") : str_from(text, (size_t)at);
        const struct macro *macro;
        if (!text.n || (e = take_reference(s->a, &text, &macro)))
            break;
        if (!macro) {
            buf_byte(&out, '$');
        } else if (macro->each && !s->rcpt) {
            *ret_each = true;
        } else {
            buf_add(&out, macro->value(s));
            *ret_each |= macro->each;
        }
    }
    *ret = arena_str(s->a, buf_str(&out));
    buf_free(&out);
    return e;
}

struct list {
    VEC(char *) argv;
    size_t bytes;
};

static error add(struct arena *a, struct list *l, struct str value) {
    l->bytes += value.n + 1;
    if (l->argv.n >= PIPE_ARGUMENTS_MAX || l->bytes > PIPE_ARGUMENT_BYTES_MAX)
        return &err_limit;
    *vec_add(a, &l->argv) = arena_cstr(a, value);
    return NULL;
}

error pipe_arguments(struct arena *a, const struct pipe_attributes *attributes, const struct delivery_request *r,
                     struct extension_rules extensions, char ***ret) {
    struct list l = { 0 };
    for (size_t i = 0; i < attributes->argc; i++) {
        struct subject s = { a, attributes, r, extensions, NULL };
        struct str value;
        bool each;
        error e = expand(&s, attributes->argv[i], &value, &each);
        if (!e && !each)
            e = add(a, &l, value);
        for (size_t k = 0; each && !e && k < r->env.rcpt_count; k++) {
            s.rcpt = &r->env.rcpts[k];
            if (!(e = expand(&s, attributes->argv[i], &value, &each)))
                e = add(a, &l, value);
        }
        if (e)
            return e;
    }
    *vec_add(a, &l.argv) = NULL;
    *ret = l.argv.at;
    return NULL;
}
