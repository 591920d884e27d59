/* spool_test_util.h - what the tests of the spool share: a queue directory of their own, a message, a count of what is
 * there. */
#ifndef ANGARIUM_QUEUE_SPOOL_TEST_UTIL_H
#define ANGARIUM_QUEUE_SPOOL_TEST_UTIL_H

#include "test/test.h"

#include "queue/spool.h"
#include "run/sys.h"
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <unistd.h>

struct test_queue {
    char dir[64];
    struct arena *arena;
};

static inline struct test_queue test_queue_new(void) {
    struct test_queue q = { .dir = "/tmp/angarium-spool.XXXXXX", .arena = arena_new() };
    assert_non_null(mkdtemp(q.dir));
    return q;
}

static inline int test_remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}
static inline void test_remove_tree(const char *dir) {
    nftw(dir, test_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
static inline void test_queue_free(struct test_queue *q) {
    test_remove_tree(q->dir);
    arena_free(q->arena);
}

static inline struct spool *test_spool(struct test_queue *q, enum spool_access access) {
    struct spool *s = NULL;
    struct spool_options o = { .queue_directory = str_c(q->dir), .access = access };
    assert_null(spool_open(&o, q->arena, &s));
    return s;
}

/* Byte `i` of the content of a message of `size` bytes. */
static inline char test_content(size_t i, size_t size) {
    return i % 64 == 63 || i + 1 == size ? '\n' : (char)('a' + i % 26);
}

/* Puts a message of `size` bytes for `rcpts` recipients into the queue; the error of create or commit. */
static inline struct envelope test_envelope(struct arena *a, size_t size, size_t rcpts) {
    struct envelope env = { .arrival_us = 1790000000000000, .sender = STR("from@here.example"), .size = size };
    env.client.name = env.client.reverse_name = STR("unknown");
    struct str *fields[] = { &env.dsn_envid,         &env.content_filter,     &env.client.address,
                             &env.client.port,       &env.client.helo,        &env.client.protocol,
                             &env.client.ident,      &env.client.sasl_method, &env.client.sasl_username,
                             &env.client.sasl_sender };
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

static inline error test_message(struct spool *s, struct arena *a, size_t size, size_t rcpts, enum spool_state state,
                                 struct queue_id *ret) {
    struct spool_new *m;
    error e = spool_create(s, &m);
    if (e)
        return e;
    *ret = *spool_new_id(m);
    for (size_t i = 0; i < size; i++) {
        char c = test_content(i, size);
        spool_write(m, str_n(&c, 1));
    }
    struct envelope env = test_envelope(a, size, rcpts);
    return spool_commit(m, &env, state);
}

static inline struct spool_failure test_failure(uint64_t index, struct str reason) {
    struct spool_failure f = { .rcpt_index = index, .reason = reason, .status = STR("5.1.1"), .when_us = 17 };
    f.address = STR("to@there.example");
    f.orig = f.dsn_orcpt = f.action = f.diagnostic_type = f.diagnostic = f.remote_type = f.remote_mta = STR("");
    return f;
}

static inline error test_reason(struct spool *s, const struct queue_id *id, enum spool_state state, uint64_t index,
                                struct str reason, bool goes_on) {
    struct spool_failure f = test_failure(index, reason);
    struct buf record = { 0 };
    assert_true(spool_record_pack(&record, &f));
    error e = spool_reasons_add(s, id, state, buf_str(&record), goes_on);
    buf_free(&record);
    return e;
}

static inline size_t test_count(struct spool *s, enum spool_state state) {
    struct spool_scan scan = { 0 };
    struct spool_entry e;
    size_t n = 0;
    while (spool_scan_next(s, &scan, state, &e))
        n++;
    return n;
}

/* In which state is it, loadable? SPOOL_STATES: in none. */
static inline enum spool_state test_find(struct spool *s, const struct queue_id *id, struct arena *a,
                                         struct envelope *ret) {
    for (enum spool_state st = 0; st < SPOOL_STATES; st++) {
        struct spool_content c;
        if (st != SPOOL_CORRUPT && !spool_load(s, id, st, a, ret, &c)) {
            close(c.fd);
            return st;
        }
    }
    return SPOOL_STATES;
}

static inline size_t test_open_files(void) {
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}
#endif
