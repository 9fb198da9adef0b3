// SPDX-License-Identifier: Apache-2.0
// gather, gather_elements, gather_nd and one_hot: elements at places that indices name.
//
// An index may be changed by the client while the kernel runs: it is loaded once, and what was loaded is checked. A
// negative one counts from the end; one outside its axis gives zero. args: x, indices, y.
#pragma once

// The place that an index names on an axis; -1: none.
template <class Index> REEF_DEVICE int place_of(const Index* from, int extent) {
    i64 index = (i64) * (const volatile Index*)from;
    if (index < 0) index += extent;
    return index < 0 || index >= extent ? -1 : (int)index;
}

// x [OUTER, EXTENT, INNER], y [OUTER, INDICES, INNER].
template <class K> struct Gather {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using Out = typename K::Out;
        constexpr int wide = K::WIDE, across = K::INNER / wide, items = K::OUTER * K::INDICES * across;
        static_assert(K::BLOCKS == (items + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (!fits_at_once<K> && gate.stop()) return;
        int item = block_index() * K::THREADS + thread_index();
        int row = item / across, column = item % across * wide;
        Chunk chunk = {};
        Out value = {};
        if (item < items) {
            int at = place_of((const typename K::Index*)args.p[1] + row % K::INDICES, K::EXTENT);
            const auto* from = (const typename K::In*)args.p[0] +
                               ((i64)(row / K::INDICES) * K::EXTENT + (at < 0 ? 0 : at)) * K::INNER + column;
            if constexpr (wide > 1)
                chunk = load_chunk(from, at >= 0);
            else if (at >= 0)
                value = convert<Out>(*from);
        }
        if (fits_at_once<K> && gate.stop()) return;
        if (item < items) {
            Out* to = (Out*)args.p[2] + (i64)row * K::INNER + column;
            if constexpr (wide > 1)
                *(Chunk*)to = chunk;
            else
                *to = value;
        }
    }
};

// Indices and y have the shape [D0..D5]; x has the strides XS0..XS5, that of the axis itself zero, and AXIS_STRIDE for it.
template <class K> struct GatherElements {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using Out = typename K::Out;
        constexpr int items = K::D0 * K::D1 * K::D2 * K::D3 * K::D4 * K::D5;
        static_assert(K::BLOCKS == (items + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (!fits_at_once<K> && gate.stop()) return;
        int item = block_index() * K::THREADS + thread_index();
        Out value = {};
        if (item < items) {
            int rest = item;
            i64 from = (i64)(rest % K::D5) * K::XS5;
            from += (i64)((rest /= K::D5) % K::D4) * K::XS4;
            from += (i64)((rest /= K::D4) % K::D3) * K::XS3;
            from += (i64)((rest /= K::D3) % K::D2) * K::XS2;
            from += (i64)((rest /= K::D2) % K::D1) * K::XS1;
            from += (i64)(rest / K::D1) * K::XS0;
            int at = place_of((const typename K::Index*)args.p[1] + item, K::EXTENT);
            if (at >= 0) value = convert<Out>(((const typename K::In*)args.p[0])[from + (i64)at * K::AXIS_STRIDE]);
        }
        if (fits_at_once<K> && gate.stop()) return;
        if (item < items) ((Out*)args.p[2])[item] = value;
    }
};

// indices [BATCH, PLACES, DEPTH], each naming INNER elements of x's [BATCH, E0..E5, INNER] (the first DEPTH extents count).
template <class K> struct GatherNd {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using Out = typename K::Out;
        constexpr int items = K::BATCH * K::PLACES * K::INNER;
        constexpr int extent[6] = {K::E0, K::E1, K::E2, K::E3, K::E4, K::E5};
        static_assert(K::BLOCKS == (items + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (!fits_at_once<K> && gate.stop()) return;
        int item = block_index() * K::THREADS + thread_index();
        Out value = {};
        if (item < items) {
            int row = item / K::INNER;
            i64 from = row / K::PLACES;
            bool inside = true;
#pragma unroll
            for (int d = 0; d < K::DEPTH; d++) {
                int at = place_of((const typename K::Index*)args.p[1] + (i64)row * K::DEPTH + d, extent[d]);
                inside = inside && at >= 0;
                from = from * extent[d] + (at < 0 ? 0 : at);
            }
            if (inside) value = convert<Out>(((const typename K::In*)args.p[0])[from * K::INNER + item % K::INNER]);
        }
        if (fits_at_once<K> && gate.stop()) return;
        if (item < items) ((Out*)args.p[2])[item] = value;
    }
};

// y [OUTER, DEPTH, INNER] is values[1] where the index [OUTER, INNER] names the place, else values[0]. args: indices, values, y.
template <class K> struct OneHot {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using Out = typename K::Out;
        constexpr int items = K::OUTER * K::DEPTH * K::INNER;
        static_assert(K::BLOCKS == (items + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (gate.stop()) return;
        int item = block_index() * K::THREADS + thread_index();
        if (item < items) {
            double index = convert<double>(((const typename K::Index*)args.p[0])[item / K::INNER / K::DEPTH * K::INNER + item % K::INNER]);
            bool named = (index < 0 ? index + K::DEPTH : index) == (double)(item / K::INNER % K::DEPTH);
            ((Out*)args.p[2])[item] = convert<Out>(((const typename K::In*)args.p[1])[named ? 1 : 0]);
        }
    }
};
