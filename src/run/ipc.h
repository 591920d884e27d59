/* ipc.h - framed messages between our own processes over a unix stream socket, with descriptors.
 *
 * A frame is: u32 payload length, u8 type, u8 1 when a descriptor travels with it, payload (base/pack.h). Over
 * IPC_FRAME_MAX is a protocol error. The peer may be a process that was broken into: nothing in a frame is trusted. */
#ifndef ANGARIUM_RUN_IPC_H
#define ANGARIUM_RUN_IPC_H

#include "base/pack.h"
#include "run/io.h"

enum { IPC_FRAME_MAX = 1024 * 1024 };

struct ipc;
struct ipc_msg {
    uint8_t type;
    struct str payload; /* borrowed until the next ipc_recv() */
    int fd;             /* -1, or a descriptor that now belongs to the caller (ipc_recv closes one not taken: set to -1) */
};

struct ipc *ipc_new(int fd);
void ipc_close(struct ipc *ipc); /* NULL is allowed */
int ipc_fd(const struct ipc *ipc);
/* Frames are gathered; ipc_flush() or ipc_recv() sends them. `fd` (or -1) is duplicated by the kernel and stays yours. */
void ipc_send(struct ipc *ipc, uint8_t type, struct str payload, int fd);
/* For content cut into small pieces (a line at a time): the bytes join the last frame gathered when it has this type, carries
 * no descriptor and would stay within `frame_max` bytes of payload; otherwise they begin a new frame. */
void ipc_append(struct ipc *ipc, uint8_t type, struct str bytes, size_t frame_max);
size_t ipc_unsent(const struct ipc *ipc); /* bytes gathered and not yet sent */
error ipc_flush(struct ipc *ipc, int64_t deadline);
/* ERR_EOF when the peer closed between frames, ERR_SYNTAX for a malformed or cut frame. */
error ipc_recv(struct ipc *ipc, int64_t deadline, struct ipc_msg *ret);
/* True when a frame (or the peer's end) can be read without waiting. */
bool ipc_pending(struct ipc *ipc);
/* Hand the connection to plain stream code: the io takes over the descriptor; the ipc is gone. */
struct io *ipc_into_io(struct ipc *ipc);
#endif
