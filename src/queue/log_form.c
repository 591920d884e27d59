/* A record of the log in the form of a queue file (spool_file.h): the same content and envelope, other marks. */
#include "queue/log.h"

#include "base/die.h"
#include "queue/spool_file.h"
#include <stdlib.h>

const struct err log_damaged = { .kind = ERR_SYNTAX, .text = STR_INIT("damaged record of the log") };

static struct spool_head file_head(const struct segment_record *rec) {
    return (struct spool_head){
        .content_size = rec->content_size,
        .envelope_at = SPOOL_HEAD_SIZE + (uint64_t)rec->content_size,
        .envelope_size = rec->envelope_size,
        .rcpt_count = rec->rcpt_count,
        .content_crc = rec->content_crc,
        .envelope_crc = rec->envelope_crc,
    };
}

static void add_marks(struct buf *b, const struct segment_record *rec, struct str marks, bool warned) {
    for (uint32_t i = 0; i < rec->rcpt_count; i++) {
        bool done = i + 1 < marks.n && marks.p[i + 1] == SEGMENT_MARK_DONE;
        buf_byte(b, done ? SPOOL_MARK_DONE : SPOOL_MARK_TODO);
    }
    for (int i = 0; i < SPOOL_FLAGS; i++)
        buf_byte(b, warned && i == SPOOL_FLAG_WARNED ? SPOOL_MARK_DONE : SPOOL_MARK_TODO);
}

void log_file_form(struct buf *b, struct str whole, const struct segment_record *rec, struct str marks, bool warned,
                   struct str reasons) {
    struct spool_head h = file_head(rec);
    spool_head_pack(b, &h);
    buf_add(b, str_sub(whole, SEGMENT_RECORD_HEAD, (size_t)rec->content_size + rec->envelope_size));
    add_marks(b, rec, marks, warned);
    pack_str(b, reasons);
}

void log_copy_content(struct str whole, const struct segment_record *rec, struct spool_content *ret) {
    size_t n = rec->content_size;
    char *bytes = malloc(n ? n : 1);
    if (!bytes)
        die_no_memory(n);
    memcpy(bytes, whole.p + SEGMENT_RECORD_HEAD, n);
    *ret = (struct spool_content){ .fd = -1, .size = n, .bytes = str_n(bytes, n) };
}

error log_unpack(struct str whole, const struct segment_record *rec, struct str marks, bool warned, struct arena *a,
                 struct envelope *ret, struct spool_content *ret_content) {
    struct spool_head h = file_head(rec);
    struct buf b = { 0 };
    buf_add(&b, str_sub(whole, (size_t)SEGMENT_RECORD_HEAD + rec->content_size, rec->envelope_size));
    add_marks(&b, rec, marks, warned);
    bool good = spool_envelope_unpack(arena_str(a, buf_str(&b)), &h, a, ret); /* its strings stay in the copy */
    buf_free(&b);
    if (!good)
        return &log_damaged;
    if (ret_content)
        log_copy_content(whole, rec, ret_content);
    return NULL;
}
