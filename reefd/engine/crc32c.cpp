// SPDX-License-Identifier: Apache-2.0
// CRC-32C with the CPU's instruction where there is one, by table elsewhere.
//
// Long data go through the instruction in three streams, because its latency is three times its throughput. A CRC is moved
// over n bits by carry-less multiplication with x^(n - 33) mod P; the instruction reduces the 64-bit product (and
// multiplies by x^32; a product of reflected factors lies one bit low). Gopal and others, "Fast CRC Computation for iSCSI
// Polynomial Using CRC32 Instruction", Intel 2011.
#include "crc32c.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <array>
#include <cstring>

namespace reef {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;

constexpr std::array<uint32_t, 256> make_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) {
            value = (value >> 1) ^ ((value & 1) ? kPolynomial : 0);
        }
        table[i] = value;
    }
    return table;
}

constexpr std::array<uint32_t, 256> kTable = make_table();

uint32_t by_table(uint32_t before, const unsigned char* data, size_t size) {
    uint32_t crc = ~before;
    for (size_t i = 0; i < size; ++i) {
        crc = (crc >> 8) ^ kTable[(crc ^ data[i]) & 0xff];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t by_instruction(uint32_t before, const unsigned char* data, size_t size) {
    uint64_t crc = ~before;
    for (; size >= 8; size -= 8, data += 8) {
        uint64_t word;
        std::memcpy(&word, data, 8);
        crc = __builtin_ia32_crc32di(crc, word);
    }
    uint32_t rest = static_cast<uint32_t>(crc);
    for (; size > 0; --size, ++data) {
        rest = __builtin_ia32_crc32qi(rest, *data);
    }
    return ~rest;
}

// x^exponent mod P, reflected.
constexpr uint32_t power(size_t exponent) {
    uint32_t value = 0x80000000u;
    for (size_t i = 0; i < exponent; ++i) {
        value = (value >> 1) ^ ((value & 1) ? kPolynomial : 0);
    }
    return value;
}

constexpr size_t kStream = 1024;
constexpr uint32_t kOverOne = power(8 * kStream - 33);
constexpr uint32_t kOverTwo = power(16 * kStream - 33);

__attribute__((target("sse4.2,pclmul"))) uint64_t moved(uint64_t crc, uint32_t over) {
    const __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<int64_t>(crc)), _mm_cvtsi64_si128(over), 0);
    return _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(product)));
}

__attribute__((target("sse4.2,pclmul"))) uint32_t by_streams(uint32_t before, const unsigned char* data, size_t size) {
    uint64_t a = ~before;
    for (; size >= 3 * kStream; size -= 3 * kStream, data += 3 * kStream) {
        uint64_t b = 0;
        uint64_t c = 0;
        for (size_t i = 0; i < kStream; i += 8) {
            uint64_t words[3];
            std::memcpy(&words[0], data + i, 8);
            std::memcpy(&words[1], data + kStream + i, 8);
            std::memcpy(&words[2], data + 2 * kStream + i, 8);
            a = _mm_crc32_u64(a, words[0]);
            b = _mm_crc32_u64(b, words[1]);
            c = _mm_crc32_u64(c, words[2]);
        }
        a = moved(a, kOverTwo) ^ moved(b, kOverOne) ^ c;
    }
    return by_instruction(~static_cast<uint32_t>(a), data, size);
}

const bool kHasInstruction = __builtin_cpu_supports("sse4.2");
const bool kHasStreams = kHasInstruction && __builtin_cpu_supports("pclmul");
#endif

}  // namespace

uint32_t crc32c(const void* data, size_t size, uint32_t before) {
    const auto* bytes = static_cast<const unsigned char*>(data);
#if defined(__x86_64__)
    if (kHasStreams && size >= 3 * kStream) {
        return by_streams(before, bytes, size);
    }
    if (kHasInstruction) {
        return by_instruction(before, bytes, size);
    }
#endif
    return by_table(before, bytes, size);
}

}  // namespace reef
