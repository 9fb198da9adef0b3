// SPDX-License-Identifier: Apache-2.0
// unary (with an affine step before it: a batch norm that no conv could take), binary and where with NumPy's broadcasting,
// and cast.
//
// Shapes are padded; the strides of an operand are zero where it is broadcast. The last dimension is taken WIDE elements
// at a time where every operand is dense or constant along it. Types of operands may differ: arithmetic is done in C.
#pragma once

enum class Function {
    add, sub, mul, div, min, max, pow, mod, fmod, prelu, bit_and, bit_or, bit_xor, shift_left, shift_right, logical_and,
    logical_or, logical_xor, equal, less, less_equal, greater, greater_equal,
};

// The exponents that networks use are whole or a half; a negative base has a power only where it is whole.
REEF_DEVICE float power(float a, float b) {
    float magnitude = exp2_fast(b * log2_fast(a < 0 ? -a : a));
    i64 whole = (i64)b;
    if (b == 0) return 1.0f;
    if (a == 0) return b > 0 ? 0.0f : bits_to_float(0x7f800000u);
    if (a > 0) return magnitude;
    if ((float)whole != b) return bits_to_float(0x7fc00000u);
    return whole & 1 ? -magnitude : magnitude;
}

template <class C> REEF_DEVICE C whole_power(C base, C exponent) {
    if constexpr (Number<C>::has_sign)
        if (exponent < 0) return base == 1 ? (C)1 : base == (C)-1 ? (exponent % 2 ? (C)-1 : (C)1) : (C)0;
    u64 result = 1, factor = (u64)base;
    for (u64 rest = (u64)exponent; rest; rest >>= 1, factor *= factor)
        if (rest & 1) result *= factor;
    return (C)result;
}

// Integers wrap, and division by zero gives zero: what a client wrote must not stop the device.
template <Function F, class C> REEF_DEVICE auto combine(C a, C b) {
    if constexpr (F == Function::equal) return (u8)(a == b);
    else if constexpr (F == Function::less) return (u8)(a < b);
    else if constexpr (F == Function::less_equal) return (u8)(a <= b);
    else if constexpr (F == Function::greater) return (u8)(a > b);
    else if constexpr (F == Function::greater_equal) return (u8)(a >= b);
    else if constexpr (F == Function::prelu) return (C)(a < 0 ? a * b : a);
    else if constexpr (F == Function::min) return a != a || a < b ? a : b;
    else if constexpr (F == Function::max) return a != a || a > b ? a : b;
    else if constexpr (Number<C>::real) {
        if constexpr (F == Function::add) return a + b;
        if constexpr (F == Function::sub) return a - b;
        if constexpr (F == Function::mul) return a * b;
        if constexpr (F == Function::div) return a / b;
        if constexpr (F == Function::pow) return power(a, b);
    } else {
        if constexpr (F == Function::add) return (C)((u64)a + (u64)b);
        if constexpr (F == Function::sub) return (C)((u64)a - (u64)b);
        if constexpr (F == Function::mul) return (C)((u64)a * (u64)b);
        if constexpr (F == Function::pow) return whole_power(a, b);
        if constexpr (F == Function::bit_and) return (C)(a & b);
        if constexpr (F == Function::bit_or) return (C)(a | b);
        if constexpr (F == Function::bit_xor) return (C)(a ^ b);
        if constexpr (F == Function::shift_left) return (C)((u64)b < 8 * sizeof(C) ? (u64)a << b : 0);
        if constexpr (F == Function::shift_right) return (C)((u64)b < 8 * sizeof(C) ? a >> b : a < 0 ? -1 : 0);
        if constexpr (F == Function::logical_and) return (u8)(a && b);
        if constexpr (F == Function::logical_or) return (u8)(a || b);
        if constexpr (F == Function::logical_xor) return (u8)(!a != !b);
        if constexpr (F == Function::div || F == Function::mod || F == Function::fmod) {
            if (b == 0) return (C)0;
            if constexpr (Number<C>::has_sign)
                if (b == (C)-1) return F == Function::div ? (C)(0 - (u64)a) : (C)0;
            if constexpr (F == Function::div) return (C)(a / b);
            C rest = (C)(a % b);
            return (C)(F == Function::mod && rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
        }
    }
}

// The place of item `index` of a grid over D0..D3, D3 in groups of `wide`, in an operand with four strides.
struct Item {
    int i0, i1, i2, i3;
    i64 rest;
    template <class K, int Wide> REEF_DEVICE Item of(int index) {
        constexpr int across = K::D3 / Wide;
        int rest = index / across;
        return Item{rest / (K::D2 * K::D1), rest / K::D2 % K::D1, rest % K::D2, index % across * Wide, rest};
    }
    REEF_MEMBER i64 at(int s0, int s1, int s2, int s3) const {
        return (i64)i0 * s0 + (i64)i1 * s1 + (i64)i2 * s2 + (i64)i3 * s3;
    }
};

// args: x, scale (or slope), shift, y; scale, slope and shift are float, one a channel (the last dimension).
template <class K> struct Unary {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        constexpr int wide = K::WIDE, across = K::C / wide, items = K::ROWS * across;
        static_assert(K::BLOCKS == (items + K::THREADS * K::EACH - 1) / (K::THREADS * K::EACH), "the launch matches");
        Gate<Preemptible> gate(place, block_index());
        dependency_launch();
        const int first = block_index() * K::EACH * K::THREADS + thread_index();
        auto some = [&](int i) { return items % (K::THREADS * K::EACH) == 0 || first + i * K::THREADS < items; };
        // A few of them are under way before the kernel before has ended; behind a check point they would be waited for alone.
        constexpr bool early = (K::AFFINE || K::PRELU) && K::EACH * wide <= 16;
        Loaded<float, wide> scale[K::EACH], shift[K::EACH];
        auto constants = [&](int i) {
            const int channel = (first + i * K::THREADS) % across * wide;
            if constexpr (K::AFFINE || K::PRELU) scale[i].from((const float*)args.p[1] + channel, some(i));
            if constexpr (K::AFFINE) shift[i].from((const float*)args.p[2] + channel, some(i));
        };
        const typename K::In* from[K::EACH];
        typename K::Out* to[K::EACH];
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            const int item = first + i * K::THREADS;
            from[i] = (const typename K::In*)args.p[0] + (i64)(item / across) * K::X_PITCH + item % across * wide;
            to[i] = (typename K::Out*)args.p[3] + (i64)(item / across) * K::Y_PITCH + item % across * wide;
            if constexpr (early) constants(i);
        }
        dependency_wait();
        gate.begin();
        if (!fits_at_once<K> && gate.stop()) return;
        Loaded<typename K::In, wide> loaded[K::EACH];
#pragma unroll
        for (int i = 0; i < K::EACH; i++) loaded[i].from(from[i], some(i));
        if (fits_at_once<K> && gate.stop()) return;
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            if (!some(i)) break;
            if constexpr (!early) constants(i);
            float value[wide], factor[wide], addend[wide];
            loaded[i].to(value);
            if constexpr (K::AFFINE || K::PRELU) scale[i].to(factor);
            if constexpr (K::AFFINE) shift[i].to(addend);
#pragma unroll
            for (int e = 0; e < wide; e++) {
                float x = value[e];
                if constexpr (K::AFFINE) x = fused_multiply_add(x, factor[e], addend[e]);
                if constexpr (K::PRELU) x = x >= 0 ? x : x * factor[e];
                value[e] = activate<K::ACTIVATION>(x, K::ALPHA, K::BETA);
            }
            write_elements(value, to[i]);
        }
    }
};

// args: a, b, y.
template <class K> struct Binary {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using C = typename K::Computed;
        constexpr int wide = K::WIDE, items = K::D0 * K::D1 * K::D2 * (K::D3 / wide);
        static_assert(K::BLOCKS == (items + K::THREADS * K::EACH - 1) / (K::THREADS * K::EACH), "the launch matches");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (!fits_at_once<K> && gate.stop()) return;
        const int first = block_index() * K::EACH * K::THREADS + thread_index();
        C a[K::EACH][wide], b[K::EACH][wide];
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            int index = first + i * K::THREADS;
            if (items % (K::THREADS * K::EACH) != 0 && index >= items) break;
            Item item = Item::of<K, wide>(index);
            read_elements<K::A3 != 0>((const typename K::A*)args.p[0] + item.at(K::A0, K::A1, K::A2, K::A3), a[i]);
            read_elements<K::B3 != 0>((const typename K::B*)args.p[1] + item.at(K::B0, K::B1, K::B2, K::B3), b[i]);
        }
        if (fits_at_once<K> && gate.stop()) return;
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            int index = first + i * K::THREADS;
            if (items % (K::THREADS * K::EACH) != 0 && index >= items) break;
            using R = decltype(combine<K::FUNCTION, C>(C{}, C{}));
            R y[wide];
#pragma unroll
            for (int e = 0; e < wide; e++) {
                y[e] = combine<K::FUNCTION, C>(a[i][e], b[i][e]);
                if constexpr (Same<R, float>::value) y[e] = activate<K::ACTIVATION>(y[e], K::ALPHA, K::BETA);
            }
            Item item = Item::of<K, wide>(index);
            write_elements(y, (typename K::Out*)args.p[2] + item.rest * K::D3 + item.i3);
        }
    }
};

// args: condition, a, b, y.
template <class K> struct Where {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using C = typename K::Computed;
        constexpr int items = K::D0 * K::D1 * K::D2 * K::D3;
        static_assert(K::BLOCKS == (items + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (!fits_at_once<K> && gate.stop()) return;
        int index = block_index() * K::THREADS + thread_index();
        Item item = Item::of<K, 1>(index < items ? index : 0);
        bool chosen = ((const u8*)args.p[0])[item.at(K::S0, K::S1, K::S2, K::S3)] != 0;
        C value = chosen ? convert<C>(((const typename K::A*)args.p[1])[item.at(K::A0, K::A1, K::A2, K::A3)])
                         : convert<C>(((const typename K::B*)args.p[2])[item.at(K::B0, K::B1, K::B2, K::B3)]);
        if (fits_at_once<K> && gate.stop()) return;
        if (index < items) ((typename K::Out*)args.p[3])[index] = convert<typename K::Out>(value);
    }
};

// args: x, y.
template <class K> struct Cast {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        static_assert(K::BLOCKS == (K::COUNT + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (!fits_at_once<K> && gate.stop()) return;
        int index = block_index() * K::THREADS + thread_index();
        typename K::In value = ((const typename K::In*)args.p[0])[index < K::COUNT ? index : 0];
        if (fits_at_once<K> && gate.stop()) return;
        if (index < K::COUNT) ((typename K::Out*)args.p[1])[index] = convert<typename K::Out>(value);
    }
};
