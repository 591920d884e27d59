#include "base/die.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void (*die_hook)(const char *text);

void die_set_hook(void (*hook)(const char *text)) {
    die_hook = hook;
}

static _Noreturn void finish(const char *text) {
    void (*hook)(const char *) = die_hook;
    die_hook = NULL; /* a failure inside the hook must not come back here */
    if (hook)
        hook(text);
    else
        fprintf(stderr, "panic: %s\n", text);
    abort();
}

void die(const char *format, ...) {
    char text[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    finish(text);
}

void die_no_memory(size_t wanted) {
    char text[80];
    snprintf(text, sizeof text, "out of memory: %zu bytes wanted", wanted);
    finish(text);
}
