/* What this build supports: -a -A -l -m -T. */
#include "cmd/postconf.h"
#include "conf/sasl_types.h"
#include "deliver/mbox_file.h"
#include "table/table.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>
#include <stdio.h>
#include <stdlib.h>

static void list_sasl(bool server) {
    for (const struct sasl_type *t = sasl_types(); t->name.n; t++)
        if (server ? t->server : t->client)
            puts(t->name.p);
}

static void list_locks(void) {
    struct str name;
    for (size_t i = 0; (name = mailbox_lock_name(i)).n; i++)
        puts(name.p);
}

static int name_order(const void *a, const void *b) {
    const struct str *x = a, *y = b;
    return str_cmp(*x, *y);
}

static void list_tables(struct arena *a) {
    const struct str *types;
    size_t n = table_types(&types);
    struct str *sorted = arena_array(a, n, sizeof *sorted);
    memcpy(sorted, types, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, name_order);
    for (size_t i = 0; i < n; i++)
        puts(sorted[i].p);
}

/* OpenSSL's names for what certificates have keys of, and ours. */
static void list_key_algorithms(void) {
    static const struct {
        const char *openssl, *name;
    } rows[] = { { "DSA", "dsa" }, { "EC", "ecdsa" }, { "RSA", "rsa" } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        EVP_PKEY_CTX *known = EVP_PKEY_CTX_new_from_name(NULL, rows[i].openssl, NULL);
        if (known)
            puts(rows[i].name);
        EVP_PKEY_CTX_free(known);
    }
}

static void answer_tls(const struct request *r) {
    struct str question = str_c(r->tls_question);
    if (str_eq(question, STR("compile-version"))) {
        puts(OPENSSL_VERSION_TEXT);
    } else if (str_eq(question, STR("run-version"))) {
        puts(OpenSSL_version(OPENSSL_VERSION));
    } else if (str_eq(question, STR("public-key-algorithms"))) {
        list_key_algorithms();
    } else {
        warn(arena_printf(r->arena, "unknown 'postconf -T' mode: %s", r->tls_question));
        exit(1);
    }
}

void postconf_list(const struct request *r) {
    switch (r->mode) {
    case 'a':
    case 'A':
        list_sasl(r->mode == 'a');
        break;
    case 'l':
        list_locks();
        break;
    case 'm':
        list_tables(r->arena);
        break;
    case 'T':
        answer_tls(r);
        break;
    }
}
