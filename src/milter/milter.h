/* milter.h - talking to mail filters: what happens in a session is told to each of a list of them, and the first that
 * refuses decides.
 *
 * A list (`struct milters`) lives as long as an SMTP session. smtpd tells of connect, HELO, MAIL, RCPT, DATA and
 * unknown commands; the content is told by cleanup, which gets the connections with the message (milters_pack()) while
 * smtpd waits for the answer. Connections are made when the first event has to be told.
 *
 * A filter that breaks the protocol, or is silent for too long, is broken until the list ends; its default action
 * decides everything it would have been asked. Waits, in a coroutine; logs what the administrator must know. */
#ifndef ANGARIUM_MILTER_MILTER_H
#define ANGARIUM_MILTER_MILTER_H

#include "milter/config.h"

enum {
    MILTER_PROGRESS_MAX = 100,    /* times a filter may ask for more time before it has answered */
    MILTER_EDITS_MAX = 20000,     /* changes of one message by one filter, body packets too */
    MILTER_MACROS_MAX = 16 * 1024 /* bytes of names and values that go with one event */
};

enum milter_judgement {
    MILTER_PASS,
    MILTER_HOLD,    /* into the hold queue; goes on */
    MILTER_DISCARD, /* taken, and thrown away */
    MILTER_REFUSE,  /* `text` is the reply: its code, lines parted by "\n"; 421: the session ends with it */
};
struct milter_verdict {
    enum milter_judgement what;
    struct str text; /* REFUSE: the reply; HOLD: why, or empty. Lives as long as the list's arena */
    bool plain;      /* REFUSE: the filter has said "reject", without a text of its own */
};

enum milter_state {
    MILTER_NEW, /* not connected yet */
    MILTER_OPEN,
    MILTER_ACCEPTED, /* wants to hear no more of this message */
    MILTER_DONE,     /* nor of this session */
    MILTER_DECIDED,  /* always `sticky`: it has refused the client, or is broken */
};
struct milter {
    const struct milter_config *config;
    enum milter_state state;
    struct io *io;
    unsigned version, protocol; /* as negotiated; enum milter_protocol */
    unsigned skip;              /* events it has heard enough of, of this message: a bit each */
    bool in_message;            /* it has heard MAIL, and no end yet */
    struct milter_verdict sticky;
    struct str macros[MILTER_STAGES];      /* lists of names it has asked for; p NULL: what main.cf says */
    struct str macros_made[MILTER_STAGES]; /* names and values, ready to be sent; p NULL: to be made */
};

struct milters {
    struct arena *arena;
    struct milter *at;
    size_t n;
    const struct milter_macros *macros; /* main.cf's */
    /* The owner's. A macro's value (name without braces), p NULL: there is none now; in `a`. */
    struct str (*macro)(void *ctx, struct arena *a, struct str name);
    error (*dial)(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret);
    void *ctx;
    int64_t until; /* no event lasts beyond: a point in time, or 0 */
};

/* Set macros, macro, dial and ctx before; the configuration must live as long. */
void milters_open(struct milters *ms, struct arena *a, const struct milter_configs *list);
/* Say goodbye and close. Does not wait. */
void milters_close(struct milters *ms);

/* `address` empty: not known. `name` "localhost", or "[ADDR]" as the caller prefers. */
struct milter_verdict milters_connect(struct milters *ms, struct str name, struct str address, unsigned port);
struct milter_verdict milters_helo(struct milters *ms, struct str helo);
/* `path` as the client gave it, with its <>; `args`: ESMTP words. */
struct milter_verdict milters_mail(struct milters *ms, struct str path, struct str args);
/* `refused`: the server has refused it already; only who asked hears of it, and the answer does not matter. */
struct milter_verdict milters_rcpt(struct milters *ms, struct str path, struct str args, bool refused);
struct milter_verdict milters_data(struct milters *ms);
struct milter_verdict milters_unknown(struct milters *ms, struct str line);
/* The message is over: told to its end by cleanup, or RSET, a refusal... Does not wait. */
void milters_abort(struct milters *ms);
/* Connections that others may have said something on, and nobody knows what, are of no more use. */
void milters_break(struct milters *ms);
void milter_give_up(struct milter *m); /* one of them: from now on its default action decides */

/* --- the content, one filter after the other --- */
/* True: there is something to tell it. */
bool milter_wants_content(const struct milter *m);
/* `value` without the LF at its end, lines parted by LF; `space`: what stood behind the colon, " " or "". */
struct milter_verdict milter_header(struct milters *ms, struct milter *m, struct str name, struct str value);
struct milter_verdict milter_end_of_header(struct milters *ms, struct milter *m);
struct milter_verdict milter_body(struct milters *ms, struct milter *m, struct str bytes /* at most MILTER_CHUNK */);
bool milter_hears(const struct milter *m, enum milter_event e);
/* `edit` is called for each change, in order; false ends it, as a failure of ours: a REFUSE with an empty text. What
 * was changed is to be kept only when `*ret_whole` is set: the filter has said all it had to say. */
struct milter_verdict milter_end_of_message(struct milters *ms, struct milter *m,
                                            bool (*edit)(void *arg, const struct milter_reply *r), void *arg,
                                            bool *ret_whole);

/* Names and values of the macros of a stage, as they are sent. */
void milter_make_macros(struct milters *ms, const struct milter *m, enum milter_stage stage, struct buf *b);

/* --- from smtpd to cleanup (hand_over.c) --- */
/* Filters that want to hear the content: how many, and what cleanup must know of them. Their connections are flushed.
 * The descriptors (in the same order, in `ret_fds`) stay ours. */
size_t milters_pack(struct milters *ms, struct buf *b, int ret_fds[MILTERS_MAX]);
/* The other end. Takes over `fds`, also when it returns false: malformed, or another number of filters than `n`. */
bool milters_unpack(struct milters *ms, struct arena *a, struct str packed, int *fds, size_t n);
/* cleanup's end of it: the connections are left to smtpd. Those that broke were shut, which smtpd sees. */
void milters_hand_back(struct milters *ms);
#endif
