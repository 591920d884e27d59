/* die.h - the end of the process for what no caller can mend: no memory, a broken invariant.
 * The message goes to standard error and, where the program has set one, to the log. */
#ifndef ANGARIUM_BASE_DIE_H
#define ANGARIUM_BASE_DIE_H

#include <stddef.h>

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void die_no_memory(size_t wanted);
/* Called once with the finished text before abort(); base/log.h sets it. */
void die_set_hook(void (*hook)(const char *text));
#endif
