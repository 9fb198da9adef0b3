// SPDX-License-Identifier: Apache-2.0
// The arithmetic of one k-tile, in two forms with one interface: tensor cores (16x8x16, halves) and register tiles of
// scalar multiply-adds (floats, or halves through dot2). Threads are cut into SLICES groups that share out the k of a
// tile; their sums are added in a fixed order afterwards.
#pragma once

struct alignas(8) FloatPair {
    float first, second;
};

template <class K> struct TensorCoreProduct {
    using G = Geometry<K>;
    static constexpr int row_parts = K::BM / K::WM / 16, column_parts = K::BN / K::WN / 8;
    static_assert(K::BM % (K::WM * 16) == 0 && K::BN % (K::WN * 16) == 0, "a warp owns 16 x 16 parts");
    static_assert(K::THREADS == 32 * K::WM * K::WN * K::SLICES && K::BK / 16 % K::SLICES == 0, "slices share a k-tile");

    float sum[row_parts][column_parts][4];
    int lane, slice, first_row, first_column;
    int left_at, right_at;  // this lane's chunks of the first step

    REEF_MEMBER TensorCoreProduct() : sum{} {
        int warp = thread_index() / 32;
        lane = thread_index() % 32;
        slice = warp / (K::WM * K::WN);
        first_row = warp % K::WM * (K::BM / K::WM);
        first_column = warp / K::WM % K::WN * (K::BN / K::WN);
        left_at = G::place(first_row + lane % 16, slice * 2 + lane / 16);
        right_at = G::place(first_column + lane % 8 + lane / 16 * 8, slice * 2 + lane / 8 % 2);
        settle(left_at);
        settle(right_at);
    }

    REEF_MEMBER void add(const Chunk* left, const Chunk* right) {
#pragma unroll
        for (int step = 0; step < K::BK / 16 / K::SLICES; step++) {
            // Columns of a step differ from the first one's in bits that those do not have, and 16 rows on the order of a
            // row's chunks is the same.
            constexpr int rows16 = 16 * G::columns;
            const int column = step * K::SLICES * 2;
            u32 a[row_parts][4], b[column_parts / 2][4];
#pragma unroll
            for (int i = 0; i < row_parts; i++)
                load_matrices(a[i], left + (left_at ^ column) + i * rows16);
#pragma unroll
            for (int j = 0; j < column_parts / 2; j++)
                load_matrices(b[j], right + (right_at ^ column) + j * rows16);
#pragma unroll
            for (int i = 0; i < row_parts; i++)
#pragma unroll
                for (int j = 0; j < column_parts; j++)
                    multiply_matrices(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }

    // Writes the sums as [slice][row][column], rows `pitch` floats apart.
    REEF_MEMBER void spill(float* out, int pitch) const {
        float* corner = out + (slice * K::BM + first_row + lane / 4) * pitch + first_column + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < row_parts; i++)
#pragma unroll
            for (int j = 0; j < column_parts; j++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float* to = corner + (i * 16 + half * 8) * pitch + j * 8;
                    *(FloatPair*)to = FloatPair{sum[i][j][half * 2], sum[i][j][half * 2 + 1]};
                }
    }
};

template <class K> struct ScalarProduct {
    using G = Geometry<K>;
    using T = typename K::T;
    static constexpr int threads_down = K::BM / K::TM, threads_across = K::BN / K::TN;
    static_assert(K::THREADS == threads_down * threads_across * K::SLICES && G::columns % K::SLICES == 0, "slices share a k-tile");

    float sum[K::TM][K::TN];
    int slice, down, across;

    REEF_MEMBER ScalarProduct() : sum{} {
        int t = thread_index();
        across = t % threads_across;
        down = t / threads_across % threads_down;
        slice = t / (threads_across * threads_down);
    }

    REEF_MEMBER void add(const Chunk* left, const Chunk* right) {
        constexpr int steps = G::columns / K::SLICES;
#pragma unroll(steps < REEF_MOST_STEPS ? steps : REEF_MOST_STEPS)
        for (int step = 0; step < steps; step++) {
            int column = step * K::SLICES + slice;
            Chunk a[K::TM], b[K::TN];
#pragma unroll
            for (int i = 0; i < K::TM; i++) a[i] = left[G::place(down + i * threads_down, column)];
#pragma unroll
            for (int j = 0; j < K::TN; j++) b[j] = right[G::place(across + j * threads_across, column)];
#pragma unroll
            for (int i = 0; i < K::TM; i++)
#pragma unroll
                for (int j = 0; j < K::TN; j++) sum[i][j] = dot(a[i], b[j], sum[i][j], T{});
        }
    }

    REEF_MEMBER void spill(float* out, int pitch) const {
        float* corner = out + (slice * K::BM + down) * pitch + across;
#pragma unroll
        for (int i = 0; i < K::TM; i++)
#pragma unroll
            for (int j = 0; j < K::TN; j++) corner[i * threads_down * pitch + j * threads_across] = sum[i][j];
    }
};

template <class K, bool TensorCores> struct ProductOf {
    using Type = ScalarProduct<K>;
};
#if REEF_TENSOR_CORES
template <class K> struct ProductOf<K, true> {
    using Type = TensorCoreProduct<K>;
};
#endif
