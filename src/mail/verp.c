#include "mail/verp.h"

#include "mail/address.h"

bool verp_delimiters_parse(struct str text, struct str filter, char ret[VERP_DELIMITERS]) {
    if (text.n != VERP_DELIMITERS)
        return false;
    for (size_t i = 0; i < VERP_DELIMITERS; i++)
        if (!byte_is_print(text.p[i]) || str_index(filter, text.p[i]) < 0)
            return false;
    memcpy(ret, text.p, VERP_DELIMITERS);
    return true;
}

struct str verp_sender(struct arena *a, const char delimiters[VERP_DELIMITERS], struct str sender,
                       struct str recipient) {
    if (sender.n == 0)
        return sender;
    struct address_parts from = address_split(sender), to = address_split(recipient);
    bool named = to.has_domain;
    return arena_printf(a, "%.*s%c%.*s%.*s%.*s%s%.*s", STR_ARG(from.local), delimiters[0], STR_ARG(to.local),
                        (int)named, delimiters + 1, STR_ARG(to.domain), from.has_domain ? "@" : "",
                        STR_ARG(from.domain));
}
