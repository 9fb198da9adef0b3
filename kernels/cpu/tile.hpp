// SPDX-License-Identifier: Apache-2.0
// Register tiles: the micro-kernels of convolution and matrix product.
//
// A tile is `rows` rows of A times one panel of B, kept in registers while k runs. Rows of A lie a constant number of
// bytes apart (neighbouring pixels, or rows of a matrix) and are broadcast; a panel of B is packed, `vectors` vectors for
// each k. A run over k may be made of several segments of A (the taps of a filter), at given offsets.
// The end of a tile adds a residual, bounds or bends the result, and writes only the lanes that exist.
#pragma once
#include "simd.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr int kPanelVectors = 2;  // vectors in a full panel; the last of a matrix may have one
constexpr int kPanelLanes = kPanelVectors * kLanes;
// As many rows as leave the accumulators, one row of B and a broadcast in registers.
#if REEF_ISA_avx512
constexpr int kTileRows = 14;
#elif REEF_ISA_avx2
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 4;
#endif

// How many rows a tile may have when they lie this far apart. At multiples of 4 KiB all of them fall into one set of the
// first cache, which must also take a line or two of B.
REEF_INLINE int64_t rows_for(int64_t row_bytes) {
    constexpr int64_t kSetBytes = 4096;
    constexpr int kWays = 10;
    return row_bytes % kSetBytes == 0 && kTileRows > kWays ? kWays : kTileRows;
}

// Of `lanes` lanes in a row of vectors, those that fall into vector v.
REEF_INLINE int lanes_of(int lanes, int v) {
    const int rest = lanes - v * kLanes;
    return rest < 0 ? 0 : (rest > kLanes ? kLanes : rest);
}

}  // namespace

enum class Finish : uint8_t {
    keep,   // write the accumulators as they are
    clamp,  // add the residual, bound to [low, high]
    slope,  // add the residual, scale what is negative
};

struct Tile {
    const char* a;            // row 0
    int64_t row_bytes;        // from one row to the next
    const int64_t* segments;  // offsets in bytes from each row's start
    int segment_count;
    int64_t length;      // floats in each segment
    const float* b;      // the panel at the first k
    const float* start;  // what the accumulators start from: a row each start_stride floats (0: the same for all)
    int64_t start_stride;
    float* out;
    int64_t out_stride;
    int lanes;              // of the panel that exist in `out`
    const float* residual;  // or null
    int64_t residual_stride;
    int residual_lanes;
    Finish finish;
    float low;
    float high;
    const float* slope;  // one for each lane of the panel
};

// 1 .. kTileRows rows, 1 .. kPanelVectors vectors.
void multiply(const Tile& tile, int rows, int vectors);

}  // namespace reef::cpu::REEF_ISA
