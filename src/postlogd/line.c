#include "postlogd/line.h"

void postlogd_line(struct str data, struct buf *line) {
    while (data.n && (data.p[data.n - 1] == '\n' || data.p[data.n - 1] == '\0'))
        data.n--;
    buf_printable(line, data, POSTLOGD_LINE_MAX);
}

struct str postlogd_strip(struct str line) {
    enum { DATE = 15 }; /* "Mmm dd hh:mm:ss" */
    if (line.n <= DATE + 1 || line.p[3] != ' ' || line.p[6] != ' ' || line.p[9] != ':' || line.p[12] != ':' ||
        line.p[DATE] != ' ')
        return line;
    struct str rest = str_from(line, DATE + 1);
    ptrdiff_t blank = str_index(rest, ' ');
    return blank > 0 && (size_t)blank + 1 < rest.n ? str_from(rest, (size_t)blank + 1) : line;
}
