/* Fuzz: status codes, NOTIFY, xtext, ORCPT. */
#include "base/die.h"
#include "base/utf8.h"
#include "mail/dsn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena *a = arena_new();
    struct str in = str_n((const char *)data, size), status, text, decoded, again;
    dsn_split(in, STR("5.0.0"), &status, &text);
    dsn_with_class(a, status, '4');
    unsigned mask = dsn_notify_parse(in);
    if (mask && dsn_notify_parse(dsn_notify_format(a, mask)) != mask)
        die("NOTIFY changes on the way");
    if (xtext_decode(a, in, &decoded)) {
        if (str_index(decoded, 0) >= 0)
            die("NUL decoded");
        if (!xtext_decode(a, xtext_encode(a, decoded), &again) || !str_eq(again, decoded))
            die("xtext changes on the way");
        dsn_orcpt_valid(decoded);
        if (unitext_decode(a, decoded, &again) && (again.n > decoded.n || !utf8_valid(again)))
            die("unitext grows, or is no UTF-8");
    }
    dsn_orcpt_valid(in);
    arena_free(a);
    return 0;
}
