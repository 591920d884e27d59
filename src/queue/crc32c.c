#include "queue/crc32c.h"

#include <pthread.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#define POLYNOMIAL UINT32_C(0x82F63B78) /* reflected */

enum { LANES = 8 };

static uint32_t table[LANES][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_make(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ POLYNOMIAL : c >> 1;
        table[0][i] = c;
    }
    for (size_t lane = 1; lane < LANES; lane++)
        for (size_t i = 0; i < 256; i++)
            table[lane][i] = table[lane - 1][i] >> 8 ^ table[0][table[lane - 1][i] & 0xFF];
}

static uint64_t load_le64(const unsigned char *p) {
    uint64_t v = 0;
    for (size_t i = 0; i < 8; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint32_t crc32c_portable(uint32_t crc, struct str bytes) {
    pthread_once(&table_once, table_make);
    const unsigned char *p = (const unsigned char *)bytes.p;
    size_t n = bytes.n;
    uint32_t c = ~crc;
    for (; n >= LANES; n -= LANES, p += LANES) {
        uint64_t v = load_le64(p) ^ c;
        c = 0;
        for (size_t lane = 0; lane < LANES; lane++)
            c ^= table[LANES - 1 - lane][v >> (8 * lane) & 0xFF];
    }
    while (n-- > 0)
        c = c >> 8 ^ table[0][(c ^ *p++) & 0xFF];
    return ~c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_instruction(uint32_t crc, struct str bytes) {
    const unsigned char *p = (const unsigned char *)bytes.p;
    size_t n = bytes.n;
    uint64_t c = (uint32_t)~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, sizeof v);
        c = _mm_crc32_u64(c, v);
    }
    uint32_t c32 = (uint32_t)c;
    while (n-- > 0)
        c32 = _mm_crc32_u8(c32, *p++);
    return ~c32;
}

uint32_t crc32c(uint32_t crc, struct str bytes) {
    return __builtin_cpu_supports("sse4.2") ? crc32c_instruction(crc, bytes) : crc32c_portable(crc, bytes);
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
uint32_t crc32c(uint32_t crc, struct str bytes) {
    const unsigned char *p = (const unsigned char *)bytes.p;
    size_t n = bytes.n;
    uint32_t c = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, sizeof v);
        c = __crc32cd(c, v);
    }
    while (n-- > 0)
        c = __crc32cb(c, *p++);
    return ~c;
}
#else
uint32_t crc32c(uint32_t crc, struct str bytes) {
    return crc32c_portable(crc, bytes);
}
#endif
