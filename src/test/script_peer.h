/* script_peer.h - for tests: the other end of a connection, played from a text.
 *
 *     int fd = script_peer_start("< 220 *\n"
 *                                "> EHLO client.example\n"
 *                                "<< 250\n"
 *                                "> QUIT\n"
 *                                "< 221\n"
 *                                "eof\n");
 *     ... give fd to the session under test, loop_run() ...
 *     script_peer_check();
 *
 * The peer is a coroutine on one end of a socket pair; the session gets the other end, an ordinary non-blocking
 * descriptor that it closes. With fake_sys the whole dialogue runs in no time and always in the same order. One step a
 * line; blanks in front, empty lines and lines that begin with # are skipped:
 *
 *     > TEXT      send TEXT and CR LF
 *     >| TEXT     send TEXT as it is
 *                 in both: \r \n \t \0 \\ \xHH; `>| ` with nothing sends nothing
 *     < PATTERN   one line comes that matches: `*` is any run of bytes; what follows the pattern's end is ignored. The
 *                 line is compared without its CR LF (a line that ends with LF alone does not match, see `lf`)
 *     << CODE T   a whole SMTP reply (RFC 5321, 4.2.1): lines "CODE-..." and a last "CODE ..." whose text matches T.
 *     <| TEXT     exactly these bytes come next
 *     skip TEXT   lines come and are ignored up to and with one that matches the pattern TEXT
 *     eof         the session closes (or has died) and nothing came before
 *     drop        whatever else comes up to the end is ignored
 *     wait S      nothing is done for S seconds (a decimal fraction is allowed)
 *     quiet S     nothing may come for S seconds
 *     slow S      from now on each byte is sent alone, S seconds after the one before it; `slow` alone: end of that
 *     lf          lines from the session end with LF alone from now on
 *     shut        close the sending direction
 *     close       close; what the session has sent and nobody read makes it see a reset
 *
 * Each expectation waits for at most SCRIPT_PEER_WAIT seconds of a fake clock, 20 of the real one. After the last step
 * the connection is closed. */
#ifndef ANGARIUM_TEST_SCRIPT_PEER_H
#define ANGARIUM_TEST_SCRIPT_PEER_H

#include "run/io.h"

enum { SCRIPT_PEER_WAIT = 1000, SCRIPT_PEERS_MAX = 64 };

/* The session's end of the connection. The loop must have been set up. Several peers may play at a time. */
int script_peer_start(const char *script);
/* The same on a connection that exists: a server for a client under test. Takes over `io`. */
void script_peer_play(struct io *io, const char *script);
/* Listen at `at` and play the scripts to the connections that come, the first to the first, ... `ret` is the address to
 * connect to (port 0 has become a real one). */
void script_peer_listen(const struct endpoint *at, const char *const *scripts, size_t count, struct endpoint *ret);
/* After loop_run(): fails the test (cmocka) when a step failed or was not reached, and names it. Forgets all peers. */
void script_peer_check(void);
/* For tests that expect a failure: the first one, or NULL; valid until the peers are forgotten. */
const char *script_peer_failure(void);
void script_peer_forget(void);
#endif
