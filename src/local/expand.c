#include "base/log.h"
#include "local/agenda.h"
#include "mail/address.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORWARD_PATHS_MAX = 20 };

/* --- the members of a list --- */

/* user+ext@domain for propagate_unmatched_extensions. */
static struct str with_extension(struct delivery *d, struct str address, struct str extension, struct str delimiter) {
    struct address_parts p = address_split(address);
    if (!extension.n || !delimiter.n)
        return address;
    return arena_printf(d->arena, "%.*s%.*s%.*s%s%.*s", STR_ARG(p.local), STR_ARG(delimiter), STR_ARG(extension),
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
            text = with_extension(d, text, extension, from->delimiter);
        plan(d, g, kinds[items->at[i].kind], text, from);
    }
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

/* "uses the owner rights of the alias database; default_privs when it is owned by root" (local(8)). `*ret_root`: it is
 * root's. */
static struct account table_rights(struct delivery *d, struct str table, bool *ret_root) {
    ptrdiff_t colon = str_index(table, ':');
    struct stat st;
    struct account owner;
    bool failed;
    *ret_root = geteuid() == 0;
    if (geteuid() != 0)
        return d->local->default_privs;
    if (colon < 0 || colon + 1 >= (ptrdiff_t)table.n || table.p[colon + 1] != '/' ||
        sys->fstatat(AT_FDCWD, arena_cstr(d->arena, str_from(table, (size_t)colon + 1)), &st, 0) != 0 || st.st_uid == 0)
        return d->local->default_privs;
    *ret_root = false;
    return account_find_uid(d->arena, st.st_uid, &owner, &failed) ? owner : d->local->default_privs;
}

static void alias_unavailable(struct delivery *d, const struct origin *from, struct str table) {
    log_warn("%s: alias database %.*s: lookup failed", d->r->req.id.text, STR_ARG(table));
    defer(d, from, STR("alias database unavailable"));
}

/* False: it cannot be known now, and the recipient is deferred: bounces of the list would go to the wrong person. */
static bool alias_owner(struct delivery *d, struct origin *o, struct str domain) {
    const struct conf *c = d->r->ctx->conf;
    struct str value, table;
    if (!conf_bool(c, PARAM_owner_request_special) || str_starts(o->name, STR("owner-")))
        return true;
    struct str owner = arena_cat(d->arena, STR("owner-"), o->name);
    enum table_result r = alias_get(d, owner, &value, &table);
    if (r == TABLE_ERROR) {
        alias_unavailable(d, o, table);
        return false;
    }
    if (r == TABLE_NOT_FOUND) {
        if (conf_bool(c, PARAM_reset_owner_alias))
            o->owned = false;
        return true;
    }
    o->owned = o->own_sender = true;
    o->sender = domain.n ? arena_printf(d->arena, "%.*s@%.*s", STR_ARG(owner), STR_ARG(domain)) : owner;
    if (!conf_bool(c, PARAM_expand_owner_alias))
        return true;
    struct alias_list list = { 0 };
    alias_list_parse(d->arena, value, &list);
    if (list.n == 1 && list.at[0].kind == ALIAS_ADDRESS)
        o->sender = list.at[0].text;
    return true;
}

bool try_alias(struct delivery *d, struct agenda *g, const struct origin *from, struct str address, struct str name,
               struct str extension, struct str unmatched) {
    /* "When an address is found in its own alias expansion, delivery is made to the user instead" */
    if (str_eq(from->alias, name))
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
    o->name = o->alias = name;
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
    o->rights = table_rights(d, table, &o->by_root);
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
bool try_forward(struct delivery *d, struct agenda *g, const struct origin *from, struct str address,
                 const struct account *user, const struct local_names *names) {
    const struct conf *c = d->r->ctx->conf;
    if (str_eq(from->forward_user, user->name))
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
    if (!n || !local_read_file(d->r, user, paths, n, LOCAL_NO_LINKS, &file))
        return false;
    struct str path = paths[file.which];
    struct origin *o = ARENA_NEW(d->arena, struct origin);
    *o = *from;
    o->kind = ORIGIN_FORWARD;
    o->name = o->forward_user = user->name;
    o->by_root = false;
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
void include(struct delivery *d, struct agenda *g, struct str path, const struct origin *from) {
    if (!path.n || path.p[0] != '/') {
        log_warn(":include:%.*s uses a relative path", STR_ARG(path));
        delivery_result(d, from->address, STR("5.3.5"), STR("mail system configuration error"));
        return;
    }
    struct origin *o = ARENA_NEW(d->arena, struct origin);
    *o = *from;
    o->kind = ORIGIN_INCLUDE;
    o->listed = true;
    o->name = path;
    o->depth = from->depth + 1;
    if (o->depth > LOCAL_DEPTH_MAX) {
        log_warn(":include: loop for %.*s", STR_ARG(path));
        delivery_result(d, from->address, STR("5.4.6"),
                        arena_printf(d->arena, "file inclusion loop for %.*s", STR_ARG(path)));
        return;
    }
    /* what root's aliases name may be for root's eyes only */
    struct account reader = from->by_root ? (struct account){ .name = STR("root") } : not_root(d, from->rights);
    struct local_file file;
    if (!local_can_act_as(&reader)) {
        defer(d, from, STR("cannot read :include: files of other users without root"));
        return;
    }
    if (!local_read_file(d->r, &reader, &path, 1, 0, &file)) {
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
        if (file.code == EACCES)
            delivery_result(d, from->address, STR("5.3.5"), STR("mail system configuration error"));
        else
            defer(d, from, STR("cannot open include file"));
        return;
    }
    /* A list that root's aliases name acts for its owner, since default_privs are not the owner's to use. A user's
     * alias or ~/.forward keeps the user's rights: else naming another user's file would be acting in that user's name.
     */
    bool failed = false;
    if (from->by_root && file.uid != 0) {
        o->by_root = false;
        o->rights = d->local->default_privs;
        (void)account_find_uid(d->arena, file.uid, &o->rights, &failed);
    }
    if (failed) {
        defer(d, from, STR("user lookup error"));
        return;
    }
    struct alias_list items = { 0 };
    alias_list_parse_lines(d->arena, file.text, &items);
    plan_items(d, g, &items, o, from->extension);
}
