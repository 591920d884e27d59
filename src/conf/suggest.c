#include "conf/suggest.h"
#include "conf/params.h"

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

size_t edit_distance(struct str a, struct str b, size_t limit) {
    size_t over = limit + 1;
    if (a.n > SUGGEST_NAME_MAX || b.n > SUGGEST_NAME_MAX || (a.n > b.n ? a.n - b.n : b.n - a.n) > limit)
        return over;
    /* three rows of the table: a swap looks back two */
    size_t rows[3][SUGGEST_NAME_MAX + 1];
    for (size_t j = 0; j <= b.n; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t *now = rows[i % 3], *before = rows[(i + 2) % 3], *twice = rows[(i + 1) % 3];
        size_t best = now[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            size_t d = before[j - 1] + (a.p[i - 1] != b.p[j - 1]);
            d = least(d, least(before[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                d = least(d, twice[j - 2] + 1);
            now[j] = d;
            best = least(best, d);
        }
        if (best > limit)
            return over;
    }
    return least(rows[a.n % 3][b.n], over);
}

struct str suggest_param(struct str name, struct arena *a) {
    /* a typing slip or two; fewer in a short name, where everything is near to everything */
    size_t limit = name.n < 6 ? 1 : name.n < 12 ? 2 : 3;
    struct str found = STR("");
    for (int p = 0; p < PARAM_COUNT && limit; p++) {
        struct str known = param_row((enum param)p)->name;
        size_t d = edit_distance(name, known, limit);
        if (d <= limit) {
            found = known;
            limit = d - (d > 0);
        }
    }
    if (found.n)
        return found;
    const struct service_row *rows;
    size_t count = service_rows(&rows);
    for (size_t at = 1; at < name.n; at++) {
        if (name.p[at] != '_')
            continue;
        for (size_t i = 0; i < count && limit; i++) {
            size_t d = edit_distance(str_from(name, at), rows[i].row.name, limit);
            if (d <= limit) {
                found = arena_cat(a, str_sub(name, 0, at), rows[i].row.name);
                limit = d - (d > 0);
            }
        }
    }
    return found;
}
