/* peer.h - what the load tool and the sink share: clock, CPU time, loopback sockets, numbers on the command line.
 * Every function that takes a text ends the program with a message when the text is no good: these are tools for one
 * run by hand or by a script, not servers. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Microseconds of CLOCK_MONOTONIC: the same in all processes of a machine, so that the load tool's first connection and
 * the sink's last message can be compared. */
int64_t peer_now_us(void);

/* CPU seconds, user and system, that this process has used. */
double peer_cpu_seconds(void);

/* The number `text` says, from `min` to `max`; `what` names it in the message. */
long peer_number(const char *text, const char *what, long min, long max);

/* A non-blocking TCP socket that listens at `address` ("127.0.0.1:2525"). */
int peer_listen(const char *address);

/* A non-blocking TCP socket whose connection to `address` has begun; -1 with errno set. */
int peer_connect(const char *address);

/* Begins to connect a non-blocking socket; false with errno set. */
bool peer_connect_socket(int fd, const char *address);

/* "Nagle off": a command must not wait for the acknowledgement of the one before. */
void peer_no_delay(int fd);

/* Raises the number of open files to the hard limit. */
void peer_many_files(void);
