/* trigger.h - wake a service of the running mail system: bytes into its socket below public/ or private/. */
#ifndef ANGARIUM_CMD_TRIGGER_H
#define ANGARIUM_CMD_TRIGGER_H

#include "conf/conf.h"

/* The service has read the bytes when this returns NULL, or had application_event_drain_time to do so. ERR_SYS: no such
 * service, or nobody there. */
error trigger_send(const struct conf *c, struct str class, struct str service, struct str request);
#endif
