/* harness.h - for tests: whole sessions against a small world.
 *
 * The session runs over one end of a socket pair with back ends that answer from tables; a script (test/script_peer.h)
 * or a fuzzer's bytes are at the other end. The clock is fake, so that nothing takes time.
 *
 * The world: we are mx.here.example. here.example is local with user, user2 and postmaster; relay.example,
 * vmbox.example and valias.example have the recipient ok; temp.example cannot be asked about. 192.0.2.1 is
 * client.example, 127.0.0.* is localhost, others have no name. mynetworks is 127.0.0.2. The name service has what
 * harness.zone says, a record a line: "name TYPE data", data "!" for a failure; a name with no line is not there.
 * With smtpd_sasl_auth_enable who says "good" (base64) is joe; harness.c has the other words. */
#ifndef ANGARIUM_SMTPD_HARNESS_H
#define ANGARIUM_SMTPD_HARNESS_H

#include "smtpd/session.h"

enum { HARNESS_MESSAGES_MAX = 32, HARNESS_RCPTS_MAX = 16 };

struct harness_message {
    bool opened, ended, aborted;
    unsigned flags, envelope_flags;
    struct str client; /* of the envelope: "name [address]:port proto helo ident login" */
    struct str sender, envid, rcpts[HARNESS_RCPTS_MAX], orcpt[HARNESS_RCPTS_MAX];
    char verp[VERP_DELIMITERS];
    unsigned ret, notify[HARNESS_RCPTS_MAX];
    size_t rcpt_count;
    struct buf content;
    struct buf actions; /* "hold()filter(smtp:x)" */
};

struct harness {
    struct arena *arena;
    struct arena *strings; /* of messages */
    struct settings *settings;
    struct conf *conf;
    struct backend backend;
    struct harness_message messages[HARNESS_MESSAGES_MAX];
    size_t message_count; /* opened in all, also those over the limit above */
    struct buf log;       /* one record a line */
    bool draining, standard_input;
    bool drain_at_open; /* the process is told to end while the first message comes in */
    struct clients *clients;
    size_t flushes;   /* times that flush was asked; a site's first label (gone, denied, failed, bad) says what comes of
                         it */
    size_t questions; /* about addresses, to trivial-rewrite */
    const char *zone; /* may be set after harness_begin() */
    size_t dns_queries;
    const char *const
        *servers; /* scripts of those that are dialled, NULL at the end; what is dialled then is not there */
    size_t dials;
    struct buf dialled; /* targets, a line each */
    size_t scratch_files;
    struct tls_facts tls; /* what each session begins with */
    struct session_login login;
    struct verify_answer verified[4]; /* what verify says, one after the other; the last stays */
    size_t verify_asked;
    struct anvil_answer anvil_says; /* each time it is asked */
    struct buf anvil_told;          /* "1 smtp:192.0.2.1;": event and client; "?" behind what was asked */
    /* faults */
    bool open_fails, rcpt_fails, content_fails, end_fails, anvil_fails, scratch_fails;
    struct submit_result open_result, end_result; /* what cleanup says; status SUBMIT_OK: the usual */
};

/* `options`: "name = value" lines over the world's own. */
void harness_begin(struct harness *h, const char *options);
void harness_end(struct harness *h);
/* With several worlds: this one again, after harness_clear() and loop_free(). */
void harness_resume(struct harness *h);
/* Forget messages and log. */
void harness_clear(struct harness *h);
/* One session with the client at `address`; returns when it has ended. Only inside a test with cmocka. */
void harness_script(struct harness *h, const char *address, const char *script);
/* Two clients at a time from one address. */
void harness_script2(struct harness *h, const char *address, const char *script, const char *other);
/* The same over a descriptor, for a fuzzer: what happens at the other end is the caller's. */
void harness_session(struct harness *h, const char *address, int fd);
/* Every message that was begun has ended one way, with a sender's envelope and recipients if it was taken. NULL: so it
 * is; else what is wrong. */
const char *harness_messages_fault(const struct harness *h);
/* Is there a log record that matches the pattern (fnmatch)? */
bool harness_logged(const struct harness *h, const char *pattern);
size_t harness_log_count(const struct harness *h, const char *pattern);
#endif
