// SPDX-License-Identifier: Apache-2.0
// softmax and layer_norm: a reduction over one dimension of COUNT elements, INNER elements apart, OUTER x INNER times.
//
// LANES threads share a row; a block has THREADS / LANES rows. Partial results are joined by a tree of fixed shape, so
// the bits do not depend on timing. Rows are read again rather than kept: they are in the nearest cache.
#pragma once

template <class K> struct Rows {
    static constexpr int rows = K::OUTER * K::INNER, rows_here = K::THREADS / K::LANES;
    static_assert(K::BLOCKS == (rows + rows_here - 1) / rows_here, "the launch matches the kernel");
    static_assert(K::SHARED == 128 + K::THREADS * 4, "the launch matches the kernel");

    // The row's value in every lane. All threads of the block take part.
    template <bool Maximum> REEF_DEVICE float join(float value) {
        float* shared = (float*)(shared_memory() + 128);
        int t = thread_index();
        barrier();
        shared[t] = value;
#pragma unroll
        for (int apart = K::LANES / 2; apart > 0; apart /= 2) {
            barrier();
            if (t % K::LANES < apart) {
                float other = shared[t + apart];
                shared[t] = Maximum ? (shared[t] > other ? shared[t] : other) : shared[t] + other;
            }
        }
        barrier();
        return shared[t / K::LANES * K::LANES];
    }
};

// args: x, y.
template <class K> struct Softmax {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using T = typename K::T;
        using R = Rows<K>;
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        int lane = thread_index() % K::LANES, row = block_index() * R::rows_here + thread_index() / K::LANES;
        bool some = R::rows % R::rows_here == 0 || row < R::rows;
        i64 start = (i64)(row / K::INNER) * K::COUNT * K::INNER + row % K::INNER;
        const T* x = (const T*)args.p[0] + (some ? start : 0);
        T* y = (T*)args.p[1] + start;
        if (!fits_at_once<K> && gate.stop()) return;
        float top = bits_to_float(0xff800000u), sum = 0;
        for (int i = lane; i < K::COUNT; i += K::LANES) {
            float value = as_float(x[(i64)i * K::INNER]);
            top = value > top ? value : top;
        }
        if (fits_at_once<K> && gate.stop()) return;
        top = R::template join<true>(top);
        for (int i = lane; i < K::COUNT; i += K::LANES) sum += exponential(as_float(x[(i64)i * K::INNER]) - top);
        sum = R::template join<false>(sum);
        if (K::LOGARITHM) sum = log2_fast(sum) * 0.6931471805599453f;
        float scale = K::LOGARITHM ? 0 : reciprocal(sum);
        if (some)
            for (int i = lane; i < K::COUNT; i += K::LANES) {
                float value = as_float(x[(i64)i * K::INNER]) - top;
                from_float(K::LOGARITHM ? value - sum : exponential(value) * scale, y[(i64)i * K::INNER]);
            }
    }
};

// args: x, scale, shift, y; scale and shift are float, one an element of a row. Without CENTER the mean is not subtracted.
template <class K> struct LayerNorm {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using T = typename K::T;
        using R = Rows<K>;
        static_assert(K::INNER == 1, "rows are dense");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        int lane = thread_index() % K::LANES, row = block_index() * R::rows_here + thread_index() / K::LANES;
        bool some = R::rows % R::rows_here == 0 || row < R::rows;
        i64 start = (i64)(some ? row : 0) * K::COUNT;
        auto read = [&](int i) { return as_float(((const T*)args.p[0])[start + i]); };
        if (!fits_at_once<K> && gate.stop()) return;
        float sum = 0, squares = 0;
        if constexpr (K::CENTER)
            for (int i = lane; i < K::COUNT; i += K::LANES) sum += read(i);
        if (fits_at_once<K> && gate.stop()) return;
        float mean = K::CENTER ? R::template join<false>(sum) / K::COUNT : 0.0f;
        for (int i = lane; i < K::COUNT; i += K::LANES) {
            float away = read(i) - mean;
            squares = fused_multiply_add(away, away, squares);
        }
        float scale = reciprocal(root(R::template join<false>(squares) / K::COUNT + K::EPSILON));
        if (some)
            for (int i = lane; i < K::COUNT; i += K::LANES) {
                float value = (read(i) - mean) * scale;
                if constexpr (K::SCALE) value *= ((const float*)args.p[1])[i];
                if constexpr (K::SHIFT) value += ((const float*)args.p[2])[i];
                from_float(value, ((T*)args.p[3])[start + i]);
            }
    }
};
