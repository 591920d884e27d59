#include "cmd/running.h"

#include "base/buf.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

enum { PID_FILE_MAX = 100 };

int master_pid(struct str queue_directory, struct str pid_directory) {
    struct buf path = { 0 };
    buf_printf(&path, "%.*s/%.*s/master.pid", STR_ARG(queue_directory), STR_ARG(pid_directory));
    int pid = 0;
    int fd = open(path.p, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        struct buf text = { 0 };
        uint32_t n;
        if (buf_read_file(&text, path.p, PID_FILE_MAX) && str_to_u32(str_trim(buf_str(&text)), INT32_MAX, &n))
            pid = (int)n;
        buf_free(&text);
    }
    if (fd >= 0)
        close(fd);
    buf_free(&path);
    return pid;
}

int master_pid_of(const struct conf *c) {
    return master_pid(conf_str(c, PARAM_queue_directory), conf_str(c, PARAM_process_id_directory));
}
