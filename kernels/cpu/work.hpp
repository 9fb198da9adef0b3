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

struct Splits {
    int64_t rows, panels;
};

// Cuts a product of `tiles` register tiles of A and `panels` panels of B into about `blocks` blocks, so that the least is
// read twice: each block of a column of blocks reads the same part of B, each of a row the same part of A. What fits
// into a second-level cache costs little to read again; `again` is the price of reading A again, relative to B.
[[maybe_unused]] Splits split_product(int64_t blocks, int64_t tiles, int64_t panels, double a_bytes, double b_bytes,
                                      double again) {
    constexpr double kCacheBytes = 512.0 * 1024;
    const double a = a_bytes * again * (a_bytes < kCacheBytes ? 0.25 : 1.0);
    const double b = b_bytes * (b_bytes < kCacheBytes ? 0.25 : 1.0);
    Splits best{tiles, panels};
    double least = a * static_cast<double>(panels) + b * static_cast<double>(tiles);
    for (int64_t rows = 1; rows <= smaller(tiles, blocks); ++rows) {
        const int64_t across = up(blocks, rows);
        const double cost = a * static_cast<double>(across) + b * static_cast<double>(rows);
        if (across <= panels && cost < least) {
            least = cost;
            best = {rows, across};
        }
    }
    return best;
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
