#include "peer.h"
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int64_t peer_now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

double peer_cpu_seconds(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

long peer_number(const char *text, const char *what, long min, long max) {
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || end == text || *end || n < min || n > max)
        errx(2, "%s: \"%s\" is not a number from %ld to %ld", what, text, min, max);
    return n;
}

static struct sockaddr_in resolve(const char *address) {
    struct sockaddr_in in = { .sin_family = AF_INET };
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(address, ':');
    size_t n = colon ? (size_t)(colon - address) : 0;
    if (n == 0 || n >= sizeof host)
        errx(2, "\"%s\" is not address:port, as in 127.0.0.1:2525", address);
    memcpy(host, address, n);
    host[n] = '\0';
    if (inet_pton(AF_INET, host, &in.sin_addr) != 1)
        errx(2, "\"%s\" is not an IPv4 address", host);
    in.sin_port = htons((uint16_t)peer_number(colon + 1, "port", 1, 65535));
    return in;
}

int peer_listen(const char *address) {
    struct sockaddr_in in = resolve(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) || bind(fd, (void *)&in, sizeof in) ||
        listen(fd, SOMAXCONN))
        err(1, "listen at %s", address);
    return fd;
}

bool peer_connect_socket(int fd, const char *address) {
    struct sockaddr_in in = resolve(address);
    return connect(fd, (void *)&in, sizeof in) == 0 || errno == EINPROGRESS;
}

int peer_connect(const char *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    peer_no_delay(fd);
    if (!peer_connect_socket(fd, address)) {
        const int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

void peer_no_delay(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void peer_many_files(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}
