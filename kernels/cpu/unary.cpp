// SPDX-License-Identifier: Apache-2.0
// unary: y = activation(x), element by element; float32. prelu has a second argument, one slope for each last index.
#include "activation.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 8192;  // elements of a block
constexpr size_t kStep = 1024;   // elements between two check points

struct Params {
    size_t elements;
    size_t channels;
    ActivationSpec activation;
};

template <class Check> bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
    const Params& p = *static_cast<const Params*>(kernel.params);
    bool prelu = p.activation.kind == Activation::prelu;
    const float* x = static_cast<const float*>(args.args[0]);
    const float* slope = prelu ? static_cast<const float*>(args.args[1]) : nullptr;
    float* y = static_cast<float*>(args.args[prelu ? 2 : 1]);
    size_t from = args.block * kBlock, to = from + kBlock < p.elements ? from + kBlock : p.elements;
    for (; from < to; from += kStep) {
        if (check.stale())
            return false;
        size_t end = from + kStep < to ? from + kStep : to;
        if (prelu)
            for (size_t i = from; i < end; i++)
                y[i] = x[i] < 0 ? x[i] * slope[i % p.channels] : x[i];
        else
            activate_all(p.activation, x + from, y + from, static_cast<int64_t>(end - from));
    }
    return true;
}

void run(const Kernel& kernel, const BlockArgs& args) { block(kernel, args, NoCheckpoint{}); }

bool run_preemptible(const Kernel& kernel, const BlockArgs& args, const Checkpoint& check) {
    return block(kernel, args, check);
}

bool create(Spec& spec, Kernel& kernel) {
    ActivationSpec activation{};
    if (!read_activation(spec, activation))
        return false;
    bool prelu = activation.kind == Activation::prelu;
    uint32_t expected = prelu ? 3 : 2;
    if (spec.tensors() != expected)
        return spec.fail("has %u arguments, expected %u", spec.tensors(), expected);
    const TensorView &x = spec.tensor(0), &y = spec.tensor(expected - 1);
    for (uint32_t i = 0; i < expected; i++)
        if (spec.tensor(i).dtype != DType::f32)
            return spec.fail("'%s' is not float32", spec.tensor(i).name);
    if (x.bytes != y.bytes)
        return spec.fail("'%s' and '%s' differ in size", x.name, y.name);
    if (y.access != Access::write)
        return spec.fail("'%s' must be written", y.name);
    size_t channels = x.rank > 0 ? static_cast<size_t>(x.shape[x.rank - 1]) : 1;
    if (prelu && spec.tensor(1).bytes != channels * sizeof(float))
        return spec.fail("'%s' must have one slope for each of %zu channels", spec.tensor(1).name, channels);
    Params* params = static_cast<Params*>(spec.allocate(sizeof(Params)));
    if (!params)
        return false;
    *params = {x.bytes / sizeof(float), channels, activation};
    size_t blocks = (params->elements + kBlock - 1) / kBlock;
    if (blocks > kMaxBlocks)
        return spec.fail("'%s' is too large", x.name);
    kernel = {static_cast<uint32_t>(blocks), 0, params, run, run_preemptible};
    return true;
}

}  // namespace

extern const Operator unary;
const Operator unary{"unary", create};

}  // namespace reef::cpu::REEF_ISA
