/* Answers from a name server are data from strangers. The first two bytes of the input choose type and name. */
#include "dns/internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const enum dns_type types[] = { DNS_A, DNS_AAAA, DNS_MX, DNS_PTR, DNS_TXT, DNS_CNAME, DNS_NS };
    if (size < 4)
        return 0;
    struct arena *a = arena_new();
    struct str packet = str_n((const char *)data + 1, size - 1);
    uint16_t id = (uint16_t)((unsigned)data[1] << 8 | data[2]);
    struct dns_answer answer;
    bool cut = false;
    unsigned rcode = 0;
    volatile size_t sum = 0; /* every byte of the result is read, so that a stray pointer shows */
    if (dns_read_answer(a, packet, id, STR("mail.example"), types[data[0] % (sizeof types / sizeof *types)], &answer,
                        &cut, &rcode)) {
        for (size_t i = 0; i < answer.count; i++) {
            const struct dns_record *r = &answer.records[i];
            for (size_t k = 0; k < r->name.n; k++)
                sum += (unsigned char)r->name.p[k];
            for (size_t k = 0; k < r->text.n; k++)
                sum += (unsigned char)r->text.p[k];
        }
        sum += answer.canonical.n;
        (void)sum;
        if (answer.count > DNS_RECORDS_MAX)
            abort();
    }
    arena_free(a);
    return 0;
}
