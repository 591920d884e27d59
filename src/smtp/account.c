#include "smtp/account.h"

#include "base/log.h"
#include <openssl/evp.h>

enum { REFUSED_TEXT_MAX = 1000, DIGEST_TEXT = 2 * EVP_MAX_MD_SIZE + 1 };

static enum table_result find(const struct account_tables *t, struct str key, struct arena *a, struct str *ret) {
    return key.n ? maps_get(t->passwords, key, a, ret, NULL) : TABLE_NOT_FOUND;
}

enum table_result account_find(const struct account_tables *t, const struct session *s, struct arena *a,
                               struct account *ret) {
    struct str value = STR(""), ignored;
    const struct str host = t->lmtp ? STR("") : s->remote_mta;
    const struct str keys[] = { host, s->errand.nexthop,
                                host.n ? arena_printf(a, "%.*s:%u", STR_ARG(host), endpoint_port(&s->address))
                                       : STR("") };
    enum table_result r = TABLE_NOT_FOUND;
    if (t->by_sender && s->errand.sender.n)
        r = addr_find(t->passwords, s->errand.sender, false, ADDR_FIND_BARE_LOCAL | ADDR_FIND_AT_DOMAIN, t->extensions,
                      a, &value, &ignored);
    for (size_t i = 0; r == TABLE_NOT_FOUND && i < sizeof keys / sizeof *keys; i++)
        r = find(t, keys[i], a, &value);
    if (r != TABLE_FOUND)
        return r;
    ptrdiff_t end = str_index(value, t->delimiter.p[0]);
    ret->username = end < 0 ? value : str_sub(value, 0, (size_t)end);
    ret->password = end < 0 ? STR("") : str_from(value, (size_t)end + 1);
    return r;
}

void account_wipe(struct account *k) {
    if (k->username.n)
        str_wipe(k->username);
    if (k->password.n)
        str_wipe(k->password);
    *k = (struct account){ 0 };
}

/* --- what was refused: "HOST;USER" to "TIME;DIGEST OF THE PASSWORD;CODE;STATUS;TEXT" --- */
static struct str key_of(struct str host, const struct account *k, struct arena *a) {
    return arena_printf(a, "%.*s;%.*s", STR_ARG(host), STR_ARG(k->username));
}

/* Salted with host and user: equal passwords do not look equal. */
static struct str password_digest(struct str host, const struct account *k, char out[DIGEST_TEXT]) {
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool good = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(c, host.p, host.n) == 1 &&
                EVP_DigestUpdate(c, ";", 1) == 1 && EVP_DigestUpdate(c, k->username.p, k->username.n) == 1 &&
                EVP_DigestUpdate(c, ";", 1) == 1 && EVP_DigestUpdate(c, k->password.p, k->password.n) == 1 &&
                EVP_DigestFinal_ex(c, md, &size) == 1;
    EVP_MD_CTX_free(c);
    for (unsigned i = 0; i < (good ? size : 0); i++) {
        out[2 * i] = "0123456789abcdef"[md[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[md[i] & 15];
    }
    return str_n(out, good ? 2 * (size_t)size : 0);
}

void account_refused_get(const struct account_tables *t, struct str host, const struct account *k, struct arena *a,
                         int *ret_code, struct str *ret_dsn, struct str *ret_text) {
    char digest[DIGEST_TEXT];
    struct str value, when, whose, code, dsn;
    uint32_t number;
    int64_t then;
    *ret_code = 0;
    struct str key = key_of(host, k, a);
    if (!t->refused || table_get(t->refused, key, a, &value) != TABLE_FOUND)
        return;
    /* anything may stand in a file: what cannot be read counts as nothing */
    if (!str_next(&value, STR(";"), &when) || !str_next(&value, STR(";"), &whose) ||
        !str_next(&value, STR(";"), &code) || !str_next(&value, STR(";"), &dsn) ||
        !str_to_i64(when, 0, INT64_MAX / 2, &then) || !str_to_u32(code, 599, &number) || number < 400 || value.n == 0)
        return;
    struct str ours = password_digest(host, k, digest);
    if (ours.n == 0 || !str_eq(whose, ours) || then + t->refused_time < sys->wall_us() / US_PER_S) {
        (void)table_delete(t->refused, key);
        return;
    }
    *ret_code = (int)number;
    *ret_dsn = dsn;
    *ret_text = value;
}

void account_refused_put(const struct account_tables *t, struct str host, const struct account *k,
                         const struct reply *reply) {
    char digest[DIGEST_TEXT];
    struct arena *a = arena_new();
    struct str ours = password_digest(host, k, digest);
    struct buf text = { 0 };
    buf_printable(&text, reply->text, REFUSED_TEXT_MAX);
    struct str value = arena_printf(a, "%lld;%.*s;%d;%.*s;%.*s", (long long)(sys->wall_us() / US_PER_S), STR_ARG(ours),
                                    reply->code, STR_ARG(reply->dsn), STR_ARG(buf_str(&text)));
    if (ours.n && table_put(t->refused, key_of(host, k, a), value) == TABLE_ERROR)
        log_warn("%.*s: cannot remember a refused login", STR_ARG(table_name(t->refused)));
    buf_free(&text);
    arena_free(a);
}
