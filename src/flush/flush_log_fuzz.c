/* The lines of a site's log: fed whole, and in pieces of every size the input asks for, they must be the same. */
#include "flush/site_log.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PIECE_MAX = 100, LINES_MAX = 100 * 1000 };

/* What became of the lines, and how many there were. */
static uint64_t run(struct str bytes, size_t piece) {
    struct id_lines p = { 0 };
    uint64_t sum = 0;
    unsigned lines = 0;
    for (bool end = false; !end;) {
        struct str front = str_sub(bytes, 0, piece);
        bytes = str_from(bytes, front.n);
        end = front.n == 0;
        id_lines_feed(&p, end ? STR("\n") : front);
        struct queue_id id;
        enum id_line kind;
        while ((kind = id_lines_next(&p, &id)) != ID_LINE_MORE) {
            if (++lines > LINES_MAX || (kind == ID_LINE_ID && !queue_id_valid(queue_id_str(&id))) ||
                p.n > sizeof p.line)
                abort();
            sum = sum * 31 + str_hash(kind == ID_LINE_ID ? queue_id_str(&id) : str_n(p.line, p.n)) + (uint64_t)kind;
        }
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > LINES_MAX)
        return 0;
    char *copy = malloc(size);
    if (!copy)
        return 0;
    memcpy(copy, data + 1, size - 1);
    struct str bytes = str_n(copy, size - 1);
    if (run(bytes, SIZE_MAX) != run(bytes, 1 + data[0] % PIECE_MAX))
        abort();
    free(copy);
    return 0;
}
