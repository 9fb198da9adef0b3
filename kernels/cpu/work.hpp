// SPDX-License-Identifier: Apache-2.0
// How much work there is and into how many blocks it is cut.
#pragma once
#include "simd.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

// Work is cut by its nominal time on one core, never by what the machine happens to do: blocks must not depend on it.
constexpr double kNominalMacsPerMicrosecond = 5000.0 * kLanes;
constexpr double kNominalBytesPerMicrosecond = 10000.0;
constexpr double kBlockMicroseconds = 40.0;
constexpr double kShortestBlockMicroseconds = 3.0;

// Into how many blocks to cut this much work, at most `most`.
REEF_INLINE int64_t blocks_for(double microseconds, int64_t most) {
    double blocks = microseconds / kBlockMicroseconds;
    if (blocks < 8) {
        const double small = microseconds / kShortestBlockMicroseconds;
        blocks = small < 8 ? small : 8;
    }
    const int64_t count = blocks > static_cast<double>(most) ? most : static_cast<int64_t>(blocks);
    return count < 1 ? 1 : count;
}

REEF_INLINE double larger(double a, double b) { return a > b ? a : b; }

REEF_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

REEF_INLINE int64_t up(int64_t value, int64_t by) { return (value + by - 1) / by; }

}  // namespace
}  // namespace reef::cpu::REEF_ISA
