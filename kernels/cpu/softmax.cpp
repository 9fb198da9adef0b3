// SPDX-License-Identifier: Apache-2.0
// softmax: e^x / sum(e^x) along `axis`, or its logarithm with `log`; float32. Three passes over a line that is in the cache:
// the largest value, the exponentials and their sum, the division.
#include "activation.hpp"
#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 16 << 10;  // elements of a block, about
constexpr size_t kStep = 2 << 10;   // elements between two check points

struct Params {
    size_t extent, inner, units, per_block, chunks;
    bool log;
};

struct Body {
    // Lines that lie together.
    template <class Check> static bool row(const Params& p, const float* x, float* y, const Check& check) {
        Vec most = splat(-kInfinity);
        Vec sums{};
        size_t n = p.extent, whole = n / kLanes * kLanes;
        int rest = static_cast<int>(n - whole);
        float top = -kInfinity;
        for (size_t begin = 0; begin < n; begin += kStep) {
            if (check.stale())
                return false;
            size_t i = begin, end = smaller(begin + kStep, whole);
            for (; i < end; i += kLanes)
                most = max(load(x + i), most);
        }
        for (size_t i = whole; i < n; i++)
            top = x[i] > top ? x[i] : top;
        float found = largest(most);
        top = found > top ? found : top;
        float shift = top == -kInfinity || top == kInfinity ? (top > 0 ? top : 0) : top;
        for (size_t begin = 0; begin < n; begin += kStep) {
            if (check.stale())
                return false;
            size_t i = begin, end = smaller(begin + kStep, whole);
            for (; i < end; i += kLanes) {
                Vec e = exponential(load(x + i) - shift);
                sums = sums + e;
                store(y + i, p.log ? load(x + i) - shift : e);
            }
        }
        float total = sum(sums);
        if (rest) {
            Vec shifted = load_first(x + whole, rest) - shift, e = exponential(shifted);
            float tail[kLanes];
            store(tail, e);
            for (int k = 0; k < rest; k++)
                total += tail[k];
            store_first(y + whole, p.log ? shifted : e, rest);
        }
        Vec scale = splat(1.0F / total), offset = logarithm(splat(total));
        for (size_t begin = 0; begin < n; begin += kStep) {
            if (check.stale())
                return false;
            size_t i = begin, end = smaller(begin + kStep, whole);
            for (; i < end; i += kLanes)
                store(y + i, p.log ? load(y + i) - offset : load(y + i) * scale);
        }
        if (rest) {
            Vec value = load_first(y + whole, rest);
            store_first(y + whole, p.log ? value - offset : value * scale, rest);
        }
        return true;
    }

    // Lines that lie apart, kLanes of them side by side.
    template <class Check>
    static bool side_by_side(const Params& p, const float* x, float* y, int lanes, const Check& check) {
        Vec top = splat(-kInfinity), total{};
        for (size_t i = 0; i < p.extent; i++) {
            if (i % 64 == 0 && check.stale())
                return false;
            top = max(load_first(x + i * p.inner, lanes), top);
        }
        top = top == splat(-kInfinity) ? splat(0.0F) : top;
        for (size_t i = 0; i < p.extent; i++) {
            if (i % 64 == 0 && check.stale())
                return false;
            Vec shifted = load_first(x + i * p.inner, lanes) - top, e = exponential(shifted);
            total = total + e;
            store_first(y + i * p.inner, p.log ? shifted : e, lanes);
        }
        Vec scale = 1.0F / total, offset = logarithm(total);
        for (size_t i = 0; i < p.extent; i++) {
            if (i % 64 == 0 && check.stale())
                return false;
            Vec value = load_first(y + i * p.inner, lanes);
            store_first(y + i * p.inner, p.log ? value - offset : value * scale, lanes);
        }
        return true;
    }

    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        const float* x = static_cast<const float*>(args.args[0]);
        float* y = static_cast<float*>(args.args[1]);
        size_t from = args.block * p.per_block, to = smaller(from + p.per_block, p.units);
        for (size_t unit = from; unit < to; unit++) {
            size_t outer = unit / p.chunks, first = unit % p.chunks * kLanes;
            size_t at = outer * p.extent * p.inner + first;
            int lanes = static_cast<int>(smaller(kLanes, p.inner - first));
            if (!(p.inner == 1 ? row(p, x + at, y + at, check) : side_by_side(p, x + at, y + at, lanes, check)))
                return false;
        }
        return true;
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1) || !check_dtype(spec, DType::f32, "float32"))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    int64_t axis = spec.integer("axis", 0);
    if (!same_shape(x, y) || axis < 0 || axis >= static_cast<int64_t>(x.rank))
        return spec.fail("axis %lld, '%s' must have the shape of '%s'", static_cast<long long>(axis), y.name, x.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->log = spec.integer("log", 0) != 0;
    p->extent = static_cast<size_t>(x.shape[axis]);
    p->inner = 1;
    for (uint32_t d = static_cast<uint32_t>(axis) + 1; d < x.rank; d++)
        p->inner *= static_cast<size_t>(x.shape[d]);
    p->chunks = ceil_div(p->inner, kLanes);
    p->units = elements(x) / p->extent / p->inner * p->chunks;
    size_t work = p->extent * smaller(kLanes, p->inner);
    p->per_block = work >= kWork ? 1 : kWork / work;
    return finish<Body>(spec, kernel, p, ceil_div(p->units, p->per_block));
}

}  // namespace

extern const Operator softmax;
const Operator softmax{"softmax", create};

}  // namespace reef::cpu::REEF_ISA
