/* tls_floor - what the TLS library alone takes of a session: both ends in one process, no socket, no mail. TLS 1.3 with the
 * library's defaults, as both servers and the session tool have them; a ticket from each handshake, the next one resumed with
 * it, and five lines each way. Prints CPU microseconds of each end. */
#include "peer.h"
#include <err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

enum { LINES = 5, FLIGHTS_MAX = 4 };

static SSL_SESSION *ticket;

static int keep_ticket(SSL *ssl, SSL_SESSION *session) {
    (void)ssl;
    SSL_SESSION_free(ticket);
    ticket = session;
    return 1;
}

/* An end of a session, and the CPU time that went into it. */
struct end {
    SSL_CTX *ctx;
    SSL *ssl;
    double seconds;
};

static void begin(struct end *e, BIO *bio, bool server) {
    const double from = peer_cpu_seconds();
    e->ssl = SSL_new(e->ctx);
    if (!e->ssl)
        errx(1, "no TLS session");
    SSL_set_bio(e->ssl, bio, bio);
    if (server)
        SSL_set_accept_state(e->ssl);
    else
        SSL_set_connect_state(e->ssl);
    if (!server && ticket)
        SSL_set_session(e->ssl, ticket);
    e->seconds += peer_cpu_seconds() - from;
}

static void shake(struct end *e) {
    const double from = peer_cpu_seconds();
    (void)SSL_do_handshake(e->ssl);
    e->seconds += peer_cpu_seconds() - from;
}

static void say(struct end *from_end, struct end *to_end, const char *text) {
    char in[100];
    const double start = peer_cpu_seconds();
    const int sent = SSL_write(from_end->ssl, text, (int)strlen(text));
    const double half = peer_cpu_seconds();
    if (sent <= 0 || SSL_read(to_end->ssl, in, sizeof in) != sent)
        errx(1, "the line was lost");
    from_end->seconds += half - start;
    to_end->seconds += peer_cpu_seconds() - half;
}

static void finish(struct end *e) {
    const double from = peer_cpu_seconds();
    SSL_shutdown(e->ssl);
    SSL_free(e->ssl);
    e->seconds += peer_cpu_seconds() - from;
}

static bool session(struct end *server, struct end *client) {
    BIO *ours, *theirs;
    if (BIO_new_bio_pair(&ours, 65536, &theirs, 65536) != 1)
        errx(1, "no memory");
    begin(server, ours, true);
    begin(client, theirs, false);
    for (int i = 0; i < FLIGHTS_MAX && !(SSL_is_init_finished(server->ssl) && SSL_is_init_finished(client->ssl)); i++) {
        shake(client);
        shake(server);
    }
    for (int i = 0; i < LINES; i++) {
        say(client, server, "MAIL FROM:<bench@near.example>\r\n");
        say(server, client, "250 2.1.0 Ok\r\n");
    }
    const bool resumed = SSL_session_reused(server->ssl);
    finish(server);
    finish(client);
    return resumed;
}

int main(int argc, char **argv) {
    if (argc != 4)
        errx(2, "usage: tls_floor CHAIN-FILE SESSIONS full|resumed");
    const bool resume = !strcmp(argv[3], "resumed");
    const long sessions = peer_number(argv[2], "sessions", 1, 1000000);
    struct end server = { .ctx = SSL_CTX_new(TLS_server_method()) }, client = { .ctx = SSL_CTX_new(TLS_client_method()) };
    if (!server.ctx || !client.ctx || SSL_CTX_use_certificate_chain_file(server.ctx, argv[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(server.ctx, argv[1], SSL_FILETYPE_PEM) != 1)
        errx(1, "no key and certificate in %s", argv[1]);
    SSL_CTX_set_session_cache_mode(server.ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(server.ctx, 1);
    if (resume) {
        SSL_CTX_set_session_cache_mode(client.ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(client.ctx, keep_ticket);
    }
    session(&server, &client);
    server.seconds = client.seconds = 0;
    long resumed = 0;
    for (long i = 0; i < sessions; i++)
        resumed += session(&server, &client);
    printf("sessions=%ld resumed=%ld server=%.1f client=%.1f\n", sessions, resumed, server.seconds / (double)sessions * 1e6,
           client.seconds / (double)sessions * 1e6);
    SSL_SESSION_free(ticket);
    SSL_CTX_free(server.ctx);
    SSL_CTX_free(client.ctx);
    return 0;
}
