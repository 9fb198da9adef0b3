// SPDX-License-Identifier: Apache-2.0
// transpose, concat (one instance for each input), slice, pad and conversions: a copy between two strided layouts.
//
// The region written has up to six dimensions D0..D5; index i of dimension d reads x at (i - Bd) / Gd, which may lie outside
// [0, Ed) or between two elements: then the value is the float of FILL_BITS, or the nearest (edge), mirrored (reflect) or next (wrap)
// element. args: x, y.
#pragma once

enum class Outside { none, constant, edge, reflect, wrap };

template <class K> struct Copy {
    static constexpr int wide = K::WIDE, across = K::D5 / wide;
    static constexpr int items = K::D0 * K::D1 * K::D2 * K::D3 * K::D4 * across;

    // Where element i - begin of a dimension comes from; G - 1 elements of the filling lie between two neighbours.
    template <int E, int G> REEF_DEVICE int inside(int i, bool& valid) {
        if constexpr (K::OUTSIDE == Outside::edge) return i < 0 ? 0 : i >= E ? E - 1 : i;
        if constexpr (K::OUTSIDE == Outside::wrap) return (i % E + E) % E;
        if constexpr (K::OUTSIDE == Outside::reflect) {
            constexpr int period = E > 1 ? 2 * (E - 1) : 1;
            int turned = (i % period + period) % period;
            return turned < E ? turned : period - turned;
        }
        if constexpr (K::OUTSIDE == Outside::constant) {
            int place = i / G;
            valid = valid && i >= 0 && place * G == i && place < E;
            return place;
        }
        return i;
    }

    struct Region {
        int i0, i1, i2, i3, i4, i5;

        REEF_MEMBER explicit Region(int item) {
            int rest = item / across;
            i5 = item % across * wide;
            i4 = rest % K::D4, rest /= K::D4;
            i3 = rest % K::D3, rest /= K::D3;
            i2 = rest % K::D2, rest /= K::D2;
            i1 = rest % K::D1, i0 = rest / K::D1;
        }
        REEF_MEMBER i64 source(bool& valid) const {
            return (i64)inside<K::E0, K::G0>(i0 - K::B0, valid) * K::XS0 + (i64)inside<K::E1, K::G1>(i1 - K::B1, valid) * K::XS1 +
                   (i64)inside<K::E2, K::G2>(i2 - K::B2, valid) * K::XS2 + (i64)inside<K::E3, K::G3>(i3 - K::B3, valid) * K::XS3 +
                   (i64)inside<K::E4, K::G4>(i4 - K::B4, valid) * K::XS4 + (i64)inside<K::E5, K::G5>(i5 - K::B5, valid) * K::XS5;
        }
        REEF_MEMBER i64 target() const {
            return (i64)i0 * K::YS0 + (i64)i1 * K::YS1 + (i64)i2 * K::YS2 + (i64)i3 * K::YS3 + (i64)i4 * K::YS4 +
                   (i64)i5 * K::YS5;
        }
    };

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using In = typename K::In;
        using Out = typename K::Out;
        static_assert(K::BLOCKS == (items + K::THREADS * K::EACH - 1) / (K::THREADS * K::EACH), "the launch matches");
        Gate<Preemptible> gate(place, block_index());
        dependency_launch();
        const In* x = (const In*)args.p[0] + K::X_OFFSET;
        Out* y = (Out*)args.p[1] + K::Y_OFFSET;
        const int first = block_index() * K::EACH * K::THREADS + thread_index();
        Chunk chunk[wide > 1 ? K::EACH : 1];
        Out value[wide > 1 ? 1 : K::EACH];
        const In* from[K::EACH];
        Out* to[K::EACH];
        bool valid[K::EACH];
        auto some = [&](int i) { return items % (K::THREADS * K::EACH) == 0 || first + i * K::THREADS < items; };
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            Region at(first + i * K::THREADS);
            valid[i] = some(i);
            from[i] = x + at.source(valid[i]);
            to[i] = y + at.target();
        }
        dependency_wait();
        gate.begin();
        if (!fits_at_once<K> && gate.stop()) return;
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            if (!some(i)) break;
            if constexpr (wide > 1)
                chunk[i] = load_chunk(from[i], true);
            else
                value[i] = valid[i] ? convert<Out>(*from[i]) : convert<Out>(bits_to_float((u32)K::FILL_BITS));
        }
        if (fits_at_once<K> && gate.stop()) return;
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            if (!some(i)) break;
            if constexpr (wide > 1)
                *(Chunk*)to[i] = chunk[i];
            else
                *to[i] = value[i];
        }
    }
};
