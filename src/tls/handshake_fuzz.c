/* handshake_fuzz.c - any bytes where a handshake is expected, and packed ticket keys. It ends, nothing is left open,
 * OpenSSL's queue is empty after it.
 *
 * Byte 0: which settings; byte 1: bytes a piece. The rest is what the client sends. */
#include "run/coro.h"
#include "tls/test_certs.h"
#include "tls/test_world.h"
#include "tls/tickets.h"
#include <openssl/err.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PIECE_MIN = 1, INPUT_MAX = 16 * 1024 };

static struct {
    struct test_world world;
    const uint8_t *data;
    size_t size, piece;
    int fds[2];
} fuzz;

static void client(void *arg) {
    (void)arg;
    struct io *io = io_new(fuzz.fds[1]);
    for (size_t at = 0; at < fuzz.size; at += fuzz.piece) {
        size_t n = fuzz.size - at < fuzz.piece ? fuzz.size - at : fuzz.piece;
        io_write(io, str_n((const char *)fuzz.data + at, n));
        if (io_flush(io, deadline_in(10)))
            break;
        coro_yield();
    }
    io_close(io);
}

static void server(void *arg) {
    (void)arg;
    struct io *io = io_new(fuzz.fds[0]);
    struct tls *t;
    struct str some;
    struct arena *a = arena_new();
    struct tls_facts facts;
    if (!tls_accept(fuzz.world.server, io, STR(""), STR("peer"), TLS_LOG_ALL, deadline_in(10), &t)) {
        tls_facts(t, a, &facts);
        while (!io_some(io, 100, deadline_in(10), &some))
            ;
    }
    if (ERR_peek_error())
        abort();
    io_close(io);
    arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct test_world worlds[2];
    if (size < 2 || size > INPUT_MAX)
        return 0;
    if (!worlds[0].server) {
        char chain[64], settings[512];
        struct tls_ticket_keys keys = { 0 };
        test_chain_file(chain, "mx.example");
        for (int i = 0; i < 2; i++) {
            snprintf(settings, sizeof settings, "smtpd_tls_chain_files = %s\n%s%s%s\n", chain,
                     i ? "smtpd_tls_ask_ccert = yes\ntls_server_sni_maps = inline:{{sni.example=" : "", i ? chain : "",
                     i ? "}}" : "");
            test_world_begin(&worlds[i], settings, false);
            if (!worlds[i].server || !ticket_keys_advance(&keys, sys->wall_us() / US_PER_S, 3600))
                abort();
            tls_server_set_keys(worlds[i].server, &keys);
        }
        unlink(chain);
    }
    struct tls_ticket_keys unpacked;
    (void)ticket_keys_unpack(str_n((const char *)data + 2, size - 2), &unpacked);
    fuzz.world = worlds[data[0] & 1];
    fuzz.data = data + 2;
    fuzz.size = size - 2;
    fuzz.piece = data[1] + PIECE_MIN;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fuzz.fds) || loop_init())
        abort();
    coro_spawn(server, NULL, "server");
    coro_spawn(client, NULL, "client");
    if (loop_run())
        abort();
    loop_free();
    buf_clear(&worlds[1].log); /* the sink is the last one's */
    return 0;
}
