/* log_test_util.h - for tests of the log's reader: segments that the test writes itself, byte by byte. */
#ifndef ANGARIUM_QUEUE_LOG_TEST_UTIL_H
#define ANGARIUM_QUEUE_LOG_TEST_UTIL_H

#include "queue/spool_test_util.h"

#include "queue/crc32c.h"
#include "queue/log.h"

struct written { /* a segment being written */
    int fd;
    uint64_t number, at;
    uint32_t mark;
    struct segment_head head;
};

static inline struct written segment_new(struct test_queue *q, uint64_t number, uint64_t generation) {
    struct written w = { .number = number, .head = segment_head_for(SEGMENT_SIZE_MIN, generation) };
    char path[128], dir[96];
    snprintf(dir, sizeof dir, "%s/log", q->dir);
    mkdir(dir, 0700);
    snprintf(path, sizeof path, "%s/%016llx", dir, (unsigned long long)number);
    w.fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(w.fd >= 0);
    assert_int_equal(ftruncate(w.fd, SEGMENT_SIZE_MIN), 0);
    struct buf b = { 0 };
    segment_front_pack(&b, &w.head);
    assert_int_equal(pwrite(w.fd, b.p, b.n, 0), b.n);
    buf_free(&b);
    w.at = segment_records_at(&w.head);
    return w;
}

/* Its heads are those of another version, whose check sums are right. */
static inline void set_version(struct written *w, uint32_t version) {
    struct buf b = { 0 };
    segment_front_pack(&b, &w->head);
    for (size_t at = 0; at <= SEGMENT_HEAD_2_AT; at += SEGMENT_HEAD_2_AT) {
        for (unsigned i = 0; i < 4; i++)
            b.p[at + 8 + i] = (char)(version >> (8 * i));
        uint32_t crc = crc32c(0, str_n(b.p + at, SEGMENT_HEAD_SIZE - 4));
        for (unsigned i = 0; i < 4; i++)
            b.p[at + SEGMENT_HEAD_SIZE - 4 + i] = (char)(crc >> (8 * i));
    }
    assert_int_equal(pwrite(w->fd, b.p, b.n, 0), b.n);
    buf_free(&b);
}

static inline struct envelope envelope(struct arena *a, size_t rcpts) {
    struct envelope env = { .arrival_us = 1790000000000000, .sender = STR("from@here.example"), .size = 1 };
    struct str *fields[] = { &env.dsn_envid,          &env.content_filter,       &env.client.name,
                             &env.client.address,     &env.client.port,          &env.client.helo,
                             &env.client.protocol,    &env.client.ident,         &env.client.sasl_method,
                             &env.client.sasl_sender, &env.client.sasl_username, &env.client.reverse_name };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        *fields[i] = STR("");
    env.rcpt_count = rcpts;
    env.rcpts = arena_array(a, rcpts, sizeof *env.rcpts);
    for (size_t i = 0; i < rcpts; i++) {
        env.rcpts[i].address = arena_printf(a, "to%zu@there.example", i);
        env.rcpts[i].orig = env.rcpts[i].dsn_orcpt = STR("");
    }
    return env;
}

static inline uint64_t put(struct test_queue *q, struct written *w, const char *id, size_t size, size_t rcpts,
                           enum segment_state state) {
    struct buf envelope_bytes = { 0 }, b = { 0 };
    struct envelope env = envelope(q->arena, rcpts);
    envelope_pack(&envelope_bytes, &env);
    for (size_t i = 0; i < rcpts; i++)
        rcpt_pack(&envelope_bytes, &env.rcpts[i]);
    char *content = arena_alloc(q->arena, size);
    for (size_t i = 0; i < size; i++)
        content[i] = test_content(i, size);
    struct segment_record rec = { .state = state,
                                  .content_size = (uint32_t)size,
                                  .envelope_size = (uint32_t)envelope_bytes.n,
                                  .rcpt_count = (uint32_t)rcpts,
                                  .mark = w->mark,
                                  .content_crc = crc32c(0, str_n(content, size)),
                                  .envelope_crc = crc32c(0, buf_str(&envelope_bytes)) };
    assert_true(queue_id_from(str_c(id), &rec.id));
    segment_record_pack(&b, &w->head, &rec);
    buf_add(&b, str_n(content, size));
    buf_add(&b, buf_str(&envelope_bytes));
    assert_int_equal(pwrite(w->fd, b.p, b.n, (off_t)w->at), b.n);
    buf_free(&b);
    buf_free(&envelope_bytes);
    uint64_t at = w->at;
    w->at += segment_record_size(&rec);
    w->mark += (uint32_t)rcpts + 1;
    return at;
}

static inline struct queue_id id_of(const char *text) {
    struct queue_id id;
    assert_true(queue_id_from(str_c(text), &id));
    return id;
}

static inline struct spool *reader(struct test_queue *q) {
    struct spool *s = test_spool(q, SPOOL_READER);
    assert_true(spool_take_over(s));
    return s;
}

static inline bool exists(struct test_queue *q, const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", q->dir, name);
    return access(path, F_OK) == 0;
}

#endif
