#include "base/log.h"
#include "deliver/mailbox.h"
#include "local/agenda.h"
#include "mail/address.h"
#include <errno.h>

struct account not_root(const struct delivery *d, struct account rights) {
    if (rights.uid == 0) { /* with the home of the user */
        rights.uid = d->local->default_privs.uid;
        rights.gid = d->local->default_privs.gid;
    }
    return rights;
}

struct local_names names_of(struct arena *a, const struct account *user, struct str address, struct str extension,
                            struct str delimiter) {
    struct address_parts p = address_split(address);
    struct str local = arena_lower(a, p.local);
    return (struct local_names){ .account = *user,
                                 .recipient = address,
                                 .extension = extension,
                                 .domain = p.domain,
                                 .local = local,
                                 .delimiter = delimiter };
}

/* --- commands --- */
void run_command(struct delivery *d, struct str text, const struct account *rights, const struct origin *from,
                 const struct local_user *user) {
    const struct conf *c = d->r->ctx->conf;
    const struct rcpt *rcpt = &d->r->req.env.rcpts[d->index];
    struct address_parts p = address_split(user->address);
    struct str orig = origin_orig(d, from);
    struct local_names names = names_of(d->arena, rights, user->address, user->extension, user->delimiter);
    struct command command = {
        .text = text,
        .rights = *rights,
        .user = user->name,
        .home = rights->home,
        .shell = rights->shell,
        .sender = origin_sender(d, from),
        .recipient = user->address,
        .extension = user->extension,
        .local = names.local,
        .domain = p.domain,
        .orig = orig.n || from->own_sender ? orig : rcpt->address,
    };
    error e = local_expand(conf_str(c, PARAM_command_execution_directory), &names,
                           conf_str(c, PARAM_execution_directory_expansion_filter), d->arena, &command.directory);
    if (e) {
        log_warn("command_execution_directory: %.*s", STR_ARG(e->text));
        delivery_result(d, user->address, STR("4.3.5"), STR("mail system configuration error"));
        return;
    }
    command.head = mailbox_head_of(d->r, d->arena, command.sender, orig,
                                   d->local->delivered & DELIVERED_COMMAND ? user->delivered : STR(""));
    command_deliver(d, user->address, &command);
}

/* --- what stands in for the mailbox --- */

/* What the tables say of this name, else the parameter; empty: nothing. False: a table failed, and the recipient waits.
 */
static bool choose(struct delivery *d, struct maps *maps, const char *maps_name, enum param otherwise, struct str name,
                   struct str address, struct str *ret) {
    struct str table;
    *ret = STR("");
    switch (maps_get(maps, name, d->arena, ret, &table)) {
    case TABLE_FOUND:
        return true;
    case TABLE_NOT_FOUND:
        *ret = conf_str(d->r->ctx->conf, otherwise);
        return true;
    case TABLE_ERROR:
        break;
    }
    log_warn("%s: %s: %.*s: lookup failed", d->r->req.id.text, maps_name, STR_ARG(table));
    delivery_result(d, address, STR("4.3.0"), STR("table lookup failure"));
    return false;
}

/* True: another transport has it, or it waits. */
static bool passed_on(struct delivery *d, struct maps *maps, const char *maps_name, enum param otherwise,
                      const struct local_user *user) {
    struct str transport;
    if (!choose(d, maps, maps_name, otherwise, user->name, user->address, &transport))
        return true;
    if (transport.n)
        pass_deliver(d, user->address, transport);
    return transport.n > 0;
}

static bool home_is_there(struct delivery *d, const struct local_user *user) {
    int code = conf_bool(d->r->ctx->conf, PARAM_require_home_directory) ? local_home_error(user->account) : 0;
    if (code)
        delivery_result(d, user->address, STR("4.3.0"),
                        arena_printf(d->arena, "cannot access home directory %.*s: %s", STR_ARG(user->account->home),
                                     strerror(code)));
    return code == 0;
}

/* --- nobody of that name --- */
static bool unknown(struct delivery *d, const struct origin *from, const struct local_user *user,
                    struct header_addresses *ret_relay) {
    const struct conf *c = d->r->ctx->conf;
    struct account nobody = { .name = user->name };
    struct local_names names = names_of(d->arena, &nobody, user->address, user->extension, user->delimiter);
    struct str relay = STR("");
    error e = local_expand(conf_str(c, PARAM_luser_relay), &names, STR(""), d->arena, &relay);
    if (e)
        log_warn("luser_relay: %.*s", STR_ARG(e->text));
    if (relay.n && from->depth < LOCAL_DEPTH_MAX) {
        *ret_relay = header_addresses_parse(d->arena, relay);
        if (ret_relay->n)
            return false;
    }
    if (str_eq(user->name, STR("mailer-daemon")) || str_eq(user->name, STR("postmaster"))) {
        log_warn("required alias not found: %.*s", STR_ARG(user->name));
        delivery_result(d, user->address, STR("2.0.0"), STR("discarded"));
        return true;
    }
    delivery_result(d, user->address, STR("5.1.1"),
                    arena_printf(d->arena, "unknown user: \"%.*s\"", STR_ARG(user->name)));
    return true;
}

bool user_deliver(struct delivery *d, const struct origin *from, const struct local_user *user,
                  struct header_addresses *ret_relay) {
    const struct local *l = d->local;
    if (passed_on(d, l->mailbox_transports, "mailbox_transport_maps", PARAM_mailbox_transport, user))
        return true;
    if (!user->account)
        return passed_on(d, l->fallback_transports, "fallback_transport_maps", PARAM_fallback_transport, user) ||
               unknown(d, from, user, ret_relay);
    struct str command;
    if (!home_is_there(d, user) || !choose(d, l->mailbox_commands, "mailbox_command_maps", PARAM_mailbox_command,
                                           user->name, user->address, &command))
        return true;
    if (command.n) {
        struct account rights = not_root(d, *user->account);
        run_command(d, command, &rights, from, user);
    } else {
        mailbox_of_user(d, user->address, user->account, user->delivered, from);
    }
    return true;
}
