/* filemap.h - a whole file mapped for reading that may be cut short by others while it is read.
 *
 * Touching a page that the file has lost ends a process with SIGBUS. Here a page of zero bytes takes its place and the
 * map is marked broken: who reads it checks what it reads, as with any other hostile input, and asks
 * filemap_broken() before it believes what it has found. */
#ifndef ANGARIUM_TABLE_FILEMAP_H
#define ANGARIUM_TABLE_FILEMAP_H

#include "base/err.h"

struct filemap {
    const unsigned char *p; /* NULL: an empty file */
    size_t n;
    struct filemap *next, **back; /* all maps of the process: the signal handler looks there */
    volatile int broken;
};

/* 0, or an errno. `m` stays where it is until filemap_end(). The descriptor is not needed afterwards. */
int filemap_start(struct filemap *m, int fd, size_t n);
void filemap_end(struct filemap *m);
/* For a map that a library has made (at `p`): only watched, and unwatched by filemap_unwatch(). */
void filemap_watch(struct filemap *m, const void *p, size_t n);
void filemap_unwatch(struct filemap *m);
static inline bool filemap_broken(const struct filemap *m) {
    return m->broken != 0;
}
#endif
