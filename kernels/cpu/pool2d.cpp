// SPDX-License-Identifier: Apache-2.0
// pool2d: the largest or the mean value of a window over the two spatial axes of an N, H, W, C map; float32.
#include <math.h>

#include "common.hpp"
#include "work.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr int64_t kStep = 32 << 10;  // values read between two check points, about: under 5 us
constexpr double kNominalValuesPerMicrosecond = 640.0 * kLanes;
constexpr int kVectors = 4;  // results in registers, while the places of a window pass by

struct Params {
    int64_t height, width, channels;
    int64_t out_height, out_width;
    int64_t kernel[2], strides[2], pads[2], dilations[2];
    int64_t pixels, blocks;
    int64_t pixels_per_step;  // between two check points; 0: the window of one pixel has some of its own
    bool average;
    bool count_pads;
};

struct Range {
    int64_t first, last;  // places of the window that lie inside
};

REEF_INLINE Range inside(int64_t start, int64_t kernel, int64_t dilation, int64_t extent) {
    int64_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
    int64_t last = start >= extent ? 0 : (extent - 1 - start) / dilation + 1;
    if (last > kernel)
        last = kernel;
    return {first, last < first ? first : last};
}

// Results side by side in one row, and the places that all of them have: `rows` rows from `first` on, their whole width.
struct Run {
    const float* first;
    float* y;
    int64_t column, count;
    int64_t rows;
};

// The next `Vectors` vectors of channels of a run, of the last of which `lanes` lanes. Long: check points inside.
template <int Vectors, bool Whole, bool Average, bool Long, class Check>
REEF_INLINE bool pool(const Params& p, const Run& run, int64_t channel, int lanes, const Check& check) {
    const int64_t down = p.dilations[0] * p.width * p.channels, across = p.dilations[1] * p.channels;
    const int64_t reach = (p.kernel[1] - 1) * p.dilations[1];
    float* y = run.y + channel;
    int64_t left = kStep / kLanes;
    for (int64_t start = run.column * p.strides[1] - p.pads[1], end = start + run.count * p.strides[1]; start != end;
         start += p.strides[1], y += p.channels) {
        Range columns{0, p.kernel[1]};
        if (start < 0 || start + reach >= p.width)
            columns = inside(start, p.kernel[1], p.dilations[1], p.width);
        const int64_t wide = columns.last - columns.first;
        const float* x = run.first + start * p.channels + columns.first * across + channel;
        Vec result[Vectors];
        for (int v = 0; v < Vectors; ++v)
            result[v] = splat(Average ? 0.0F : -INFINITY);
        for (int64_t i = 0; i < run.rows; ++i, x += down) {
            const float* place = x;
            for (int64_t j = 0; j < wide; ++j, place += across) {
                if (Long && (left -= Vectors) < 0) {
                    if (check.stale())
                        return false;
                    left = kStep / kLanes;
                }
                for (int v = 0; v < Vectors; ++v) {
                    const bool last = !Whole && v == Vectors - 1;
                    const Vec value = last ? load_first(place + v * kLanes, lanes) : load(place + v * kLanes);
                    // What is not a number is passed over.
                    result[v] = Average ? result[v] + value : max(value, result[v]);
                }
            }
        }
        if (Average) {
            const int64_t counted = p.count_pads ? p.kernel[0] * p.kernel[1] : run.rows * wide;
            const float scale = counted > 0 ? 1.0F / static_cast<float>(counted) : 0.0F;
            for (int v = 0; v < Vectors; ++v)
                result[v] = result[v] * scale;
        }
        for (int v = 0; v < Vectors; ++v) {
            if (!Whole && v == Vectors - 1)
                store_first(y + v * kLanes, result[v], lanes);
            else
                store(y + v * kLanes, result[v]);
        }
    }
    return true;
}

template <bool Average, bool Long, class Check>
REEF_INLINE bool pool_run(const Params& p, const Run& run, const Check& check) {
    constexpr int kGroup = kVectors * kLanes;
    int64_t channel = 0;
    for (; channel + kGroup <= p.channels; channel += kGroup)
        if (!pool<kVectors, true, Average, Long>(p, run, channel, kLanes, check))
            return false;
    const int rest = static_cast<int>(p.channels - channel), lanes = rest % kLanes;
    switch (rest / kLanes * 2 + (lanes != 0)) {
    case 0:
        return true;
    case 1:
        return pool<1, false, Average, Long>(p, run, channel, lanes, check);
    case 2:
        return pool<1, true, Average, Long>(p, run, channel, kLanes, check);
    case 3:
        return pool<2, false, Average, Long>(p, run, channel, lanes, check);
    case 4:
        return pool<2, true, Average, Long>(p, run, channel, kLanes, check);
    case 5:
        return pool<3, false, Average, Long>(p, run, channel, lanes, check);
    case 6:
        return pool<3, true, Average, Long>(p, run, channel, kLanes, check);
    default:
        return pool<4, false, Average, Long>(p, run, channel, lanes, check);
    }
}

template <bool Average, class Check>
REEF_INLINE bool pool_block(const Params& p, const BlockArgs& args, const Check& check) {
    const float* x = static_cast<const float*>(args.args[0]);
    float* y = static_cast<float*>(args.args[1]);
    const int64_t to = p.pixels * (args.block + 1) / p.blocks;
    for (int64_t pixel = p.pixels * args.block / p.blocks, count; pixel < to; pixel += count) {
        if (check.stale())
            return false;
        const int64_t column = pixel % p.out_width, row = pixel / p.out_width % p.out_height;
        const int64_t image = pixel / p.out_width / p.out_height;
        count = smaller(smaller(to - pixel, p.out_width - column), p.pixels_per_step > 1 ? p.pixels_per_step : 1);
        const int64_t top = row * p.strides[0] - p.pads[0];
        const Range rows = inside(top, p.kernel[0], p.dilations[0], p.height);
        const Run run{x + (image * p.height + top + rows.first * p.dilations[0]) * p.width * p.channels,
                      y + pixel * p.channels, column, count, rows.last - rows.first};
        if (!(p.pixels_per_step != 0 ? pool_run<Average, false>(p, run, check)
                                     : pool_run<Average, true>(p, run, check)))
            return false;
    }
    return true;
}

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        return p.average ? pool_block<true>(p, args, check) : pool_block<false>(p, args, check);
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
    p->pixels = y.shape[0] * y.shape[1] * y.shape[2];
    // A window reaches no further than the map; no product here exceeds what the map and the result have together.
    const double work = static_cast<double>(smaller(p->kernel[0], p->height)) *
                        static_cast<double>(smaller(p->kernel[1], p->width)) * static_cast<double>(p->channels);
    p->pixels_per_step = work > kStep ? 0 : static_cast<int64_t>(kStep / work);
    p->blocks = blocks_for(static_cast<double>(p->pixels) * work / kNominalValuesPerMicrosecond, p->pixels);
    return finish<Body>(spec, kernel, p, static_cast<size_t>(p->blocks));
}

}  // namespace

extern const Operator pool2d;
const Operator pool2d{"pool2d", create};

}  // namespace reef::cpu::REEF_ISA
