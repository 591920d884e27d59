/* local.h - the local(8) agent: aliases, ~/.forward, commands, files and mailboxes of the users of this host.
 *
 *   settings.c    what main.cf says
 *   recipient.c   one recipient of a request: what it stands for, until everything is delivered or forwarded
 *   expand.c      aliases, ~/.forward and :include: files
 *   user.c        a user of this host, or nobody: mailbox, mailbox_command, other transports, luser_relay
 *   account.c     users; $user, $home ... in forward_path and the like; files read under a user's rights
 *   command.c     "|command"
 *   mailboxes.c   the mailbox of a user, and "/file/name"
 *   forward.c     what is not delivered here is submitted to cleanup as a new message
 *   pass.c        what another transport delivers (mailbox_transport and the like)
 *   biff.c        "you have new mail"
 *   alias_list.c  what stands behind the colon of an alias
 *
 * As an ordinary user (no root) it can act only as itself: commands, files and ~/.forward of other users are not
 * available, and a mailbox in mail_spool_directory is written under the own user id. */
#ifndef ANGARIUM_LOCAL_LOCAL_H
#define ANGARIUM_LOCAL_LOCAL_H

#include "deliver/agent.h"
#include "local/alias_list.h"
#include "table/table.h"

enum { LOCAL_DEPTH_MAX = 100, LOCAL_STEPS_MAX = 1000000, LOCAL_FILE_MAX = 16 * 1024 * 1024 };

/* aliases, ~/.forward files, :include: files: where a destination came from. Also the words of
 * allow_mail_to_commands, allow_mail_to_files and propagate_unmatched_extensions. */
enum origin_kind { ORIGIN_REQUEST = 0, ORIGIN_ALIAS = 1, ORIGIN_FORWARD = 2, ORIGIN_INCLUDE = 4, ORIGIN_LUSER = 8 };
/* prepend_delivered_header */
enum delivered_kind { DELIVERED_COMMAND = 1, DELIVERED_FILE = 2, DELIVERED_FORWARD = 4 };

struct account {
    struct str name, home, shell; /* empty for a user id without a name */
    uid_t uid;
    gid_t gid;
};

struct local { /* service_ctx.state */
    struct maps *aliases, *mailbox_transports, *fallback_transports, *mailbox_commands;
    struct str aliases_error;            /* why a table cannot be used, or empty */
    struct account default_privs;        /* for commands and files of root */
    unsigned commands, files, propagate; /* enum origin_kind masks */
    unsigned delivered;                  /* enum delivered_kind mask */
    unsigned locks;
    uint16_t biff_port;
};

struct origin { /* what one alias, ~/.forward or :include: file gave */
    enum origin_kind kind;
    struct str name; /* alias or user in lower case, or the file */
    unsigned depth;
    struct account rights;      /* for its commands and files */
    bool by_root;               /* root has written it: its :include: files are read as root */
    struct str forward_user;    /* below the ~/.forward of that user */
    struct str alias;           /* below that alias */
    bool listed;                /* below an :include: */
    bool owned;                 /* it has an owner- alias: its local users' mail is new mail */
    bool own_sender;            /* it, or one above it, has one: */
    struct str sender;          /*   the sender of what is forwarded */
    struct str address;         /* the recipient it stands for: in the log */
    struct str user, extension; /* of that recipient, for the environment of commands */
    struct str delimiter;
    struct str delivered; /* for Delivered-To: */
};

struct delivery { /* one recipient of the request */
    struct agent_request *r;
    struct local *local;
    size_t index;
    struct arena *arena, *scratch; /* scratch: until the next piece of work */
    struct map *delivered_to;      /* delivered_to_read() */
    struct rewrite_link *rewrite;  /* connected at first use */
    struct agent_status worst;
    bool any;
    /* what is to be forwarded */
    struct forwards *forwards;
};

/* Keep it for qmgr when it is the worst so far; strings in d->arena. Nothing is logged. */
void delivery_note(struct delivery *d, const struct agent_status *s);
/* Who mail from here is from, and whom it was for at first (empty: that is of no interest). */
struct str origin_sender(const struct delivery *d, const struct origin *from);
struct str origin_orig(const struct delivery *d, const struct origin *from);
/* Log a result under `address`, and keep the worst for qmgr. `dsn` decides: 2 sent, 4 deferred, 5 bounced. */
void delivery_result(struct delivery *d, struct str address, struct str dsn, struct str reason);
void delivery_result_diagnostic(struct delivery *d, struct str address, struct str dsn, struct str reason,
                                struct str diagnostic);

error local_init(struct service_ctx *ctx, struct arena *err_arena);
void local_end(struct service_ctx *ctx); /* what local_init() opened: for tests */
void local_deliver(struct agent_request *r);

/* --- account.c --- */
/* Look a user up by name or number in one of the offload threads. False: unknown; `*ret_failed` when nobody can say. */
bool account_find(struct arena *a, struct str name, struct account *ret, bool *ret_failed);
bool account_find_uid(struct arena *a, uid_t uid, struct account *ret, bool *ret_failed);
/* $user, $home, $shell, $recipient, $extension, $domain, $local, $recipient_delimiter in `text`. Bytes of the values
 * that are not in `filter` become '_' (empty filter: all are taken). */
struct local_names {
    struct account account;
    struct str sender, recipient, extension, domain, local, delimiter;
};
error local_expand(struct str text, const struct local_names *names, struct str filter, struct arena *a,
                   struct str *ret);
struct str local_filter(struct arena *a, struct str value, struct str filter);

struct local_file {
    size_t which;       /* of the paths */
    int code;           /* errno when it is there and cannot be read, or 0 */
    struct str refusal; /* "world writable", "not a regular file", or empty */
    struct str text;
    uid_t uid; /* owner */
    gid_t gid;
};
/* The first of `paths` that exists, read under `rights`. False: none; an error of the delivery is in ret->code too. */
enum { LOCAL_NO_LINKS = 1 /* a symbolic link is "not a regular file" */ };
bool local_read_file(struct agent_request *r, const struct account *rights, const struct str *paths, size_t n,
                     unsigned flags, struct local_file *ret);
/* Whether the user's home is there, as the user sees it: 0 or an errno value. */
int local_home_error(const struct account *user);
/* May this process act as that user? */
bool local_can_act_as(const struct account *rights);

/* --- command.c --- */
struct command {
    struct str text;
    struct account rights; /* the command's user */
    struct str user;       /* $USER, $LOGNAME: the recipient's name */
    struct str home, shell;
    struct str sender, recipient, extension, local, domain, orig;
    struct str directory; /* command_execution_directory, expanded, or empty */
    struct str head;
};
void command_deliver(struct delivery *d, struct str address, const struct command *c);
/* The words of a command that needs no shell; 0: it does. */
size_t command_words(struct arena *a, struct str text, struct str **ret);

/* --- mailboxes.c --- */
void mailbox_of_user(struct delivery *d, struct str address, const struct account *user, struct str delivered,
                     const struct origin *from);
void file_deliver(struct delivery *d, struct str address, struct str path, const struct account *rights,
                  const struct origin *from);

/* --- pass.c --- */
/* Have `destination`, "transport" or "transport:nexthop", deliver: its agent logs the result. */
void pass_deliver(struct delivery *d, struct str address, struct str destination);
void pass_end(void); /* connections that were kept */

/* --- biff.c --- */
uint16_t biff_port(void);
/* Tell comsat(8) of mail that begins at `offset` of the user's mailbox. */
void biff_notify(const struct local *l, struct str user, uint64_t offset);

/* --- forward.c --- */
void forward_add(struct delivery *d, const struct origin *from, struct str address);
/* Submit what was added; the results are logged. */
void forward_all(struct delivery *d);
#endif
