// SPDX-License-Identifier: Apache-2.0
// transpose, concat (one instance for each input), slice, pad and conversions: a copy between two strided layouts.
//
// The region written has up to six dimensions D0..D5; index i of dimension d reads x at i - Bd, which may lie outside
// [0, Ed): then the value is FILL, or the nearest (edge) or mirrored (reflect) element. args: x, y.
#pragma once

enum class Outside { none, constant, edge, reflect };

template <class K> struct Copy {
    REEF_DEVICE int inside(int i, int extent, bool& valid) {
        if constexpr (K::OUTSIDE == Outside::edge) return i < 0 ? 0 : i >= extent ? extent - 1 : i;
        if constexpr (K::OUTSIDE == Outside::reflect) return i < 0 ? -i : i >= extent ? 2 * extent - 2 - i : i;
        if constexpr (K::OUTSIDE == Outside::constant) valid = valid && (unsigned)i < (unsigned)extent;
        return i;
    }

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using In = typename K::In;
        using Out = typename K::Out;
        constexpr int wide = K::WIDE, across = K::D5 / wide, items = K::D0 * K::D1 * K::D2 * K::D3 * K::D4 * across;
        static_assert(K::BLOCKS == (items + K::THREADS * K::EACH - 1) / (K::THREADS * K::EACH), "the launch matches");
        Gate<Preemptible> gate(place, (u32*)shared_memory(), block_index());
        dependency_launch();
        dependency_wait();
        gate.begin();
        if (gate.check()) return;
        const In* x = (const In*)args.p[0] + K::X_OFFSET;
        Out* y = (Out*)args.p[1] + K::Y_OFFSET;
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            int item = (block_index() * K::EACH + i) * K::THREADS + thread_index();
            if (item >= items) break;
            int i5 = item % across * wide, rest = item / across;
            int i4 = rest % K::D4, i3 = (rest /= K::D4) % K::D3, i2 = (rest /= K::D3) % K::D2;
            int i1 = (rest /= K::D2) % K::D1, i0 = rest / K::D1;
            bool valid = true;
            i64 from = (i64)inside(i0 - K::B0, K::E0, valid) * K::XS0 + (i64)inside(i1 - K::B1, K::E1, valid) * K::XS1 +
                       (i64)inside(i2 - K::B2, K::E2, valid) * K::XS2 + (i64)inside(i3 - K::B3, K::E3, valid) * K::XS3 +
                       (i64)inside(i4 - K::B4, K::E4, valid) * K::XS4 + (i64)inside(i5 - K::B5, K::E5, valid) * K::XS5;
            i64 to = (i64)i0 * K::YS0 + (i64)i1 * K::YS1 + (i64)i2 * K::YS2 + (i64)i3 * K::YS3 + (i64)i4 * K::YS4 + i5 * (i64)K::YS5;
            if constexpr (wide > 1) {
                *(Chunk*)(y + to) = load_chunk(x + from, true);
            } else if constexpr (K::RAW) {
                y[to] = valid ? x[from] : (Out)K::FILL;
            } else {
                from_float(valid ? as_float(x[from]) : K::FILL, y[to]);
            }
        }
        gate.finish();
    }
};
