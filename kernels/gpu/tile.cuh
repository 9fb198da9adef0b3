// SPDX-License-Identifier: Apache-2.0
// Tiles of a matrix product in shared memory, and how they are filled from feature maps and weights.
//
// Both operands lie as [row][k]: rows of the left one are output pixels, rows of the right one output channels, k runs
// over (kernel row, kernel column, input channel). The unit is a chunk of 16 bytes. Chunks of a row are permuted by the
// row number, so that eight rows read at the same k touch all banks once.
//
// A tile is filled in two steps: issue() starts the loads of a k-tile, land() makes them visible to the next barrier.
// With asynchronous copies issue() does all; else the chunks wait in registers, and land() stores them after the
// arithmetic of the tile before.
#pragma once

template <class K> struct Geometry {
    using T = typename K::T;
    static constexpr int chunk = Traits<T>::chunk;
    static constexpr int columns = K::BK / chunk;
    static constexpr int depth = K::KH * K::KW * K::C;
    static constexpr int padded_depth = (depth + chunk - 1) / chunk * chunk;  // of a packed row of weights
    static constexpr int tiles = (depth + K::BK - 1) / K::BK;
    static constexpr int pixels = K::N * K::OH * K::OW;
    static constexpr int row_tiles = (pixels + K::BM - 1) / K::BM;
    static constexpr int column_tiles = (K::O + K::BN - 1) / K::BN;
    static_assert(columns == 2 || columns == 4 || columns % 8 == 0, "BK is 2, 4, 8, 16... chunks");
    static_assert(K::THREADS % columns == 0, "a thread keeps its column");

    REEF_DEVICE int place(int row, int column) {
        constexpr int shift = columns == 2 ? 2 : columns == 4 ? 1 : 0;
        constexpr int mask = columns < 8 ? columns - 1 : 7;
        return row * columns + (column ^ (row >> shift & mask));
    }
};

template <bool Wide> struct TapMask {
    using Type = u32;
};
template <> struct TapMask<true> {
    using Type = u64;
};

// The input side: rows are output pixels, gathered from the feature map tap by tap; outside the map is zero.
template <class K> struct InputTile {
    using G = Geometry<K>;
    using T = typename K::T;
    using In = typename K::In;
    using Mask = typename TapMask<(K::KH * K::KW > 32)>::Type;
    static constexpr int rows_each = (K::BM * G::columns + K::THREADS - 1) / K::THREADS;
    static constexpr bool exact = K::BM * G::columns % K::THREADS == 0;
    static constexpr bool asynchronous = REEF_ASYNC_COPIES && !K::GATHER;
    static constexpr bool masked = K::KH * K::KW <= 64;

    const In* map;
    int offset[rows_each];  // of tap 0, channel 0, in elements; may lie before the map
    Mask inside[rows_each];  // one bit a tap; with more taps than bits, whether the row is a pixel
    int corner[masked ? 1 : rows_each];  // there: the window's first row and column, 16 bits each
    Chunk held[asynchronous ? 1 : rows_each];

    REEF_MEMBER InputTile(const void* x, int row_tile, int group) {
        map = (const In*)x + (K::X_NCHW ? (i64)group * K::C * K::H * K::W : (i64)group * K::C);
#pragma unroll
        for (int j = 0; j < rows_each; j++) {
            int pixel = row_tile * K::BM + row(j);
            int image = pixel / (K::OH * K::OW), at = pixel % (K::OH * K::OW);
            int top = at / K::OW * K::SH - K::PT, left = at % K::OW * K::SW - K::PL;
            offset[j] = K::X_NCHW ? image * (K::X_PITCH * K::H * K::W) + top * K::W + left
                                  : ((image * K::H + top) * K::W + left) * K::X_PITCH;
            if constexpr (masked) {
                Mask across = 0, all = 0;
#pragma unroll
                for (int kw = 0; kw < K::KW; kw++)
                    if ((unsigned)(left + kw * K::DW) < K::W) across |= (Mask)1 << kw;
#pragma unroll
                for (int kh = 0; kh < K::KH; kh++)
                    if ((unsigned)(top + kh * K::DH) < K::H) all |= across << (kh * K::KW);
                inside[j] = pixel < G::pixels ? all : 0;
            } else {
                static_assert(K::H + K::PT < 32768 && K::W + K::PL < 32768, "a corner fits 16 bits");
                inside[j] = pixel < G::pixels;
                corner[j] = (int)((u32)top << 16 | (u16)left);
            }
        }
    }

    // Whether tap `tap` of row j lies on the map.
    REEF_MEMBER bool within(int j, int tap) const {
        if constexpr (masked) {
            return inside[j] >> tap & 1;
        } else {
            int row = (corner[j] >> 16) + tap / K::KW * K::DH, column = (int)(short)corner[j] + tap % K::KW * K::DW;
            return inside[j] && (unsigned)row < K::H && (unsigned)column < K::W;
        }
    }

    REEF_DEVICE int row(int j) { return (thread_index() + j * K::THREADS) / G::columns; }
    REEF_DEVICE int column() { return thread_index() % G::columns; }
    REEF_DEVICE bool mine(int j) { return exact || row(j) < K::BM; }
    REEF_DEVICE int shift(int tap, int channel) {
        int along = tap / K::KW * K::DH * K::W + tap % K::KW * K::DW;
        return K::X_NCHW ? channel * (K::H * K::W) + along : along * K::X_PITCH + channel;
    }

    // Where this thread's chunks of a k-tile lie.
    struct Places {
        const In* from[rows_each];
        int valid[rows_each];

        REEF_MEMBER void settled() {
#pragma unroll
            for (int j = 0; j < rows_each; j++) {
                settle(from[j]);
                settle(valid[j]);
            }
        }
    };
    REEF_MEMBER void find(int tile, Places& places) const {
        int k = tile * K::BK + column() * G::chunk;
        int tap = k / K::C, step = shift(tap, k % K::C);
        bool some = G::depth % K::BK == 0 || k < G::depth;
#pragma unroll
        for (int j = 0; j < rows_each; j++) {
            places.valid[j] = some && within(j, tap);
            places.from[j] = places.valid[j] ? map + offset[j] + step : map;
        }
    }
    REEF_MEMBER void issue(Chunk* stage, const Places& places) {
#pragma unroll
        for (int j = 0; j < rows_each; j++)
            if (mine(j)) copy_async(stage + G::place(row(j), column()), places.from[j], places.valid[j]);
    }

    REEF_MEMBER void issue(Chunk* stage, int tile) {
        if constexpr (asynchronous) {
            Places places;
            find(tile, places);
            issue(stage, places);
        } else if constexpr (!K::GATHER) {  // one after the other: all their addresses at once do not fit beside the chunks
            int k = tile * K::BK + column() * G::chunk;
            int tap = k / K::C, step = shift(tap, k % K::C);
            bool some = G::depth % K::BK == 0 || k < G::depth;
#pragma unroll
            for (int j = 0; j < rows_each; j++) {
                bool valid = some && within(j, tap);
                held[j] = load_chunk(valid ? map + offset[j] + step : map, valid);
            }
        } else {
            int k = tile * K::BK + column() * G::chunk;
            float value[rows_each][G::chunk];
#pragma unroll
            for (int e = 0; e < G::chunk; e++) {
                int tap = (k + e) / K::C, step = shift(tap, (k + e) % K::C);
                bool some = G::depth % K::BK == 0 || k + e < G::depth;
#pragma unroll
                for (int j = 0; j < rows_each; j++)
                    value[j][e] = some && within(j, tap) ? as_float(map[offset[j] + step]) : 0.0f;
            }
#pragma unroll
            for (int j = 0; j < rows_each; j++) held[j] = pack(value[j], T{});
        }
    }

    REEF_MEMBER void land(Chunk* stage) {
        if constexpr (!asynchronous) {
#pragma unroll
            for (int j = 0; j < rows_each; j++)
                if (mine(j)) stage[G::place(row(j), column())] = held[j];
        }
    }
};

// The weight side: rows are output channels, packed [channel][k] with k padded to whole chunks.
template <class K> struct WeightTile {
    using G = Geometry<K>;
    using T = typename K::T;
    static constexpr int rows_each = (K::BN * G::columns + K::THREADS - 1) / K::THREADS;
    static constexpr bool exact = K::BN * G::columns % K::THREADS == 0;

    const T* rows;
    int first;
    Chunk held[REEF_ASYNC_COPIES ? 1 : rows_each];

    REEF_MEMBER WeightTile(const void* w, int column_tile, int group)
        : rows((const T*)w + (i64)group * K::O * G::padded_depth), first(column_tile * K::BN) {}

    REEF_DEVICE int row(int j) { return (thread_index() + j * K::THREADS) / G::columns; }
    REEF_DEVICE int column() { return thread_index() % G::columns; }
    REEF_DEVICE bool mine(int j) { return exact || row(j) < K::BN; }

    REEF_MEMBER void issue(Chunk* stage, int tile) {
        int k = tile * K::BK + column() * G::chunk;
#pragma unroll
        for (int j = 0; j < rows_each; j++) {
            bool valid = (G::padded_depth % K::BK == 0 || k < G::padded_depth) &&
                         (K::O % K::BN == 0 || first + row(j) < K::O) && mine(j);
            const T* from = valid ? rows + (i64)(first + row(j)) * G::padded_depth + k : rows;
#if REEF_ASYNC_COPIES
            if (mine(j)) copy_async(stage + G::place(row(j), column()), from, valid);
#else
            held[j] = load_chunk(from, valid);
#endif
        }
    }

    REEF_MEMBER void land(Chunk* stage) {
#if !REEF_ASYNC_COPIES
#pragma unroll
        for (int j = 0; j < rows_each; j++)
            if (mine(j)) stage[G::place(row(j), column())] = held[j];
#endif
    }
};
