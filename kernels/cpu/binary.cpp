// SPDX-License-Identifier: Apache-2.0
// binary: y = activation(function(a, b)), broadcasting as NumPy does; float32.
#include <math.h>
#include <string.h>

#include "activation.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 8192;  // elements of a block
constexpr size_t kStep = 1024;   // elements between two check points

enum class Function : uint32_t { add, sub, mul, div, pow, min, max, count };
constexpr const char* kFunctionNames[] = {"add", "sub", "mul", "div", "pow", "min", "max"};
static_assert(sizeof kFunctionNames / sizeof *kFunctionNames == static_cast<size_t>(Function::count));

struct Params {
    size_t elements;
    uint32_t rank;
    size_t shape[8];
    size_t stride_a[8];  // 0 where a is broadcast
    size_t stride_b[8];
    Function function;
    ActivationSpec activation;
};

float compute(Function function, float a, float b) {
    switch (function) {
    case Function::add:
        return a + b;
    case Function::sub:
        return a - b;
    case Function::mul:
        return a * b;
    case Function::div:
        return a / b;
    case Function::pow:
        return powf(a, b);
    case Function::min:
        return a < b || a != a ? a : b;
    case Function::max:
        return a > b || a != a ? a : b;
    case Function::count:
        break;
    }
    return 0;
}

void apply(const Params& p, const float* a, const float* b, float* y, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        size_t rest = i, at_a = 0, at_b = 0;
        for (uint32_t d = p.rank; d-- > 0;) {
            size_t index = rest % p.shape[d];
            rest /= p.shape[d];
            at_a += index * p.stride_a[d];
            at_b += index * p.stride_b[d];
        }
        y[i] = compute(p.function, a[at_a], b[at_b]);
    }
    activate_all(p.activation, y + from, y + from, static_cast<int64_t>(to - from));
}

template <class Check> bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
    const Params& p = *static_cast<const Params*>(kernel.params);
    const float *a = static_cast<const float*>(args.args[0]), *b = static_cast<const float*>(args.args[1]);
    float* y = static_cast<float*>(args.args[2]);
    size_t from = args.block * kBlock, to = from + kBlock < p.elements ? from + kBlock : p.elements;
    for (; from < to; from += kStep) {
        if (check.stale())
            return false;
        size_t end = from + kStep < to ? from + kStep : to;
        apply(p, a, b, y, from, end);
    }
    return true;
}

void run(const Kernel& kernel, const BlockArgs& args) { block(kernel, args, NoCheckpoint{}); }

bool run_preemptible(const Kernel& kernel, const BlockArgs& args, const Checkpoint& check) {
    return block(kernel, args, check);
}

// Strides of x in elements, aligned at the last dimension of y. false: x does not broadcast to y.
bool strides(const TensorView& x, const TensorView& y, size_t* stride) {
    if (x.rank > y.rank)
        return false;
    size_t step = 1;
    for (uint32_t d = y.rank; d-- > 0;) {
        uint32_t missing = y.rank - x.rank;
        int64_t length = d < missing ? 1 : x.shape[d - missing];
        if (length != 1 && length != y.shape[d])
            return false;
        stride[d] = length == 1 ? 0 : step;
        step *= static_cast<size_t>(length);
    }
    return true;
}

bool create(Spec& spec, Kernel& kernel) {
    if (spec.tensors() != 3)
        return spec.fail("has %u arguments, expected 3", spec.tensors());
    for (uint32_t i = 0; i < 3; i++)
        if (spec.tensor(i).dtype != DType::f32)
            return spec.fail("'%s' is not float32", spec.tensor(i).name);
    const TensorView &a = spec.tensor(0), &b = spec.tensor(1), &y = spec.tensor(2);
    if (y.access != Access::write)
        return spec.fail("'%s' must be written", y.name);
    const char* name = spec.string("function", "");
    uint32_t function = 0;
    while (function < static_cast<uint32_t>(Function::count) && strcmp(name, kFunctionNames[function]) != 0)
        function++;
    if (function == static_cast<uint32_t>(Function::count))
        return spec.fail("unknown function '%s'", name);
    Params* params = static_cast<Params*>(spec.allocate(sizeof(Params)));
    if (!params)
        return false;
    if (!read_activation(spec, params->activation))
        return false;
    if (params->activation.kind == Activation::prelu)
        return spec.fail("activation 'prelu' needs a slope: use unary");
    params->function = static_cast<Function>(function);
    params->elements = y.bytes / sizeof(float);
    params->rank = y.rank;
    for (uint32_t d = 0; d < y.rank; d++)
        params->shape[d] = static_cast<size_t>(y.shape[d]);
    if (!strides(a, y, params->stride_a))
        return spec.fail("'%s' does not broadcast to '%s'", a.name, y.name);
    if (!strides(b, y, params->stride_b))
        return spec.fail("'%s' does not broadcast to '%s'", b.name, y.name);
    size_t blocks = (params->elements + kBlock - 1) / kBlock;
    if (blocks > kMaxBlocks)
        return spec.fail("'%s' is too large", y.name);
    kernel = {static_cast<uint32_t>(blocks), 0, params, run, run_preemptible};
    return true;
}

}  // namespace

extern const Operator binary;
const Operator binary{"binary", create};

}  // namespace reef::cpu::REEF_ISA
