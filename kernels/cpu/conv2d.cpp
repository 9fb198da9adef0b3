// SPDX-License-Identifier: Apache-2.0
// conv2d: y = activation(x * w + bias + residual), float32, as a matrix product of pixels and packed weights.
//
// No image of columns is built where it can be helped. Neighbouring pixels of an output row are a constant distance apart
// in x, so a register tile reads them in place, filter tap by filter tap; where there is padding, or the input is NCHW, a
// block first copies the rows it needs, with their borders, to scratch. Only very narrow maps are gathered pixel by pixel.
// A block is some rows, or a part of one, times some panels of output channels.
#include "conv_end.hpp"
#include "tile.hpp"
#include "winograd.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

enum class Feed : uint8_t {
    direct,    // x itself: no padding
    padded,    // rows of x copied with their borders
    gathered,  // each pixel's taps side by side
};

constexpr int64_t kLongestRun = 768;                 // k between two check points: under 3 us a tile
constexpr int64_t kCopiedFloats = 8192;              // copied between two check points
constexpr int64_t kNarrow = 6;                       // maps below this width are gathered
constexpr int64_t kGatherFloats = int64_t{1} << 20;  // scratch of a block that gathers
constexpr int64_t kPadFloats = int64_t{1} << 22;     // beyond it, padding is gathered

// A run of k that is multiplied without a look at the checkpoint.
struct Chunk {
    const int64_t* segments;
    int segment_count;
    int64_t length;
    int64_t k;
};

struct Conv {
    ConvShape shape;
    Feed feed;
    bool plain_finish;  // the register tile can do all of the end
    Finish finish;
    float low;
    float high;
    int64_t group_in, group_out, depth;
    int64_t vectors, panels;  // of one group
    const float* weights;     // [group][panel][k][lanes of the panel]
    const float* bias;        // [group][vectors * kLanes]
    const float* slope;       // likewise
    const Chunk* chunks;
    int chunk_count;
    // The grid of register tiles: images x rows x tiles, each row `width` pixels. Pointwise: one row.
    int64_t images, rows, width, tiles;
    int64_t row_splits, column_splits, panel_splits;
    int64_t pixel_bytes, row_bytes;  // of A
    int64_t pitch;                   // floats in a copied row
    size_t sum_offset, end_offset;   // in scratch: accumulators, finished tile
};

// What one block computes.
struct Part {
    int64_t image, row, rows, first_tile, tiles, column, columns, first_panel, last_panel;
};

REEF_INLINE int64_t tile_start(const Conv& conv, int64_t tile) { return tile * conv.width / conv.tiles; }

REEF_INLINE Part part_of(const Conv& conv, int64_t block) {
    Part part;
    const int64_t panels = conv.shape.groups * conv.panels;
    const int64_t p = block % conv.panel_splits;
    block /= conv.panel_splits;
    const int64_t c = block % conv.column_splits;
    block /= conv.column_splits;
    const int64_t r = block % conv.row_splits;
    part.image = block / conv.row_splits;
    part.row = r * conv.rows / conv.row_splits;
    part.rows = (r + 1) * conv.rows / conv.row_splits - part.row;
    part.first_tile = c * conv.tiles / conv.column_splits;
    part.tiles = (c + 1) * conv.tiles / conv.column_splits - part.first_tile;
    part.column = tile_start(conv, part.first_tile);
    part.columns = tile_start(conv, part.first_tile + part.tiles) - part.column;
    part.first_panel = p * panels / conv.panel_splits;
    part.last_panel = (p + 1) * panels / conv.panel_splits;
    return part;
}

// The channels of one group at `count` pixels of a row of x, from column `column`, to a dense run.
void copy_pixels(const Conv& conv, const float* x, int64_t image, int64_t y, int64_t column, int64_t group,
                 int64_t count, float* to) {
    const ConvShape& s = conv.shape;
    const int64_t channels = conv.group_in;
    if (s.input_nchw) {
        const float* from = x + ((image * s.channels + group * channels) * s.height + y) * s.width + column;
        const int64_t plane = s.height * s.width;
        if (channels == 3) {
            for (int64_t i = 0; i < count; ++i) {
                to[3 * i] = from[i];
                to[3 * i + 1] = from[plane + i];
                to[3 * i + 2] = from[2 * plane + i];
            }
            return;
        }
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t i = 0; i < count; ++i)
                to[i * channels + c] = from[c * plane + i];
        return;
    }
    const float* from = x + ((image * s.height + y) * s.width + column) * s.channels + group * channels;
    if (s.groups == 1) {
        copy_floats(to, from, count * channels);
        return;
    }
    for (int64_t i = 0; i < count; ++i)
        copy_floats(to + i * channels, from + i * s.channels, channels);
}

// Rows of x with their borders; false: stale.
template <class Check>
bool copy_padded(const Conv& conv, const Part& part, const float* x, int64_t group, float* to, const Check& check) {
    const ConvShape& s = conv.shape;
    const int64_t rows = (part.rows - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
    const int64_t columns = (part.columns - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
    const int64_t top = part.row * s.stride_h - s.pad_top;
    const int64_t left = part.column * s.stride_w - s.pad_left;
    const int64_t piece = up(kCopiedFloats, conv.group_in);
    int64_t from = left < 0 ? -left : 0;
    int64_t until = smaller(columns, s.width - left);
    if (until <= from)
        from = until = 0;
    for (int64_t r = 0; r < rows; ++r, to += conv.pitch) {
        if (check.stale())
            return false;
        if (top + r < 0 || top + r >= s.height) {
            zero_floats(to, columns * conv.group_in);
            continue;
        }
        zero_floats(to, from * conv.group_in);
        for (int64_t i = from; i < until; i += piece) {
            if (check.stale())
                return false;
            copy_pixels(conv, x, part.image, top + r, left + i, group, smaller(piece, until - i),
                        to + i * conv.group_in);
        }
        zero_floats(to + until * conv.group_in, (columns - until) * conv.group_in);
    }
    return true;
}

// For each pixel its taps, one after another; false: stale.
template <class Check>
bool gather(const Conv& conv, const Part& part, const float* x, int64_t group, float* to, const Check& check) {
    const ConvShape& s = conv.shape;
    for (int64_t pixel = part.column; pixel < part.column + part.columns; ++pixel) {
        const int64_t ox = pixel % s.out_width;
        const int64_t oy = pixel / s.out_width % s.out_height;
        const int64_t image = pixel / s.out_width / s.out_height;
        const int64_t left = ox * s.stride_w - s.pad_left;
        for (int64_t i = 0; i < s.kernel_h; ++i) {
            if (check.stale())
                return false;
            const int64_t row = oy * s.stride_h - s.pad_top + i * s.dilation_h;
            const bool inside = row >= 0 && row < s.height;
            for (int64_t j = 0; j < s.kernel_w; ++j, to += conv.group_in) {
                const int64_t column = left + j * s.dilation_w;
                if (inside && column >= 0 && column < s.width)
                    copy_pixels(conv, x, image, row, column, group, 1, to);
                else
                    zero_floats(to, conv.group_in);
            }
        }
    }
    return true;
}

// One panel of output channels over the block's pixels; a is the block's first pixel.
template <class Check>
bool multiply_panel(const Conv& conv, const Part& part, const BlockArgs& args, const char* a, int64_t group,
                    int64_t panel, const Check& check) {
    const ConvShape& s = conv.shape;
    const int vectors = static_cast<int>(smaller(kPanelVectors, conv.vectors - panel * kPanelVectors));
    const int64_t in_group = panel * kPanelLanes;  // the panel's first channel
    const int64_t channel = group * conv.group_out + in_group;
    const int64_t padded = group * conv.vectors * kLanes + in_group;
    const int lanes = static_cast<int>(smaller(vectors * kLanes, conv.group_out - in_group));
    float* y = static_cast<float*>(args.args[s.output_argument]);
    const float* residual =
        s.residual_channels != 0 ? static_cast<const float*>(args.args[s.residual_argument]) : nullptr;
    float* sums = reinterpret_cast<float*>(static_cast<char*>(args.scratch) + conv.sum_offset);
    float* end = reinterpret_cast<float*>(static_cast<char*>(args.scratch) + conv.end_offset);

    Tile tile;
    tile.row_bytes = conv.pixel_bytes;
    tile.low = conv.low;
    tile.high = conv.high;
    tile.slope = conv.slope + padded;
    const int64_t residual_left = s.residual_channels - channel;
    tile.residual_lanes = static_cast<int>(residual_left < 0 ? 0 : smaller(residual_left, lanes));
    tile.residual_stride = s.residual_channels;
    for (int c = 0; c < conv.chunk_count; ++c) {
        const Chunk& chunk = conv.chunks[c];
        const bool last = c + 1 == conv.chunk_count;
        const bool here = last && conv.plain_finish;
        tile.segments = chunk.segments;
        tile.segment_count = chunk.segment_count;
        tile.length = chunk.length;
        tile.b = conv.weights + padded * conv.depth + chunk.k * vectors * kLanes;
        tile.finish = here ? conv.finish : Finish::keep;
        tile.lanes = here ? lanes : vectors * kLanes;
        tile.out_stride = here ? s.out_channels : kPanelLanes;
        tile.start_stride = c == 0 ? 0 : kPanelLanes;
        float* sum = sums;
        for (int64_t r = 0; r < part.rows; ++r) {
            const char* row = a + r * conv.row_bytes;
            const int64_t row_pixel = ((part.image * conv.rows) + part.row + r) * conv.width;
            int64_t column = part.column;
            for (int64_t t = 0; t < part.tiles; ++t, sum += kTileRows * kPanelLanes) {
                if (check.stale())
                    return false;
                const int64_t next = tile_start(conv, part.first_tile + t + 1);
                const int count = static_cast<int>(next - column);
                const int64_t pixel = row_pixel + column;
                tile.a = row + (column - part.column) * conv.pixel_bytes;
                tile.start = c == 0 ? conv.bias + padded : sum;
                tile.out = here ? y + pixel * s.out_channels + channel : (last ? end : sum);
                tile.residual = tile.residual_lanes != 0 ? residual + pixel * s.residual_channels + channel : nullptr;
                multiply(tile, count, vectors);
                if (last && !here)
                    finish_pixels(s, end, kPanelLanes, count, pixel, channel, lanes, residual, conv.slope + padded, y);
                column = next;
            }
        }
    }
    return true;
}

template <class Check> bool run_block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
    const Conv& conv = *static_cast<const Conv*>(kernel.params);
    const ConvShape& s = conv.shape;
    const Part part = part_of(conv, args.block);
    const float* x = static_cast<const float*>(args.args[0]);
    float* copy = static_cast<float*>(args.scratch);
    int64_t prepared = -1;
    const char* a = nullptr;
    for (int64_t index = part.first_panel; index < part.last_panel; ++index) {
        const int64_t group = index / conv.panels;
        if (group != prepared) {
            prepared = group;
            a = reinterpret_cast<const char*>(copy);
            if (conv.feed == Feed::padded) {
                if (!copy_padded(conv, part, x, group, copy, check))
                    return false;
            } else if (conv.feed == Feed::gathered) {
                if (!gather(conv, part, x, group, copy, check))
                    return false;
            } else {
                a = reinterpret_cast<const char*>(x + part.image * s.height * s.width * s.channels +
                                                  group * conv.group_in) +
                    part.row * conv.row_bytes + part.column * conv.pixel_bytes;
            }
        }
        if (!multiply_panel(conv, part, args, a, group, index % conv.panels, check))
            return false;
    }
    return true;
}

void run(const Kernel& kernel, const BlockArgs& args) { run_block(kernel, args, NoCheckpoint{}); }

bool run_preemptible(const Kernel& kernel, const BlockArgs& args, const Checkpoint& check) {
    return run_block(kernel, args, check);
}

// ---- at load

float* allocate_floats(Spec& spec, int64_t count) {
    return static_cast<float*>(spec.allocate(static_cast<size_t>(count) * sizeof(float)));
}

bool pack(Spec& spec, Conv& conv) {
    const ConvShape& s = conv.shape;
    const int64_t padded = conv.vectors * kLanes;
    float* weights = allocate_floats(spec, s.groups * padded * conv.depth);
    float* bias = allocate_floats(spec, s.groups * padded);
    float* slope = allocate_floats(spec, s.groups * padded);
    if (weights == nullptr || bias == nullptr || slope == nullptr)
        return spec.fail("no memory for the packed weights");
    const int64_t taps = s.kernel_h * s.kernel_w;
    for (int64_t g = 0; g < s.groups; ++g) {
        for (int64_t o = 0; o < padded; ++o) {
            const bool real = o < conv.group_out;
            const int64_t channel = g * conv.group_out + o;
            bias[g * padded + o] = real && s.bias != nullptr ? s.bias[channel] : 0.0F;
            slope[g * padded + o] =
                s.slope == nullptr ? s.activation.alpha : (real ? s.slope[s.one_slope ? 0 : channel] : 0.0F);
            const int64_t panel = o / kPanelLanes;
            const int64_t width = smaller(kPanelLanes, padded - panel * kPanelLanes);
            float* to = weights + (g * padded + panel * kPanelLanes) * conv.depth + o % kPanelLanes;
            const float* from = s.weights + channel * conv.depth;
            for (int64_t t = 0; t < taps; ++t)
                for (int64_t c = 0; c < conv.group_in; ++c)
                    to[(t * conv.group_in + c) * width] = real ? from[c * taps + t] : 0.0F;
        }
    }
    conv.weights = weights;
    conv.bias = bias;
    conv.slope = slope;
    release_constants(spec, s);
    return true;
}

// How the end of a tile is done, and what it needs.
void choose_finish(Conv& conv) {
    Bounds bounds;
    conv.plain_finish =
        simple_end(conv.shape.activation, bounds) && !conv.shape.output_nchw && !residual_after(conv.shape);
    conv.low = bounds.low;
    conv.high = bounds.high;
    conv.finish = bounds.bent ? Finish::slope : Finish::clamp;
}

// The segments of k in A and their chunks.
bool make_chunks(Spec& spec, Conv& conv) {
    const ConvShape& s = conv.shape;
    const int64_t tap_channels = conv.feed == Feed::direct ? s.channels : conv.group_in;
    const int64_t row = conv.feed == Feed::direct ? s.width * s.channels : conv.pitch;
    int64_t down = s.kernel_h;
    int64_t across = s.kernel_w;
    int64_t length = conv.group_in;
    if (conv.feed == Feed::gathered) {
        length = conv.depth;
        down = across = 1;
    } else if (s.dilation_w == 1 && tap_channels == conv.group_in) {
        length *= across;  // the taps of a filter row lie side by side
        across = 1;
    }
    const int64_t pieces = up(length, kLongestRun);
    const int64_t piece = up(length, pieces);
    const int64_t together = pieces > 1 ? 1 : kLongestRun / length;  // segments in a chunk
    const int64_t segments = down * across * pieces;
    auto* offsets = static_cast<int64_t*>(spec.allocate(static_cast<size_t>(segments) * sizeof(int64_t)));
    auto* chunks = static_cast<Chunk*>(spec.allocate(static_cast<size_t>(up(segments, together)) * sizeof(Chunk)));
    if (offsets == nullptr || chunks == nullptr)
        return spec.fail("no memory for the filter's offsets");
    int64_t k = 0;
    int count = 0;
    for (int64_t i = 0; i < segments; ++i) {
        const int64_t tap = i / pieces;
        const int64_t inside = i % pieces * piece;
        const int64_t run = smaller(piece, length - inside);
        offsets[i] = ((tap / across * s.dilation_h) * row + (tap % across * s.dilation_w) * tap_channels + inside) *
                     static_cast<int64_t>(sizeof(float));
        if (i % together == 0)
            chunks[count++] = {offsets + i, 0, run, k};
        ++chunks[count - 1].segment_count;
        k += run;
    }
    conv.chunks = chunks;
    conv.chunk_count = count;
    return true;
}

// Cuts the work into blocks.
bool divide(Spec& spec, Conv& conv, Kernel& kernel) {
    const ConvShape& s = conv.shape;
    const int64_t tiles = conv.images * conv.rows * conv.tiles;
    const int64_t panels = s.groups * conv.panels;
    const double pixels = static_cast<double>(conv.images) * static_cast<double>(conv.rows * conv.width);
    const double per_pixel = static_cast<double>(conv.depth) * static_cast<double>(s.groups * conv.vectors * kLanes);
    const double bytes =
        sizeof(float) * (static_cast<double>(s.batch * s.height * s.width) * static_cast<double>(s.channels) +
                         per_pixel + pixels * static_cast<double>(s.out_channels));
    const double time = larger(pixels * per_pixel / kNominalMacsPerMicrosecond, bytes / kNominalBytesPerMicrosecond);
    const int64_t blocks = blocks_for(time, kLargestSize);
    const double input =
        sizeof(float) * static_cast<double>(s.batch * s.height * s.width) * static_cast<double>(s.channels);
    const Splits splits = split_product(smaller(blocks, tiles * panels), tiles, panels, input,
                                        sizeof(float) * per_pixel, conv.feed == Feed::direct ? 1.0 : 3.0);
    conv.panel_splits = splits.panels;
    int64_t parts = splits.rows;
    if (conv.feed == Feed::gathered) {
        const int64_t room = kGatherFloats / (kTileRows * conv.depth);
        const int64_t least = up(tiles, room < 1 ? 1 : room);
        parts = parts < least ? least : parts;
    }
    if (parts <= conv.images * conv.rows) {
        conv.row_splits = smaller(conv.rows, up(parts, conv.images));
        conv.column_splits = 1;
    } else {
        conv.row_splits = conv.rows;
        conv.column_splits = smaller(conv.tiles, up(parts, conv.images * conv.rows));
    }
    const int64_t total = conv.images * conv.row_splits * conv.column_splits * conv.panel_splits;
    if (total > kMaxBlocks)
        return spec.fail("the work falls into %lld blocks, too many", static_cast<long long>(total));
    kernel.blocks = static_cast<uint32_t>(total);
    return true;
}

size_t aligned(int64_t floats) { return (static_cast<size_t>(floats) * sizeof(float) + 63) / 64 * 64; }

// Where A comes from, the strides in it, and what a block needs of scratch.
bool lay_out(Spec& spec, Conv& conv, Kernel& kernel) {
    const ConvShape& s = conv.shape;
    const bool padless = s.pad_top == 0 && s.pad_left == 0 &&
                         (s.out_height - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h < s.height &&
                         (s.out_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w < s.width;
    const bool pointwise = padless && s.kernel_h == 1 && s.kernel_w == 1 && s.stride_h == 1 && s.stride_w == 1;
    const int64_t wide = (s.out_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
    const int64_t high = (s.out_height - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
    const bool sparse = wide > kPadFloats / conv.group_in || high > kPadFloats;
    if (s.input_nchw && s.channels == 1 && padless)
        conv.shape.input_nchw = false;  // the layouts are the same then
    conv.feed = Feed::padded;
    if (padless && !conv.shape.input_nchw)
        conv.feed = Feed::direct;
    if (!(pointwise && conv.feed == Feed::direct) && (s.out_width < kNarrow || (sparse && conv.feed == Feed::padded)))
        conv.feed = Feed::gathered;

    const bool flat = conv.feed == Feed::gathered || (pointwise && conv.feed == Feed::direct);
    conv.images = flat ? 1 : s.batch;
    conv.rows = flat ? 1 : s.out_height;
    conv.width = flat ? s.batch * s.out_height * s.out_width : s.out_width;
    const int64_t apart = conv.feed == Feed::gathered
                              ? conv.depth
                              : s.stride_w * (conv.feed == Feed::direct ? s.channels : conv.group_in);
    conv.pixel_bytes = apart * static_cast<int64_t>(sizeof(float));
    conv.tiles = up(conv.width, rows_for(conv.pixel_bytes));
    if (!divide(spec, conv, kernel))
        return false;

    const int64_t most_rows = up(conv.rows, conv.row_splits);
    const int64_t most_tiles = up(conv.tiles, conv.column_splits);
    const int64_t most_columns = smaller(conv.width, most_tiles * kTileRows);
    int64_t copied = 0;
    if (conv.feed == Feed::direct) {
        conv.row_bytes = s.stride_h * s.width * s.channels * static_cast<int64_t>(sizeof(float));
    } else if (conv.feed == Feed::gathered) {
        copied = most_columns * conv.depth;
    } else {
        conv.pitch = ((most_columns - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1) * conv.group_in;
        conv.row_bytes = s.stride_h * conv.pitch * static_cast<int64_t>(sizeof(float));
        copied = conv.pitch * ((most_rows - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1);
    }
    if (!make_chunks(spec, conv))
        return false;
    const int64_t sums = conv.chunk_count > 1 ? most_rows * most_tiles * kTileRows * kPanelLanes : 0;
    conv.sum_offset = aligned(copied);
    conv.end_offset = conv.sum_offset + aligned(sums);
    kernel.scratch_bytes = conv.end_offset + aligned(conv.plain_finish ? 0 : kTileRows * kPanelLanes);
    if (kernel.scratch_bytes > kMaxScratch)
        return spec.fail("a block needs %zu bytes of scratch, more than %zu", kernel.scratch_bytes, kMaxScratch);
    return true;
}

bool create(Spec& spec, Kernel& kernel) {
    auto* conv = static_cast<Conv*>(spec.allocate(sizeof(Conv)));
    if (conv == nullptr)
        return spec.fail("no memory for the parameters");
    *conv = Conv{};
    if (!read_conv(spec, conv->shape))
        return false;
    if (winograd_pays(conv->shape))
        return create_winograd(spec, kernel, conv->shape);
    const ConvShape& s = conv->shape;
    conv->group_in = s.channels / s.groups;
    conv->group_out = s.out_channels / s.groups;
    conv->depth = s.kernel_h * s.kernel_w * conv->group_in;
    conv->vectors = up(conv->group_out, kLanes);
    conv->panels = up(conv->vectors, kPanelVectors);
    choose_finish(*conv);
    if (!lay_out(spec, *conv, kernel) || !pack(spec, *conv))
        return false;
    kernel.params = conv;
    kernel.run = run;
    kernel.run_preemptible = run_preemptible;
    return true;
}

}  // namespace

extern const Operator conv2d;
const Operator conv2d{"conv2d", create};

}  // namespace reef::cpu::REEF_ISA
