// SPDX-License-Identifier: Apache-2.0
// CRC-32C with the CPU's instruction where there is one, by table elsewhere.
#include "crc32c.hpp"

#include <array>
#include <cstring>

namespace reef {
namespace {

constexpr std::array<uint32_t, 256> make_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) {
            value = (value >> 1) ^ ((value & 1) ? 0x82F63B78u : 0);
        }
        table[i] = value;
    }
    return table;
}

constexpr std::array<uint32_t, 256> kTable = make_table();

uint32_t by_table(const unsigned char* data, size_t size) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; ++i) {
        crc = (crc >> 8) ^ kTable[(crc ^ data[i]) & 0xff];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t by_instruction(const unsigned char* data, size_t size) {
    uint64_t crc = ~0u;
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

const bool kHasInstruction = __builtin_cpu_supports("sse4.2");
#endif

}  // namespace

uint32_t crc32c(const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
#if defined(__x86_64__)
    if (kHasInstruction) {
        return by_instruction(bytes, size);
    }
#endif
    return by_table(bytes, size);
}

}  // namespace reef
