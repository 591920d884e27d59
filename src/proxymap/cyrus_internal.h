/* cyrus_internal.h - what the two halves of the Cyrus library have in common here: cyrus.c (server), cyrus_client.c. */
#ifndef ANGARIUM_PROXYMAP_CYRUS_INTERNAL_H
#define ANGARIUM_PROXYMAP_CYRUS_INTERNAL_H

#include "conf/conf.h"
#include "conf/master_cf.h"

/* A message of the library as a line of the log: printable, with the words that log readers know in front. */
void cyrus_add_message(struct buf *b, int level, const char *message);
/* What it has said outside of a login goes to our own log. */
void cyrus_write_stray_log(void);
/* For sasl_server_init() and sasl_client_init(): collects that. */
int cyrus_log_stray(void *context, int level, const char *message);

/* Call `fn` in a thread, when there is one for us. False: there was none for too long. */
bool cyrus_run(void (*fn)(void *arg), void *arg);

/* Once, before any init: locks, and cyrus_sasl_config_path. False: it is not to be had (logged). */
bool cyrus_prepare(const struct conf *c);
/* A parameter as the service has it: the last -o of its entry, or main.cf's. */
struct str cyrus_setting(const struct conf *c, const struct master_entry *e, enum param p, struct arena *a);

/* In cyrus_open(). */
void cyrus_client_open(const struct conf *c, const struct master_cf *services);
#endif
