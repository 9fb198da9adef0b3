// SPDX-License-Identifier: Apache-2.0
// resize2d: nearest or linear interpolation over the two spatial axes of an N, H, W, C map; float32.
// Where each output row and column comes from is worked out once, when the model is loaded.
#include <math.h>

#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 32 << 10;   // values written by a block, about
constexpr int64_t kChannels = 1024;  // done between two check points

enum class Coordinates : uint32_t { half_pixel, align_corners, asymmetric, pytorch_half_pixel };
constexpr const char* kCoordinateNames[] = {"half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"};
enum class Rounding : uint32_t { round_prefer_floor, round_prefer_ceil, floor, ceil };
constexpr const char* kRoundingNames[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};

// A place between two neighbours; nearest has weight 0.
struct Tap {
    int64_t low, high;
    float weight;  // of high
};

struct Params {
    int64_t height, width, channels;
    int64_t out_height, out_width;
    size_t pixels, pixels_per_block;
    bool linear;
    const Tap* rows;
    const Tap* columns;
};

inline void blend(float* out, const float* a, const float* b, const float* c, const float* d, int64_t count, float v,
                  float h) {
    for (int64_t i = 0; i < count; i++) {
        float upper = a[i] + (b[i] - a[i]) * h, lower = c[i] + (d[i] - c[i]) * h;
        out[i] = upper + (lower - upper) * v;
    }
}

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        const float* x = static_cast<const float*>(args.args[0]);
        float* y = static_cast<float*>(args.args[1]);
        size_t from = args.block * p.pixels_per_block, to = smaller(from + p.pixels_per_block, p.pixels);
        size_t since = static_cast<size_t>(kChannels);
        for (size_t pixel = from; pixel < to; pixel++) {
            int64_t at = static_cast<int64_t>(pixel);
            const Tap &column = p.columns[at % p.out_width], &row = p.rows[at / p.out_width % p.out_height];
            const float* image = x + at / p.out_width / p.out_height * p.height * p.width * p.channels;
            const float* upper = image + row.low * p.width * p.channels;
            const float* lower = image + row.high * p.width * p.channels;
            for (int64_t begin = 0; begin < p.channels; begin += kChannels) {
                if (since >= static_cast<size_t>(kChannels)) {
                    if (check.stale())
                        return false;
                    since = 0;
                }
                int64_t count = p.channels - begin < kChannels ? p.channels - begin : kChannels;
                float* out = y + at * p.channels + begin;
                int64_t left = column.low * p.channels + begin, right = column.high * p.channels + begin;
                if (p.linear)
                    blend(out, upper + left, upper + right, lower + left, lower + right, count, row.weight,
                          column.weight);
                else
                    memcpy(out, upper + left, static_cast<size_t>(count) * sizeof(float));
                since += static_cast<size_t>(count) + 16;
            }
        }
        return true;
    }
};

double original(Coordinates coordinates, int64_t i, int64_t in, int64_t out) {
    double scale = static_cast<double>(out) / static_cast<double>(in), place = static_cast<double>(i);
    switch (coordinates) {
    case Coordinates::half_pixel:
        return (place + 0.5) / scale - 0.5;
    case Coordinates::pytorch_half_pixel:
        return out > 1 ? (place + 0.5) / scale - 0.5 : 0;
    case Coordinates::align_corners:
        return out > 1 ? place * static_cast<double>(in - 1) / static_cast<double>(out - 1) : 0;
    case Coordinates::asymmetric:
        break;
    }
    return place / scale;
}

const Tap* taps(Spec& spec, Coordinates coordinates, Rounding rounding, bool linear, int64_t in, int64_t out) {
    Tap* tap = allocate<Tap>(spec, static_cast<size_t>(out));
    for (int64_t i = 0; tap && i < out; i++) {
        double place = original(coordinates, i, in, out);
        if (linear) {
            double clamped = place < 0 ? 0 : place > static_cast<double>(in - 1) ? static_cast<double>(in - 1) : place;
            int64_t low = static_cast<int64_t>(clamped), high = low + 1 < in ? low + 1 : low;
            tap[i] = {low, high, static_cast<float>(clamped - static_cast<double>(low))};
            continue;
        }
        double chosen = 0;
        switch (rounding) {
        case Rounding::round_prefer_floor:
            chosen = ::ceil(place - 0.5);
            break;
        case Rounding::round_prefer_ceil:
            chosen = ::floor(place + 0.5);
            break;
        case Rounding::floor:
            chosen = ::floor(place);
            break;
        case Rounding::ceil:
            chosen = ::ceil(place);
            break;
        }
        int64_t nearest = chosen < 0 ? 0 : chosen > static_cast<double>(in - 1) ? in - 1 : static_cast<int64_t>(chosen);
        tap[i] = {nearest, nearest, 0};
    }
    return tap;
}

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1) || !check_dtype(spec, DType::f32, "float32"))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    if (x.rank != 4 || y.rank != 4 || x.shape[0] != y.shape[0] || x.shape[3] != y.shape[3])
        return spec.fail("'%s' and '%s' must be N, H, W, C with the same N and C", x.name, y.name);
    const char* mode = spec.string("mode", "nearest");
    const char* coordinate_name = spec.string("coordinates", "half_pixel");
    const char* rounding_name = spec.string("rounding", "round_prefer_floor");
    bool linear = strcmp(mode, "linear") == 0;
    if (!linear && strcmp(mode, "nearest") != 0)
        return spec.fail("unknown mode '%s'", mode);
    int coordinates = find_name(coordinate_name, kCoordinateNames), rounding = find_name(rounding_name, kRoundingNames);
    if (coordinates < 0)
        return spec.fail("unknown coordinates '%s'", coordinate_name);
    if (rounding < 0)
        return spec.fail("unknown rounding '%s'", rounding_name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->height = x.shape[1];
    p->width = x.shape[2];
    p->channels = x.shape[3];
    p->out_height = y.shape[1];
    p->out_width = y.shape[2];
    p->linear = linear;
    auto c = static_cast<Coordinates>(coordinates);
    auto r = static_cast<Rounding>(rounding);
    p->rows = taps(spec, c, r, linear, p->height, p->out_height);
    p->columns = taps(spec, c, r, linear, p->width, p->out_width);
    if (!p->rows || !p->columns)
        return false;
    p->pixels = static_cast<size_t>(y.shape[0] * y.shape[1] * y.shape[2]);
    size_t work = static_cast<size_t>(p->channels);
    p->pixels_per_block = work >= kWork ? 1 : kWork / work;
    return finish<Body>(spec, kernel, p, ceil_div(p->pixels, p->pixels_per_block));
}

}  // namespace

extern const Operator resize2d;
const Operator resize2d{"resize2d", create};

}  // namespace reef::cpu::REEF_ISA
