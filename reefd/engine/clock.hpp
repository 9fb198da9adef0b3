// SPDX-License-Identifier: Apache-2.0
// CLOCK_MONOTONIC in nanoseconds (no system call: the vDSO reads it).
#pragma once
#include <ctime>

#include <cstdint>

namespace reef {

inline uint64_t monotonic_ns() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace reef
