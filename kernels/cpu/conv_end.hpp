// SPDX-License-Identifier: Apache-2.0
// What the ways of computing conv2d share: runs of floats moved, and the end of a few pixels.
#pragma once
#include "conv_shape.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

REEF_INLINE void copy_floats(float* to, const float* from, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(to + i, load(from + i));
    for (; i < count; ++i)
        to[i] = from[i];
}

REEF_INLINE void zero_floats(float* to, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(to + i, Vec{});
    for (; i < count; ++i)
        to[i] = 0;
}

// The end of `rows` neighbouring pixels, `lanes` channels each, that the registers cannot do: any activation, any order,
// either layout. Their sums lie `stride` floats apart and are overwritten.
__attribute__((noinline)) void finish_pixels(const ConvShape& s, float* sums, int64_t stride, int rows, int64_t pixel,
                                             int64_t channel, int lanes, const float* residual, const float* slope,
                                             float* y) {
    const int64_t left = s.residual_channels - channel;
    const int64_t residual_lanes = residual == nullptr || left < 0 ? 0 : smaller(left, lanes);
    for (int m = 0; m < rows; ++m) {
        float* sum = sums + m * stride;
        const float* more = residual + (pixel + m) * s.residual_channels + channel;
        if (!s.activation_first)
            for (int64_t i = 0; i < residual_lanes; ++i)
                sum[i] += more[i];
        if (s.activation.kind == Activation::prelu) {
            for (int i = 0; i < lanes; ++i)
                sum[i] = sum[i] < 0 ? sum[i] * slope[i] : sum[i];
        } else {
            activate_all(s.activation, sum, sum, lanes);
        }
        if (s.activation_first)
            for (int64_t i = 0; i < residual_lanes; ++i)
                sum[i] += more[i];
        if (!s.output_nchw)
            copy_floats(y + (pixel + m) * s.out_channels + channel, sum, lanes);
    }
    if (s.output_nchw) {
        const int64_t plane = s.out_height * s.out_width;
        for (int m = 0; m < rows; ++m) {
            const int64_t image = (pixel + m) / plane;
            float* to = y + (image * s.out_channels + channel) * plane + (pixel + m) % plane;
            for (int i = 0; i < lanes; ++i)
                to[i * plane] = sums[m * stride + i];
        }
    }
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
