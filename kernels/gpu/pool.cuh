// SPDX-License-Identifier: Apache-2.0
// pool2d: maximum or average over a window, feature maps N, H, W, C. args: x, y.
//
// A thread computes WIDE neighbouring channels of one pixel. Where pixels are few and windows large (a global average),
// SPREAD threads share a window; their partial results are joined in a fixed order.
#pragma once

template <class K> struct Pool {
    using T = typename K::T;
    static constexpr int wide = K::WIDE, groups_across = K::C / wide, taps = K::KH * K::KW;
    static constexpr int items = K::N * K::OH * K::OW * groups_across;
    static constexpr int items_here = K::THREADS / K::SPREAD;  // of one block
    static_assert(K::BLOCKS == (items + items_here - 1) / items_here, "the launch matches the kernel");

    REEF_DEVICE float join(float a, float b) { return K::MAXIMUM ? (a > b ? a : b) : a + b; }

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        Gate<Preemptible> gate(place, block_index());
        dependency_launch();
        int spread = thread_index() / items_here, item = block_index() * items_here + thread_index() % items_here;
        bool some = items % items_here == 0 || item < items;
        int pixel = item / groups_across, channel = item % groups_across * wide;
        int image = pixel / (K::OH * K::OW), at = pixel % (K::OH * K::OW);
        int top = at / K::OW * K::SH - K::PT, left = at % K::OW * K::SW - K::PL;

        // A few taps are loaded together; a window that is small enough is under way before the check point.
        constexpr int each = (taps + K::SPREAD - 1) / K::SPREAD, batch = each < 9 ? each : 9;
        const T* from[batch];
        bool valid[batch];
        int counted = 0;
        auto find = [&](int start) {
#pragma unroll
            for (int i = 0; i < batch; i++) {
                int tap = (start + i) * K::SPREAD + spread;
                int row = top + tap / K::KW * K::DH, column = left + tap % K::KW * K::DW;
                bool inside = tap < taps && (unsigned)row < K::H && (unsigned)column < K::W;
                // Pixels of the padding count, those that only a ceiling of the output size adds do not.
                bool padded = tap < taps && row < K::H + K::PB && column < K::W + K::PR;
                counted += K::COUNT_PADDING ? padded : inside;
                valid[i] = some && inside;
                from[i] = (const T*)args.p[0] + ((i64)(image * K::H + row) * K::W + column) * K::X_PITCH + channel;
            }
        };
        find(0);
        float total[wide];
#pragma unroll
        for (int e = 0; e < wide; e++) total[e] = K::MAXIMUM ? bits_to_float(0xff800000u) : 0.0f;
        dependency_wait();
        gate.begin();
        if (!fits_at_once<K> && gate.stop()) return;
#pragma unroll 1
        for (int start = 0; start < each; start += batch) {
            if (start > 0) find(start);
            Loaded<T, wide> loaded[batch];
#pragma unroll
            for (int i = 0; i < batch; i++) loaded[i].from(from[i], valid[i]);
            if (fits_at_once<K> && start == 0 && gate.stop()) return;
#pragma unroll
            for (int i = 0; i < batch; i++) {
                float value[wide];
                loaded[i].to(value);
#pragma unroll
                for (int e = 0; e < wide; e++) total[e] = valid[i] ? join(total[e], value[e]) : total[e];
            }
        }
        if constexpr (K::SPREAD > 1) {
            float* shared = (float*)(shared_memory() + 128);  // [spread][item][wide + 1], the last the count
            float* mine = shared + thread_index() * (wide + 1);
#pragma unroll
            for (int e = 0; e < wide; e++) mine[e] = total[e];
            mine[wide] = (float)counted;
            barrier();
            if (spread == 0)
                for (int other = 1; other < K::SPREAD; other++) {
                    const float* theirs = mine + other * items_here * (wide + 1);
#pragma unroll
                    for (int e = 0; e < wide; e++) total[e] = join(total[e], theirs[e]);
                    counted += (int)theirs[wide];
                }
        }
        if (some && spread == 0) {
            float scale = K::MAXIMUM ? 1.0f : 1.0f / (float)counted;
            T* to = (T*)args.p[1] + (i64)pixel * K::Y_PITCH + channel;
#pragma unroll
            for (int e = 0; e < wide; e++) total[e] *= scale;
            if constexpr (wide == 1)
                from_float(total[0], *to);
            else
                *(Chunk*)to = pack(total, T{});
        }
    }
};
