#include "base/log.h"
#include "deliver/mailbox.h"
#include "local/local.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Reasons as Postfix words them: fail2ban and humans know them. */
static void finish(struct delivery *d, struct str address, const struct mailbox *m, const struct mailbox_result *result,
                   struct str sent, struct str prefix) {
    if (result->ok) {
        delivery_result(d, address, STR("2.0.0"), sent);
        return;
    }
    if (result->denied) {
        log_warn("maildir access problem for UID/GID=%ld/%ld: %.*s", (long)m->uid, (long)m->gid, STR_ARG(result->why));
        log_warn("perhaps you need to create the maildirs in advance");
    }
    delivery_result(d, address, result->dsn, arena_printf(d->arena, "%.*s%.*s", STR_ARG(prefix), STR_ARG(result->why)));
}

static void set_common(struct delivery *d, struct mailbox *m) {
    const struct conf *c = d->r->ctx->conf;
    m->locks = d->local->locks;
    m->lock_attempts = (int)conf_int(c, PARAM_deliver_lock_attempts);
    m->lock_delay = conf_time(c, PARAM_deliver_lock_delay);
    m->stale_lock = conf_time(c, PARAM_stale_lock_time);
    m->limit = (uint64_t)conf_int(c, PARAM_mailbox_size_limit);
    m->dsn = "5.2.0";
}

/* Who opens and locks in the spool: the user where everybody may write; the user with the directory's group where
 * that group may (/var/mail of Debian); otherwise root. */
static void spool_rights(struct str directory, struct arena *a, struct mailbox *m) {
    struct stat st;
    if (sys->fstatat(AT_FDCWD, arena_cstr(a, directory), &st, 0) != 0 || (st.st_mode & S_IWOTH))
        return;
    if ((st.st_mode & S_IWGRP) && st.st_gid != 0)
        m->gid = st.st_gid;
    else if (st.st_uid != m->uid)
        m->open = MAILBOX_AS_ROOT;
}

void mailbox_of_user(struct delivery *d, struct str address, const struct account *user, struct str delivered,
                     const struct origin *from) {
    const struct conf *c = d->r->ctx->conf;
    struct arena *a = d->arena;
    struct str home = conf_str(c, PARAM_home_mailbox), spool = conf_str(c, PARAM_mail_spool_directory);
    bool root = geteuid() == 0;
    struct mailbox m = { .uid = user->uid, .gid = user->gid };
    set_common(d, &m);
    m.strict_owner = conf_bool(c, PARAM_strict_mailbox_ownership);
    if (home.n) {
        if (!local_can_act_as(user)) {
            delivery_result(d, address, STR("4.3.0"),
                            arena_printf(a, "cannot act as user %.*s without root", STR_ARG(user->name)));
            return;
        }
        m.path = arena_printf(a, "%.*s/%.*s", STR_ARG(user->home), STR_ARG(home));
    } else {
        bool maildir = str_ends(spool, STR("/"));
        m.path = maildir ? arena_printf(a, "%.*s%.*s/", STR_ARG(spool), STR_ARG(user->name))
                         : arena_printf(a, "%.*s/%.*s", STR_ARG(spool), STR_ARG(user->name));
        if (!root) {
            m.uid = geteuid();
            m.gid = getegid();
        } else {
            spool_rights(spool, a, &m);
        }
    }
    bool maildir = str_ends(m.path, STR("/"));
    struct str sent = maildir ? STR("delivered to maildir") : STR("delivered to mailbox");
    if (d->r->req.flags & DELIVERY_VERIFY) {
        delivery_result(d, address, STR("2.0.0"), maildir ? STR("delivers to maildir") : STR("delivers to mailbox"));
        return;
    }
    struct str sender = origin_sender(d, from);
    m.sender = &sender;
    m.head = mailbox_head_of(d->r, a, sender, origin_orig(d, from),
                             d->local->delivered & DELIVERED_FILE ? delivered : STR(""));
    struct mailbox_result result;
    mailbox_deliver(d->r, &m, &result);
    struct str prefix =
        maildir ? STR("maildir delivery failed: ")
                : arena_printf(a, "cannot update mailbox %.*s for user %.*s. ", STR_ARG(m.path), STR_ARG(user->name));
    if (result.ok && !maildir && conf_bool(c, PARAM_biff))
        biff_notify(d->local, user->name, result.start);
    finish(d, address, &m, &result, sent, prefix);
    if (result.ok || !str_starts(result.why, STR("destination ")))
        return;
    log_warn("specify \"strict_mailbox_ownership = no\" to ignore mailbox ownership mismatch");
}

void file_deliver(struct delivery *d, struct str address, struct str path, const struct account *rights,
                  const struct origin *from) {
    struct arena *a = d->arena;
    bool maildir = str_ends(path, STR("/"));
    struct str sent = maildir ? STR("delivered to maildir") : arena_printf(a, "delivered to file: %.*s", STR_ARG(path));
    if (d->r->req.flags & DELIVERY_VERIFY) {
        delivery_result(d, address, STR("2.0.0"), arena_printf(a, "delivers to file: %.*s", STR_ARG(path)));
        return;
    }
    if (!local_can_act_as(rights)) {
        delivery_result(d, address, STR("4.3.0"),
                        arena_printf(a, "cannot act as user id %ld without root", (long)rights->uid));
        return;
    }
    struct mailbox m = { .path = path, .uid = rights->uid, .gid = rights->gid, .file = true };
    set_common(d, &m);
    struct str sender = origin_sender(d, from);
    m.sender = &sender;
    m.head = mailbox_head_of(d->r, a, sender, origin_orig(d, from),
                             d->local->delivered & DELIVERED_FILE ? from->delivered : STR(""));
    struct mailbox_result result;
    mailbox_deliver(d->r, &m, &result);
    struct str prefix = maildir ? STR("maildir delivery failed: ")
                                : arena_printf(a, "cannot append message to file %.*s: ", STR_ARG(path));
    finish(d, address, &m, &result, sent, prefix);
}
