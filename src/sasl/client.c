#include "sasl/client.h"

/* As Cyrus's plug-ins see themselves: what a security option asks of a mechanism it has or has not. */
static const struct sasl_mechanism known[] = {
    { STR_INIT("PLAIN"), SASL_PLAINTEXT | SASL_ACTIVE | SASL_DICTIONARY },
    { STR_INIT("LOGIN"), SASL_PLAINTEXT | SASL_ACTIVE | SASL_DICTIONARY },
    { STR_INIT("CRAM-MD5"), SASL_ACTIVE | SASL_DICTIONARY },
    { STR_INIT("DIGEST-MD5"), SASL_DICTIONARY | SASL_MUTUAL_AUTH },
    { STR_INIT("NTLM"), SASL_ACTIVE | SASL_DICTIONARY },
    { STR_INIT("SCRAM-SHA-1"), SASL_DICTIONARY | SASL_MUTUAL_AUTH },
    { STR_INIT("SCRAM-SHA-256"), SASL_DICTIONARY | SASL_MUTUAL_AUTH },
    { STR_INIT("SCRAM-SHA-1-PLUS"), SASL_DICTIONARY | SASL_MUTUAL_AUTH },
    { STR_INIT("SCRAM-SHA-256-PLUS"), SASL_DICTIONARY | SASL_MUTUAL_AUTH },
    /* who hears a token has it */
    { STR_INIT("XOAUTH2"), SASL_PLAINTEXT | SASL_ACTIVE },
    { STR_INIT("OAUTHBEARER"), SASL_PLAINTEXT | SASL_ACTIVE },
    { STR_INIT("ANONYMOUS"), SASL_ANONYMOUS | SASL_PLAINTEXT | SASL_ACTIVE },
};

bool sasl_mechanism_known(struct str name, struct sasl_mechanism *ret) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (str_eq_icase(name, known[i].name)) {
            *ret = known[i];
            return true;
        }
    return false;
}
