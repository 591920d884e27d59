/* receive.h - what main.cf says of all mail that comes in one way: flags for submit_open(). */
#ifndef ANGARIUM_PROTO_RECEIVE_H
#define ANGARIUM_PROTO_RECEIVE_H

#include "conf/conf.h"
#include "proto/submit.h"

/* receive_override_options: what cleanup would do by itself and shall not (smtpd(8), qmqpd(8), pickup(8)).
 * `*ret_no_unknown_checks`: nor are unknown recipients looked for. ERR_CONFIG with the text of the fatal line. */
error receive_flags(const struct conf *c, struct arena *err_arena, unsigned *ret_flags, bool *ret_no_unknown_checks);
/* SUBMIT_DETECT_UTF8 when smtputf8_autodetect_classes names this one: "sendmail", "smtpd", "qmqpd", "forward",
 * "bounce", "notify", "verify". Else 0. */
unsigned receive_detect_utf8(const struct conf *c, struct str class);
/* Mail made by ourselves: SUBMIT_FILTER | SUBMIT_MILTER when internal_mail_filter_classes names its class ("bounce",
 * "notify"). Else 0. */
unsigned receive_internal_filter(const struct conf *c, struct str class);
#endif
