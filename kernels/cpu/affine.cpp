// SPDX-License-Identifier: Apache-2.0
// affine: y = activation(x * scale + offset), one scale and offset for each place of the last axis; float32. What is left of
// a batch normalisation that no convolution could take in.
#include "activation.hpp"
#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 16384;  // elements of a block, about
constexpr size_t kStep = 2048;    // elements between two check points

struct Params {
    size_t channels, rows, rows_per_block;
    ActivationSpec activation;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        const float *scale = static_cast<const float*>(args.args[1]), *offset = static_cast<const float*>(args.args[2]);
        size_t from = args.block * p.rows_per_block, to = smaller(from + p.rows_per_block, p.rows), since = kStep;
        for (size_t row = from; row < to; row++) {
            const float* x = static_cast<const float*>(args.args[0]) + row * p.channels;
            float* y = static_cast<float*>(args.args[3]) + row * p.channels;
            for (size_t begin = 0; begin < p.channels; begin += kStep) {
                if (since >= kStep) {
                    if (check.stale())
                        return false;
                    since = 0;
                }
                size_t end = smaller(begin + kStep, p.channels), i = begin;
                for (; i + kLanes <= end; i += kLanes)
                    store(y + i, fma(load(x + i), load(scale + i), load(offset + i)));
                if (i < end) {
                    int lanes = static_cast<int>(end - i);
                    Vec value =
                        fma(load_first(x + i, lanes), load_first(scale + i, lanes), load_first(offset + i, lanes));
                    store_first(y + i, value, lanes);
                }
                if (p.activation.kind == Activation::relu) {
                    for (i = begin; i < end; i++)
                        y[i] = y[i] < 0 ? 0 : y[i];
                } else if (p.activation.kind != Activation::none) {
                    activate_all(p.activation, y + begin, y + begin, static_cast<int64_t>(end - begin));
                }
                since += end - begin + 32;
            }
        }
        return true;
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 3) || !check_dtype(spec, DType::f32, "float32"))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(3);
    if (x.rank == 0 || !same_shape(x, y))
        return spec.fail("'%s' must have the shape of '%s'", y.name, x.name);
    Params* p = allocate<Params>(spec);
    if (!p || !read_activation(spec, p->activation))
        return false;
    if (p->activation.kind == Activation::prelu)
        return spec.fail("activation 'prelu' needs a slope: use unary");
    p->channels = static_cast<size_t>(x.shape[x.rank - 1]);
    for (uint32_t i = 1; i < 3; i++)
        if (elements(spec.tensor(i)) != p->channels)
            return spec.fail("'%s' must have %zu elements", spec.tensor(i).name, p->channels);
    p->rows = elements(x) / p->channels;
    p->rows_per_block = p->channels >= kBlock ? 1 : kBlock / p->channels;
    return finish<Body>(spec, kernel, p, ceil_div(p->rows, p->rows_per_block));
}

}  // namespace

extern const Operator affine;
const Operator affine{"affine", create};

}  // namespace reef::cpu::REEF_ISA
