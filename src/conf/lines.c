#include "conf/lines.h"
#include "base/buf.h"

#include <errno.h>
#include <unistd.h>

/* The next physical line that counts, without its newline; empty text and `*ret_more` false at the end. */
static bool take_physical(struct lines *l, struct str *ret) {
    while (l->rest.n) {
        ptrdiff_t end = str_index(l->rest, '\n');
        struct str line = str_sub(l->rest, 0, end < 0 ? l->rest.n : (size_t)end);
        l->rest = str_from(l->rest, end < 0 ? l->rest.n : (size_t)end + 1);
        l->line++;
        struct str trimmed = str_trim_left(line);
        if (trimmed.n && trimmed.p[0] != '#') {
            *ret = line;
            return true;
        }
    }
    return false;
}

error lines_next(struct lines *l, struct logical_line *ret) {
    *ret = (struct logical_line){ STR(""), 0 };
    struct str line;
    if (!take_physical(l, &line))
        return NULL;
    ret->line = l->line;
    struct buf joined = { 0 };
    struct str text = line;
    for (;;) {
        struct lines before = *l;
        struct str more;
        if (!take_physical(l, &more))
            break;
        if (!byte_is_space(more.p[0])) {
            *l = before;
            break;
        }
        if (!joined.n)
            buf_add(&joined, text);
        buf_add(&joined, more);
        text = buf_str(&joined);
        if (text.n > CONF_LINE_MAX)
            break;
    }
    error e = NULL;
    if (text.n > CONF_LINE_MAX)
        e = err_make(l->arena, ERR_CONFIG, "%.*s, line %zu: longer than %d bytes with its continuation lines",
                     STR_ARG(l->path), ret->line, CONF_LINE_MAX);
    else if (str_index(text, '\0') >= 0)
        e = err_make(l->arena, ERR_CONFIG, "%.*s, line %zu: NUL byte: this is not a text file", STR_ARG(l->path),
                     ret->line);
    else
        ret->text = str_trim_right(joined.n ? arena_str(l->arena, text) : text);
    buf_free(&joined);
    return e;
}

error conf_read_file(struct str path, struct arena *a, struct str *ret) {
    struct buf b = { 0 };
    char *name = arena_cstr(a, path);
    errno = 0;
    if (!buf_read_file(&b, name, CONF_FILE_MAX)) {
        int saved = errno;
        buf_free(&b);
        if (saved == EFBIG)
            return err_make(a, ERR_CONFIG, "%s: larger than %d bytes", name, CONF_FILE_MAX);
        struct err *e = ARENA_NEW(a, struct err);
        *e = (struct err){
            ERR_CONFIG, saved, 0, STR(""), arena_printf(a, "open %s: %s", name, strerror(saved)), STR("")
        };
        return e;
    }
    *ret = arena_str(a, buf_str(&b));
    buf_free(&b);
    return NULL;
}
