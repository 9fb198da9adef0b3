// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli, reflected, initial value and final xor all ones), as SQE, CQE, header and payloads carry it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace reef {

// `before`: the CRC of what goes before these bytes; 0: nothing does.
uint32_t crc32c(const void* data, size_t size, uint32_t before = 0);

// Of a structure that ends in its own crc, or of one whose crc field is zeroed by the caller.
template <class T> uint32_t crc_before_tail(const T& entry) { return crc32c(&entry, sizeof(T) - sizeof(uint32_t)); }

}  // namespace reef
