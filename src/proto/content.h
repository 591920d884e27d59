/* content.h - the content of a stored message as it goes to those who deliver or return it (struct spool_content): a
 * read-only descriptor that travels with the frame, or the bytes themselves in the frame. Offsets count from the
 * message's first byte. Both forms are read by the same calls, which keep no position: to read again, begin at 0. */
#ifndef ANGARIUM_PROTO_CONTENT_H
#define ANGARIUM_PROTO_CONTENT_H

#include "queue/spool.h"
#include "run/ipc.h"

enum { DELIVERY_INLINE_MAX = 128 * 1024 /* content that may go in the frame of a request */ };

/* What there is at `at`: content in memory is lent as it is, all that is left of it, without a copy; of a file up to
 * `room_size` bytes are read into `room`. `*ret` is empty at the end. An error: of the disk, or the file is shorter
 * than it should be (EIO). Never waits for the loop: also for children. */
error content_read(const struct spool_content *c, uint64_t at, char *room, size_t room_size, struct str *ret);
/* Close the descriptor, if there is one. */
void content_release(struct spool_content *c);

/* A request's part about its content; the frame must carry `c->fd`. */
void content_pack(struct buf *b, const struct spool_content *c);
/* `m` is the frame: its descriptor is looked at, not taken; bytes are borrowed from what is unpacked. False, or u->bad:
 * neither or both forms, over DELIVERY_INLINE_MAX, or not a size of a file. */
bool content_unpack(struct unpack *u, const struct ipc_msg *m, struct spool_content *ret);
#endif
