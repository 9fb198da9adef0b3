// SPDX-License-Identifier: Apache-2.0
// unary (with an affine step before it: a batch norm that no conv could take) and binary with NumPy's broadcasting.
//
// Shapes are padded to four dimensions; the strides of an operand are zero where it is broadcast. The last dimension is
// taken WIDE elements at a time where every operand is dense or constant along it.
#pragma once

enum class Function { add, sub, mul, div, min, max, pow };

template <Function F> REEF_DEVICE float combine(float a, float b) {
    if constexpr (F == Function::add) return a + b;
    if constexpr (F == Function::sub) return a - b;
    if constexpr (F == Function::mul) return a * b;
    if constexpr (F == Function::div) return a / b;
    if constexpr (F == Function::min) return a < b ? a : b;
    if constexpr (F == Function::max) return a > b ? a : b;
    // The exponents that networks use are whole or a half; a negative base has a power only where it is whole.
    if constexpr (F == Function::pow) {
        float magnitude = exp2_fast(b * log2_fast(a < 0 ? -a : a));
        i64 whole = (i64)b;
        if (b == 0) return 1.0f;
        if (a == 0) return b > 0 ? 0.0f : bits_to_float(0x7f800000u);
        if (a > 0) return magnitude;
        if ((float)whole != b) return bits_to_float(0x7fc00000u);
        return whole & 1 ? -magnitude : magnitude;
    }
}

template <class T, int Wide, bool Dense> REEF_DEVICE void read_elements(const T* from, float (&value)[Wide]) {
    if constexpr (!Dense) {
        float one = as_float(*from);
#pragma unroll
        for (int e = 0; e < Wide; e++) value[e] = one;
    } else if constexpr (Wide > 1) {
        unpack(load_chunk(from, true), value, T{});
    } else {
        value[0] = as_float(*from);
    }
}

template <class T, int Wide> REEF_DEVICE void write_elements(const float (&value)[Wide], T* to) {
    if constexpr (Wide > 1)
        *(Chunk*)to = pack(value, T{});
    else
        from_float(value[0], *to);
}

// args: x, scale, shift, y; scale and shift are float, one a channel (the last dimension).
template <class K> struct Unary {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using T = typename K::T;
        constexpr int wide = K::WIDE, across = K::C / wide, items = K::ROWS * across;
        static_assert(K::BLOCKS == (items + K::THREADS * K::EACH - 1) / (K::THREADS * K::EACH), "the launch matches");
        Gate<Preemptible> gate(place, (u32*)shared_memory(), block_index());
        dependency_launch();
        dependency_wait();
        gate.begin();
        if (gate.check()) return;
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            int item = (block_index() * K::EACH + i) * K::THREADS + thread_index();
            if (item >= items) break;
            int row = item / across, channel = item % across * wide;
            float value[wide];
            read_elements<T, wide, true>((const T*)args.p[0] + (i64)row * K::X_PITCH + channel, value);
#pragma unroll
            for (int e = 0; e < wide; e++) {
                if constexpr (K::AFFINE)
                    value[e] = fused_multiply_add(value[e], ((const float*)args.p[1])[channel + e],
                                                  ((const float*)args.p[2])[channel + e]);
                if constexpr (K::PRELU) value[e] = value[e] >= 0 ? value[e] : value[e] * ((const float*)args.p[1])[channel + e];
                value[e] = activate<K::ACTIVATION>(value[e], K::ALPHA, K::BETA);
            }
            write_elements((const float(&)[wide])value, (T*)args.p[3] + (i64)row * K::Y_PITCH + channel);
        }
        gate.finish();
    }
};

// args: a, b, y.
template <class K> struct Binary {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using T = typename K::T;
        constexpr int wide = K::WIDE, across = K::D3 / wide, items = K::D0 * K::D1 * K::D2 * across;
        static_assert(K::BLOCKS == (items + K::THREADS * K::EACH - 1) / (K::THREADS * K::EACH), "the launch matches");
        Gate<Preemptible> gate(place, (u32*)shared_memory(), block_index());
        dependency_launch();
        dependency_wait();
        gate.begin();
        if (gate.check()) return;
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            int item = (block_index() * K::EACH + i) * K::THREADS + thread_index();
            if (item >= items) break;
            int i3 = item % across * wide, rest = item / across;
            int i2 = rest % K::D2, i1 = rest / K::D2 % K::D1, i0 = rest / (K::D2 * K::D1);
            float a[wide], b[wide], y[wide];
            read_elements<T, wide, K::A3 != 0>(
                (const T*)args.p[0] + (i64)i0 * K::A0 + (i64)i1 * K::A1 + (i64)i2 * K::A2 + (i64)i3 * K::A3, a);
            read_elements<T, wide, K::B3 != 0>(
                (const T*)args.p[1] + (i64)i0 * K::B0 + (i64)i1 * K::B1 + (i64)i2 * K::B2 + (i64)i3 * K::B3, b);
#pragma unroll
            for (int e = 0; e < wide; e++)
                y[e] = activate<K::ACTIVATION>(combine<K::FUNCTION>(a[e], b[e]), K::ALPHA, K::BETA);
            write_elements((const float(&)[wide])y, (T*)args.p[2] + (i64)rest * K::D3 + i3);
        }
        gate.finish();
    }
};
