// SPDX-License-Identifier: Apache-2.0
// pool2d: the largest or the mean value of a window over the two spatial axes of an N, H, W, C map; float32.
#include <math.h>

#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 128 << 10;  // values read by a block, about
constexpr int64_t kChannels = 512;   // done between two check points at most, for each place of the window

struct Params {
    int64_t height, width, channels;
    int64_t out_height, out_width;
    int64_t kernel[2], strides[2], pads[2], dilations[2];
    size_t pixels, pixels_per_block;
    bool average;
    bool count_pads;
};

struct Range {
    int64_t first, last;  // places of the window that lie inside
};

inline Range inside(int64_t start, int64_t kernel, int64_t dilation, int64_t extent) {
    int64_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
    int64_t last = start >= extent ? 0 : (extent - 1 - start) / dilation + 1;
    if (last > kernel)
        last = kernel;
    return {first, last < first ? first : last};
}

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        const float* x = static_cast<const float*>(args.args[0]);
        float* y = static_cast<float*>(args.args[1]);
        size_t from = args.block * p.pixels_per_block, to = smaller(from + p.pixels_per_block, p.pixels);
        for (size_t pixel = from; pixel < to; pixel++) {
            int64_t column = static_cast<int64_t>(pixel) % p.out_width,
                    rest = static_cast<int64_t>(pixel) / p.out_width;
            int64_t row = rest % p.out_height, image = rest / p.out_height;
            int64_t top = row * p.strides[0] - p.pads[0], left = column * p.strides[1] - p.pads[1];
            Range rows = inside(top, p.kernel[0], p.dilations[0], p.height);
            Range columns = inside(left, p.kernel[1], p.dilations[1], p.width);
            int64_t counted =
                p.count_pads ? p.kernel[0] * p.kernel[1] : (rows.last - rows.first) * (columns.last - columns.first);
            float scale = counted > 0 ? 1.0f / static_cast<float>(counted) : 0;
            const float* origin = x + (image * p.height + top) * p.width * p.channels + left * p.channels;
            for (int64_t begin = 0; begin < p.channels; begin += kChannels) {
                int64_t count = p.channels - begin < kChannels ? p.channels - begin : kChannels;
                float* out = y + static_cast<int64_t>(pixel) * p.channels + begin;
                float start = p.average ? 0 : -INFINITY;
                for (int64_t c = 0; c < count; c++)
                    out[c] = start;
                for (int64_t i = rows.first; i < rows.last; i++) {
                    if (check.stale())
                        return false;
                    for (int64_t j = columns.first; j < columns.last; j++) {
                        const float* in =
                            origin + (i * p.dilations[0] * p.width + j * p.dilations[1]) * p.channels + begin;
                        if (p.average)
                            for (int64_t c = 0; c < count; c++)
                                out[c] += in[c];
                        else
                            for (int64_t c = 0; c < count; c++)
                                out[c] = in[c] > out[c] ? in[c] : out[c];
                    }
                }
                if (p.average)
                    for (int64_t c = 0; c < count; c++)
                        out[c] *= scale;
            }
        }
        return true;
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1) || !check_dtype(spec, DType::f32, "float32"))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    if (x.rank != 4 || y.rank != 4 || x.shape[0] != y.shape[0] || x.shape[3] != y.shape[3])
        return spec.fail("'%s' and '%s' must be N, H, W, C with the same N and C", x.name, y.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    int64_t pads[4];
    if (!read_list(spec, "kernel", p->kernel, 2, 0) || !read_list(spec, "strides", p->strides, 2, 1) ||
        !read_list(spec, "dilations", p->dilations, 2, 1) || !read_list(spec, "pads", pads, 4, 0))
        return false;
    const char* mode = spec.string("mode", "max");
    p->average = strcmp(mode, "average") == 0;
    if (!p->average && strcmp(mode, "max") != 0)
        return spec.fail("unknown mode '%s'", mode);
    p->count_pads = spec.integer("count_include_pad", 0) != 0;
    for (int d = 0; d < 2; d++) {
        constexpr int64_t kLimit = 1 << 24;
        if (p->kernel[d] < 1 || p->kernel[d] > kLimit || p->strides[d] < 1 || p->strides[d] > kLimit ||
            p->dilations[d] < 1 || p->dilations[d] > kLimit || pads[d] < 0 || pads[d] > kLimit || pads[2 + d] < 0 ||
            pads[2 + d] > kLimit)
            return spec.fail("kernel, strides, dilations or pads of axis %d are out of range", d);
        int64_t reach = (p->kernel[d] - 1) * p->dilations[d] + 1, room = x.shape[1 + d] + pads[d] + pads[2 + d];
        if (room < reach || (room - reach) / p->strides[d] + 1 != y.shape[1 + d])
            return spec.fail("'%s' has another size than the window gives", y.name);
        p->pads[d] = pads[d];
    }
    p->height = x.shape[1];
    p->width = x.shape[2];
    p->channels = x.shape[3];
    p->out_height = y.shape[1];
    p->out_width = y.shape[2];
    p->pixels = static_cast<size_t>(y.shape[0] * y.shape[1] * y.shape[2]);
    size_t work = static_cast<size_t>(p->kernel[0] * p->kernel[1] * p->channels);
    p->pixels_per_block = work >= kWork ? 1 : kWork / work;
    return finish<Body>(spec, kernel, p, ceil_div(p->pixels, p->pixels_per_block));
}

}  // namespace

extern const Operator pool2d;
const Operator pool2d{"pool2d", create};

}  // namespace reef::cpu::REEF_ISA
