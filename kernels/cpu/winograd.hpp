// SPDX-License-Identifier: Apache-2.0
// conv2d with a 3x3 filter and stride 1 by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the multiplications.
//
// An output tile of 4x4 pixels is A^T [ (G g G^T) * (B^T d B) ] A, where d is its 6x6 input and * multiplies element by
// element; summed over channels, each of the 36 elements is a matrix product of tiles and filters. The interpolation
// points are 0, +-3/4, +-3/2 and infinity: exact in float32, and with a quarter of the rounding error of 0, +-1, +-2
// (2e-6 of the largest output at 256 channels, where a direct sum has 2e-7).
//
// A block is some tiles times some panels of output channels. It transforms its inputs to scratch, a range of channels at
// a time, multiplies, and transforms the sums. Tiles that several blocks share are transformed by each.
#pragma once
#include "conv_end.hpp"
#include "tile.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr int kOut = 4;  // pixels of an output tile's side
constexpr int kIn = 6;   // and of its input's
constexpr int kElements = kIn * kIn;
constexpr int64_t kInputFloats = 100000;  // of transformed input at a time: it stays in the second-level cache
constexpr int64_t kSumFloats = 150000;    // likewise the sums of a block

// What the choice of blocks assumes, in the units of work.hpp: like its nominal rate of multiplication, about two
// thirds of what was measured.
constexpr double kTransformMacs = 36.0 * 13 * kLanes;   // a vector of channels of a tile takes as long to transform
constexpr double kMemoryBytesPerMicrosecond = 28000.0;  // filters when a run first reads them
constexpr double kSharedBytesPerMicrosecond = 60000.0;  // read again, from the third-level cache
constexpr double kNearBytesPerMicrosecond = 200000.0;   // or from the second
constexpr double kNearBytes = 600.0 * 1024;             // which keeps this much
constexpr double kLongestBlockMicroseconds = 80.0;
constexpr int64_t kMostTiles = 2 * kTileRows;  // in a block: a row of filters is read once for each kTileRows
constexpr int64_t kLeastTiles = 4;
constexpr double kWorthwhile = 0.85;  // of the direct way's time

// The points' magnitudes and their squares.
constexpr float kA = 0.75F;
constexpr float kB = 1.5F;
constexpr float kP = kA * kA;
constexpr float kQ = kB * kB;

struct Winograd {
    ConvShape shape;
    bool plain_finish;
    bool bent;
    float low, high;
    int64_t down, across, tiles;  // of one image, and all
    int64_t vectors, panels;
    const float* weights;  // [panel][chunk][element][channel of the chunk][lanes of the panel]: read from end to end
    const float* bias;
    const float* slope;
    int64_t tile_splits, panel_splits;
    int64_t chunk;  // channels transformed at a time, whole vectors
    int64_t chunks;
    size_t sum_offset;  // in scratch, after the transformed inputs
};

// One line of B^T d.
REEF_INLINE void transform_line(const Vec (&x)[kIn], Vec (&y)[kIn]) {
    const Vec p = splat(kP);
    const Vec q = splat(kQ);
    const Vec even_a = fma(-q, x[2], x[4]);
    const Vec odd_a = kA * fma(-q, x[1], x[3]);
    const Vec even_b = fma(-p, x[2], x[4]);
    const Vec odd_b = kB * fma(-p, x[1], x[3]);
    const Vec both = splat(-(kP + kQ));
    const Vec product = splat(kP * kQ);
    y[0] = fma(product, x[0], fma(both, x[2], x[4]));
    y[1] = even_a + odd_a;
    y[2] = even_a - odd_a;
    y[3] = even_b + odd_b;
    y[4] = even_b - odd_b;
    y[5] = fma(product, x[1], fma(both, x[3], x[5]));
}

// One line of A^T m.
REEF_INLINE void gather_line(const Vec (&m)[kIn], Vec (&y)[kOut]) {
    const Vec sum_a = m[1] + m[2];
    const Vec sum_b = m[3] + m[4];
    const Vec difference_a = m[1] - m[2];
    const Vec difference_b = m[3] - m[4];
    y[0] = m[0] + sum_a + sum_b;
    y[1] = fma(splat(kB), difference_b, kA * difference_a);
    y[2] = fma(splat(kQ), sum_b, kP * sum_a);
    y[3] = fma(splat(kB * kQ), difference_b, fma(splat(kA * kP), difference_a, m[5]));
}

struct TilePlace {
    int64_t image, y, x;  // of the output tile's first pixel
};

REEF_INLINE TilePlace place_of(const Winograd& w, int64_t tile) {
    const int64_t row = tile / w.across;
    return {row / w.down, row % w.down * kOut, tile % w.across * kOut};
}

// Channels [first, first + count) of one tile's input to `to`; elements lie `apart` floats from each other.
template <bool kInside>
void transform_input(const Winograd& w, const float* x, TilePlace at, int64_t first, int64_t count, float* to,
                     int64_t apart) {
    const ConvShape& s = w.shape;
    const int64_t top = at.y - s.pad_top;
    const int64_t left = at.x - s.pad_left;
    const float* corner = x + ((at.image * s.height + top) * s.width + left) * s.channels + first;
    for (int64_t c = 0; c < count; c += kLanes) {
        const int lanes = static_cast<int>(smaller(kLanes, count - c));
        Vec half[kIn][kIn];
#pragma GCC unroll 1
        for (int j = 0; j < kIn; ++j) {
            Vec line[kIn];
#pragma GCC unroll 6
            for (int i = 0; i < kIn; ++i) {
                const float* from = corner + (i * s.width + j) * s.channels + c;
                if (j >= 2)
                    __builtin_prefetch(from + kOut * s.channels);
                if constexpr (kInside) {
                    line[i] = load(from);
                } else {
                    const bool inside = top + i >= 0 && top + i < s.height && left + j >= 0 && left + j < s.width;
                    line[i] = inside ? load_first(from, lanes) : Vec{};
                }
            }
            transform_line(line, half[j]);
        }
#pragma GCC unroll 1
        for (int i = 0; i < kIn; ++i) {
            Vec line[kIn];
            Vec done[kIn];
#pragma GCC unroll 6
            for (int j = 0; j < kIn; ++j)
                line[j] = half[j][i];
            transform_line(line, done);
#pragma GCC unroll 6
            for (int j = 0; j < kIn; ++j)
                store(to + (i * kIn + j) * apart + c, done[j]);
        }
    }
}

// One vector of channels of an output tile: sums, `apart` floats from each other, to y.
void transform_output(const Winograd& w, const float* sums, int64_t apart, TilePlace at, int64_t channel, int lanes,
                      const float* residual, float* y) {
    const ConvShape& s = w.shape;
    Vec half[kIn][kOut];
#pragma GCC unroll 1
    for (int j = 0; j < kIn; ++j) {
        Vec line[kIn];
#pragma GCC unroll 6
        for (int i = 0; i < kIn; ++i)
            line[i] = load(sums + (i * kIn + j) * apart);
        gather_line(line, half[j]);
    }
    const Vec bias = load(w.bias + channel);
    const Vec slope = load(w.slope + channel);
    const Vec low = splat(w.low);
    const Vec high = splat(w.high);
    const int rows = static_cast<int>(smaller(kOut, s.out_height - at.y));
    const int columns = static_cast<int>(smaller(kOut, s.out_width - at.x));
    const int64_t left = s.residual_channels - channel;
    const int more = left < 0 ? 0 : static_cast<int>(smaller(left, lanes));
    for (int i = 0; i < rows; ++i) {
        Vec line[kIn];
        Vec done[kOut];
#pragma GCC unroll 6
        for (int j = 0; j < kIn; ++j)
            line[j] = half[j][i];
        gather_line(line, done);
        const int64_t pixel = (at.image * s.out_height + at.y + i) * s.out_width + at.x;
        if (!w.plain_finish) {
            alignas(64) float ready[kOut * kLanes];
            for (int j = 0; j < kOut; ++j)
                store(ready + j * kLanes, done[j] + bias);
            finish_pixels(s, ready, kLanes, columns, pixel, channel, lanes, residual, w.slope + channel, y);
            continue;
        }
        float* out = y + pixel * s.out_channels + channel;
        for (int j = 0; j < columns; ++j, out += s.out_channels) {
            Vec value = done[j] + bias;
            if (more > 0)
                value += load_first(residual + (pixel + j) * s.residual_channels + channel, more);
            value = w.bent ? (value < Vec{} ? value * slope : value) : min(high, max(low, value));
            if (lanes == kLanes)
                store(out, value);
            else
                store_first(out, value, lanes);
        }
    }
}

// One range of channels for one panel: 36 products, added to `sums` or, for the first range, put there. false: stale
template <class Check>
bool multiply_elements(const Winograd& w, int64_t panel, int64_t tiles, int64_t first, int64_t count,
                       const float* inputs, float* sums, const Check& check) {
    static constexpr float kNothing[kPanelLanes] = {};
    static constexpr int64_t kHere = 0;
    const int vectors = static_cast<int>(smaller(kPanelVectors, w.vectors - panel * kPanelVectors));
    const int width = vectors * kLanes;
    const int64_t parts = up(tiles, kTileRows);
    Tile tile;
    tile.row_bytes = w.chunk * static_cast<int64_t>(sizeof(float));
    tile.segments = &kHere;
    tile.segment_count = 1;
    tile.length = count;
    tile.start_stride = first == 0 ? 0 : kPanelLanes;
    tile.out_stride = kPanelLanes;
    tile.lanes = width;
    tile.residual = nullptr;
    tile.finish = Finish::keep;
    for (int64_t e = 0; e < kElements; ++e) {
        tile.b =
            w.weights + panel * kPanelLanes * kElements * w.shape.channels + (first * kElements + e * count) * width;
        for (int64_t part = 0; part < parts; ++part) {
            if (check.stale())
                return false;
            const int64_t row = part * tiles / parts;
            const int rows = static_cast<int>((part + 1) * tiles / parts - row);
            tile.a = reinterpret_cast<const char*>(inputs + (e * tiles + row) * w.chunk);
            tile.out = sums + (e * tiles + row) * kPanelLanes;
            tile.start = first == 0 ? kNothing : tile.out;
            multiply(tile, rows, vectors);
        }
    }
    return true;
}

template <class Check> bool run_winograd(const Kernel& kernel, const BlockArgs& args, const Check& check) {
    const Winograd& w = *static_cast<const Winograd*>(kernel.params);
    const ConvShape& s = w.shape;
    // Neighbouring blocks share filters, which are the larger part of what is read.
    const int64_t group = args.block % w.tile_splits;
    const int64_t part = args.block / w.tile_splits;
    const int64_t first_tile = group * w.tiles / w.tile_splits;
    const int64_t tiles = (group + 1) * w.tiles / w.tile_splits - first_tile;
    const int64_t first_panel = part * w.panels / w.panel_splits;
    const int64_t panels = (part + 1) * w.panels / w.panel_splits - first_panel;
    const float* x = static_cast<const float*>(args.args[0]);
    float* y = static_cast<float*>(args.args[s.output_argument]);
    const float* residual =
        s.residual_channels != 0 ? static_cast<const float*>(args.args[s.residual_argument]) : nullptr;
    float* inputs = static_cast<float*>(args.scratch);
    float* sums = reinterpret_cast<float*>(static_cast<char*>(args.scratch) + w.sum_offset);
    const int64_t panel_floats = kElements * tiles * kPanelLanes;
    for (int64_t first = 0; first < s.channels; first += w.chunk) {
        const int64_t count = smaller(w.chunk, s.channels - first);
        for (int64_t t = 0; t < tiles; ++t) {
            if (check.stale())
                return false;
            const TilePlace at = place_of(w, first_tile + t);
            const bool inside = at.y >= s.pad_top && at.x >= s.pad_left && at.y - s.pad_top + kIn <= s.height &&
                                at.x - s.pad_left + kIn <= s.width && count % kLanes == 0;
            (inside ? transform_input<true> : transform_input<false>)(w, x, at, first, count, inputs + t * w.chunk,
                                                                      tiles * w.chunk);
        }
        for (int64_t p = 0; p < panels; ++p)
            if (!multiply_elements(w, first_panel + p, tiles, first, count, inputs, sums + p * panel_floats, check))
                return false;
    }
    for (int64_t p = 0; p < panels; ++p) {
        const int64_t first = (first_panel + p) * kPanelLanes;
        for (int64_t t = 0; t < tiles; ++t) {
            if (check.stale())
                return false;
            for (int64_t v = 0; v < kPanelLanes && first + v < s.out_channels; v += kLanes) {
                const int lanes = static_cast<int>(smaller(kLanes, s.out_channels - first - v));
                transform_output(w, sums + p * panel_floats + t * kPanelLanes + v, tiles * kPanelLanes,
                                 place_of(w, first_tile + t), first + v, lanes, residual, y);
            }
        }
    }
    return true;
}

void run_winograd_plain(const Kernel& kernel, const BlockArgs& args) { run_winograd(kernel, args, NoCheckpoint{}); }

bool run_winograd_checked(const Kernel& kernel, const BlockArgs& args, const Checkpoint& check) {
    return run_winograd(kernel, args, check);
}

// ---- at load

// G g G^T of one filter, in double: [6][6].
void transform_filter(const float* filter, double (&out)[kElements]) {
    const double a = kA;
    const double b = kB;
    const double p = a * a;
    const double q = b * b;
    const double near = 1 / (2 * p * (p - q));
    const double far = 1 / (2 * q * (q - p));
    const double g[kIn][3] = {{1 / (p * q), 0, 0},     {near, near * a, near * p}, {near, -near * a, near * p},
                              {far, far * b, far * q}, {far, -far * b, far * q},   {0, 0, 1}};
    double half[kIn][3];
    for (int i = 0; i < kIn; ++i)
        for (int j = 0; j < 3; ++j)
            half[i][j] = g[i][0] * filter[j] + g[i][1] * filter[3 + j] + g[i][2] * filter[6 + j];
    for (int i = 0; i < kIn; ++i)
        for (int j = 0; j < kIn; ++j)
            out[i * kIn + j] = half[i][0] * g[j][0] + half[i][1] * g[j][1] + half[i][2] * g[j][2];
}

bool pack_winograd(Spec& spec, Winograd& w) {
    const ConvShape& s = w.shape;
    const int64_t padded = w.vectors * kLanes;
    float* weights =
        static_cast<float*>(spec.allocate(static_cast<size_t>(padded * kElements * s.channels) * sizeof(float)));
    float* bias = static_cast<float*>(spec.allocate(static_cast<size_t>(padded) * sizeof(float)));
    float* slope = static_cast<float*>(spec.allocate(static_cast<size_t>(padded) * sizeof(float)));
    if (weights == nullptr || bias == nullptr || slope == nullptr)
        return spec.fail("no memory for the packed weights");
    for (int64_t o = 0; o < s.out_channels; ++o) {
        bias[o] = s.bias != nullptr ? s.bias[o] : 0.0F;
        slope[o] = s.slope == nullptr ? s.activation.alpha : s.slope[s.one_slope ? 0 : o];
        const int64_t panel = o / kPanelLanes;
        const int64_t width = smaller(kPanelLanes, padded - panel * kPanelLanes);
        float* to = weights + panel * kPanelLanes * kElements * s.channels + o % kPanelLanes;
        for (int64_t c = 0; c < s.channels; ++c) {
            double transformed[kElements];
            transform_filter(s.weights + (o * s.channels + c) * 9, transformed);
            const int64_t first = c / w.chunk * w.chunk;
            const int64_t count = smaller(w.chunk, s.channels - first);
            for (int64_t e = 0; e < kElements; ++e)
                to[(first * kElements + e * count + c - first) * width] = static_cast<float>(transformed[e]);
        }
    }
    w.weights = weights;
    w.bias = bias;
    w.slope = slope;
    release_constants(spec, s);
    return true;
}

// The nominal time of all blocks, in microseconds, when the work is cut so.
double nominal_time(const Winograd& w, int64_t tile_splits, int64_t panel_splits) {
    const ConvShape& s = w.shape;
    const double of_filter = static_cast<double>(kElements) * static_cast<double>(s.channels);
    const double filters = of_filter * static_cast<double>(w.vectors * kLanes);
    const double multiply = filters * static_cast<double>(w.tiles) / kNominalMacsPerMicrosecond;
    const double bytes = filters * sizeof(float);
    const double of_block = bytes / static_cast<double>(panel_splits);
    const double again = of_block < kNearBytes ? kNearBytesPerMicrosecond : kSharedBytesPerMicrosecond;
    const double stream = bytes / kMemoryBytesPerMicrosecond + bytes * static_cast<double>(tile_splits - 1) / again;
    const double transforms =
        static_cast<double>(w.tiles) * static_cast<double>(up(s.channels, kLanes) * panel_splits + w.vectors);
    return larger(multiply, stream) + transforms * kTransformMacs / kNominalMacsPerMicrosecond;
}

// Cuts the work, and returns its nominal time in microseconds. Few tiles a block read filters again and again, few
// panels transform inputs again and again; blocks must be short, enough for several workers, and even for two.
double divide_winograd(Winograd& w) {
    const ConvShape& s = w.shape;
    w.down = up(s.out_height, kOut);
    w.across = up(s.out_width, kOut);
    w.tiles = s.batch * w.down * w.across;
    w.vectors = up(s.out_channels, kLanes);
    w.panels = up(w.vectors, kPanelVectors);
    const int64_t least = up(w.tiles, kMostTiles);
    const int64_t most = up(w.tiles, kLeastTiles);
    const int64_t wanted = smaller(blocks_for(nominal_time(w, least, 1), kLargestSize), 8);
    double best = -1;
    double time = 0;
    // Each step cuts a group by about one tile.
    for (int64_t tiles = smaller(w.tiles, kMostTiles); tiles >= 1; --tiles) {
        const int64_t groups = up(w.tiles, tiles);
        if (groups > most)
            break;
        for (int64_t parts = 1; parts <= w.panels; ++parts) {
            const int64_t blocks = groups * parts;
            const double all = nominal_time(w, groups, parts);
            const bool small = all / static_cast<double>(blocks) <= kLongestBlockMicroseconds &&
                               up(w.tiles, groups) * up(w.panels, parts) * kElements * kPanelLanes <= kSumFloats;
            const bool finest = groups == most && parts == w.panels;
            if ((blocks < wanted || !small) && !finest)
                continue;
            const double cost = all * static_cast<double>(2 * up(blocks, 2)) / static_cast<double>(blocks);
            if (best >= 0 && cost >= best)
                continue;
            best = cost;
            time = all;
            w.tile_splits = groups;
            w.panel_splits = parts;
        }
    }
    return time;
}

bool winograd_pays(const ConvShape& s) {
    if (s.kernel_h != 3 || s.kernel_w != 3 || s.stride_h != 1 || s.stride_w != 1 || s.dilation_h != 1 ||
        s.dilation_w != 1)
        return false;
    if (s.groups != 1 || s.input_nchw || s.channels < kLanes || s.pad_top > kIn || s.pad_left > kIn)
        return false;
    Winograd w{};
    w.shape = s;
    const double filters =
        static_cast<double>(up(s.out_channels, kLanes)) * kLanes * static_cast<double>(s.channels * 9);
    const double direct =
        larger(static_cast<double>(s.batch * s.out_height * s.out_width) * filters / kNominalMacsPerMicrosecond,
               filters * sizeof(float) / kMemoryBytesPerMicrosecond);
    return divide_winograd(w) < kWorthwhile * direct;
}

bool create_winograd(Spec& spec, Kernel& kernel, const ConvShape& shape) {
    auto* w = static_cast<Winograd*>(spec.allocate(sizeof(Winograd)));
    if (w == nullptr)
        return spec.fail("no memory for the parameters");
    *w = Winograd{};
    w->shape = shape;
    divide_winograd(*w);
    Bounds bounds;
    w->plain_finish = simple_end(shape.activation, bounds) && !shape.output_nchw && !residual_after(shape);
    w->bent = bounds.bent;
    w->low = bounds.low;
    w->high = bounds.high;
    const int64_t most_tiles = up(w->tiles, w->tile_splits);
    const int64_t most_panels = up(w->panels, w->panel_splits);
    const int64_t fitting = kInputFloats / (kElements * most_tiles);
    w->chunks = up(shape.channels, fitting < kLanes ? kLanes : fitting);
    w->chunk = up(up(shape.channels, w->chunks), kLanes) * kLanes;
    w->sum_offset = static_cast<size_t>(kElements * most_tiles * w->chunk) * sizeof(float);
    kernel.scratch_bytes =
        w->sum_offset + static_cast<size_t>(most_panels * kElements * most_tiles * kPanelLanes) * sizeof(float);
    const int64_t blocks = w->tile_splits * w->panel_splits;
    if (blocks > kMaxBlocks || kernel.scratch_bytes > kMaxScratch)
        return spec.fail("the work falls into %lld blocks, each with %zu bytes of scratch: too much",
                         static_cast<long long>(blocks), kernel.scratch_bytes);
    if (!pack_winograd(spec, *w))
        return false;
    kernel.blocks = static_cast<uint32_t>(blocks);
    kernel.params = w;
    kernel.run = run_winograd_plain;
    kernel.run_preemptible = run_winograd_checked;
    return true;
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
