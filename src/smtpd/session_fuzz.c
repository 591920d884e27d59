/* session_fuzz.c - a whole session: the input is what the client sends, the first bytes say what world it meets.
 *
 * byte 0: which configuration; byte 1: how many bytes each read gives (0: all). What must hold: the session ends, no
 * message is both taken and cancelled, none is taken without recipients. */
#include "smtpd/harness.h"

#include "base/die.h"
#include "test/fake_sys.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char at_each_command[] = "smtpd_forbid_unauth_pipelining = no\nsmtpd_delay_reject = no\n"
                                      "smtpd_helo_restrictions = reject_invalid_helo_hostname\n"
                                      "smtpd_sender_restrictions = reject_non_fqdn_sender\n"
                                      "smtpd_end_of_data_restrictions = reject\nline_length_limit = 512";

static const char fronts[] =
    "smtpd_forbid_unauth_pipelining = no\nsmtpd_hard_error_limit = 1000\n"
    "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_authenticated_header = yes\n"
    "smtpd_authorized_xclient_hosts = static:all\nsmtpd_authorized_xforward_hosts = static:all";

static const char *const worlds[] = {
    "smtpd_forbid_unauth_pipelining = no\nsmtpd_hard_error_limit = 1000",
    "smtpd_forbid_unauth_pipelining = no\nsmtpd_forbid_bare_newline = no\nstrict_rfc821_envelopes = yes",
    "smtpd_forbid_unauth_pipelining = no\nsmtpd_forbid_bare_newline = reject\nmessage_size_limit = 100",
    at_each_command,
    "",
    fronts,
    "smtpd_upstream_proxy_protocol = haproxy\nsmtpd_forbid_unauth_pipelining = no",
};

struct sender {
    int fd;
    const uint8_t *data;
    size_t size;
};

static void send_all(void *arg) {
    struct sender *s = arg;
    struct io *io = io_new(s->fd);
    io_write(io, str_n((const char *)s->data, s->size));
    (void)io_flush(io, deadline_in(100));
    shutdown(s->fd, SHUT_WR);
    struct str some;
    while (io_some(io, 8192, deadline_in(10000), &some) == NULL)
        ;
    io_close(io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct harness made[sizeof worlds / sizeof *worlds]; /* kept: loading main.cf takes longer than a session */
    if (size < 2)
        return 0;
    fake_sys_install();
    fake_sys_read_max(data[1]);
    size_t world = data[0] % (sizeof worlds / sizeof *worlds);
    struct harness *h = &made[world];
    if (h->arena)
        harness_resume(h);
    else
        harness_begin(h, worlds[world]);
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        abort();
    struct sender s = { pair[1], data + 2, size - 2 };
    coro_spawn(send_all, &s, "sender");
    harness_session(h, "192.0.2.1", pair[0]);
    const char *fault = harness_messages_fault(h);
    if (fault)
        die("a message %s", fault);
    harness_clear(h);
    loop_free();
    fake_sys_remove();
    return 0;
}
