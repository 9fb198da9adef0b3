// SPDX-License-Identifier: Apache-2.0
// A window that moves over up to five spatial axes of an N, C, ... map: the frame of conv_nd and pool_nd.
#pragma once
#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr int kMaxAxes = 5;

struct Window {
    int axes;
    int64_t in[kMaxAxes], out[kMaxAxes], kernel[kMaxAxes], strides[kMaxAxes], pads[2 * kMaxAxes], dilations[kMaxAxes];
    size_t in_size, out_size, kernel_size;

    // Where the window of result `index` begins on each axis.
    void begin(size_t index, int64_t* start) const {
        for (int d = axes; d-- > 0; index /= static_cast<size_t>(out[d]))
            start[d] = static_cast<int64_t>(index % static_cast<size_t>(out[d])) * strides[d] - pads[d];
    }

    // The element of the map that place `index` of a window falls on, -1: outside.
    int64_t at(const int64_t* start, size_t index) const {
        int64_t offset = 0, step = 1;
        for (int d = axes; d-- > 0; index /= static_cast<size_t>(kernel[d])) {
            int64_t place = start[d] + static_cast<int64_t>(index % static_cast<size_t>(kernel[d])) * dilations[d];
            if (place < 0 || place >= in[d])
                return -1;
            offset += place * step;
            step *= in[d];
        }
        return offset;
    }

    // How many places of a window lie within the map and its pads.
    int64_t padded(const int64_t* start) const {
        int64_t count = 1;
        for (int d = 0; d < axes; d++) {
            int64_t inside = 0;
            for (int64_t k = 0; k < kernel[d]; k++) {
                int64_t place = start[d] + k * dilations[d];
                inside += place >= -pads[d] && place < in[d] + pads[axes + d];
            }
            count *= inside;
        }
        return count;
    }
};

// The spatial axes of x and y are those after the first two. A last window may reach over the pads (`overhang`), as
// rounding up asks for.
inline bool read_window(Spec& spec, const TensorView& x, const TensorView& y, const int64_t* kernel, bool overhang,
                        Window& w) {
    w.axes = static_cast<int>(x.rank) - 2;
    if (w.axes < 1 || w.axes > kMaxAxes || y.rank != x.rank)
        return spec.fail("'%s' and '%s' must have rank 3 to 7", x.name, y.name);
    if (!read_list(spec, "strides", w.strides, w.axes, 1) || !read_list(spec, "dilations", w.dilations, w.axes, 1) ||
        !read_list(spec, "pads", w.pads, 2 * w.axes, 0))
        return false;
    w.in_size = w.out_size = w.kernel_size = 1;
    for (int d = 0; d < w.axes; d++) {
        constexpr int64_t kLimit = 1 << 24;
        int64_t begin = w.pads[d], end = w.pads[w.axes + d];
        if (kernel[d] < 1 || kernel[d] > kLimit || w.strides[d] < 1 || w.strides[d] > kLimit || w.dilations[d] < 1 ||
            w.dilations[d] > kLimit || begin < -kLimit || begin > kLimit || end < -kLimit || end > kLimit)
            return spec.fail("the window of axis %d is out of range", d);
        w.in[d] = x.shape[2 + d];
        w.out[d] = y.shape[2 + d];
        w.kernel[d] = kernel[d];
        int64_t reach = (kernel[d] - 1) * w.dilations[d] + 1, last = (w.out[d] - 1) * w.strides[d];
        int64_t room = w.in[d] + begin + end;
        if (last > room - (overhang ? 1 : reach))
            return spec.fail("axis %d of '%s' is longer than the windows reach", d, y.name);
        w.in_size *= static_cast<size_t>(w.in[d]);
        w.out_size *= static_cast<size_t>(w.out[d]);
        w.kernel_size *= static_cast<size_t>(kernel[d]);
    }
    return true;
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
