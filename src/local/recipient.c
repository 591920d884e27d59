#include "base/log.h"
#include "base/map.h"
#include "deliver/mailbox.h"
#include "local/local.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "proto/rewrite.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum {
    RESOLVE_TIME = 300,
    FORWARD_PATHS_MAX = 20,
};

/* What is still to be done, last in first out: expanding needs no recursion. */
enum work_kind { WORK_RECIPIENT, WORK_MEMBER, WORK_COMMAND, WORK_FILE, WORK_INCLUDE };
struct work {
    enum work_kind kind;
    struct str text; /* address, command, path */
    const struct origin *from;
};
struct agenda {
    VEC(struct work) list;
    size_t steps;
    struct map seen; /* deliveries already made: duplicate_filter_limit */
    size_t seen_count, seen_limit;
};

/* --- results --- */
void delivery_result_diagnostic(struct delivery *d, struct str address, struct str dsn, struct str reason,
                                struct str diagnostic) {
    struct agent_status s = { .relay = STR("local"), .dsn = dsn, .reason = reason };
    if (diagnostic.n) {
        s.diagnostic_type = STR("x-unix");
        s.diagnostic = diagnostic;
    }
    if (!str_eq(address, d->r->req.env.rcpts[d->index].address))
        s.address = address;
    agent_log(d->r, d->index, address, &s);
    /* deferred wins over bounced, bounced over sent: a recipient is done only when all it stands for is */
    static const struct str order = STR_INIT("254");
    if (!d->any || str_index(order, s.dsn.p[0]) > str_index(order, d->worst.dsn.p[0]))
        d->worst = s;
    d->any = true;
}

void delivery_result(struct delivery *d, struct str address, struct str dsn, struct str reason) {
    delivery_result_diagnostic(d, address, dsn, reason, STR(""));
}

static void defer(struct delivery *d, const struct origin *from, struct str reason) {
    delivery_result(d, from->address, STR("4.3.0"), reason);
}

/* --- the agenda --- */
static void plan(struct delivery *d, struct agenda *g, enum work_kind kind, struct str text,
                 const struct origin *from) {
    *vec_add(d->arena, &g->list) = (struct work){ kind, text, from };
}

/* True the first time. Beyond duplicate_filter_limit nothing is remembered, as in Postfix. */
static bool first_time(struct delivery *d, struct agenda *g, const char *kind, struct str what) {
    struct str key = arena_printf(d->arena, "%s %.*s", kind, STR_ARG(what));
    if (map_get(&g->seen, key))
        return false;
    if (!g->seen_limit || g->seen_count < g->seen_limit) {
        map_put(&g->seen, key, g);
        g->seen_count++;
    }
    return true;
}

/* user+ext@domain for propagate_unmatched_extensions. */
static struct str with_extension(struct delivery *d, struct str address, struct str extension) {
    struct str delimiters = conf_str(d->r->ctx->conf, PARAM_recipient_delimiter);
    struct address_parts p = address_split(address);
    struct str user, old;
    if (!extension.n || !delimiters.n || address_split_extension(p.local, delimiters, &user, &old))
        return address;
    return arena_printf(d->arena, "%.*s%c%.*s%s%.*s", STR_ARG(p.local), delimiters.p[0], STR_ARG(extension),
                        p.has_domain ? "@" : "", STR_ARG(p.domain));
}

static void plan_items(struct delivery *d, struct agenda *g, const struct alias_list *items, const struct origin *from,
                       struct str extension) {
    static const enum work_kind kinds[] = { [ALIAS_ADDRESS] = WORK_MEMBER,
                                            [ALIAS_COMMAND] = WORK_COMMAND,
                                            [ALIAS_FILE] = WORK_FILE,
                                            [ALIAS_INCLUDE] = WORK_INCLUDE };
    if (items->truncated) { /* none of them rather than some: nobody would tell the sender of the rest */
        log_warn("%s: too many members in %.*s", d->r->req.id.text, STR_ARG(from->name));
        delivery_result(d, from->address, STR("4.3.5"), STR("mail system configuration error"));
        return;
    }
    for (size_t i = items->n; i-- > 0;) {
        struct str text = items->at[i].text;
        if (items->at[i].kind == ALIAS_ADDRESS && (d->local->propagate & from->kind))
            text = with_extension(d, text, extension);
        plan(d, g, kinds[items->at[i].kind], text, from);
    }
}

/* Nothing that an alias or a user names is done as root: default_privs does it, with the home of the user. */
static struct account not_root(const struct delivery *d, struct account rights) {
    if (rights.uid == 0) {
        rights.uid = d->local->default_privs.uid;
        rights.gid = d->local->default_privs.gid;
    }
    return rights;
}

/* --- aliases --- */

/* The key is the local part as an address shows it, with its quotes; then without. */
static enum table_result alias_get(struct delivery *d, struct str name, struct str *ret, struct str *ret_table) {
    struct str quoted = address_quote(d->arena, arena_cat(d->arena, name, STR("@x")));
    quoted = str_sub(quoted, 0, quoted.n - 2);
    enum table_result r = maps_get(d->local->aliases, quoted, d->arena, ret, ret_table);
    if (r == TABLE_NOT_FOUND && !str_eq(quoted, name))
        r = maps_get(d->local->aliases, name, d->arena, ret, ret_table);
    return r;
}

/* "uses the owner rights of the alias database; default_privs when it is owned by root" (local(8)). */
static struct account table_rights(struct delivery *d, struct str table) {
    ptrdiff_t colon = str_index(table, ':');
    struct stat st;
    struct account owner;
    bool failed;
    if (geteuid() != 0)
        return d->local->default_privs;
    if (colon < 0 || colon + 1 >= (ptrdiff_t)table.n || table.p[colon + 1] != '/' ||
        sys->fstatat(AT_FDCWD, arena_cstr(d->arena, str_from(table, (size_t)colon + 1)), &st, 0) != 0 ||
        st.st_uid == 0 || !account_find_uid(d->arena, st.st_uid, &owner, &failed))
        return d->local->default_privs;
    return owner;
}

static void alias_unavailable(struct delivery *d, const struct origin *from, struct str table) {
    log_warn("%s: alias database %.*s: lookup failed", d->r->req.id.text, STR_ARG(table));
    defer(d, from, STR("alias database unavailable"));
}

/* False: it cannot be known now, and the recipient is deferred: bounces of the list would go to the wrong person. */
static bool alias_owner(struct delivery *d, struct origin *o, struct str domain) {
    const struct conf *c = d->r->ctx->conf;
    struct str value, table;
    if (!conf_bool(c, PARAM_owner_request_special) || str_starts(o->name, STR("owner-")) ||
        str_ends(o->name, STR("-request"))) {
        return true;
    }
    struct str owner = arena_cat(d->arena, STR("owner-"), o->name);
    enum table_result r = alias_get(d, owner, &value, &table);
    if (r == TABLE_ERROR) {
        alias_unavailable(d, o, table);
        return false;
    }
    if (r == TABLE_NOT_FOUND) {
        if (conf_bool(c, PARAM_reset_owner_alias)) {
            o->own_sender = false;
            o->sender = STR("");
        }
        return true;
    }
    o->own_sender = true;
    o->sender = domain.n ? arena_printf(d->arena, "%.*s@%.*s", STR_ARG(owner), STR_ARG(domain)) : owner;
    if (!conf_bool(c, PARAM_expand_owner_alias))
        return true;
    struct alias_list list = { 0 };
    alias_list_parse(d->arena, value, &list);
    if (list.n == 1 && list.at[0].kind == ALIAS_ADDRESS)
        o->sender = list.at[0].text;
    return true;
}

/* The recipient stands for something else: true. */
static bool try_alias(struct delivery *d, struct agenda *g, const struct origin *from, struct str address,
                      struct str name, struct str extension, struct str unmatched) {
    /* "When an address is found in its own alias expansion, delivery is made to the user instead" */
    if (from->kind == ORIGIN_ALIAS && str_eq(from->name, name))
        return false;
    struct str value, table;
    enum table_result r = alias_get(d, name, &value, &table);
    if (r == TABLE_NOT_FOUND)
        return false;
    struct origin *o = ARENA_NEW(d->arena, struct origin);
    *o = *from;
    o->address = address;
    if (r == TABLE_ERROR) {
        alias_unavailable(d, o, table);
        return true;
    }
    o->kind = ORIGIN_ALIAS;
    o->name = name;
    o->depth = from->depth + 1;
    if (from->depth > LOCAL_DEPTH_MAX) {
        log_warn("alias database loop for %.*s", STR_ARG(name));
        delivery_result(d, address, STR("5.4.6"),
                        arena_printf(d->arena, "alias database loop for %.*s", STR_ARG(name)));
        return true;
    }
    if (d->r->req.flags & DELIVERY_VERIFY) {
        delivery_result(d, address, STR("2.0.0"), arena_printf(d->arena, "aliased to %.*s", STR_ARG(value)));
        return true;
    }
    o->rights = table_rights(d, table);
    o->user = name;
    o->extension = extension;
    if (!alias_owner(d, o, address_split(address).domain))
        return true;
    struct alias_list list = { 0 };
    alias_list_parse(d->arena, value, &list);
    if (!list.n)
        delivery_result(d, address, STR("2.0.0"), STR("discarded"));
    plan_items(d, g, &list, o, unmatched);
    return true;
}

/* --- ~/.forward --- */
static bool try_forward(struct delivery *d, struct agenda *g, const struct origin *from, struct str address,
                        const struct account *user, const struct local_names *names) {
    const struct conf *c = d->r->ctx->conf;
    if (from->kind == ORIGIN_FORWARD && str_eq(from->name, user->name))
        return false;
    /* nobody's instructions are carried out under another user's rights */
    if (!local_can_act_as(user) || !user->home.n)
        return false;
    struct str paths[FORWARD_PATHS_MAX], list = conf_str(c, PARAM_forward_path), word;
    size_t n = 0;
    while (n < FORWARD_PATHS_MAX && str_word_braced(&list, STR_COMMA_SPACE, &word)) {
        struct str path;
        error e = local_expand(word, names, conf_str(c, PARAM_forward_expansion_filter), d->arena, &path);
        if (e) {
            log_warn("forward_path: %.*s", STR_ARG(e->text));
            continue;
        }
        bool known = !path.n || path.p[0] != '/';
        for (size_t i = 0; i < n; i++)
            known |= str_eq(paths[i], path);
        if (!known)
            paths[n++] = path;
    }
    struct local_file file;
    if (!n || !local_read_file(d->r, user, paths, n, &file))
        return false;
    struct str path = paths[file.which];
    struct origin *o = ARENA_NEW(d->arena, struct origin);
    *o = *from;
    o->kind = ORIGIN_FORWARD;
    o->name = user->name;
    o->depth = from->depth + 1;
    o->rights = *user;
    o->address = address;
    o->user = user->name;
    o->extension = names->extension;
    if (file.code) {
        if (file.code == EACCES || file.code == EPERM) {
            log_warn("cannot read %.*s: %s", STR_ARG(path), strerror(file.code));
            return false;
        }
        log_warn("error reading %.*s: %s", STR_ARG(path), strerror(file.code));
        defer(d, o, STR("cannot read the forward file"));
        return true;
    }
    if (!file.refusal.n && file.uid != 0 && file.uid != user->uid)
        file.refusal = STR("owned by somebody else");
    if (file.refusal.n) {
        log_warn("file %.*s is %.*s", STR_ARG(path), STR_ARG(file.refusal));
        return false;
    }
    if (o->depth > LOCAL_DEPTH_MAX) {
        delivery_result(d, address, STR("5.4.6"),
                        arena_printf(d->arena, "forward file loop for %.*s", STR_ARG(user->name)));
        return true;
    }
    struct alias_list items = { 0 };
    alias_list_parse_lines(d->arena, file.text, &items);
    if (!items.n) /* "An empty ~/.forward file means do not forward mail" */
        return false;
    plan_items(d, g, &items, o, names->extension);
    return true;
}

/* --- :include: --- */
static void include(struct delivery *d, struct agenda *g, struct str path, const struct origin *from) {
    if (!path.n || path.p[0] != '/') {
        log_warn(":include:%.*s uses a relative path", STR_ARG(path));
        delivery_result(d, from->address, STR("5.3.5"), STR("mail system configuration error"));
        return;
    }
    struct origin *o = ARENA_NEW(d->arena, struct origin);
    *o = *from;
    o->kind = ORIGIN_INCLUDE;
    o->name = path;
    o->depth = from->depth + 1;
    if (o->depth > LOCAL_DEPTH_MAX) {
        log_warn(":include: loop for %.*s", STR_ARG(path));
        delivery_result(d, from->address, STR("5.4.6"),
                        arena_printf(d->arena, "file inclusion loop for %.*s", STR_ARG(path)));
        return;
    }
    struct account reader = not_root(d, from->rights);
    struct local_file file;
    if (!local_can_act_as(&reader)) {
        defer(d, from, STR("cannot read :include: files of other users without root"));
        return;
    }
    if (!local_read_file(d->r, &reader, &path, 1, &file)) {
        log_warn("unable to lookup :include: file %.*s: %s", STR_ARG(path), strerror(ENOENT));
        delivery_result(d, from->address, STR("5.3.5"), STR("mail system configuration error"));
        return;
    }
    if (file.refusal.n) {
        log_warn("file %.*s is %.*s", STR_ARG(path), STR_ARG(file.refusal));
        delivery_result(d, from->address, STR("5.3.5"), STR("mail system configuration error"));
        return;
    }
    if (file.code) {
        log_warn("error reading :include: file %.*s: %s", STR_ARG(path), strerror(file.code));
        defer(d, from, STR("cannot open include file"));
        return;
    }
    /* A list that root's aliases name acts for its owner, since default_privs are not the owner's to use. A user's
     * alias or ~/.forward keeps the user's rights: else naming another user's file would be acting in that user's name.
     */
    bool failed = false, by_root = from->kind != ORIGIN_FORWARD && from->rights.uid == d->local->default_privs.uid;
    if (geteuid() == 0 && by_root && file.uid != 0)
        (void)account_find_uid(d->arena, file.uid, &o->rights, &failed);
    if (failed) {
        defer(d, from, STR("user lookup error"));
        return;
    }
    struct alias_list items = { 0 };
    alias_list_parse_lines(d->arena, file.text, &items);
    plan_items(d, g, &items, o, from->extension);
}

/* --- commands and files in aliases --- */
static bool may(struct delivery *d, unsigned allowed, const struct origin *from, const char *what) {
    if (allowed & from->kind)
        return true;
    delivery_result(d, from->address, STR("5.7.1"), arena_printf(d->arena, "mail to %s is restricted", what));
    return false;
}

static struct local_names names_of(struct delivery *d, const struct account *user, struct str address,
                                   struct str extension) {
    struct address_parts p = address_split(address);
    return (struct local_names){ .account = *user,
                                 .recipient = address,
                                 .extension = extension,
                                 .domain = p.domain,
                                 .local = p.local,
                                 .delimiter = str_sub(conf_str(d->r->ctx->conf, PARAM_recipient_delimiter), 0, 1) };
}

static void run_command(struct delivery *d, struct str text, const struct account *rights, struct str user,
                        struct str address, struct str extension, struct str delivered) {
    const struct conf *c = d->r->ctx->conf;
    const struct rcpt *rcpt = &d->r->req.env.rcpts[d->index];
    struct address_parts p = address_split(address);
    struct command command = {
        .text = text,
        .rights = *rights,
        .user = user,
        .home = rights->home,
        .shell = rights->shell,
        .recipient = address,
        .extension = extension,
        .local = p.local,
        .domain = p.domain,
        .orig = rcpt->orig.n ? rcpt->orig : rcpt->address,
    };
    struct local_names names = names_of(d, rights, address, extension);
    error e = local_expand(conf_str(c, PARAM_command_execution_directory), &names,
                           conf_str(c, PARAM_execution_directory_expansion_filter), d->arena, &command.directory);
    if (e) {
        log_warn("command_execution_directory: %.*s", STR_ARG(e->text));
        delivery_result(d, address, STR("4.3.5"), STR("mail system configuration error"));
        return;
    }
    command.head =
        mailbox_head(d->r, d->arena, rcpt->orig, d->local->delivered & DELIVERED_COMMAND ? delivered : STR(""));
    command_deliver(d, address, &command);
}

/* --- a user of this host, or nobody --- */
static void unknown(struct delivery *d, struct agenda *g, const struct origin *from, struct str address,
                    struct str user, struct str extension) {
    const struct conf *c = d->r->ctx->conf;
    struct account nobody = { .name = user };
    struct local_names names = names_of(d, &nobody, address, extension);
    struct str relay = STR("");
    error e = local_expand(conf_str(c, PARAM_luser_relay), &names, STR(""), d->arena, &relay);
    if (e)
        log_warn("luser_relay: %.*s", STR_ARG(e->text));
    if (relay.n && from->depth < LOCAL_DEPTH_MAX) {
        struct origin *o = ARENA_NEW(d->arena, struct origin);
        *o = *from;
        o->kind = ORIGIN_LUSER;
        o->depth = from->depth + 1;
        o->name = user;
        o->address = address;
        struct header_addresses to = header_addresses_parse(d->arena, relay);
        for (size_t i = to.n; i-- > 0;)
            plan(d, g, WORK_MEMBER, to.at[i].address, o);
        if (to.n)
            return;
    }
    if (str_eq(user, STR("mailer-daemon")) || str_eq(user, STR("postmaster"))) {
        log_warn("required alias not found: %.*s", STR_ARG(user));
        delivery_result(d, address, STR("2.0.0"), STR("discarded"));
        return;
    }
    delivery_result(d, address, STR("5.1.1"), arena_printf(d->arena, "unknown user: \"%.*s\"", STR_ARG(user)));
}

static bool mailbox_command(struct delivery *d, struct str address, const struct account *user, struct str extension,
                            struct str delivered) {
    const struct conf *c = d->r->ctx->conf;
    struct str command = conf_str(c, PARAM_mailbox_command);
    if (!command.n)
        return false;
    struct account rights = not_root(d, *user);
    run_command(d, command, &rights, user->name, address, extension, delivered);
    return true;
}

static void recipient(struct delivery *d, struct agenda *g, struct str address, const struct origin *from) {
    const struct conf *c = d->r->ctx->conf;
    struct arena *a = d->arena;
    struct str delimiters = conf_str(c, PARAM_recipient_delimiter);
    struct address_parts p = address_split(address);
    struct str full = arena_lower(a, p.local), user = full, extension = STR("");
    if (delimiters.n && !address_split_extension(full, delimiters, &user, &extension)) {
        user = full;
        extension = STR("");
    }
    /* the extension in the case it came in */
    if (extension.n)
        extension = str_from(p.local, p.local.n - extension.n);
    struct str lower = arena_lower(a, address);
    if (delivered_to_has(d->delivered_to, a, address)) {
        delivery_result(d, address, STR("5.4.6"), arena_printf(a, "mail forwarding loop for %.*s", STR_ARG(address)));
        return;
    }
    struct str delivered = conf_bool(c, PARAM_frozen_delivered_to) ? from->delivered : address;
    struct origin here = *from;
    here.delivered = delivered;
    if (try_alias(d, g, &here, address, full, extension, STR("")))
        return;
    if (extension.n && try_alias(d, g, &here, address, user, extension, extension))
        return;
    struct account account;
    bool failed = false;
    bool found = extension.n && account_find(a, full, &account, &failed);
    if (found)
        extension = STR("");
    else if (!failed)
        found = account_find(a, user, &account, &failed);
    if (failed) {
        here.address = address;
        defer(d, &here, STR("user lookup error"));
        return;
    }
    if (!found) {
        unknown(d, g, &here, address, user, extension);
        return;
    }
    /* an extension that would name another directory names none */
    struct str in_path = str_index(extension, '/') < 0 ? extension : STR("");
    struct local_names names = names_of(d, &account, address, in_path);
    if (!(d->r->req.flags & DELIVERY_VERIFY) && try_forward(d, g, &here, address, &account, &names))
        return;
    if (!first_time(d, g, "mailbox", lower))
        return;
    if (!mailbox_command(d, address, &account, extension, delivered))
        mailbox_of_user(d, address, &account, delivered);
}

/* --- a member of an alias or a ~/.forward: ours, or to be forwarded --- */
static error resolve(struct delivery *d, struct str address, struct str sender, struct route *ret, error *ret_refusal) {
    int64_t deadline = deadline_in(RESOLVE_TIME);
    error e = NULL;
    if (!d->rewrite) {
        struct ipc *ipc;
        if ((e = service_connect(d->r->ctx, STR("private/rewrite"), deadline, &ipc)))
            return e;
        d->rewrite = rewrite_link_new(ipc);
    }
    struct str origin = conf_str(d->r->ctx->conf, PARAM_myorigin), full;
    e = rewrite_address(d->rewrite, d->arena, address, origin, deadline, &full);
    if (!e)
        e = rewrite_resolve(d->rewrite, d->arena, sender, full, deadline, ret, ret_refusal);
    if (e) {
        rewrite_link_close(d->rewrite);
        d->rewrite = NULL;
    }
    return e;
}

static void member(struct delivery *d, struct agenda *g, struct str address, const struct origin *from) {
    struct route route = { 0 };
    error refusal = NULL;
    struct str sender = from->own_sender ? from->sender : d->r->req.env.sender;
    error e = resolve(d, address, sender, &route, &refusal);
    if (e || refusal) {
        error why = e ? e : refusal;
        bool later = e || refusal->kind != ERR_PERM;
        log_warn("%s: cannot resolve %.*s: %.*s", d->r->req.id.text, STR_ARG(address), STR_ARG(why->text));
        struct str dsn = why->dsn.n ? why->dsn : STR("4.3.0");
        delivery_result(d, from->address, dsn_with_class(d->arena, dsn, later ? '4' : '5'),
                        later ? STR("address resolver failure") : why->text);
        return;
    }
    bool here = str_eq(route.transport, d->r->req.transport);
    if (here && from->kind == ORIGIN_FORWARD) {
        /* "When a user is listed in the user's own ~/.forward file, delivery is made to the user's mailbox" */
        struct str local = arena_lower(d->arena, address_split(route.recipient).local), user = local, extension;
        struct str delimiters = conf_str(d->r->ctx->conf, PARAM_recipient_delimiter);
        if (delimiters.n && !address_split_extension(local, delimiters, &user, &extension))
            user = local;
        here = str_eq(user, from->name);
    } else if (here) {
        here = (from->kind == ORIGIN_ALIAS || from->kind == ORIGIN_LUSER) && !from->own_sender;
    }
    if (here)
        plan(d, g, WORK_RECIPIENT, route.recipient, from);
    else if (first_time(d, g, from->own_sender ? "list" : "forward", arena_lower(d->arena, route.recipient)))
        forward_add(d, from, route.recipient);
}

static void work(struct delivery *d, struct agenda *g, const struct work *w) {
    const struct origin *from = w->from;
    struct str key = arena_printf(d->arena, "%ld %.*s", (long)from->rights.uid, STR_ARG(w->text));
    switch (w->kind) {
    case WORK_RECIPIENT:
        recipient(d, g, w->text, from);
        return;
    case WORK_MEMBER:
        member(d, g, w->text, from);
        return;
    case WORK_INCLUDE:
        include(d, g, w->text, from);
        return;
    case WORK_COMMAND:
        if (may(d, d->local->commands, from, "command") && first_time(d, g, "command", key)) {
            struct account rights = not_root(d, from->rights);
            run_command(d, w->text, &rights, from->user, from->address, from->extension, from->delivered);
        }
        return;
    case WORK_FILE:
        if (may(d, d->local->files, from, "file") && first_time(d, g, "file", key)) {
            struct account rights = not_root(d, from->rights);
            file_deliver(d, from->address, w->text, &rights, from->delivered);
        }
        return;
    }
}

static void one_recipient(struct delivery *d) {
    const struct rcpt *rcpt = &d->r->req.env.rcpts[d->index];
    struct agenda g = { .seen_limit = (size_t)conf_int(d->r->ctx->conf, PARAM_duplicate_filter_limit) };
    struct origin start = { .kind = ORIGIN_REQUEST,
                            .name = STR(""),
                            .rights = d->local->default_privs,
                            .address = rcpt->address,
                            .delivered = rcpt->address };
    plan(d, &g, WORK_RECIPIENT, rcpt->address, &start);
    while (g.list.n) {
        if (++g.steps > LOCAL_STEPS_MAX) {
            log_warn("%s: too many destinations for %.*s", d->r->req.id.text, STR_ARG(rcpt->address));
            delivery_result(d, rcpt->address, STR("5.4.6"), STR("too many destinations"));
            break;
        }
        struct work w = g.list.at[--g.list.n];
        work(d, &g, &w);
    }
    forward_all(d);
    if (!d->any) /* a list without members */
        delivery_result(d, rcpt->address, STR("2.0.0"), STR("discarded"));
    agent_answer(d->r, d->index, &d->worst);
    rewrite_link_close(d->rewrite);
    map_free(&g.seen);
}

void local_deliver(struct agent_request *r) {
    struct map delivered_to = { 0 };
    delivered_to_read(r, &delivered_to);
    for (size_t i = 0; i < r->req.env.rcpt_count && agent_go_on(r); i++) {
        struct delivery d = {
            .r = r, .local = r->ctx->state, .index = i, .arena = r->arena, .delivered_to = &delivered_to
        };
        one_recipient(&d);
    }
    map_free(&delivered_to);
}

/* --- start --- */
static bool parse_words(struct str list, const char *const *names, size_t n, unsigned *ret) {
    struct str word;
    *ret = 0;
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        size_t i = 0;
        while (i < n && !str_eq(word, str_c(names[i])))
            i++;
        if (i == n)
            return false;
        *ret |= 1U << i;
    }
    return true;
}

error local_init(struct service_ctx *ctx, struct arena *err_arena) {
    static const char *const origins[] = { "alias", "forward", "include" };
    static const char *const delivered[] = { "command", "file", "forward" };
    const struct conf *c = ctx->conf;
    static struct local local; /* a process is one agent */
    struct local *l = &local;
    ctx->state = l;
    const struct {
        const char *name;
        struct str value;
        const char *const *words;
        unsigned *to;
    } lists[] = {
        { "allow_mail_to_commands", conf_str(c, PARAM_allow_mail_to_commands), origins, &l->commands },
        { "allow_mail_to_files", conf_str(c, PARAM_allow_mail_to_files), origins, &l->files },
        { "prepend_delivered_header", conf_str(c, PARAM_prepend_delivered_header), delivered, &l->delivered },
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        if (!parse_words(lists[i].value, lists[i].words, 3, lists[i].to))
            return err_make(err_arena, ERR_CONFIG, "bad value in parameter %s: %.*s", lists[i].name,
                            STR_ARG(lists[i].value));
    /* words for other programs are not ours to judge */
    struct str rest = conf_str(c, PARAM_propagate_unmatched_extensions), word;
    l->propagate = 0;
    while (str_word(&rest, STR_COMMA_SPACE, &word))
        for (size_t i = 0; i < 3; i++)
            if (str_eq(word, str_c(origins[i])))
                l->propagate |= 1U << i;
    if (!mailbox_locks_parse(conf_str(c, PARAM_mailbox_delivery_lock), &l->locks))
        return err_make(err_arena, ERR_CONFIG, "bad value in parameter mailbox_delivery_lock: %.*s",
                        STR_ARG(conf_str(c, PARAM_mailbox_delivery_lock)));
    if (geteuid() == 0) {
        struct str name = conf_str(c, PARAM_default_privs);
        bool failed;
        if (!account_find(err_arena, name, &l->default_privs, &failed))
            return err_make(err_arena, ERR_CONFIG, "default_privs: unknown user %.*s", STR_ARG(name));
        if (l->default_privs.uid == 0 || l->default_privs.uid == ctx->mail_uid)
            return err_make(err_arena, ERR_CONFIG, "default_privs: %.*s must be neither root nor the mail owner",
                            STR_ARG(name));
    } else {
        bool failed;
        if (!account_find_uid(err_arena, geteuid(), &l->default_privs, &failed))
            l->default_privs = (struct account){ .name = STR("nobody"), .home = STR("/"), .shell = STR("/bin/sh") };
        l->default_privs.uid = geteuid();
        l->default_privs.gid = getegid();
    }
    l->aliases = maps_open(c, conf_str(c, PARAM_alias_maps), TABLE_FOLD | TABLE_ALIASES | TABLE_NO_REGSUB);
    return NULL;
}

void local_end(struct service_ctx *ctx) {
    struct local *l = ctx->state;
    maps_close(l->aliases);
    *l = (struct local){ 0 };
}
