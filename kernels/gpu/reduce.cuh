// SPDX-License-Identifier: Apache-2.0
// reduce over any axes, arg_reduce, topk and scan, in any arithmetic type.
#pragma once

enum class Reduction { sum, mean, max, min, prod, sum_abs, sum_square };

template <Reduction F, class C> REEF_DEVICE C reduction_start() {
    if constexpr (F == Reduction::prod) return (C)1;
    if constexpr (F == Reduction::max || F == Reduction::min) {
        if constexpr (Number<C>::real) {
            return (C)bits_to_float(F == Reduction::max ? 0xff800000u : 0x7f800000u);
        } else {
            constexpr u64 top = (u64)1 << (8 * sizeof(C) - 1);
            if constexpr (Number<C>::has_sign) return (C)(F == Reduction::max ? top : top - 1);
            return F == Reduction::max ? (C)0 : (C)~(u64)0;
        }
    }
    return (C)0;
}
// Integers wrap, as unsigned arithmetic does.
template <Reduction F, class C> REEF_DEVICE C reduction_join(C a, C b) {
    if constexpr (F == Reduction::max) return b > a || b != b ? b : a;
    if constexpr (F == Reduction::min) return b < a || b != b ? b : a;
    if constexpr (Number<C>::real) return F == Reduction::prod ? a * b : a + b;
    else return F == Reduction::prod ? (C)((u64)a * (u64)b) : (C)((u64)a + (u64)b);
}
template <Reduction F, class C> REEF_DEVICE C reduction_of(C x) {
    if constexpr (F == Reduction::sum_abs) return x < 0 ? (C)(0 - x) : x;
    if constexpr (F == Reduction::sum_square) return x * x;
    return x;
}

// Results are [K0..K3], each of R0 x R1 x R2 x R3 values, with strides in x (XK, XR). LANES threads share a result; theirs
// are joined by a tree of fixed shape. args: x, y.
template <class K> struct Reduce {
    using C = typename K::Computed;
    static constexpr int results = K::K0 * K::K1 * K::K2 * K::K3, count = K::R0 * K::R1 * K::R2 * K::R3;
    static constexpr int here = K::THREADS / K::LANES;
    static_assert(K::BLOCKS == (results + here - 1) / here && K::SHARED == 128 + K::THREADS * 8, "the launch matches");

    REEF_DEVICE i64 at(int i) {
        int i3 = i % K::R3, rest = i / K::R3, i2 = rest % K::R2, i1 = rest / K::R2 % K::R1, i0 = rest / (K::R2 * K::R1);
        return (i64)i0 * K::XR0 + (i64)i1 * K::XR1 + (i64)i2 * K::XR2 + (i64)i3 * K::XR3;
    }

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (gate.stop()) return;
        constexpr Reduction F = K::FUNCTION;
        int lane = thread_index() % K::LANES, result = block_index() * here + thread_index() / K::LANES;
        C total = reduction_start<F, C>();
        if (result < results) {
            int k3 = result % K::K3, rest = result / K::K3;
            const auto* x = (const typename K::In*)args.p[0] + (i64)(rest / (K::K2 * K::K1)) * K::XK0 +
                            (i64)(rest / K::K2 % K::K1) * K::XK1 + (i64)(rest % K::K2) * K::XK2 + (i64)k3 * K::XK3;
            for (int i = lane; i < count; i += K::LANES)
                total = reduction_join<F, C>(total, reduction_of<F, C>(convert<C>(x[at(i)])));
        }
        if constexpr (K::LANES > 1) {
            C* shared = (C*)(shared_memory() + 128);
            barrier();
            shared[thread_index()] = total;
            for (int apart = K::LANES / 2; apart > 0; apart /= 2) {
                barrier();
                if (lane < apart) {
                    total = reduction_join<F, C>(total, shared[thread_index() + apart]);
                    shared[thread_index()] = total;
                }
            }
        }
        if (lane == 0 && result < results) {
            if constexpr (F == Reduction::mean) total = Number<C>::real ? total / (C)count : (C)((double)total / count);
            ((typename K::Out*)args.p[1])[result] = convert<typename K::Out>(total);
        }
    }
};

// x [OUTER, EXTENT, INNER], y [OUTER, INNER] int64. args: x, y.
template <class K> struct ArgReduce {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using C = typename K::Computed;
        constexpr int results = K::OUTER * K::INNER;
        static_assert(K::BLOCKS == (results + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (gate.stop()) return;
        int result = block_index() * K::THREADS + thread_index();
        if (result < results) {
            const auto* x = (const typename K::In*)args.p[0] + (i64)(result / K::INNER) * K::EXTENT * K::INNER + result % K::INNER;
            int best = 0;
            C held = convert<C>(x[0]);
            for (int i = 0; i < K::EXTENT; i++) {
                C value = convert<C>(x[(i64)i * K::INNER]);
                if ((K::LARGEST ? value > held : value < held) || (K::LAST && value == held)) {
                    best = i;
                    held = value;
                }
            }
            ((i64*)args.p[1])[result] = best;
        }
    }
};

// The COUNT largest (or smallest) of lines of EXTENT values, in order. A block has one line: each value's place is how many
// come before it. args: x, values, places.
template <class K> struct TopK {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using C = typename K::Computed;
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (gate.stop()) return;
        const auto* x = (const typename K::In*)args.p[0] + (i64)block_index() * K::EXTENT;
        for (int i = thread_index(); i < K::EXTENT; i += K::THREADS) {
            C mine = convert<C>(x[i]);
            int before = 0;
            for (int j = 0; j < K::EXTENT && before < K::COUNT; j++) {
                C other = convert<C>(x[j]);
                before += (K::LARGEST ? other > mine : other < mine) || (other == mine && j < i);
            }
            if (before < K::COUNT) {
                i64 to = (i64)block_index() * K::COUNT + before;
                ((typename K::Out*)args.p[1])[to] = convert<typename K::Out>(mine);
                ((i64*)args.p[2])[to] = i;
            }
        }
    }
};

// Running sums or products along the middle of [OUTER, EXTENT, INNER]. args: x, y.
template <class K> struct Scan {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using C = typename K::Computed;
        constexpr int lines = K::OUTER * K::INNER;
        static_assert(K::BLOCKS == (lines + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (gate.stop()) return;
        int line = block_index() * K::THREADS + thread_index();
        if (line < lines) {
            i64 start = (i64)(line / K::INNER) * K::EXTENT * K::INNER + line % K::INNER;
            constexpr Reduction F = K::PRODUCT ? Reduction::prod : Reduction::sum;
            C held = reduction_start<F, C>();
            for (int i = 0; i < K::EXTENT; i++) {
                i64 at = start + (i64)(K::REVERSE ? K::EXTENT - 1 - i : i) * K::INNER;
                C next = reduction_join<F, C>(held, convert<C>(((const typename K::In*)args.p[0])[at]));
                ((typename K::Out*)args.p[1])[at] = convert<typename K::Out>(K::EXCLUSIVE ? held : next);
                held = next;
            }
        }
    }
};
