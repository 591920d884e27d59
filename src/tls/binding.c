/* What binds a login to the TLS session it is made in (RFC 5056, RFC 5929, RFC 9266). */
#include "tls/client.h"
#include "tls/internal.h"

#include <openssl/ssl.h>

enum { EXPORTER_BYTES = 32, FINISHED_MAX = 64 };

bool tls_binding(struct tls *t, struct arena *a, struct str *ret_type, struct str *ret_bytes) {
    static const char label[] = "EXPORTER-Channel-Binding"; /* RFC 9266, 2 */
    unsigned char bytes[FINISHED_MAX];
    if (SSL_version(t->ssl) >= TLS1_3_VERSION) {
        if (SSL_export_keying_material(t->ssl, bytes, EXPORTER_BYTES, label, sizeof label - 1, NULL, 0, 1) != 1)
            return false;
        *ret_type = STR("tls-exporter");
        *ret_bytes = arena_str(a, str_n((const char *)bytes, EXPORTER_BYTES));
        return true;
    }
    /* RFC 5929, 3.1: the first Finished message. Without RFC 7627 whoever is between can have two sessions with the
     * same
     */
    if (SSL_get_extms_support(t->ssl) != 1)
        return false;
    bool first_is_ours = !SSL_session_reused(t->ssl) == !SSL_is_server(t->ssl);
    size_t n = first_is_ours ? SSL_get_finished(t->ssl, bytes, sizeof bytes)
                             : SSL_get_peer_finished(t->ssl, bytes, sizeof bytes);
    if (n == 0 || n > sizeof bytes)
        return false;
    *ret_type = STR("tls-unique");
    *ret_bytes = arena_str(a, str_n((const char *)bytes, n));
    return true;
}
