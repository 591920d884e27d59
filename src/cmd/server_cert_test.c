#include "test/test.h"

#include "cmd/server_cert.h"
#include <stdlib.h>
#include <unistd.h>

static struct arena *arena;

static struct str file_with(struct str text) {
    char path[] = "/tmp/server_cert_test.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text.p, text.n) == (ssize_t)text.n);
    close(fd);
    return arena_str(arena, str_c(path));
}

static void sizes(void **state) {
    (void)state;
    static const struct {
        enum key_algorithm algorithm;
        struct str size;
        bool good;
    } rows[] = {
        { KEY_RSA, STR_INIT(""), true },
        { KEY_RSA, STR_INIT("1024"), true },
        { KEY_RSA, STR_INIT("1023"), false },
        { KEY_RSA, STR_INIT("8193"), false },
        { KEY_RSA, STR_INIT("2048 "), false },
        { KEY_RSA, STR_INIT("secp256r1"), false },
        { KEY_ECDSA, STR_INIT(""), true },
        { KEY_ECDSA, STR_INIT("secp256r1"), true },
        { KEY_ECDSA, STR_INIT("secp384r1"), true },
        { KEY_ECDSA, STR_INIT("secp521r1"), true },
        { KEY_ECDSA, STR_INIT("prime256v1"), true },
        { KEY_ECDSA, STR_INIT("256"), false },
        { KEY_ECDSA, STR_INIT("nonsense"), false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct server_key *k = NULL;
        error e = server_key_new(rows[i].algorithm, rows[i].size, arena, &k);
        if ((e == NULL) != rows[i].good)
            fail_msg("size \"%s\"", rows[i].size.p);
        if (!e)
            assert_int_equal(server_key_algorithm(k), rows[i].algorithm);
        server_key_free(k);
    }
}

/* What is written can be read again, and all that is made of one key has its public key. */
static void round_trip(void **state) {
    (void)state;
    static const struct str names[] = { STR_INIT("mx.example"), STR_INIT("*.example") };
    for (enum key_algorithm algorithm = KEY_RSA; algorithm <= KEY_ECDSA; algorithm++) {
        struct server_key *k, *again, *other;
        struct buf pem = { 0 }, cert = { 0 }, request = { 0 };
        struct str of_key, of_again, of_cert, of_other;
        assert_null(server_key_new(algorithm, STR(""), arena, &k));
        assert_null(server_key_new(algorithm, STR(""), arena, &other));
        assert_null(server_key_pem(k, arena, &pem));
        assert_null(server_key_certificate(k, names, 2, arena, &cert));
        assert_null(server_key_request(k, names, 2, arena, &request));
        assert_true(str_starts(buf_str(&pem), STR("-----BEGIN PRIVATE KEY-----\n")));
        assert_true(str_starts(buf_str(&request), STR("-----BEGIN CERTIFICATE REQUEST-----\n")));
        struct str key_file = file_with(buf_str(&pem)), cert_file = file_with(buf_str(&cert));
        assert_null(server_key_read(key_file, arena, &again));
        assert_int_equal(server_key_algorithm(again), algorithm);
        assert_null(server_key_digest(k, arena, &of_key));
        assert_null(server_key_digest(again, arena, &of_again));
        assert_null(server_key_digest(other, arena, &of_other));
        assert_null(certificate_digest(cert_file, arena, &of_cert));
        assert_int_equal(of_key.n, 64);
        assert_true(str_eq(of_key, of_again) && str_eq(of_key, of_cert) && !str_eq(of_key, of_other));
        /* one is not the other */
        assert_non_null(certificate_digest(key_file, arena, &of_cert));
        server_key_free(again);
        again = NULL;
        assert_non_null(server_key_read(cert_file, arena, &again));
        unlink(key_file.p);
        unlink(cert_file.p);
        server_key_free(k);
        server_key_free(other);
        buf_wipe(&pem);
        buf_free(&cert);
        buf_free(&request);
    }
}

static void bad_files(void **state) {
    (void)state;
    static const struct str texts[] = {
        STR_INIT(""),
        STR_INIT("garbage"),
        STR_INIT("-----BEGIN PRIVATE KEY-----\n"),
        STR_INIT("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        STR_INIT("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct server_key *k = NULL;
        struct str digest, path = file_with(texts[i]);
        error e = server_key_read(path, arena, &k);
        assert_non_null(e);
        assert_true(str_contains(e->text, path));
        assert_non_null(e = certificate_digest(path, arena, &digest));
        assert_true(str_contains(e->text, path));
        unlink(path.p);
        assert_non_null(server_key_read(path, arena, &k));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(bad_files),
    };
    arena = arena_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(arena);
    return failed;
}
