// SPDX-License-Identifier: Apache-2.0
// attention: y = softmax(scale * q k^T + mask) v for each head of each sequence; float32. The scores are never written
// to memory: a block takes one panel of queries and walks the keys a tile at a time, keeping for each query the largest
// score so far, the sum of the exponentials and the weighted sum of the values, which are scaled down whenever a
// larger score comes ("FlashAttention", Dao et al. 2022; the running softmax is Milakov and Gimelshein's, 2018).
//
// Queries lie along the lanes. So the scores of a tile are [keys][queries], a product of rows of k as they lie in
// memory with the packed queries; the running softmax needs no sum across lanes; and the weighted values are
// [depth][queries], a product of columns of v with the exponentials.
//
// q [B, L, H, D], k [B, S, H, D], v [B, S, H, E], mask [B or 1, H or 1, L or 1, S] (`mask`), y [B, L, H, E].
#include "activation.hpp"
#include "common.hpp"
#include "tile.hpp"
#include "work.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr int kKeys = 64;           // of a tile
constexpr int64_t kStep = 1 << 13;  // numbers that meet a panel between two check points, about
constexpr int64_t kTurned = 256;    // rows of a panel that are turned between two check points
constexpr int64_t kMaxDepth = 4096;

struct Attention {
    int64_t batch, queries, keys, heads, depth, values;
    int64_t panels;                           // of queries
    int64_t mask_batch, mask_head, mask_row;  // strides of the mask in elements, 0 where it has one
    bool mask;
    float scale;
    size_t scores_offset, sums_offset;  // in scratch, after the packed queries
};

// The queries of a panel as columns, scaled; missing ones are zero.
template <class Check> bool pack_queries(const Attention& p, const float* q, int lanes, float* to, const Check& check) {
    const int64_t row = p.heads * p.depth;
    for (int64_t d = 0; d < p.depth; ++d) {
        if (d % kTurned == 0 && check.stale())
            return false;
        for (int i = 0; i < kPanelLanes; ++i)
            to[d * kPanelLanes + i] = i < lanes ? q[i * row + d] * p.scale : 0.0F;
    }
    return true;
}

// The weighted sums, divided by the sum of the weights, as rows of y.
template <class Check>
bool write_values(const Attention& p, const float* sums, const float* inverse, int lanes, float* y,
                  const Check& check) {
    const int64_t row = p.heads * p.values;
    for (int64_t from = 0; from < p.values; from += kTurned) {
        if (check.stale())
            return false;
        const int64_t to = smaller(from + kTurned, p.values);
        for (int i = 0; i < lanes; ++i)
            for (int64_t d = from; d < to; ++d)
                y[i * row + d] = sums[d * kPanelLanes + i] * inverse[i];
    }
    return true;
}

// scores += mask, for the keys of a tile
void add_mask(const Attention& p, const float* mask, int lanes, int keys, float* scores) {
    if (p.mask_row == 0) {
        for (int s = 0; s < keys; ++s)
            for (int v = 0; v < kPanelVectors; ++v) {
                float* at = scores + s * kPanelLanes + v * kLanes;
                store(at, load(at) + mask[s]);
            }
        return;
    }
    for (int i = 0; i < lanes; ++i)
        for (int s = 0; s < keys; ++s)
            scores[s * kPanelLanes + i] += mask[i * p.mask_row + s];
}

// kRows columns of v, from `v` on, times the exponentials of a tile: sums[row] += v[key][row] * e[key]
template <int kRows> REEF_INLINE void weigh(const float* v, int64_t stride, const float* e, int keys, float* sums) {
    Vec sum[kRows][kPanelVectors];
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
        for (int i = 0; i < kPanelVectors; ++i)
            sum[m][i] = load(sums + m * kPanelLanes + i * kLanes);
    for (int s = 0; s < keys; ++s) {
        Vec weight[kPanelVectors];
#pragma GCC unroll 4
        for (int i = 0; i < kPanelVectors; ++i)
            weight[i] = load(e + s * kPanelLanes + i * kLanes);
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) {
            const Vec value = splat(v[s * stride + m]);
#pragma GCC unroll 4
            for (int i = 0; i < kPanelVectors; ++i)
                sum[m][i] = fma(value, weight[i], sum[m][i]);
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
        for (int i = 0; i < kPanelVectors; ++i)
            store(sums + m * kPanelLanes + i * kLanes, sum[m][i]);
}

// What is known of each query while the keys are walked.
struct Running {
    Vec most[kPanelVectors], total[kPanelVectors];
};

// Scores become exponentials relative to the new largest; returns what the sums so far must be multiplied with.
REEF_INLINE void advance(Running& running, float* scores, int keys, Vec (&shrink)[kPanelVectors]) {
    for (int v = 0; v < kPanelVectors; ++v) {
        float* column = scores + v * kLanes;
        Vec most = running.most[v];
        for (int s = 0; s < keys; ++s)
            most = max(load(column + s * kPanelLanes), most);
        // Where every score so far is minus infinity there is nothing to shift by, and nothing to scale down.
        const Vec shift = most == splat(-kInfinity) ? Vec{} : most;
        shrink[v] = exponential(running.most[v] - shift);
        Vec total = running.total[v] * shrink[v];
        for (int s = 0; s < keys; ++s) {
            const Vec e = exponential(load(column + s * kPanelLanes) - shift);
            store(column + s * kPanelLanes, e);
            total += e;
        }
        running.most[v] = most;
        running.total[v] = total;
    }
}

struct Body {
    template <class Check>
    static bool score(const Attention& p, const float* k, const float* packed, int keys, float* scores,
                      const Check& check) {
        alignas(64) const float zeros[kPanelLanes] = {};
        const int64_t start = 0;
        const int64_t row = p.heads * p.depth * static_cast<int64_t>(sizeof(float));
        Tile tile{};
        tile.row_bytes = row;
        tile.segments = &start;
        tile.segment_count = 1;
        tile.length = p.depth;
        tile.b = packed;
        tile.start = zeros;
        tile.out_stride = kPanelLanes;
        tile.lanes = kPanelLanes;
        tile.finish = Finish::keep;
        const int64_t few = kStep * 2 / p.depth;
        const int most = static_cast<int>(smaller(rows_for(row), few < 1 ? 1 : few));
        for (int s = 0; s < keys; s += most) {
            if (check.stale())
                return false;
            tile.a = reinterpret_cast<const char*>(k) + s * row;
            tile.out = scores + s * kPanelLanes;
            multiply(tile, s + most < keys ? most : keys - s, kPanelVectors);
        }
        return true;
    }

    template <class Check>
    static bool add_values(const Attention& p, const float* v, const float* e, int keys, float* sums,
                           const Check& check) {
        const int64_t stride = p.heads * p.values;
        int64_t done = 0;
        int64_t d = 0;
        for (; d + kTileRows <= p.values; d += kTileRows, done += kTileRows * keys) {
            if (done >= kStep) {
                if (check.stale())
                    return false;
                done = 0;
            }
            weigh<kTileRows>(v + d, stride, e, keys, sums + d * kPanelLanes);
        }
        for (; d + 4 <= p.values; d += 4)
            weigh<4>(v + d, stride, e, keys, sums + d * kPanelLanes);
        for (; d < p.values; ++d)
            weigh<1>(v + d, stride, e, keys, sums + d * kPanelLanes);
        return true;
    }

    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Attention& p = *static_cast<const Attention*>(kernel.params);
        const int64_t panel = args.block % p.panels;
        const int64_t head = args.block / p.panels % p.heads;
        const int64_t batch = args.block / p.panels / p.heads;
        const int64_t first = panel * kPanelLanes;
        const int lanes = static_cast<int>(smaller(kPanelLanes, p.queries - first));
        char* scratch = static_cast<char*>(args.scratch);
        float* packed = static_cast<float*>(args.scratch);
        float* scores = reinterpret_cast<float*>(scratch + p.scores_offset);
        float* sums = reinterpret_cast<float*>(scratch + p.sums_offset);
        const int64_t q_row = p.heads * p.depth;
        const int64_t v_row = p.heads * p.values;
        const float* q = static_cast<const float*>(args.args[0]) + (batch * p.queries + first) * q_row;
        const float* k = static_cast<const float*>(args.args[1]) + batch * p.keys * q_row + head * p.depth;
        const float* v = static_cast<const float*>(args.args[2]) + batch * p.keys * v_row + head * p.values;
        const float* mask = nullptr;
        if (p.mask)
            mask = static_cast<const float*>(args.args[3]) + batch * p.mask_batch + head * p.mask_head +
                   first * p.mask_row;
        if (!pack_queries(p, q + head * p.depth, lanes, packed, check))
            return false;
        for (int64_t i = 0; i < p.values * kPanelLanes; i += kLanes)
            store(sums + i, Vec{});
        Running running;
        for (int i = 0; i < kPanelVectors; ++i) {
            running.most[i] = splat(-kInfinity);
            running.total[i] = Vec{};
        }
        for (int64_t key = 0; key < p.keys; key += kKeys) {
            const int keys = static_cast<int>(smaller(kKeys, p.keys - key));
            if (!score(p, k + key * q_row, packed, keys, scores, check))
                return false;
            if (mask != nullptr)
                add_mask(p, mask + key, lanes, keys, scores);
            Vec shrink[kPanelVectors];
            advance(running, scores, keys, shrink);
            if (check.stale())
                return false;
            if (key != 0)
                for (int64_t i = 0; i < p.values * kPanelLanes; i += kPanelLanes)
                    for (int j = 0; j < kPanelVectors; ++j)
                        store(sums + i + j * kLanes, load(sums + i + j * kLanes) * shrink[j]);
            if (!add_values(p, v + key * v_row, scores, keys, sums, check))
                return false;
        }
        float inverse[kPanelLanes];
        for (int i = 0; i < kPanelVectors; ++i)
            store(inverse + i * kLanes, 1.0F / running.total[i]);
        float* y = static_cast<float*>(args.args[p.mask ? 4 : 3]) + (batch * p.queries + first) * v_row;
        return write_values(p, sums, inverse, lanes, y + head * p.values, check);
    }
};

// ---- at load

bool read_mask(Spec& spec, Attention& p) {
    const TensorView& mask = spec.tensor(3);
    const int64_t wanted[3] = {p.batch, p.heads, p.queries};
    int64_t* strides[3] = {&p.mask_batch, &p.mask_head, &p.mask_row};
    bool fits = mask.rank == 4 && mask.shape[3] == p.keys;
    int64_t stride = p.keys;
    for (int d = 2; fits && d >= 0; --d) {
        fits = mask.shape[d] == 1 || mask.shape[d] == wanted[d];
        *strides[d] = mask.shape[d] == 1 ? 0 : stride;
        stride *= mask.shape[d];
    }
    return fits || spec.fail("the mask '%s' should be [%lld or 1, %lld or 1, %lld or 1, %lld]", mask.name,
                             static_cast<long long>(p.batch), static_cast<long long>(p.heads),
                             static_cast<long long>(p.queries), static_cast<long long>(p.keys));
}

bool create(Spec& spec, Kernel& kernel) {
    Attention* p = allocate<Attention>(spec);
    if (p == nullptr)
        return false;
    p->mask = spec.integer("mask", 0) != 0;
    p->scale = static_cast<float>(spec.number("scale", 1.0));
    const uint32_t inputs = p->mask ? 4 : 3;
    if (!check_arguments(spec, inputs) || !check_dtype(spec, DType::f32, "float32"))
        return false;
    const TensorView& q = spec.tensor(0);
    const TensorView& k = spec.tensor(1);
    const TensorView& v = spec.tensor(2);
    const TensorView& y = spec.tensor(inputs);
    if (q.rank != 4 || k.rank != 4 || v.rank != 4 || y.rank != 4)
        return spec.fail("q, k, v and y must have four dimensions");
    p->batch = q.shape[0];
    p->queries = q.shape[1];
    p->heads = q.shape[2];
    p->depth = q.shape[3];
    p->keys = k.shape[1];
    p->values = v.shape[3];
    if (k.shape[0] != p->batch || k.shape[2] != p->heads || k.shape[3] != p->depth)
        return spec.fail("'%s' does not fit the queries '%s'", k.name, q.name);
    if (v.shape[0] != p->batch || v.shape[1] != p->keys || v.shape[2] != p->heads)
        return spec.fail("'%s' does not fit the keys '%s'", v.name, k.name);
    if (y.shape[0] != p->batch || y.shape[1] != p->queries || y.shape[2] != p->heads || y.shape[3] != p->values)
        return spec.fail("'%s' should have the shape of '%s' with %lld values a head", y.name, q.name,
                         static_cast<long long>(p->values));
    if (p->depth > kMaxDepth || p->values > kMaxDepth)
        return spec.fail("heads of %lld and %lld numbers, at most %lld are supported", static_cast<long long>(p->depth),
                         static_cast<long long>(p->values), static_cast<long long>(kMaxDepth));
    if (p->mask && !read_mask(spec, *p))
        return false;
    p->panels = up(p->queries, kPanelLanes);
    constexpr size_t kRow = kPanelLanes * sizeof(float);
    p->scores_offset = static_cast<size_t>(p->depth) * kRow;
    p->sums_offset = p->scores_offset + kKeys * kRow;
    const size_t scratch = p->sums_offset + static_cast<size_t>(p->values) * kRow;
    return finish<Body>(spec, kernel, p, static_cast<size_t>(p->batch * p->heads * p->panels), scratch);
}

}  // namespace

extern const Operator attention;
const Operator attention{"attention", create};

}  // namespace reef::cpu::REEF_ISA
