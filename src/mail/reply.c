#include "mail/reply.h"

#include "mail/dsn.h"

enum { CODE_LENGTH = 3 };

/* Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF     ; RFC 5321, 4.2.1 */
static bool read_code(struct str line, int *ret_code, bool *ret_last) {
    if (line.n < CODE_LENGTH || line.p[0] < '2' || line.p[0] > '5' || !byte_is_digit(line.p[1]) ||
        !byte_is_digit(line.p[2]))
        return false;
    if (line.n > CODE_LENGTH && line.p[CODE_LENGTH] != ' ' && line.p[CODE_LENGTH] != '-')
        return false;
    *ret_code = (line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + (line.p[2] - '0');
    *ret_last = line.n == CODE_LENGTH || line.p[CODE_LENGTH] == ' ';
    return true;
}

/* The enhanced code of the first line that has one which agrees with the reply code (RFC 2034, 4). */
static struct str find_dsn(struct str text) {
    struct str line;
    while (str_next(&text, STR("\n"), &line)) {
        struct str rest = str_from(line, CODE_LENGTH + 1);
        size_t n = dsn_status_length(rest);
        if (n && rest.p[0] == line.p[0])
            return str_sub(rest, 0, n);
    }
    return STR("");
}

enum reply_state reply_line(struct reply_reader *r, struct str line, struct reply *ret) {
    if (str_ends(line, STR("\n")))
        line.n--;
    if (str_ends(line, STR("\r")))
        line.n--;
    int code;
    bool last;
    if (!read_code(line, &code, &last) || (r->lines && code != r->code))
        return REPLY_BAD;
    if (r->lines == REPLY_LINES_MAX || line.n >= REPLY_BYTES_MAX - r->text.n)
        return REPLY_BAD;
    if (r->lines)
        buf_byte(&r->text, '\n');
    buf_printable(&r->text, line, line.n);
    r->code = code;
    r->lines++;
    if (!last)
        return REPLY_MORE;
    struct str text = buf_str(&r->text);
    *ret = (struct reply){ .code = code, .dsn = find_dsn(text), .text = text, .lines = r->lines };
    return REPLY_DONE;
}

void reply_reset(struct reply_reader *r) {
    buf_clear(&r->text);
    r->code = 0;
    r->lines = 0;
}

void reply_free(struct reply_reader *r) {
    buf_free(&r->text);
    *r = (struct reply_reader){ 0 };
}
