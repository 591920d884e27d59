/* macros.h - $recipient and its relatives in the arguments of a command of pipe(8).
 *
 *     argument  = *( literal / "$$" / reference )          ; "$$" is one "$"
 *     reference = "$" name / "${" name "}" / "$(" name ")"
 *     name      = 1*( ALPHA / DIGIT / "_" )
 *
 * An argument with a macro that each recipient has a value of its own for becomes an argument per recipient. Values are
 * taken as they are: what looks like a macro in them stays. */
#ifndef ANGARIUM_PIPE_MACROS_H
#define ANGARIUM_PIPE_MACROS_H

#include "mail/address.h"
#include "pipe/attributes.h"
#include "proto/delivery.h"

enum { PIPE_ARGUMENTS_MAX = 100000, PIPE_ARGUMENT_BYTES_MAX = 16 * 1024 * 1024 /* of one command, all together */ };

/* argv for execve(), in `a`. `extensions`: addr_extension_rules(). ERR_CONFIG: a macro that does not exist, or none at
 * all behind a "$"; ERR_LIMIT: over PIPE_ARGUMENTS_MAX or PIPE_ARGUMENT_BYTES_MAX. */
error pipe_arguments(struct arena *a, const struct pipe_attributes *attributes, const struct delivery_request *r,
                     struct extension_rules extensions, char ***ret);
#endif
