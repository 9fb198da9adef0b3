/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c.c: CRC-32C of entries, headers and, where a manifest wants it, of tensors.
 *
 * The processor's instruction has a latency of three cycles and a throughput of one: long data go through it in three
 * streams, which are put together by carry-less multiplication. In the ring's bit order a CRC is moved over n bits by
 * multiplying it with x^(n - 33) mod P and putting the 64-bit product through the instruction, which reduces it (33: the
 * instruction multiplies by x^32, and a product of reflected factors lies one bit low). See Gopal and others, "Fast CRC
 * Computation for iSCSI Polynomial Using CRC32 Instruction", Intel 2011. The test compares with the table.
 */
#include "session.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

/* Four bits at a time: 16 words of table. Only for processors without the instruction. */
uint32_t crc32c_table(uint32_t crc, const void *data, size_t size) {
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                       0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    const uint8_t *byte = data;
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= byte[i];
        crc = (crc >> 4) ^ table[crc & 15];
        crc = (crc >> 4) ^ table[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_instruction(uint32_t start, const void *data, size_t size) {
    const uint8_t *byte = data;
    uint64_t crc = ~start, eight;
    uint32_t four;
    for (; size >= 8; size -= 8, byte += 8) {
        memcpy(&eight, byte, 8);
        crc = _mm_crc32_u64(crc, eight);
    }
    for (; size >= 4; size -= 4, byte += 4) {
        memcpy(&four, byte, 4);
        crc = _mm_crc32_u32((uint32_t)crc, four);
    }
    for (; size; size--, byte++)
        crc = _mm_crc32_u8((uint32_t)crc, *byte);
    return ~(uint32_t)crc;
}

#define STREAM 1024u         /* bytes of one stream */
#define OVER_ONE 0x170076fau /* x^(8 * STREAM - 33) mod P, reflected */
#define OVER_TWO 0xa51b6135u /* x^(16 * STREAM - 33) mod P, reflected */

__attribute__((target("sse4.2,pclmul"))) static uint64_t moved(uint64_t crc, uint32_t over) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128((int64_t)over), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_streams(uint32_t start, const void *data, size_t size) {
    const uint8_t *byte = data;
    uint64_t a = ~start;
    for (; size >= (size_t)3 * STREAM; size -= (size_t)3 * STREAM, byte += (size_t)3 * STREAM) {
        uint64_t b = 0, c = 0, word[3];
        for (size_t i = 0; i < STREAM; i += 8) {
            memcpy(&word[0], byte + i, 8);
            memcpy(&word[1], byte + STREAM + i, 8);
            memcpy(&word[2], byte + (size_t)2 * STREAM + i, 8);
            a = _mm_crc32_u64(a, word[0]);
            b = _mm_crc32_u64(b, word[1]);
            c = _mm_crc32_u64(c, word[2]);
        }
        a = moved(a, OVER_TWO) ^ moved(b, OVER_ONE) ^ c;
    }
    return crc32c_instruction(~(uint32_t)a, byte, size);
}
#elif defined(__aarch64__)
__attribute__((target("+crc"))) static uint32_t crc32c_instruction(uint32_t crc, const void *data, size_t size) {
    const uint8_t *byte = data;
    uint64_t eight;
    crc = ~crc;
    for (; size >= 8; size -= 8, byte += 8) {
        memcpy(&eight, byte, 8);
        crc = __crc32cd(crc, eight);
    }
    for (; size; size--, byte++)
        crc = __crc32cb(crc, *byte);
    return ~crc;
}
#endif

crc_function crc32c_best(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return __builtin_cpu_supports("pclmul") ? crc32c_streams : crc32c_instruction;
#elif defined(__aarch64__)
    if (getauxval(AT_HWCAP) & (1u << 7)) /* HWCAP_CRC32 */
        return crc32c_instruction;
#endif
    return crc32c_table;
}
