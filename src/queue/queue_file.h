/* queue_file.h - one queue file by its descriptor, wherever it lies and whatever its mode: for those who look at files
 * that are not in the queue (postcat, qshape), or not any more (pickup, of what postsuper has requeued). No locks. */
#ifndef ANGARIUM_QUEUE_QUEUE_FILE_H
#define ANGARIUM_QUEUE_QUEUE_FILE_H

#include "base/err.h"
#include "mail/envelope.h"
#include "queue/spool.h"
#include "queue/spool_file.h"

enum queue_file_kind {
    QUEUE_FILE_OTHER,      /* nothing of ours */
    QUEUE_FILE_MESSAGE,    /* spool_file.h */
    QUEUE_FILE_SUBMISSION, /* maildrop.h: begins like one, more is not looked at */
    QUEUE_FILE_UNFINISHED, /* a message whose writer has not come to its head, or its end */
};
/* What the descriptor (seekable, from its start) holds, by its first bytes. ERR_SYS: cannot be read. */
error queue_file_kind(int fd, enum queue_file_kind *ret);

struct queue_file {
    struct spool_head head;
    struct envelope env; /* lives in the arena, as `packed` */
    struct str packed;   /* the envelope's bytes, which begin at head.envelope_at and which env borrows from */
    uint64_t content_at; /* bytes from the start of the file */
};
/* Envelope and place of the content. ERR_SYNTAX with a text: damaged, of another version, cut. */
error queue_file_read(int fd, struct arena *a, struct queue_file *ret);
/* A message of the queue by its id, whatever queue it is in: maildrop, the states, corrupt, or the log. Its path is
 * set, below queue_directory, and either a descriptor (the caller's), or, of one in the log, fd -1 and the file that it
 * would become, in `a`. For a LISTER. ERR_SYS ENOENT: nowhere. */
error queue_file_find(struct spool *s, const struct queue_id *id, struct arena *a, struct str *ret_path, int *ret_fd,
                      struct str *ret_form);
/* Does the content have its check sum? NULL, ERR_SYNTAX or ERR_SYS. Reads all of it. */
error queue_file_check_content(int fd, const struct queue_file *f);
#endif
