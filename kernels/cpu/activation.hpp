// SPDX-License-Identifier: Apache-2.0
// Activations: the last step of convolutions and of element-wise operators (kernels/README.md), one value at a time.
// `prelu` takes its slope from an argument; the operator passes it as alpha.
#pragma once
#include <math.h>
#include <string.h>

#include "kernel.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

enum class Activation : uint32_t {
    none,
    relu,
    clip,
    leaky_relu,
    prelu,
    sigmoid,
    silu,
    hard_sigmoid,
    hard_swish,
    tanh,
    gelu,
    gelu_tanh,
    elu,
    exp,
    log,
    sqrt,
    abs,
    neg,
    count
};

constexpr const char* kActivationNames[] = {"none", "relu",         "clip",       "leaky_relu", "prelu", "sigmoid",
                                            "silu", "hard_sigmoid", "hard_swish", "tanh",       "gelu",  "gelu_tanh",
                                            "elu",  "exp",          "log",        "sqrt",       "abs",   "neg"};
static_assert(sizeof kActivationNames / sizeof *kActivationNames == static_cast<size_t>(Activation::count));

struct ActivationSpec {
    Activation kind;
    float alpha;
    float beta;
};

// Reads `activation`, `alpha` and `beta`. false: spec.fail() was called.
inline bool read_activation(Spec& spec, ActivationSpec& activation) {
    const char* name = spec.string("activation", "none");
    uint32_t kind = 0;
    while (kind < static_cast<uint32_t>(Activation::count) && strcmp(name, kActivationNames[kind]) != 0)
        kind++;
    if (kind == static_cast<uint32_t>(Activation::count))
        return spec.fail("unknown activation '%s'", name);
    activation.kind = static_cast<Activation>(kind);
    double alpha = 0, beta = 0;
    switch (activation.kind) {
    case Activation::clip:
        alpha = -INFINITY, beta = INFINITY;
        break;
    case Activation::leaky_relu:
        alpha = 0.01;
        break;
    case Activation::hard_sigmoid:
        alpha = 0.2, beta = 0.5;
        break;
    case Activation::elu:
        alpha = 1;
        break;
    default:
        break;
    }
    activation.alpha = static_cast<float>(spec.number("alpha", alpha));
    activation.beta = static_cast<float>(spec.number("beta", beta));
    return true;
}

template <Activation kind> inline float activate(float x, float alpha, [[maybe_unused]] float beta) {
    if constexpr (kind == Activation::relu)
        return x > 0 ? x : 0;
    if constexpr (kind == Activation::clip)
        return x < alpha ? alpha : x > beta ? beta : x;
    if constexpr (kind == Activation::leaky_relu || kind == Activation::prelu)
        return x >= 0 ? x : alpha * x;
    if constexpr (kind == Activation::sigmoid)
        return 1 / (1 + expf(-x));
    if constexpr (kind == Activation::silu)
        return x / (1 + expf(-x));
    if constexpr (kind == Activation::hard_sigmoid) {
        float y = alpha * x + beta;
        return y < 0 ? 0 : y > 1 ? 1 : y;
    }
    if constexpr (kind == Activation::hard_swish) {
        float y = x + 3;
        return x * (y < 0 ? 0 : y > 6 ? 6 : y) * (1.0f / 6);
    }
    if constexpr (kind == Activation::tanh)
        return tanhf(x);
    if constexpr (kind == Activation::gelu)
        return 0.5f * x * (1 + erff(x * 0.70710678118654752f));
    if constexpr (kind == Activation::gelu_tanh)
        return 0.5f * x * (1 + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    if constexpr (kind == Activation::elu)
        return x >= 0 ? x : alpha * expm1f(x);
    if constexpr (kind == Activation::exp)
        return expf(x);
    if constexpr (kind == Activation::log)
        return logf(x);
    if constexpr (kind == Activation::sqrt)
        return sqrtf(x);
    if constexpr (kind == Activation::abs)
        return fabsf(x);
    if constexpr (kind == Activation::neg)
        return -x;
    return x;
}

// Calls f with the activation as a template argument: f.template operator()<kind>().
template <class F> inline void with_activation(Activation kind, const F& f) {
    switch (kind) {
#define REEF_CASE(name)                                                                                                \
    case Activation::name:                                                                                             \
        f.template operator()<Activation::name>();                                                                     \
        return;
        REEF_CASE(none)
        REEF_CASE(relu)
        REEF_CASE(clip)
        REEF_CASE(leaky_relu)
        REEF_CASE(prelu)
        REEF_CASE(sigmoid)
        REEF_CASE(silu)
        REEF_CASE(hard_sigmoid)
        REEF_CASE(hard_swish)
        REEF_CASE(tanh)
        REEF_CASE(gelu)
        REEF_CASE(gelu_tanh)
        REEF_CASE(elu)
        REEF_CASE(exp)
        REEF_CASE(log)
        REEF_CASE(sqrt)
        REEF_CASE(abs)
        REEF_CASE(neg)
#undef REEF_CASE
    case Activation::count:
        return;
    }
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
