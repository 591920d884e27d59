/* ipc.h - framed messages between our own processes over a unix stream socket, with descriptors.
 *
 * A frame is: u32 payload length, u8 type, u8 1 when a descriptor travels with it, payload (base/pack.h). Over
 * IPC_FRAME_MAX is a protocol error. The peer may be a process that was broken into: nothing in a frame is trusted.
 *
 * One coroutine may receive while another sends. Receiving and sending go on side by side: two ends that both have much
 * to say and then listen do not lock each other up. */
#ifndef ANGARIUM_RUN_IPC_H
#define ANGARIUM_RUN_IPC_H

#include "base/pack.h"
#include "run/io.h"

enum {
    IPC_FRAME_MAX = 1024 * 1024,
    IPC_HEADER_SIZE = 6,
    IPC_FDS_AHEAD = 16, /* descriptors sent before the frame they belong to has gone out whole */
    IPC_FDS_MAX = 64,   /* received and not yet claimed by a frame: more is a protocol error */
};

struct ipc;
struct ipc_msg {
    uint8_t type;
    struct str payload; /* borrowed until the next ipc_recv() */
    /* -1, or a descriptor that now belongs to the caller, who says so by setting it to -1. One left in the struct is
     * closed by ipc_msg_drop(), and by ipc_recv() when it is given the same struct again. */
    int fd;
};
void ipc_msg_drop(struct ipc_msg *m);

struct ipc *ipc_new(int fd);
/* To a socket of the file system; `path` as in endpoint_unix(). */
error ipc_connect(struct str path, int64_t deadline, struct ipc **ret);
void ipc_close(struct ipc *ipc); /* NULL is allowed */
int ipc_fd(const struct ipc *ipc);
/* Give up the ipc but not its descriptor, which is returned. What was gathered or received and not read is lost. */
int ipc_release(struct ipc *ipc);
/* Frames are gathered; ipc_flush() or ipc_recv() sends them. Never waits. `fd` (or -1) stays yours and may be closed at
 * once. A payload over IPC_FRAME_MAX is not sent: ERR_LIMIT from the next ipc_flush() or ipc_recv(). */
void ipc_send(struct ipc *ipc, uint8_t type, struct str payload, int fd);
/* The same; the payload is `number` and then `rest`: a frame of one of several streams. */
void ipc_send_numbered(struct ipc *ipc, uint8_t type, uint32_t number, struct str rest);
/* For content cut into small pieces (a line at a time): the bytes join the last frame gathered when it has this type,
 * carries no descriptor and would stay within `frame_max` bytes of payload; otherwise they begin a new frame. */
void ipc_append(struct ipc *ipc, uint8_t type, struct str bytes, size_t frame_max);
size_t ipc_unsent(const struct ipc *ipc);     /* bytes gathered and not yet sent */
size_t ipc_unsent_fds(const struct ipc *ipc); /* descriptors held for frames that have not gone */
error ipc_flush(struct ipc *ipc, int64_t deadline);
/* ERR_EOF when the peer closed between frames (or died), ERR_SYNTAX for a malformed or cut frame; these stay. ERR_SYS
 * EMFILE: a descriptor was sent and there is no room for it. A failure to send is ipc_flush()'s: what the peer said
 * before it went can still be read. After an error `ret` is empty, with fd -1. */
error ipc_recv(struct ipc *ipc, int64_t deadline, struct ipc_msg *ret);
/* True when a frame (or the peer's end) can be read without waiting, as the loop last saw it. */
bool ipc_pending(struct ipc *ipc);
/* True: when the loop last looked, the peer was there and had said nothing that has not been read. Asks nobody, touches
 * no message. False also when that is not known. */
bool ipc_quiet(const struct ipc *ipc);
/* Hand the connection to plain stream code: the io takes over the descriptor, the bytes received behind the last frame
 * and what was not sent; the ipc is gone. */
struct io *ipc_into_io(struct ipc *ipc);
#endif
