// SPDX-License-Identifier: Apache-2.0
// The register tiles of tile.hpp, one function for each number of rows and vectors.
#include "tile.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

// B is read once from far away and then again: it is fetched this many floats before it is needed.
constexpr int kAhead = 1024;

// Keeps an address in a register of its own: the compiler would rather recompute a dozen of them in the loop.
REEF_INLINE void pin(const char*& address) { asm volatile("" : "+r"(address)); }

template <int kRows, int kVectors>
REEF_INLINE void step(Vec (&sum)[kRows][kVectors], const char* const (&base)[(kRows + 3) / 4], int64_t row,
                      int64_t three, const float* b, int k) {
    Vec panel[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
        panel[v] = load(b + (k * kVectors + v) * kLanes);
        __builtin_prefetch(b + (k * kVectors + v) * kLanes + kAhead);
    }
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
        const char* group = base[m / 4];
        const char* at = m % 4 == 3 ? group + three : group + (m % 4) * row;
        const Vec value = splat(reinterpret_cast<const float*>(at)[k]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
            sum[m][v] = fma(value, panel[v], sum[m][v]);
        }
    }
}

template <int kRows, int kVectors>
REEF_INLINE void accumulate(Vec (&sum)[kRows][kVectors], const char* a, int64_t row, const float* b, int64_t length) {
    constexpr int kGroups = (kRows + 3) / 4;
    constexpr int kUnroll = 4;
    const int64_t three = 3 * row;
    const char* base[kGroups];
    for (int g = 0; g < kGroups; ++g) {
        base[g] = a + 4 * g * row;
    }
    int64_t k = length;
    for (; k >= kUnroll; k -= kUnroll) {
#pragma GCC unroll 4
        for (int u = 0; u < kUnroll; ++u) {
            step<kRows, kVectors>(sum, base, row, three, b, u);
        }
        b += kUnroll * kVectors * kLanes;
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
            base[g] += kUnroll * sizeof(float);
            pin(base[g]);
        }
    }
    for (; k > 0; --k) {
        step<kRows, kVectors>(sum, base, row, three, b, 0);
        b += kVectors * kLanes;
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
            base[g] += sizeof(float);
        }
    }
}

template <int kRows, int kVectors> void multiply_tile(const Tile& tile) {
    Vec sum[kRows][kVectors];
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
            sum[m][v] = load(tile.start + m * tile.start_stride + v * kLanes);
        }
    }
    const float* b = tile.b;
    for (int s = 0; s < tile.segment_count; ++s) {
        accumulate<kRows, kVectors>(sum, tile.a + tile.segments[s], tile.row_bytes, b, tile.length);
        b += tile.length * kVectors * kLanes;
    }
    if (tile.finish != Finish::keep) {
        if (tile.residual != nullptr) {
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                const int lanes = lanes_of(tile.residual_lanes, v);
#pragma GCC unroll 16
                for (int m = 0; m < kRows; ++m) {
                    sum[m][v] += load_first(tile.residual + m * tile.residual_stride + v * kLanes, lanes);
                }
            }
        }
        if (tile.finish == Finish::clamp) {
            const Vec low = splat(tile.low);
            const Vec high = splat(tile.high);
#pragma GCC unroll 16
            for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
                for (int v = 0; v < kVectors; ++v) {
                    sum[m][v] = min(high, max(low, sum[m][v]));
                }
            }
        } else {
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                const Vec slope = load(tile.slope + v * kLanes);
#pragma GCC unroll 16
                for (int m = 0; m < kRows; ++m) {
                    sum[m][v] = sum[m][v] < Vec{} ? sum[m][v] * slope : sum[m][v];
                }
            }
        }
    }
    if (tile.lanes == kVectors * kLanes) {
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                store(tile.out + m * tile.out_stride + v * kLanes, sum[m][v]);
            }
        }
    } else {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
            const int lanes = lanes_of(tile.lanes, v);
#pragma GCC unroll 16
            for (int m = 0; m < kRows; ++m) {
                store_first(tile.out + m * tile.out_stride + v * kLanes, sum[m][v], lanes);
            }
        }
    }
}

using TileFunction = void (*)(const Tile&);

// [vectors - 1][rows - 1]
constexpr TileFunction kTiles[kPanelVectors][kTileRows] = {
#if REEF_ISA_avx512
#define REEF_TILES(v)                                                                                                  \
    {multiply_tile<1, v>,  multiply_tile<2, v>,  multiply_tile<3, v>,  multiply_tile<4, v>, multiply_tile<5, v>,       \
     multiply_tile<6, v>,  multiply_tile<7, v>,  multiply_tile<8, v>,  multiply_tile<9, v>, multiply_tile<10, v>,      \
     multiply_tile<11, v>, multiply_tile<12, v>, multiply_tile<13, v>, multiply_tile<14, v>}
#elif REEF_ISA_avx2
#define REEF_TILES(v)                                                                                                  \
    {multiply_tile<1, v>, multiply_tile<2, v>, multiply_tile<3, v>,                                                    \
     multiply_tile<4, v>, multiply_tile<5, v>, multiply_tile<6, v>}
#else
#define REEF_TILES(v) {multiply_tile<1, v>, multiply_tile<2, v>, multiply_tile<3, v>, multiply_tile<4, v>}
#endif
    REEF_TILES(1),
    REEF_TILES(2),
#undef REEF_TILES
};

}  // namespace

void multiply(const Tile& tile, int rows, int vectors) { kTiles[vectors - 1][rows - 1](tile); }

}  // namespace reef::cpu::REEF_ISA
