// SPDX-License-Identifier: Apache-2.0
// depthwise_conv2d: each channel of x convolved with its own filters, float32; ends as conv2d does.
//
// A vector holds neighbouring channels. A tile is a few neighbouring output pixels of one row: the inputs that they
// share are loaded once a filter row. Tiles inside the map take the fast form, those that touch its border or hang over
// the row's end the other one; both multiply and add in the same order. With several filters a channel, or NCHW input,
// a block first spreads the rows it needs into scratch, one channel for each output channel.
#include "conv_shape.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

#if REEF_ISA_avx512
constexpr int kWidest = 8;  // pixels in a tile: accumulators and one row of inputs stay in registers
#else
constexpr int kWidest = 4;
#endif
constexpr int kNarrowest = 4;
constexpr int64_t kChunk = 8 * kLanes;  // channels that are done together: their filters stay in the first cache
constexpr int64_t kSpreadFloats = int64_t{1} << 20;  // scratch of a block that spreads

struct Depthwise;

// Where a tile is: some pixels of a row times some channels. Pointers are at its first channel; row r of the filter reads
// x + r * row, column j of the input x + j * pixel.
struct TileArgs {
    const float* x;      // of the first column's pixel in the first filter row that is inside the map
    int64_t pixel, row;  // floats
    int64_t column;      // of x's pixel in the map: may be outside
    int64_t width;       // of the map
    int filter_rows;
    const float* weights;
    int64_t filters;  // floats from one tap to the next
    const float* bias;
    const float* residual;
    int64_t residual_stride;
    int64_t residual_channels;  // that exist, from the first on
    const float* slope;
    float* y;
    int64_t y_stride;
    int count;  // pixels of the tile that exist
    int64_t channels;
};

using TileFunction = void (*)(const Depthwise&, const TileArgs&);

enum class Finish : uint8_t { clamp, slope, other };

struct Depthwise {
    ConvShape shape;
    Finish finish;
    float low, high;
    bool spread;
    const float* weights;  // [tap][channels]
    const float* bias;     // [channels]
    const float* slope;    // [channels]
    int tile_width;
    TileFunction inside, border;
    int64_t row_splits, channel_splits;
};

REEF_INLINE Vec read(const float* from, int lanes) { return lanes == kLanes ? load(from) : load_first(from, lanes); }

REEF_INLINE void write(float* to, Vec value, int lanes) {
    if (lanes == kLanes)
        store(to, value);
    else
        store_first(to, value, lanes);
}

REEF_INLINE int residual_lanes(const TileArgs& t, int64_t channel, int lanes) {
    const int64_t left = t.residual_channels - channel;
    return left < 0 ? 0 : static_cast<int>(smaller(left, lanes));
}

// Any activation, any order: on a copy of the tile's vector of channels.
template <int kWidth>
__attribute__((noinline)) void finish_other(const Depthwise& d, const TileArgs& t, int64_t channel, int lanes,
                                            float* sums) {
    const bool first = d.shape.activation_first;
    const int more = residual_lanes(t, channel, lanes);
    for (int turn = 0; turn < 2; ++turn) {
        if ((turn == 0) == first) {
            if (d.shape.activation.kind == Activation::prelu) {
                for (int i = 0; i < kWidth; ++i)
                    for (int l = 0; l < lanes; ++l) {
                        float& sum = sums[i * kLanes + l];
                        sum = sum < 0 ? sum * t.slope[channel + l] : sum;
                    }
            } else {
                activate_all(d.shape.activation, sums, sums, kWidth * kLanes);
            }
        } else {
            for (int i = 0; i < t.count; ++i)
                for (int l = 0; l < more; ++l)
                    sums[i * kLanes + l] += t.residual[i * t.residual_stride + channel + l];
        }
    }
    for (int i = 0; i < t.count; ++i)
        write(t.y + i * t.y_stride + channel, load(sums + i * kLanes), lanes);
}

template <int kWidth, bool kBorder>
REEF_INLINE void finish_tile(const Depthwise& d, const TileArgs& t, int64_t channel, int lanes, Vec (&sum)[kWidth]) {
    if (d.finish == Finish::other) {
        alignas(64) float sums[kWidth * kLanes];
#pragma GCC unroll 8
        for (int i = 0; i < kWidth; ++i)
            store(sums + i * kLanes, sum[i]);
        finish_other<kWidth>(d, t, channel, lanes, sums);
        return;
    }
    const int count = kBorder ? t.count : kWidth;
    if (channel < t.residual_channels) {
        const int more = residual_lanes(t, channel, lanes);
#pragma GCC unroll 8
        for (int i = 0; i < kWidth; ++i)
            if (i < count)
                sum[i] += load_first(t.residual + i * t.residual_stride + channel, more);
    }
    if (d.finish == Finish::clamp) {
        const Vec low = splat(d.low);
        const Vec high = splat(d.high);
#pragma GCC unroll 8
        for (int i = 0; i < kWidth; ++i)
            sum[i] = min(high, max(low, sum[i]));
    } else {
        const Vec slope = read(t.slope + channel, lanes);
#pragma GCC unroll 8
        for (int i = 0; i < kWidth; ++i)
            sum[i] = sum[i] < Vec{} ? sum[i] * slope : sum[i];
    }
    float* y = t.y + channel;
#pragma GCC unroll 8
    for (int i = 0; i < kWidth; ++i)
        if (i < count)
            write(y + i * t.y_stride, sum[i], lanes);
}

// Calls f(channel, lanes) for each vector of the tile's channels. Where there is room the last one begins early rather
// than be a short one: it computes a few channels again, to the same bits.
template <bool kBorder, class F> REEF_INLINE void each_vector(const TileArgs& t, const F& f) {
    for (int64_t c = 0; c < t.channels; c += kLanes) {
        if constexpr (kBorder) {
            const int64_t early = t.channels < kLanes ? 0 : smaller(c, t.channels - kLanes);
            f(early, static_cast<int>(smaller(t.channels - early, kLanes)));
        } else {
            f(smaller(c, t.channels - kLanes), kLanes);
        }
    }
}

// kColumns filter columns side by side, kStride pixels between outputs. Not kBorder: every pixel and a whole vector of
// channels exist, and every input lies inside the map.
template <int kColumns, int kStride, int kWidth, bool kBorder> void tile(const Depthwise& d, const TileArgs& t) {
    constexpr int kInputs = (kWidth - 1) * kStride + kColumns;
    each_vector<kBorder>(t, [&](int64_t channel, int lanes) __attribute__((always_inline)) {
        Vec sum[kWidth];
        const Vec bias = read(t.bias + channel, lanes);
#pragma GCC unroll 8
        for (int i = 0; i < kWidth; ++i)
            sum[i] = bias;
        const float* row = t.x + channel;
        const float* weights = t.weights + channel;
        for (int r = 0; r < t.filter_rows; ++r, row += t.row) {
            Vec input[kInputs];
#pragma GCC unroll 32
            for (int j = 0; j < kInputs; ++j) {
                const bool inside = !kBorder || static_cast<uint64_t>(t.column + j) < static_cast<uint64_t>(t.width);
                input[j] = inside ? read(row + j * t.pixel, lanes) : Vec{};
                keep(input[j]);
            }
#pragma GCC unroll 8
            for (int c = 0; c < kColumns; ++c, weights += t.filters) {
                const Vec weight = read(weights, lanes);
#pragma GCC unroll 8
                for (int i = 0; i < kWidth; ++i)
                    sum[i] = fma(input[i * kStride + c], weight, sum[i]);
            }
        }
        finish_tile<kWidth, kBorder>(d, t, channel, lanes, sum);
    });
}

// Any filter width, stride and dilation.
template <bool kBorder> void tile_any(const Depthwise& d, const TileArgs& t) {
    const ConvShape& s = d.shape;
    each_vector<kBorder>(t, [&](int64_t channel, int lanes) __attribute__((always_inline)) {
        Vec sum[kNarrowest];
        for (int i = 0; i < kNarrowest; ++i)
            sum[i] = read(t.bias + channel, lanes);
        const float* row = t.x + channel;
        const float* weights = t.weights + channel;
        for (int r = 0; r < t.filter_rows; ++r, row += t.row)
            for (int64_t c = 0; c < s.kernel_w; ++c, weights += t.filters) {
                const Vec weight = read(weights, lanes);
                for (int i = 0; i < kNarrowest; ++i) {
                    const int64_t j = i * s.stride_w + c * s.dilation_w;
                    if (!kBorder || static_cast<uint64_t>(t.column + j) < static_cast<uint64_t>(t.width))
                        sum[i] = fma(read(row + j * t.pixel, lanes), weight, sum[i]);
                }
            }
        finish_tile<kNarrowest, kBorder>(d, t, channel, lanes, sum);
    });
}

struct TileForm {
    int columns, stride, width;
    TileFunction inside, border;
};

#define REEF_FORM(columns, stride, width)                                                                              \
    {columns, stride, width, tile<columns, stride, width, false>, tile<columns, stride, width, true>}
#if REEF_ISA_avx512
#define REEF_FORMS(columns, stride)                                                                                    \
    REEF_FORM(columns, stride, 8), REEF_FORM(columns, stride, 7), REEF_FORM(columns, stride, 6),                       \
        REEF_FORM(columns, stride, 5), REEF_FORM(columns, stride, 4)
#else
#define REEF_FORMS(columns, stride) REEF_FORM(columns, stride, 4)
#endif
constexpr TileForm kForms[] = {REEF_FORMS(3, 1), REEF_FORMS(3, 2), REEF_FORMS(5, 1), REEF_FORMS(5, 2)};
#undef REEF_FORMS
#undef REEF_FORM

// What one block computes.
struct Part {
    int64_t image, row, rows, channel, channels;
};

REEF_INLINE Part part_of(const Depthwise& d, int64_t block) {
    Part part;
    const int64_t vectors = up(d.shape.out_channels, kLanes);
    const int64_t c = block % d.channel_splits;
    block /= d.channel_splits;
    const int64_t r = block % d.row_splits;
    part.image = block / d.row_splits;
    part.row = r * d.shape.out_height / d.row_splits;
    part.rows = (r + 1) * d.shape.out_height / d.row_splits - part.row;
    part.channel = c * vectors / d.channel_splits * kLanes;
    part.channels = smaller((c + 1) * vectors / d.channel_splits * kLanes, d.shape.out_channels) - part.channel;
    return part;
}

// Rows of x that output rows [row, row + rows) need, within the map.
REEF_INLINE void input_rows(const ConvShape& s, int64_t row, int64_t rows, int64_t& first, int64_t& last) {
    first = row * s.stride_h - s.pad_top;
    last = first + (rows - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
    first = first < 0 ? 0 : first;
    last = smaller(last, s.height);
}

// false: stale
template <class Check>
bool spread(const Depthwise& d, const Part& part, const float* x, int64_t first, int64_t last, float* to,
            const Check& check) {
    const ConvShape& s = d.shape;
    const int64_t filters = s.out_channels / s.channels;
    for (int64_t row = first; row < last; ++row) {
        for (int64_t column = 0; column < s.width; ++column, to += part.channels) {
            if (check.stale())
                return false;
            for (int64_t i = 0; i < part.channels; ++i) {
                const int64_t c = (part.channel + i) / filters;
                to[i] = s.input_nchw ? x[((part.image * s.channels + c) * s.height + row) * s.width + column]
                                     : x[((part.image * s.height + row) * s.width + column) * s.channels + c];
            }
        }
    }
    return true;
}

template <class Check> bool run_block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
    const Depthwise& d = *static_cast<const Depthwise*>(kernel.params);
    const ConvShape& s = d.shape;
    const Part part = part_of(d, args.block);
    const float* x = static_cast<const float*>(args.args[0]);
    float* y = static_cast<float*>(args.args[s.output_argument]);
    const float* residual =
        s.residual_channels != 0 ? static_cast<const float*>(args.args[s.residual_argument]) : nullptr;
    alignas(64) float planar[kWidest * kChunk];  // a tile on its way to NCHW

    TileArgs t;
    t.width = s.width;
    t.filters = s.out_channels;
    t.pixel = s.out_channels;
    // `base` is where row 0, column 0 and channel 0 would lie.
    const float* base = x + part.image * s.height * s.width * s.channels;
    if (d.spread) {
        int64_t first;
        int64_t last;
        input_rows(s, part.row, part.rows, first, last);
        if (!spread(d, part, x, first, last, static_cast<float*>(args.scratch), check))
            return false;
        t.pixel = part.channels;
        base = static_cast<const float*>(args.scratch) - first * s.width * t.pixel - part.channel;
    }
    t.row = s.dilation_h * s.width * t.pixel;
    const int64_t last_channel = part.channel + part.channels;
    const int64_t reach = (d.tile_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w;
    t.residual_stride = s.residual_channels;
    for (int64_t channel = part.channel; channel < last_channel; channel += kChunk) {
        t.channels = smaller(kChunk, last_channel - channel);
        t.bias = d.bias + channel;
        t.slope = d.slope + channel;
        t.residual_channels = s.residual_channels - channel;
        for (int64_t oy = part.row; oy < part.row + part.rows; ++oy) {
            const int64_t top = oy * s.stride_h - s.pad_top;
            const int64_t from = top < 0 ? up(-top, s.dilation_h) : 0;
            const int64_t until = top >= s.height ? 0 : smaller(s.kernel_h, up(s.height - top, s.dilation_h));
            t.filter_rows = until > from ? static_cast<int>(until - from) : 0;
            t.weights = d.weights + from * s.kernel_w * t.filters + channel;
            for (int64_t ox = 0; ox < s.out_width; ox += d.tile_width) {
                if (check.stale())
                    return false;
                t.count = static_cast<int>(smaller(d.tile_width, s.out_width - ox));
                t.column = ox * s.stride_w - s.pad_left;
                t.x = base + (top + from * s.dilation_h) * s.width * t.pixel + t.column * t.pixel + channel;
                const int64_t pixel = (part.image * s.out_height + oy) * s.out_width + ox;
                t.residual = residual + pixel * s.residual_channels + channel;
                t.y = s.output_nchw ? planar : y + pixel * s.out_channels + channel;
                t.y_stride = s.output_nchw ? kChunk : s.out_channels;
                const bool whole =
                    t.count == d.tile_width && t.channels >= kLanes && t.column >= 0 && t.column + reach < s.width;
                (whole ? d.inside : d.border)(d, t);
                if (!s.output_nchw)
                    continue;
                for (int64_t c = 0; c < t.channels; ++c) {
                    float* to =
                        y + ((part.image * s.out_channels + channel + c) * s.out_height + oy) * s.out_width + ox;
                    for (int i = 0; i < t.count; ++i)
                        to[i] = planar[i * kChunk + c];
                }
            }
        }
    }
    return true;
}

void run(const Kernel& kernel, const BlockArgs& args) { run_block(kernel, args, NoCheckpoint{}); }

bool run_preemptible(const Kernel& kernel, const BlockArgs& args, const Checkpoint& check) {
    return run_block(kernel, args, check);
}

// ---- at load

bool pack(Spec& spec, Depthwise& d) {
    const ConvShape& s = d.shape;
    const int64_t taps = s.kernel_h * s.kernel_w;
    const auto bytes = [&](int64_t rows) { return static_cast<size_t>(rows * s.out_channels) * sizeof(float); };
    float* weights = static_cast<float*>(spec.allocate(bytes(taps)));
    float* bias = static_cast<float*>(spec.allocate(bytes(1)));
    float* slope = static_cast<float*>(spec.allocate(bytes(1)));
    if (weights == nullptr || bias == nullptr || slope == nullptr)
        return spec.fail("no memory for the packed weights");
    for (int64_t c = 0; c < s.out_channels; ++c) {
        bias[c] = s.bias != nullptr ? s.bias[c] : 0.0F;
        slope[c] = s.slope == nullptr ? s.activation.alpha : s.slope[s.one_slope ? 0 : c];
        for (int64_t t = 0; t < taps; ++t)
            weights[t * s.out_channels + c] = s.weights[c * taps + t];
    }
    d.weights = weights;
    d.bias = bias;
    d.slope = slope;
    release_constants(spec, s);
    return true;
}

void choose_tile(Depthwise& d) {
    const ConvShape& s = d.shape;
    d.tile_width = kNarrowest;
    d.inside = tile_any<false>;
    d.border = tile_any<true>;
    int64_t best = kLargestSize;
    for (const TileForm& form : kForms) {
        if (form.columns != s.kernel_w || form.stride != s.stride_w || s.dilation_w != 1)
            continue;
        const int64_t computed = up(s.out_width, form.width) * form.width;
        if (computed >= best)
            continue;
        best = computed;
        d.tile_width = form.width;
        d.inside = form.inside;
        d.border = form.border;
    }
}

void choose_finish(Depthwise& d) {
    Bounds bounds;
    const bool plain = simple_end(d.shape.activation, bounds) && !residual_after(d.shape);
    d.low = bounds.low;
    d.high = bounds.high;
    d.finish = !plain ? Finish::other : (bounds.bent ? Finish::slope : Finish::clamp);
}

bool divide(Spec& spec, Depthwise& d, Kernel& kernel) {
    const ConvShape& s = d.shape;
    const double outputs =
        static_cast<double>(s.batch * s.out_height * s.out_width) * static_cast<double>(s.out_channels);
    const double taps = static_cast<double>(s.kernel_h) * static_cast<double>(s.kernel_w);
    const double inputs = static_cast<double>(s.batch * s.height * s.width) * static_cast<double>(s.channels);
    // Two loads for each multiplication at worst: half the rate of a matrix product.
    const double time = larger(outputs * taps * 2 / kNominalMacsPerMicrosecond,
                               sizeof(float) * (inputs + outputs) / kNominalBytesPerMicrosecond);
    const int64_t vectors = up(s.out_channels, kLanes);
    const int64_t blocks = blocks_for(time, kLargestSize);
    const int64_t parts = smaller(blocks, s.batch * s.out_height);
    d.row_splits = smaller(s.out_height, up(parts, s.batch));
    d.channel_splits = smaller(vectors, up(blocks, s.batch * d.row_splits));
    if (d.spread) {
        const int64_t rows = (up(s.out_height, d.row_splits) - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
        const int64_t floats = smaller(rows, s.height) * s.width;
        const int64_t room = kSpreadFloats / (floats * kLanes);
        const int64_t least = up(vectors, room < 1 ? 1 : room);
        d.channel_splits = d.channel_splits < least ? least : d.channel_splits;
        kernel.scratch_bytes = static_cast<size_t>(floats * up(vectors, d.channel_splits) * kLanes) * sizeof(float);
        if (kernel.scratch_bytes > kMaxScratch)
            return spec.fail("a block needs %zu bytes of scratch, more than %zu", kernel.scratch_bytes, kMaxScratch);
    }
    const int64_t total = s.batch * d.row_splits * d.channel_splits;
    if (total > kMaxBlocks)
        return spec.fail("the work falls into %lld blocks, too many", static_cast<long long>(total));
    kernel.blocks = static_cast<uint32_t>(total);
    return true;
}

bool create(Spec& spec, Kernel& kernel) {
    auto* d = static_cast<Depthwise*>(spec.allocate(sizeof(Depthwise)));
    if (d == nullptr)
        return spec.fail("no memory for the parameters");
    *d = Depthwise{};
    if (!read_conv(spec, d->shape))
        return false;
    if (d->shape.groups != d->shape.channels)
        return spec.fail("group is %lld, the input has %lld channels", static_cast<long long>(d->shape.groups),
                         static_cast<long long>(d->shape.channels));
    kernel.scratch_bytes = 0;
    d->spread = d->shape.input_nchw || d->shape.out_channels != d->shape.channels;
    choose_finish(*d);
    choose_tile(*d);
    if (!divide(spec, *d, kernel) || !pack(spec, *d))
        return false;
    kernel.params = d;
    kernel.run = run;
    kernel.run_preemptible = run_preemptible;
    return true;
}

}  // namespace

extern const Operator depthwise_conv2d;
const Operator depthwise_conv2d{"depthwise_conv2d", create};

}  // namespace reef::cpu::REEF_ISA
