#include "queue/log.h"

#include "base/die.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { NUMBER_DIGITS = 16, NUMBERS_FIRST = 16 };

void log_name(const char *prefix, uint64_t number, char ret[LOG_NAME_MAX]) {
    snprintf(ret, LOG_NAME_MAX, "log/%s%0*" PRIx64, prefix, NUMBER_DIGITS, number);
}

bool log_number(const char *name, const char *prefix, uint64_t *ret) {
    struct str s = str_c(name);
    if (!str_starts(s, str_c(prefix)))
        return false;
    s = str_from(s, strlen(prefix));
    if (s.n != NUMBER_DIGITS)
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) /* one spelling a number */
            return false;
        v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (v == 0)
        return false;
    *ret = v;
    return true;
}

error log_names_open(int dir, struct log_names *ret) {
    int fd = sys->openat(dir, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    *ret = (struct log_names){ .dir = fd < 0 ? NULL : fdopendir(fd) };
    if (ret->dir)
        return NULL;
    int why = errno;
    if (fd >= 0)
        sys->close(fd);
    return err_errno(why);
}

bool log_names_next(struct log_names *n) {
    static const char *const prefixes[] = { "", "free.", "new." };
    struct dirent *e;
    while (n->dir && (e = readdir(n->dir)))
        for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
            if (log_number(e->d_name, prefixes[i], &n->number)) {
                n->prefix = prefixes[i];
                return true;
            }
    return false;
}

void log_names_close(struct log_names *n) {
    if (n->dir)
        closedir(n->dir);
    n->dir = NULL;
}

static int compare_numbers(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

uint64_t *log_numbers(const struct spool *s, const char *prefix, size_t *ret_count) {
    size_t n = 0, room = NUMBERS_FIRST;
    uint64_t *numbers = malloc(room * sizeof *numbers);
    if (!numbers)
        die_no_memory(room * sizeof *numbers);
    struct log_names names;
    log_names_open(s->fd, &names);
    while (log_names_next(&names)) {
        if (strcmp(names.prefix, prefix) != 0)
            continue;
        if (n == room) {
            room *= 2;
            uint64_t *grown = realloc(numbers, room * sizeof *numbers);
            if (!grown)
                die_no_memory(room * sizeof *numbers);
            numbers = grown;
        }
        numbers[n++] = names.number;
    }
    log_names_close(&names);
    qsort(numbers, n, sizeof *numbers, compare_numbers);
    *ret_count = n;
    return numbers;
}
