// SPDX-License-Identifier: Apache-2.0
// matmul: y = activation(a @ b + bias + residual) over the last two axes, the leading ones broadcast as in NumPy.
//
// float32 runs on the register tiles: rows of a are read in place, b is packed into panels, once at load where it is
// constant, else by each block, a run of k at a time. A constant b without leading axes makes one matrix of all of a.
// Wider types, which networks use for shapes and indices, take a plain loop.
#include "activation.hpp"
#include "common.hpp"
#include "tile.hpp"
#include "work.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr int64_t kLongestRun = 768;                 // k between two check points
constexpr int64_t kPackedRun = 128;                  // likewise while b is packed
constexpr int64_t kTurnedFloats = int64_t{1} << 20;  // scratch of a block that transposes a
constexpr int64_t kLargest = int64_t{1} << 40;

struct Matmul {
    int64_t batches, m, n, k;
    const int64_t* a_offset;  // of each batch, in elements
    const int64_t* b_offset;
    bool trans_a, trans_b;
    const float* packed;  // [b's matrix][panel][k][lanes], or null
    const float* bias;    // padded to whole vectors
    const float* slope;
    int residual_argument;  // 0: none
    int output_argument;
    ActivationSpec activation;
    bool activation_first;
    bool plain_finish;
    Finish finish;
    float low, high;
    int64_t vectors, panels, tiles;
    int64_t row_splits, panel_splits;
    size_t sum_offset, panel_offset, end_offset;  // in scratch, after the transposed rows
};

REEF_INLINE int64_t run_length(const Matmul& p) {
    const int64_t runs = up(p.k, kLongestRun);
    return up(p.k, runs);
}

// The rows of a transposed a that a block needs, as rows. false: stale
template <class Check>
bool turn_rows(const Matmul& p, const float* a, int64_t row, int64_t rows, float* to, const Check& check) {
    for (int64_t k = 0; k < p.k; ++k) {
        if (check.stale())
            return false;
        for (int64_t i = 0; i < rows; ++i)
            to[i * p.k + k] = a[k * p.m + row + i];
    }
    return true;
}

// A run of k of one panel of a b that is not constant.
void pack_run(const Matmul& p, const float* b, int64_t column, int lanes, int width, int64_t k, int64_t length,
              float* to) {
    if (p.trans_b) {
        for (int i = 0; i < width; ++i)
            for (int64_t j = 0; j < length; ++j)
                to[j * width + i] = i < lanes ? b[(column + i) * p.k + k + j] : 0.0F;
        return;
    }
    for (int64_t j = 0; j < length; ++j) {
        const float* from = b + (k + j) * p.n + column;
        for (int v = 0; v < width; v += kLanes)
            store(to + j * width + v, load_first(from + v, lanes_of(lanes, v / kLanes)));
    }
}

__attribute__((noinline)) void finish_tile(const Matmul& p, float* sums, int rows, int lanes, const float* residual,
                                           float* y) {
    for (int i = 0; i < rows; ++i) {
        float* sum = sums + i * kPanelLanes;
        const float* more = residual + i * p.n;
        if (residual != nullptr && !p.activation_first)
            for (int l = 0; l < lanes; ++l)
                sum[l] += more[l];
        activate_all(p.activation, sum, sum, lanes);
        if (residual != nullptr && p.activation_first)
            for (int l = 0; l < lanes; ++l)
                sum[l] += more[l];
        for (int v = 0; v * kLanes < lanes; ++v)
            store_first(y + i * p.n + v * kLanes, load(sum + v * kLanes), lanes_of(lanes, v));
    }
}

// Rows [tile ...] of one panel; a is the block's first row.
template <class Check>
bool multiply_panel(const Matmul& p, const BlockArgs& args, int64_t batch, int64_t first, int64_t last, int64_t panel,
                    const char* a, const Check& check) {
    const int vectors = static_cast<int>(smaller(kPanelVectors, p.vectors - panel * kPanelVectors));
    const int width = vectors * kLanes;
    const int64_t column = panel * kPanelLanes;
    const int lanes = static_cast<int>(smaller(width, p.n - column));
    char* scratch = static_cast<char*>(args.scratch);
    float* sums = reinterpret_cast<float*>(scratch + p.sum_offset);
    float* own = reinterpret_cast<float*>(scratch + p.panel_offset);
    float* end = reinterpret_cast<float*>(scratch + p.end_offset);
    const float* b = p.packed != nullptr ? nullptr : static_cast<const float*>(args.args[1]) + p.b_offset[batch];
    const float* packed = p.packed + (p.b_offset[batch] / (p.k * p.n) * p.vectors * kLanes + column) * p.k;
    const int64_t start = batch * p.m * p.n + column;
    float* y = static_cast<float*>(args.args[p.output_argument]) + start;
    const float* residual =
        p.residual_argument != 0 ? static_cast<const float*>(args.args[p.residual_argument]) + start : nullptr;

    static constexpr int64_t kHere = 0;
    Tile tile;
    tile.segments = &kHere;
    tile.segment_count = 1;
    tile.row_bytes = p.k * static_cast<int64_t>(sizeof(float));
    tile.low = p.low;
    tile.high = p.high;
    tile.slope = p.slope + column;
    tile.residual_stride = p.n;
    tile.residual_lanes = residual != nullptr ? lanes : 0;
    const int64_t step = run_length(p);
    const int64_t origin = first * p.m / p.tiles;
    for (int64_t k = 0; k < p.k; k += step) {
        const bool at_end = k + step >= p.k;
        const bool here = at_end && p.plain_finish;
        tile.length = smaller(step, p.k - k);
        tile.b = packed + k * width;
        if (b != nullptr) {
            for (int64_t j = 0; j < tile.length; j += kPackedRun) {
                if (check.stale())
                    return false;
                pack_run(p, b, column, lanes, width, k + j, smaller(kPackedRun, tile.length - j), own + j * width);
            }
            tile.b = own;
        }
        tile.finish = here ? p.finish : Finish::keep;
        tile.lanes = here ? lanes : width;
        tile.out_stride = here ? p.n : kPanelLanes;
        tile.start_stride = k == 0 ? 0 : kPanelLanes;
        float* sum = sums;
        for (int64_t t = first; t < last; ++t, sum += kTileRows * kPanelLanes) {
            if (check.stale())
                return false;
            const int64_t row = t * p.m / p.tiles;
            const int rows = static_cast<int>((t + 1) * p.m / p.tiles - row);
            tile.a = a + (row - origin) * tile.row_bytes + k * static_cast<int64_t>(sizeof(float));
            tile.start = k == 0 ? p.bias + column : sum;
            tile.out = here ? y + row * p.n : (at_end ? end : sum);
            const float* more = residual != nullptr ? residual + row * p.n : nullptr;
            tile.residual = more;
            multiply(tile, rows, vectors);
            if (at_end && !here)
                finish_tile(p, end, rows, lanes, more, y + row * p.n);
        }
    }
    return true;
}

struct Product {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Matmul& p = *static_cast<const Matmul*>(kernel.params);
        int64_t index = args.block;
        const int64_t part = index % p.panel_splits;
        index /= p.panel_splits;
        const int64_t rows = index % p.row_splits;
        const int64_t batch = index / p.row_splits;
        const int64_t first = rows * p.tiles / p.row_splits;
        const int64_t last = (rows + 1) * p.tiles / p.row_splits;
        const int64_t row = first * p.m / p.tiles;
        const float* a = static_cast<const float*>(args.args[0]) + p.a_offset[batch];
        if (p.trans_a) {
            float* turned = static_cast<float*>(args.scratch);
            if (!turn_rows(p, a, row, last * p.m / p.tiles - row, turned, check))
                return false;
            a = turned;
        } else {
            a += row * p.k;
        }
        const int64_t last_panel = (part + 1) * p.panels / p.panel_splits;
        for (int64_t panel = part * p.panels / p.panel_splits; panel < last_panel; ++panel)
            if (!multiply_panel(p, args, batch, first, last, panel, reinterpret_cast<const char*>(a), check))
                return false;
        return true;
    }
};

// One row of y a block, any type whose products need no rounding of ours. Signed integers wrap as unsigned ones do.
template <class T> struct PlainProduct {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Matmul& p = *static_cast<const Matmul*>(kernel.params);
        const int64_t batch = args.block / p.m;
        const int64_t row = args.block % p.m;
        const T* a = static_cast<const T*>(args.args[0]) + p.a_offset[batch];
        const T* b = static_cast<const T*>(args.args[1]) + p.b_offset[batch];
        T* y = static_cast<T*>(args.args[2]) + args.block * p.n;
        for (int64_t n = 0; n < p.n; ++n) {
            T sum = 0;
            for (int64_t k = 0; k < p.k; ++k) {
                if (k % 1024 == 0 && check.stale())
                    return false;
                sum += a[p.trans_a ? k * p.m + row : row * p.k + k] * b[p.trans_b ? n * p.k + k : k * p.n + n];
            }
            y[n] = sum;
        }
        return true;
    }
};

// ---- at load

// The leading axes of x against those of y: where each batch of y finds its matrix.
const int64_t* batch_offsets(Spec& spec, const TensorView& x, const TensorView& y, int64_t batches, int64_t matrix) {
    if (x.rank > y.rank || x.rank < 2) {
        spec.fail("'%s' has %u dimensions, the output %u", x.name, x.rank, y.rank);
        return nullptr;
    }
    int64_t* offsets = allocate<int64_t>(spec, static_cast<size_t>(batches));
    if (offsets == nullptr)
        return nullptr;
    int64_t stride = matrix;
    int64_t inner = 1;  // batches in one step of this axis of y
    for (uint32_t d = 3; d <= y.rank; ++d) {
        const int64_t extent = y.shape[y.rank - d];
        const int64_t own = d <= x.rank ? x.shape[x.rank - d] : 1;
        if (own != 1 && own != extent) {
            spec.fail("'%s' does not broadcast to '%s'", x.name, y.name);
            return nullptr;
        }
        if (own != 1)
            for (int64_t i = 0; i < batches; ++i)
                offsets[i] += i / inner % extent * stride;
        stride *= own;
        inner *= extent;
    }
    return offsets;
}

bool read_shapes(Spec& spec, Matmul& p) {
    const bool has_bias = spec.integer("bias", 0) != 0;
    const bool has_residual = spec.integer("residual", 0) != 0;
    if (!check_arguments(spec, 2U + (has_bias ? 1 : 0) + (has_residual ? 1 : 0)) || !check_same_dtype(spec))
        return false;
    p.output_argument = 2 + (has_bias ? 1 : 0) + (has_residual ? 1 : 0);
    const TensorView& a = spec.tensor(0);
    const TensorView& b = spec.tensor(1);
    const TensorView& y = spec.tensor(static_cast<uint32_t>(p.output_argument));
    if (a.rank < 2 || b.rank < 2 || y.rank < 2)
        return spec.fail("a, b and y must have two dimensions at least");
    p.trans_a = spec.integer("trans_a", 0) != 0;
    p.trans_b = spec.integer("trans_b", 0) != 0;
    p.activation_first = spec.integer("activation_first", 0) != 0;
    if (!read_activation(spec, p.activation))
        return false;
    if (p.activation.kind == Activation::prelu)
        return spec.fail("activation 'prelu' needs a slope: use unary");
    p.m = a.shape[a.rank - (p.trans_a ? 1 : 2)];
    p.k = a.shape[a.rank - (p.trans_a ? 2 : 1)];
    p.n = b.shape[b.rank - (p.trans_b ? 2 : 1)];
    const int64_t inner = b.shape[b.rank - (p.trans_b ? 1 : 2)];
    if (inner != p.k)
        return spec.fail("'%s' has %lld columns, '%s' %lld rows", a.name, static_cast<long long>(p.k), b.name,
                         static_cast<long long>(inner));
    if (y.shape[y.rank - 2] != p.m || y.shape[y.rank - 1] != p.n)
        return spec.fail("'%s' should end in %lld x %lld", y.name, static_cast<long long>(p.m),
                         static_cast<long long>(p.n));
    if (a.bytes > kLargest || b.bytes > kLargest || y.bytes > kLargest)
        return spec.fail("'%s' or an operand is too large", y.name);
    p.batches = static_cast<int64_t>(elements(y)) / p.m / p.n;
    p.a_offset = batch_offsets(spec, a, y, p.batches, p.m * p.k);
    p.b_offset = batch_offsets(spec, b, y, p.batches, p.k * p.n);
    if (p.a_offset == nullptr || p.b_offset == nullptr)
        return false;
    if (has_bias) {
        const TensorView& bias = spec.tensor(2);
        if (bias.constant == nullptr || static_cast<int64_t>(elements(bias)) != p.n)
            return spec.fail("the bias '%s' must be constant, one for each column", bias.name);
    }
    if (has_residual) {
        p.residual_argument = p.output_argument - 1;
        if (!same_shape(spec.tensor(static_cast<uint32_t>(p.residual_argument)), y))
            return spec.fail("the residual '%s' does not fit the output",
                             spec.tensor(static_cast<uint32_t>(p.residual_argument)).name);
    }
    return true;
}

bool pack(Spec& spec, Matmul& p) {
    const int64_t padded = p.vectors * kLanes;
    float* bias = allocate<float>(spec, static_cast<size_t>(padded));
    float* slope = allocate<float>(spec, static_cast<size_t>(padded));
    if (bias == nullptr || slope == nullptr)
        return false;
    if (spec.integer("bias", 0) != 0) {
        memcpy(bias, spec.tensor(2).constant, static_cast<size_t>(p.n) * sizeof(float));
        spec.packed(2);
    }
    for (int64_t i = 0; i < padded; ++i)
        slope[i] = p.activation.alpha;
    p.bias = bias;
    p.slope = slope;
    const TensorView& b = spec.tensor(1);
    if (b.constant == nullptr)
        return true;
    const int64_t matrices = static_cast<int64_t>(elements(b)) / (p.k * p.n);
    float* packed = allocate<float>(spec, static_cast<size_t>(matrices * padded * p.k));
    if (packed == nullptr)
        return false;
    for (int64_t i = 0; i < matrices; ++i)
        for (int64_t panel = 0; panel < p.panels; ++panel) {
            const int64_t column = panel * kPanelLanes;
            const int width = static_cast<int>(smaller(kPanelLanes, padded - column));
            pack_run(p, static_cast<const float*>(b.constant) + i * p.k * p.n, column,
                     static_cast<int>(smaller(width, p.n - column)), width, 0, p.k,
                     packed + (i * padded + column) * p.k);
        }
    p.packed = packed;
    spec.packed(1);
    return true;
}

size_t aligned(int64_t floats) { return (static_cast<size_t>(floats) * sizeof(float) + 63) / 64 * 64; }

bool create_float(Spec& spec, Kernel& kernel, Matmul& p) {
    const TensorView& a = spec.tensor(0);
    const TensorView& b = spec.tensor(1);
    if (elements(b) == static_cast<size_t>(p.k * p.n) && elements(a) == static_cast<size_t>(p.batches * p.m * p.k) &&
        !p.trans_a) {
        p.m *= p.batches;
        p.batches = 1;
    }
    p.vectors = up(p.n, kLanes);
    p.panels = up(p.vectors, kPanelVectors);
    p.tiles = up(p.m, rows_for(p.k * static_cast<int64_t>(sizeof(float))));
    Bounds bounds;
    p.plain_finish = simple_end(p.activation, bounds) && !(p.activation_first && p.residual_argument != 0);
    p.low = bounds.low;
    p.high = bounds.high;
    p.finish = bounds.bent ? Finish::slope : Finish::clamp;
    if (!pack(spec, p))
        return false;

    const double work =
        static_cast<double>(p.batches * p.m) * static_cast<double>(p.k) * static_cast<double>(p.vectors * kLanes);
    const double bytes = static_cast<double>(a.bytes) + static_cast<double>(b.bytes) +
                         sizeof(float) * static_cast<double>(p.batches * p.m * p.n);
    const int64_t blocks =
        blocks_for(larger(work / kNominalMacsPerMicrosecond, bytes / kNominalBytesPerMicrosecond), kMaxBlocks);
    const int64_t each = up(blocks, p.batches);  // for one batch
    const Splits splits = split_product(
        smaller(each, p.tiles * p.panels), p.tiles, p.panels, sizeof(float) * static_cast<double>(p.m * p.k),
        sizeof(float) * static_cast<double>(p.k * p.vectors * kLanes), p.trans_a ? 4.0 : 1.0);
    p.row_splits = splits.rows;
    p.panel_splits = splits.panels;
    if (p.trans_a) {
        const int64_t room = kTurnedFloats / (kTileRows * p.k);
        const int64_t least = up(p.tiles, room < 1 ? 1 : room);
        p.row_splits = p.row_splits < least ? least : p.row_splits;
    }
    const int64_t most_tiles = up(p.tiles, p.row_splits);
    p.sum_offset = aligned(p.trans_a ? most_tiles * kTileRows * p.k : 0);
    p.panel_offset = p.sum_offset + aligned(p.k > kLongestRun ? most_tiles * kTileRows * kPanelLanes : 0);
    p.end_offset = p.panel_offset + aligned(p.packed == nullptr ? run_length(p) * kPanelLanes : 0);
    const size_t scratch = p.end_offset + aligned(p.plain_finish ? 0 : kTileRows * kPanelLanes);
    return finish<Product>(spec, kernel, &p, static_cast<size_t>(p.batches * p.row_splits * p.panel_splits), scratch);
}

bool create(Spec& spec, Kernel& kernel) {
    Matmul* p = allocate<Matmul>(spec);
    if (p == nullptr || !read_shapes(spec, *p))
        return false;
    const DType dtype = spec.tensor(0).dtype;
    if (dtype == DType::f32)
        return create_float(spec, kernel, *p);
    if (p->output_argument != 2 || p->activation.kind != Activation::none)
        return spec.fail("only float32 products have a bias, a residual or an activation");
    const size_t blocks = static_cast<size_t>(p->batches * p->m);
    switch (dtype) {
    case DType::f64:
        return finish<PlainProduct<double>>(spec, kernel, p, blocks);
    case DType::i32:
    case DType::u32:
        return finish<PlainProduct<uint32_t>>(spec, kernel, p, blocks);
    case DType::i64:
    case DType::u64:
        return finish<PlainProduct<uint64_t>>(spec, kernel, p, blocks);
    default:
        return spec.fail("'%s' has an element type that matmul does not take", spec.tensor(0).name);
    }
}

}  // namespace

extern const Operator matmul;
const Operator matmul{"matmul", create};

}  // namespace reef::cpu::REEF_ISA
