/* engine_fuzz.c - a client of the engine: byte 0 says which tests are due and what follows a failure, byte 1 how many
 * bytes each read gives (0: all), the rest is what the client sends. What must hold: the session ends, and a client
 * that failed a test that counts has not passed. */
#include "postscreen/engine.h"

#include "base/die.h"
#include "base/log.h"
#include "test/fake_sys.h"
#include <stdlib.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool passed;

static void keep_record(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag;
    passed |= str_starts(text, STR("PASS NEW"));
}

static struct settings *world(uint8_t which) {
    static struct settings *made;
    if (!made) {
        struct arena *a = arena_new();
        struct conf_override o[] = { { STR("myhostname"), STR("mx.example") },
                                     { STR("mydomain"), STR("example") },
                                     { STR("mynetworks"), STR("127.0.0.1") },
                                     { STR("postscreen_pipelining_enable"), STR("yes") },
                                     { STR("postscreen_non_smtp_command_enable"), STR("yes") },
                                     { STR("postscreen_bare_newline_enable"), STR("yes") },
                                     { STR("postscreen_cache_map"), STR("") } };
        struct conf_source source = { .config_directory = STR("/nonexistent"),
                                      .overrides = o,
                                      .override_count = sizeof o / sizeof *o,
                                      .process_name = STR("postscreen"),
                                      .missing_is_empty = true };
        static struct conf *conf;
        error e = conf_load(&source, a, &conf);
        if (!e)
            e = settings_load(conf, conf, a, &made);
        if (e)
            die("%.*s", STR_ARG(e->text));
        arena_free(a);
    }
    for (int t = 0; t < TESTS; t++)
        made->tests[t].action = (enum action)((which >> 1) % 3);
    made->helo_required = which & 1;
    return made;
}

struct run {
    struct client client;
    const uint8_t *data;
    size_t size;
    int fd;
};

static void run_engine(void *arg) {
    engine_run(arg);
    io_close(((struct client *)arg)->io);
}

static void send_all(void *arg) {
    struct run *r = arg;
    struct io *io = io_new(r->fd);
    struct str some;
    io_write(io, str_n((const char *)r->data, r->size));
    (void)io_flush(io, deadline_in(100));
    shutdown(r->fd, SHUT_WR);
    while (io_some(io, 8192, deadline_in(10000), &some) == NULL)
        ;
    io_close(io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    int pair[2];
    fake_sys_install();
    fake_sys_read_max(data[1]);
    log_set_sink(keep_record, NULL);
    passed = false;
    if (loop_init() || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        abort();
    struct screen screen = { .set = world(data[0]) };
    struct run r = { .data = data + 2, .size = size - 2, .fd = pair[1] };
    r.client = (struct client){ .screen = &screen,
                                .set = screen.set,
                                .arena = arena_new(),
                                .io = io_new(pair[0]),
                                .address = STR("192.0.2.1"),
                                .name = STR("[192.0.2.1]:4711"),
                                .refusal = STR(""),
                                .pace = screen.set->pace };
    for (int t = DEEP_TESTS_FIRST; t < TESTS; t++)
        r.client.due |= 1U << t;
    coro_spawn(send_all, &r, "sender");
    coro_spawn(run_engine, &r.client, "engine");
    if (loop_run())
        abort();
    if (!r.client.gone || (passed && r.client.failed))
        die("the session %s", r.client.gone ? "passed and failed" : "did not end");
    arena_free(r.client.arena);
    loop_free();
    log_set_sink(NULL, NULL);
    fake_sys_remove();
    return 0;
}
