/* queue_id.h - the name of a message while it is here: "4cXyZ..." or "9B2C1A0F3".
 *
 * Short form: hexadecimal of the microseconds (of the second) and of a number that no other message in the queue has at
 * the same time; long form (enable_long_queue_ids): time in base 52, 'z', that number in base 51. Both are file names
 * and safe to print. */
#ifndef ANGARIUM_QUEUE_QUEUE_ID_H
#define ANGARIUM_QUEUE_QUEUE_ID_H

#include "base/arena.h"
#include "base/pack.h"

enum { QUEUE_ID_MAX = 32 }; /* bytes, NUL included */

struct queue_id {
    char text[QUEUE_ID_MAX];
};
void queue_id_make(struct queue_id *ret, int64_t wall_us, uint64_t unique, bool long_form);
/* Of a time that no other message has. `lane` is only for people, and only in the long form. */
void queue_id_make_of_time(struct queue_id *ret, int64_t wall_us, unsigned lane, bool long_form);
/* `*ret` from text; false when it is not a queue id (then nothing is set). */
bool queue_id_from(struct str s, struct queue_id *ret);
/* As packed with pack_str(); false, with `u->bad` set, when it is none. */
bool queue_id_unpack(struct unpack *u, struct queue_id *ret);
/* Only letters and digits, 1 to QUEUE_ID_MAX - 1 of them: safe as a file name. */
bool queue_id_valid(struct str s);
/* The characters that name the sub-directories of a hashed queue: for both forms, the microseconds in hexadecimal. */
enum { QUEUE_ID_HASH_MAX = 5 };
void queue_id_hash(const struct queue_id *id, char ret[QUEUE_ID_HASH_MAX + 1]);
static inline struct str queue_id_str(const struct queue_id *id) {
    return str_c(id->text);
}
#endif
