#include "sasl/native.h"

#include "base/buf.h"
#include "base/die.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>

enum { NONCE_BYTES = 24, NONCE_MAX = 128, SERVER_NONCE_MAX = 1024, SALT_MAX = 1024 };

struct mechanism;
struct native_login {
    const struct sasl_login *l;
    const struct mechanism *m; /* NULL: none */
    unsigned step;             /* challenges so far */
    bool accepted;             /* the server has proved itself, or need not */
    /* SCRAM */
    char nonce[NONCE_MAX];
    size_t nonce_length;
    struct buf first_bare; /* client-first-message-bare */
    unsigned char server_signature[EVP_MAX_MD_SIZE];
    unsigned signature_length;
};

struct mechanism {
    struct str name;
    enum { WITH_PASSWORD, WITH_TOKEN } secret;
    const char *digest; /* SCRAM */
    bool plus;          /* SCRAM, bound to the TLS session */
    void (*begin)(struct native_login *n, struct arena *a, struct sasl_move *ret);
    void (*step)(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret);
};

static struct str fixed_nonce;

void native_fix_nonce(struct str nonce) {
    fixed_nonce = nonce;
}

static void say(struct sasl_move *ret, struct str response) {
    ret->what = SASL_SAY;
    ret->has_response = true;
    ret->response = response;
}

static void give_up(struct sasl_move *ret, const char *why) {
    *ret = (struct sasl_move){ .what = SASL_GIVE_UP, .mechanism = ret->mechanism, .why = str_c(why) };
}

static void no_step(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret) {
    (void)n, (void)challenge, (void)a;
    give_up(ret, "the server asks for more than the mechanism has");
}

/* --- PLAIN, LOGIN --- */
static struct str join(struct arena *a, const struct str *parts, size_t n) {
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        size += parts[i].n;
    char *p = arena_alloc(a, size + 1), *to = p;
    for (size_t i = 0; i < n; i++) {
        if (parts[i].n)
            memcpy(to, parts[i].p, parts[i].n);
        to += parts[i].n;
    }
    *to = 0;
    return str_n(p, size);
}

static void plain_begin(struct native_login *n, struct arena *a, struct sasl_move *ret) {
    const struct str nul = { "", 1 };
    const struct str parts[] = { n->l->authzid, nul, n->l->username, nul, n->l->password };
    say(ret, join(a, parts, sizeof parts / sizeof *parts));
}

/* The mechanism has no specification; servers begin with a prompt. */
static void login_begin(struct native_login *n, struct arena *a, struct sasl_move *ret) {
    (void)n, (void)a;
    ret->what = SASL_SAY;
}

static void login_step(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret) {
    if (n->step == 1)
        say(ret, n->l->username);
    else if (n->step == 2)
        say(ret, n->l->password);
    else
        no_step(n, challenge, a, ret);
}

/* --- CRAM-MD5 --- */
static void cram_step(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret) {
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    struct buf b = { 0 };
    if (n->step > 1) {
        no_step(n, challenge, a, ret);
        return;
    }
    if (!HMAC(EVP_md5(), n->l->password.p, (int)n->l->password.n, (const unsigned char *)challenge.p, challenge.n, mac,
              &size)) {
        give_up(ret, "OpenSSL has no HMAC-MD5");
        return;
    }
    buf_printf(&b, "%.*s ", STR_ARG(n->l->username));
    for (unsigned i = 0; i < size; i++)
        buf_printf(&b, "%02x", mac[i]);
    say(ret, arena_str(a, buf_str(&b)));
    buf_wipe(&b);
}

/* --- XOAUTH2, OAUTHBEARER --- */
static void xoauth2_begin(struct native_login *n, struct arena *a, struct sasl_move *ret) {
    const struct str parts[] = { STR("user="), n->l->username, STR("\1auth=Bearer "), n->l->password, STR("\1\1") };
    say(ret, join(a, parts, sizeof parts / sizeof *parts));
}

/* The challenge is why it is refused; the reply follows what is said to it. */
static void xoauth2_step(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret) {
    if (n->step == 1)
        say(ret, STR(""));
    else
        no_step(n, challenge, a, ret);
}

/* RFC 5801, 4: what stands for "," and "=" in names. */
static void add_saslname(struct buf *b, struct str name) {
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] == ',')
            buf_add(b, STR("=2C"));
        else if (name.p[i] == '=')
            buf_add(b, STR("=3D"));
        else
            buf_byte(b, name.p[i]);
}

static void oauthbearer_begin(struct native_login *n, struct arena *a, struct sasl_move *ret) {
    struct buf b = { 0 };
    buf_add(&b, STR("n,a="));
    add_saslname(&b, n->l->authzid.n ? n->l->authzid : n->l->username);
    buf_printf(&b, ",\1host=%.*s\1port=%u\1auth=Bearer ", STR_ARG(n->l->host), n->l->port);
    buf_add(&b, n->l->password);
    buf_add(&b, STR("\1\1"));
    say(ret, arena_str(a, buf_str(&b)));
    buf_wipe(&b);
}

static void oauthbearer_step(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret) {
    if (n->step == 1)
        say(ret, STR("\1")); /* RFC 7628, 3.2.3 */
    else
        no_step(n, challenge, a, ret);
}

/* --- SCRAM (RFC 5802; the comments name its messages) --- */
static struct str base64(struct arena *a, struct str s) {
    char *to = arena_alloc(a, (s.n + 2) / 3 * 4 + 1);
    int size = EVP_EncodeBlock((unsigned char *)to, (const unsigned char *)s.p, (int)s.n);
    return str_n(to, (size_t)size);
}

static bool base64_read(struct arena *a, struct str s, struct str *ret) {
    if (s.n == 0 || !sasl_base64_valid(s))
        return false;
    unsigned char *to = arena_alloc(a, s.n / 4 * 3 + 1);
    int size = EVP_DecodeBlock(to, (const unsigned char *)s.p, (int)s.n);
    if (size < 0)
        return false;
    size -= s.p[s.n - 1] == '=';
    size -= s.p[s.n - 2] == '=';
    *ret = str_n((const char *)to, (size_t)size);
    return true;
}

/* gs2-header: bound to TLS; able to, but the server is not; or not bound. */
static struct str gs2_header(const struct native_login *n, struct arena *a) {
    struct buf b = { 0 };
    if (n->m->plus)
        buf_printf(&b, "p=%.*s,", STR_ARG(n->l->binding_type));
    else
        buf_add(&b, n->l->binding.n && !n->l->plus_excluded ? STR("y,") : STR("n,"));
    if (n->l->authzid.n) {
        buf_add(&b, STR("a="));
        add_saslname(&b, n->l->authzid);
    }
    buf_byte(&b, ',');
    struct str r = arena_str(a, buf_str(&b));
    buf_free(&b);
    return r;
}

static bool make_nonce(struct native_login *n, struct arena *a) {
    unsigned char random[NONCE_BYTES];
    struct str nonce = fixed_nonce;
    if (nonce.n == 0) {
        if (RAND_bytes(random, sizeof random) != 1)
            return false;
        nonce = base64(a, str_n((const char *)random, sizeof random));
    }
    n->nonce_length = nonce.n < NONCE_MAX ? nonce.n : NONCE_MAX;
    memcpy(n->nonce, nonce.p, n->nonce_length);
    return true;
}

static void scram_begin(struct native_login *n, struct arena *a, struct sasl_move *ret) {
    n->accepted = false;
    if (!make_nonce(n, a)) {
        give_up(ret, "OpenSSL has no random numbers");
        return;
    }
    buf_add(&n->first_bare, STR("n="));
    add_saslname(&n->first_bare, n->l->username);
    buf_printf(&n->first_bare, ",r=%.*s", (int)n->nonce_length, n->nonce);
    say(ret, arena_cat(a, gs2_header(n, a), buf_str(&n->first_bare)));
}

static bool attribute(struct str *rest, char name, struct str *ret) {
    struct str piece;
    if (!str_next(rest, STR(","), &piece) || piece.n < 2 || piece.p[0] != name || piece.p[1] != '=')
        return false;
    *ret = str_from(piece, 2);
    return true;
}

static bool mac(const EVP_MD *md, const unsigned char *key, struct str text, unsigned char out[EVP_MAX_MD_SIZE]) {
    unsigned size;
    return HMAC(md, key, EVP_MD_get_size(md), (const unsigned char *)text.p, text.n, out, &size) != NULL;
}

/* server-first-message to client-final-message. */
static void scram_proof(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret) {
    struct str rest = challenge, nonce, salt_text, count, salt;
    uint32_t iterations;
    if (!attribute(&rest, 'r', &nonce) || !attribute(&rest, 's', &salt_text) || !attribute(&rest, 'i', &count)) {
        give_up(ret, "the server's first SCRAM message is malformed");
        return;
    }
    if (nonce.n <= n->nonce_length || nonce.n > SERVER_NONCE_MAX ||
        !str_starts(nonce, str_n(n->nonce, n->nonce_length))) {
        give_up(ret, "the server's nonce does not begin with ours");
        return;
    }
    if (!base64_read(a, salt_text, &salt) || salt.n == 0 || salt.n > SALT_MAX) {
        give_up(ret, "the server's salt is malformed");
        return;
    }
    if (!str_to_u32(count, NATIVE_ITERATIONS_MAX, &iterations) || iterations < NATIVE_ITERATIONS_MIN) {
        give_up(ret, "the server's iteration count is out of bounds");
        return;
    }
    struct str header = gs2_header(n, a);
    struct str binding = n->m->plus ? arena_cat(a, header, n->l->binding) : header;
    struct str final = arena_printf(a, "c=%.*s,r=%.*s", STR_ARG(base64(a, binding)), STR_ARG(nonce));
    const struct str message[] = { buf_str(&n->first_bare), STR(","), challenge, STR(","), final };
    struct str auth_message = join(a, message, sizeof message / sizeof *message);
    const EVP_MD *md = EVP_get_digestbyname(n->m->digest);
    unsigned char salted[EVP_MAX_MD_SIZE], client_key[EVP_MAX_MD_SIZE], stored[EVP_MAX_MD_SIZE],
        signature[EVP_MAX_MD_SIZE], server_key[EVP_MAX_MD_SIZE];
    unsigned size = md ? (unsigned)EVP_MD_get_size(md) : 0, stored_size;
    bool good = md &&
                PKCS5_PBKDF2_HMAC(n->l->password.p, (int)n->l->password.n, (const unsigned char *)salt.p, (int)salt.n,
                                  (int)iterations, md, (int)size, salted) == 1 &&
                mac(md, salted, STR("Client Key"), client_key) && mac(md, salted, STR("Server Key"), server_key) &&
                EVP_Digest(client_key, size, stored, &stored_size, md, NULL) == 1 &&
                mac(md, stored, auth_message, signature) && mac(md, server_key, auth_message, n->server_signature);
    if (good) {
        n->signature_length = size;
        for (unsigned i = 0; i < size; i++)
            signature[i] ^= client_key[i]; /* ClientProof */
        struct str proof = base64(a, str_n((const char *)signature, size));
        say(ret, arena_printf(a, "%.*s,p=%.*s", STR_ARG(final), STR_ARG(proof)));
    } else {
        give_up(ret, "OpenSSL does not have what SCRAM needs");
    }
    OPENSSL_cleanse(salted, sizeof salted);
    OPENSSL_cleanse(client_key, sizeof client_key);
    OPENSSL_cleanse(stored, sizeof stored);
    OPENSSL_cleanse(server_key, sizeof server_key);
}

/* server-final-message. SMTP sends it as a challenge of its own (RFC 4954, 4): the answer is empty. */
static void scram_verify(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret) {
    struct str rest = challenge, text, signature;
    if (attribute(&rest, 'v', &text) && base64_read(a, text, &signature) && signature.n == n->signature_length &&
        CRYPTO_memcmp(signature.p, n->server_signature, signature.n) == 0) {
        n->accepted = true;
        say(ret, STR(""));
        return;
    }
    rest = challenge;
    if (attribute(&rest, 'e', &text)) /* it will say so in its reply, too */
        say(ret, STR(""));
    else
        give_up(ret, "the server does not know the password");
}

static void scram_step(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret) {
    if (n->step == 1)
        scram_proof(n, challenge, a, ret);
    else if (n->step == 2)
        scram_verify(n, challenge, a, ret);
    else
        no_step(n, challenge, a, ret);
}

/* --- which --- */

/* The best first. */
static const struct mechanism mechanisms[] = {
    { STR_INIT("SCRAM-SHA-256-PLUS"), WITH_PASSWORD, "SHA256", true, scram_begin, scram_step },
    { STR_INIT("SCRAM-SHA-1-PLUS"), WITH_PASSWORD, "SHA1", true, scram_begin, scram_step },
    { STR_INIT("SCRAM-SHA-256"), WITH_PASSWORD, "SHA256", false, scram_begin, scram_step },
    { STR_INIT("SCRAM-SHA-1"), WITH_PASSWORD, "SHA1", false, scram_begin, scram_step },
    { STR_INIT("CRAM-MD5"), WITH_PASSWORD, NULL, false, login_begin, cram_step },
    { STR_INIT("PLAIN"), WITH_PASSWORD, NULL, false, plain_begin, no_step },
    { STR_INIT("LOGIN"), WITH_PASSWORD, NULL, false, login_begin, login_step },
    { STR_INIT("OAUTHBEARER"), WITH_TOKEN, NULL, false, oauthbearer_begin, oauthbearer_step },
    { STR_INIT("XOAUTH2"), WITH_TOKEN, NULL, false, xoauth2_begin, xoauth2_step },
};

static bool offered(struct str list, struct str name) {
    struct str word;
    while (str_word(&list, STR(" "), &word))
        if (str_eq_icase(word, name))
            return true;
    return false;
}

static const struct mechanism *choose(const struct sasl_login *l) {
    for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++) {
        const struct mechanism *m = &mechanisms[i];
        struct sasl_mechanism properties;
        if (offered(l->mechanisms, m->name) && sasl_mechanism_known(m->name, &properties) &&
            sasl_policy_allows(&l->policy, &properties) && !(l->token && m->secret != WITH_TOKEN) &&
            !(m->plus && l->binding.n == 0))
            return m;
    }
    return NULL;
}

struct native_login *native_begin(const struct sasl_login *l, struct arena *a, struct sasl_move *ret) {
    struct native_login *n = calloc(1, sizeof *n);
    if (!n)
        die_no_memory(sizeof *n);
    *ret = (struct sasl_move){ .what = SASL_NO_MECHANISM, .why = STR("no mechanism available") };
    n->l = l;
    n->m = choose(l);
    n->accepted = true;
    if (n->m) {
        ret->mechanism = n->m->name;
        ret->why = STR("");
        n->m->begin(n, a, ret);
    }
    return n;
}

void native_step(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret) {
    *ret = (struct sasl_move){ 0 };
    n->step++;
    if (n->m && challenge.n <= SASL_CHALLENGE_MAX)
        n->m->step(n, challenge, a, ret);
    else
        no_step(n, challenge, a, ret);
}

bool native_accepted(const struct native_login *n) {
    return n->accepted;
}

bool native_is_slow(const struct native_login *n) {
    return n->m && n->m->digest && n->step == 0;
}

void native_end(struct native_login *n) {
    buf_wipe(&n->first_bare);
    OPENSSL_cleanse(n, sizeof *n);
    free(n);
}

bool native_prepare(void) {
    unsigned char out[EVP_MAX_MD_SIZE], random[1];
    unsigned size;
    static const char *const digests[] = { "SHA256", "SHA1" };
    bool good = RAND_bytes(random, sizeof random) == 1;
    for (size_t i = 0; i < sizeof digests / sizeof *digests; i++) {
        const EVP_MD *md = EVP_get_digestbyname(digests[i]);
        good = good && md && PKCS5_PBKDF2_HMAC("", 0, (const unsigned char *)"s", 1, 1, md, 1, out) == 1 &&
               HMAC(md, "k", 1, (const unsigned char *)"", 0, out, &size);
    }
    /* no MD5, as with FIPS: CRAM-MD5 says so when it is used */
    (void)HMAC(EVP_md5(), "k", 1, (const unsigned char *)"", 0, out, &size);
    return good;
}
