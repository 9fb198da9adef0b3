// SPDX-License-Identifier: Apache-2.0
// resize2d, nearest or linear, feature maps N, H, W, C. args: x, y.
#pragma once

enum class Coordinates { half_pixel, pytorch_half_pixel, align_corners, asymmetric };
enum class Rounding { prefer_floor, prefer_ceil, floor, ceil };

template <class K> struct Resize {
    REEF_DEVICE float source(int at, int in, int out) {
        if constexpr (K::COORDINATES == Coordinates::align_corners)
            return out == 1 ? 0.0f : (float)at * (float)(in - 1) / (float)(out - 1);
        if constexpr (K::COORDINATES == Coordinates::asymmetric) return (float)at * (float)in / (float)out;
        if constexpr (K::COORDINATES == Coordinates::pytorch_half_pixel)
            if (out == 1) return 0.0f;
        return ((float)at + 0.5f) * (float)in / (float)out - 0.5f;
    }
    REEF_DEVICE int limit(int at, int in) { return at < 0 ? 0 : at >= in ? in - 1 : at; }
    REEF_DEVICE int whole(float x) {
        int down = (int)x;
        return (float)down > x ? down - 1 : down;
    }
    REEF_DEVICE int nearest(float x) {
        int down = whole(x);
        float rest = x - (float)down;
        if constexpr (K::ROUNDING == Rounding::floor) return down;
        if constexpr (K::ROUNDING == Rounding::ceil) return rest > 0 ? down + 1 : down;
        if constexpr (K::ROUNDING == Rounding::prefer_ceil) return rest >= 0.5f ? down + 1 : down;
        return rest > 0.5f ? down + 1 : down;
    }

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using T = typename K::T;
        constexpr int wide = K::WIDE, across = K::C / wide, items = K::N * K::OH * K::OW * across;
        static_assert(K::BLOCKS == (items + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (!fits_at_once<K> && gate.stop()) return;
        int item = block_index() * K::THREADS + thread_index();
        float value[wide];
        if (item < items) {
            int channel = item % across * wide, pixel = item / across;
            int column = pixel % K::OW, line = pixel / K::OW % K::OH, image = pixel / (K::OW * K::OH);
            float v = source(line, K::H, K::OH), u = source(column, K::W, K::OW);
            auto at = [&](int row, int col) {
                return (const T*)args.p[0] + ((i64)(image * K::H + limit(row, K::H)) * K::W + limit(col, K::W)) * K::C + channel;
            };
            if constexpr (K::LINEAR) {
                int top = whole(v), left = whole(u);
                float down = v - (float)top, right = u - (float)left, a[wide], b[wide], c[wide], d[wide];
                read_elements<true>(at(top, left), a);
                read_elements<true>(at(top, left + 1), b);
                read_elements<true>(at(top + 1, left), c);
                read_elements<true>(at(top + 1, left + 1), d);
#pragma unroll
                for (int e = 0; e < wide; e++) {
                    float above = a[e] + (b[e] - a[e]) * right, below = c[e] + (d[e] - c[e]) * right;
                    value[e] = above + (below - above) * down;
                }
            } else {
                read_elements<true>(at(nearest(v), nearest(u)), value);
            }
        }
        if (fits_at_once<K> && gate.stop()) return;
        if (item < items) write_elements(value, (T*)args.p[1] + (i64)(item / across) * K::C + item % across * wide);
    }
};
