// SPDX-License-Identifier: Apache-2.0
// Matrix products whose right side comes with the request, leading axes broadcast as in NumPy, in any arithmetic type.
// Products with constant matrices are conv.cuh's and gemv.cuh's.
//
// args: a, b, bias [N] (float), residual (as y), y [D0, D1, D2, M, N]. A block computes 32 x 32 results of one batch.
#pragma once

template <class K> struct Batched {
    using C = typename K::Computed;
    static constexpr int side = 32, pitch = side + 1, down = (K::M + side - 1) / side, across = (K::N + side - 1) / side;
    static_assert(K::THREADS == 256 && K::BLOCKS == K::D0 * K::D1 * K::D2 * down * across, "the launch matches");
    static_assert(K::SHARED == 128 + 2 * side * pitch * 8, "the launch matches the kernel");

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        C* left = (C*)(shared_memory() + 128);
        C* right = left + side * pitch;
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        int batch = block_index() / (down * across), tile = block_index() % (down * across);
        int i2 = batch % K::D2, i1 = batch / K::D2 % K::D1, i0 = batch / (K::D2 * K::D1);
        const auto* a = (const typename K::A*)args.p[0] + (i64)i0 * K::A0 + (i64)i1 * K::A1 + (i64)i2 * K::A2;
        const auto* b = (const typename K::B*)args.p[1] + (i64)i0 * K::B0 + (i64)i1 * K::B1 + (i64)i2 * K::B2;
        int first_row = tile / across * side, first_column = tile % across * side;
        int x = thread_index() % side, y = thread_index() / side;  // rows y, y + 8, y + 16, y + 24
        C sum[4] = {};
        for (int start = 0; start < K::DEPTH; start += side) {
            if (gate.check()) return;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int row = y + 8 * j;
                bool some_a = first_row + row < K::M && start + x < K::DEPTH;
                bool some_b = start + row < K::DEPTH && first_column + x < K::N;
                left[row * pitch + x] = some_a ? convert<C>(a[(i64)(first_row + row) * K::AM + (i64)(start + x) * K::AK]) : (C)0;
                right[row * pitch + x] =
                    some_b ? convert<C>(b[(i64)(start + row) * K::BK + (i64)(first_column + x) * K::BN]) : (C)0;
            }
            barrier();
            for (int k = 0; k < side; k++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    C p = left[(y + 8 * j) * pitch + k], q = right[k * pitch + x];
                    if constexpr (Same<C, float>::value) sum[j] = fused_multiply_add(p, q, sum[j]);
                    else if constexpr (Number<C>::real) sum[j] += p * q;
                    else sum[j] = (C)((u64)sum[j] + (u64)p * (u64)q);
                }
        }
        int column = first_column + x;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int row = first_row + y + 8 * j;
            if (row >= K::M || column >= K::N) continue;
            i64 at = ((i64)batch * K::M + row) * K::N + column;
            C value = sum[j];
            if constexpr (K::BIAS) value += ((const float*)args.p[2])[column];
            if constexpr (K::RESIDUAL) value += convert<C>(((const typename K::R*)args.p[3])[at]);
            if constexpr (Same<C, float>::value) value = activate<K::ACTIVATION>(value, K::ALPHA, K::BETA);
            ((typename K::Out*)args.p[4])[at] = convert<typename K::Out>(value);
        }
    }
};
