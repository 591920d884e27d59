/* What a client of the login service says: it is answered or the connection ends, every login that began has ended. */
#include "sasl/serve.h"

#include "run/loop.h"
#include "test/fake_sys.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int alive;
static struct str said;

static void answer(struct arena *a, struct str text, struct sasl_answer *ret) {
    (void)wait_until(deadline_in(1));
    *ret = (struct sasl_answer){ .outcome = text.n % 3 == 0   ? LOGIN_MORE
                                            : text.n % 3 == 1 ? LOGIN_OK
                                                              : LOGIN_FAILED,
                                 .challenge = STR("YQ=="),
                                 .username = sasl_printable(a, text, 100) };
}

static void *begin(void *ctx, const struct sasl_peer *peer, struct str mechanism, const struct str *initial,
                   struct arena *a, struct sasl_answer *ret) {
    (void)ctx;
    answer(a, initial ? *initial : peer->service.n ? peer->service : mechanism, ret);
    if (ret->outcome != LOGIN_MORE)
        return NULL;
    alive++;
    return malloc(1);
}

static void step(void *state, struct str response, struct arena *a, struct sasl_answer *ret) {
    (void)state;
    answer(a, response, ret);
}

static void end(void *state) {
    alive--;
    free(state);
}

static void serve(void *arg) {
    static const struct sasl_mechanism mechanisms[] = { { STR_INIT("PLAIN"), SASL_PLAINTEXT | SASL_ACTIVE } };
    static const struct login_library library = {
        .mechanisms = mechanisms, .mechanism_count = 1, .begin = begin, .step = step, .end = end
    };
    struct io *io = arg;
    (void)login_serve(io, &library);
    io_close(io);
}

static void speak(void *arg) {
    struct io *io = arg;
    struct str some;
    io_write(io, said);
    (void)io_flush(io, deadline_in(5));
    while (!io_some(io, 8192, deadline_in(5), &some))
        ;
    io_close(io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fds[2];
    if (size > 64 * 1024)
        return 0;
    said = str_n((const char *)data, size);
    fake_sys_install();
    if (loop_init() || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
        abort();
    coro_spawn(serve, io_new(fds[0]), "service");
    coro_spawn(speak, io_new(fds[1]), "client");
    if (loop_run() || alive)
        abort();
    loop_free();
    fake_sys_remove();
    return 0;
}
