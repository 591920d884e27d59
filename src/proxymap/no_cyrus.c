/* no_cyrus.c - in place of cyrus.c where the build has no Cyrus SASL. */
#include "proxymap/cyrus.h"

void cyrus_open(const struct conf *c, const struct master_cf *services) {
    (void)c, (void)services;
}

bool cyrus_wanted(struct io *io) {
    (void)io;
    return false;
}

void cyrus_session(struct io *io) {
    (void)io;
}

void cyrus_client_session(struct ipc *ipc, const struct ipc_msg *first) {
    (void)ipc, (void)first;
}
