/* engine.h - an SMTP server that accepts nothing (RFC 5321): the client speaks, its recipients are told to come back
 * (450) or to go away (550), and how it speaks is watched. */
#ifndef ANGARIUM_POSTSCREEN_ENGINE_H
#define ANGARIUM_POSTSCREEN_ENGINE_H

#include "postscreen/screen.h"

/* From the greeting to the end; `c->gone` is set then. */
void engine_run(struct client *c);
#endif
