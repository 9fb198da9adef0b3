// SPDX-License-Identifier: Apache-2.0
// layer_norm: (x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis; float32. Without `center` the mean is
// not subtracted (the root mean square form). scale and bias are there where their attributes say so.
#include "common.hpp"
#include "simd.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 16 << 10;  // elements of a block, about
constexpr size_t kStep = 4 << 10;   // elements between two check points

struct Params {
    size_t extent, rows, per_block;
    float epsilon;
    bool center, scale, bias;
};

struct Body {
    // sum of (x - from), or of its square.
    template <bool kSquare, class Check>
    static bool total(const float* x, size_t n, float from, const Check& check, float& result) {
        Vec sums{};
        size_t whole = n / kLanes * kLanes;
        for (size_t begin = 0; begin < whole; begin += kStep) {
            if (check.stale())
                return false;
            for (size_t i = begin, end = smaller(begin + kStep, whole); i < end; i += kLanes) {
                Vec d = load(x + i) - from;
                sums = kSquare ? fma(d, d, sums) : sums + d;
            }
        }
        result = sum(sums);
        for (size_t i = whole; i < n; i++)
            result += kSquare ? (x[i] - from) * (x[i] - from) : x[i] - from;
        return true;
    }

    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        int at = 1;
        const float* scale = p.scale ? static_cast<const float*>(args.args[at++]) : nullptr;
        const float* bias = p.bias ? static_cast<const float*>(args.args[at++]) : nullptr;
        size_t n = p.extent, from = args.block * p.per_block, to = smaller(from + p.per_block, p.rows);
        for (size_t row = from; row < to; row++) {
            const float* x = static_cast<const float*>(args.args[0]) + row * n;
            float* y = static_cast<float*>(args.args[at]) + row * n;
            float mean = 0, square = 0;
            if (p.center && !total<false>(x, n, 0, check, mean))
                return false;
            mean /= static_cast<float>(n);
            if (!total<true>(x, n, mean, check, square))
                return false;
            float factor = 1.0F / __builtin_sqrtf(square / static_cast<float>(n) + p.epsilon);
            for (size_t begin = 0; begin < n; begin += kStep) {
                if (check.stale())
                    return false;
                for (size_t i = begin, end = smaller(begin + kStep, n); i < end; i += kLanes) {
                    int lanes = static_cast<int>(smaller(kLanes, end - i));
                    Vec value = (load_first(x + i, lanes) - mean) * factor;
                    if (scale)
                        value = value * load_first(scale + i, lanes);
                    if (bias)
                        value = value + load_first(bias + i, lanes);
                    store_first(y + i, value, lanes);
                }
            }
        }
        return true;
    }
};

bool create(Spec& spec, Kernel& kernel) {
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->scale = spec.integer("scale", 0) != 0;
    p->bias = spec.integer("bias", 0) != 0;
    p->center = spec.integer("center", 1) != 0;
    p->epsilon = static_cast<float>(spec.number("epsilon", 1e-5));
    uint32_t inputs = 1 + p->scale + p->bias;
    if (!check_arguments(spec, inputs) || !check_dtype(spec, DType::f32, "float32"))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(inputs);
    if (x.rank == 0 || !same_shape(x, y))
        return spec.fail("'%s' must have the shape of '%s'", y.name, x.name);
    p->extent = static_cast<size_t>(x.shape[x.rank - 1]);
    for (uint32_t i = 1; i < inputs; i++)
        if (elements(spec.tensor(i)) != p->extent)
            return spec.fail("'%s' must have %zu elements", spec.tensor(i).name, p->extent);
    p->rows = elements(x) / p->extent;
    p->per_block = p->extent >= kWork ? 1 : kWork / p->extent;
    return finish<Body>(spec, kernel, p, ceil_div(p->rows, p->per_block));
}

}  // namespace

extern const Operator layer_norm;
const Operator layer_norm{"layer_norm", create};

}  // namespace reef::cpu::REEF_ISA
