#include "deliver/mailbox.h"

#include "mail/address.h"
#include "mail/header.h"

enum { HEADER_SCAN_MAX = 1024 * 1024 /* bytes of the header that are looked through */ };

void delivered_to_read(struct agent_request *r, struct map *set) {
    struct buf head = { 0 };
    size_t line_start = 0;
    bool end = false;
    while (!end && head.n < HEADER_SCAN_MAX) {
        char *room = buf_reserve(&head, 8192);
        struct str piece;
        if (content_read(&r->req.content, head.n, room, 8192, &piece) || !piece.n)
            break;
        if (piece.p != room)
            buf_add(&head, piece);
        else
            head.n += piece.n;
        ptrdiff_t lf;
        while (!end && (lf = str_index(str_from(str_n(head.p, head.n), line_start), '\n')) >= 0) {
            end = lf == 0;
            line_start += (size_t)lf + 1;
        }
    }
    struct str rest = str_n(head.p, head.n), line;
    VEC(struct str) values = { 0 };
    bool mine = false;
    while (str_next(&rest, STR("\n"), &line) && line.n) {
        struct str name, value;
        if (byte_is_space(line.p[0])) {
            if (mine)
                values.at[values.n - 1] = arena_cat(r->arena, values.at[values.n - 1], line);
            continue;
        }
        mine = header_split(line, &name, &value) && str_eq_icase(name, STR("Delivered-To"));
        if (mine)
            *vec_add(r->arena, &values) = value;
    }
    for (size_t i = 0; i < values.n; i++) {
        struct str value = arena_lower(r->arena, str_trim(values.at[i])), plain;
        map_put(set, value, r);
        if (address_unquote(r->arena, value, &plain))
            map_put(set, plain, r);
    }
    buf_free(&head);
}

bool delivered_to_has(const struct map *set, struct arena *a, struct str address) {
    return map_get(set, arena_lower(a, address)) != NULL;
}
