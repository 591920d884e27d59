#include "local/alias_list.h"

#include "mail/address.h"

static void add(struct arena *a, struct alias_list *list, enum alias_item_kind kind, struct str text) {
    if (list->n >= ALIAS_ITEMS_MAX) {
        list->truncated = true;
        return;
    }
    *vec_add(a, list) = (struct alias_item){ kind, text };
}

/* The length of the first item: up to a comma outside of quotes, comments, angle brackets and groups. `*ret_open`:
 * something was left open at the end. `*no_group`: no ';' is left in the text. */
static size_t item_length(struct str s, bool *ret_open, bool *no_group) {
    *ret_open = false;
    unsigned comment = 0;
    bool quoted = false, angle = false, group = false;
    size_t start = 0;
    while (start < s.n && byte_is_space(s.p[start]))
        start++;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '\\') {
            i++;
        } else if (quoted) {
            quoted = c != '"';
        } else if (comment) {
            if (c == '(')
                comment++;
            else if (c == ')')
                comment--;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '(') {
            comment = 1;
        } else if (c == '<') {
            angle = true;
        } else if (c == '>') {
            angle = false;
        } else if (c == ':' && !angle && !group && !*no_group && i > start) {
            group = str_index(str_from(s, i), ';') >= 0; /* else it is a route, or nonsense */
            *no_group = !group;
        } else if (c == ';') {
            group = false;
        } else if (c == ',' && !angle && !group) {
            return i;
        }
    }
    *ret_open = quoted || comment || angle;
    return s.n;
}

/* word = *( quoted / byte but blank ): quotes go, `*rest` is what follows. */
static struct str take_word(struct arena *a, struct str s, struct str *rest) {
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0, i = 0;
    bool quoted = false;
    for (; i < s.n; i++) {
        char c = s.p[i];
        if (c == '\\' && i + 1 < s.n)
            out[n++] = s.p[++i];
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && byte_is_space(c))
            break;
        else
            out[n++] = c;
    }
    out[n] = 0;
    *rest = str_trim(str_from(s, i));
    return str_n(out, n);
}

static bool is_special(struct str s) {
    return s.n && (s.p[0] == '|' || s.p[0] == '/' || str_starts_icase(s, STR(":include:")));
}

static void add_addresses(struct arena *a, struct str item, struct alias_list *list) {
    struct header_addresses found = header_addresses_parse(a, item);
    for (size_t i = 0; i < found.n; i++)
        if (found.at[i].address.n)
            add(a, list, ALIAS_ADDRESS, found.at[i].address);
    list->truncated |= found.truncated;
}

static void add_item(struct arena *a, struct str item, struct alias_list *list) {
    struct str bare = item.n && item.p[0] == '"' ? str_from(item, 1) : item;
    if (!is_special(bare)) {
        add_addresses(a, item, list);
        return;
    }
    struct str rest, word = take_word(a, item, &rest);
    if (word.p[0] == '|') {
        if (word.n == 1 && rest.n) /* | "command" */
            word = arena_cat(a, word, take_word(a, rest, &rest));
        add(a, list, ALIAS_COMMAND, str_trim(str_from(word, 1)));
    } else if (word.p[0] == '/') {
        add(a, list, ALIAS_FILE, word);
    } else {
        struct str path = str_from(word, STR(":include:").n);
        if (!path.n) /* ":include: /path" */
            path = take_word(a, rest, &rest);
        add(a, list, ALIAS_INCLUDE, path);
    }
    if (rest.n)
        add_addresses(a, rest, list);
}

void alias_list_parse(struct arena *a, struct str text, struct alias_list *list) {
    bool plain = false, no_group = false;
    while (text.n && !list->truncated) {
        bool open = false;
        size_t n = plain ? text.n : item_length(text, &open, &no_group);
        /* from something left open on every comma counts, so that one bad member does not eat the rest; and the rest
         * is not searched again for each of them */
        plain |= open;
        ptrdiff_t comma = plain ? str_index(text, ',') : -1;
        if (comma >= 0)
            n = (size_t)comma;
        struct str item = str_trim(str_sub(text, 0, n));
        text = str_from(text, n + 1 < text.n ? n + 1 : text.n);
        if (item.n)
            add_item(a, item, list);
    }
}

void alias_list_parse_lines(struct arena *a, struct str text, struct alias_list *list) {
    struct str line;
    while (str_next(&text, STR("\n"), &line) && !list->truncated)
        if (line.n && line.p[0] != '#')
            alias_list_parse(a, line, list);
}
