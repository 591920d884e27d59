/* How many durable messages a second the spool takes: spool_bench DIRECTORY SESSIONS SECONDS BYTES THREADS log|files
 * Each session is a coroutine that commits one message after the other, as cleanup's sessions do. What it costs to
 * deliver them is not in it: files are removed, and segments of the log given back, unread. */
#include "base/log.h"
#include "queue/log.h"
#include "run/coro.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static struct spool *spool;
static int64_t until;
static size_t messages, bytes;
static int64_t waited_us;
static size_t batches;
static uint64_t segment;

static void committed(void *ctx, const struct spool_news *news) {
    (void)ctx;
    batches++;
    if (segment && news->position.segment != segment) {
        char name[LOG_NAME_MAX], to[LOG_NAME_MAX];
        log_name("", segment, name);
        log_name("free.", segment, to);
        sys->renameat(spool->fd, name, spool->fd, to);
    }
    segment = news->position.segment;
}

static void session(void *arg) {
    char *text = calloc(1, bytes + 1);
    struct rcpt rcpt = { .address = STR("to@there.example"), .orig = STR(""), .dsn_orcpt = STR("") };
    struct envelope e = {
        .arrival_us = sys->wall_us(), .sender = STR("from@here.example"), .rcpts = &rcpt, .rcpt_count = 1
    };
    struct queue_id id;
    if (!text)
        return;
    memset(text, 'x', bytes);
    while (sys->mono_us() < until) {
        struct spool_new *m;
        int64_t begin = sys->mono_us();
        error err = spool_create(spool, &m);
        if (err)
            log_fatal("create: %.*s", STR_ARG(err->text));
        id = *spool_new_id(m);
        spool_write(m, str_n(text, bytes));
        if ((err = spool_commit(m, &e, SPOOL_INCOMING)))
            log_fatal("commit: %.*s", STR_ARG(err->text));
        waited_us += sys->mono_us() - begin;
        messages++;
        if (!spool->log_writer)
            spool_remove(spool, &id, SPOOL_INCOMING);
    }
    free(text);
    (void)arg;
}

int main(int argc, char **argv) {
    uint32_t sessions, seconds, size, threads;
    bool log = argc == 7 && strcmp(argv[6], "log") == 0;
    if (argc != 7 || (!log && strcmp(argv[6], "files") != 0) || !str_to_u32(str_c(argv[2]), 10000, &sessions) ||
        !str_to_u32(str_c(argv[3]), 3600, &seconds) || !str_to_u32(str_c(argv[4]), 1 << 30, &size) ||
        !str_to_u32(str_c(argv[5]), 1000, &threads)) {
        fprintf(stderr, "usage: %s DIRECTORY SESSIONS SECONDS BYTES THREADS log|files\n", argv[0]);
        return 2;
    }
    struct arena *a = arena_new();
    struct spool_options o = { .queue_directory = str_c(argv[1]), .access = SPOOL_WRITER, .log = log };
    error e = spool_open(&o, a, &spool);
    if (!e)
        e = loop_init();
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    if (log)
        spool_on_news(spool, committed, NULL);
    bytes = size;
    offload_set_threads(threads);
    until = deadline_in(seconds);
    int64_t begin = sys->mono_us();
    for (uint32_t i = 0; i < sessions; i++)
        if (!coro_spawn(session, NULL, "session"))
            log_fatal("out of memory");
    if ((e = loop_run()))
        log_fatal("%.*s", STR_ARG(e->text));
    double took = (double)(sys->mono_us() - begin) / 1e6;
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double n = messages ? (double)messages : 1, cpu_us = 1e6 * (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec);
    cpu_us += (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    printf("%u sessions, %u bytes: %zu messages, %.0f/s, %.2f ms each; a message: %.1f us CPU, %.2f context switches",
           sessions, size, messages, (double)messages / took, (double)waited_us / n / 1000, cpu_us / n,
           (double)(u.ru_nvcsw + u.ru_nivcsw) / n);
    printf(log ? ", %.3f syncs\n" : "\n", (double)batches / n);
    loop_free();
    spool_close(spool);
    arena_free(a);
    return 0;
}
