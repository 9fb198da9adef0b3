// SPDX-License-Identifier: Apache-2.0
// The functions that the compiler fuses into the end of an operator, and the element-wise operator's own (kernels/README.md).
//
// One vector in, one vector out, accurate to a few units in the last place. An operator keeps an ActivationSpec in its
// parameters and calls activate_all() on a run of floats, or apply<kind>() where it has chosen the kind itself.
#pragma once
#include "kernel.hpp"
#include "simd.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

enum class Activation : uint8_t {
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
    reciprocal,
    floor,
    ceil,
    round,
    erf,
    softplus,
    softsign,
    mish,
    selu,
    celu,
    sign,
    thresholded_relu,
};

struct ActivationSpec {
    Activation kind = Activation::none;
    float alpha = 0;
    float beta = 0;
};

struct ActivationName {
    const char* name;
    Activation kind;
    float alpha;  // where the attribute is missing
    float beta;
};

constexpr float kInfinity = __builtin_inff();
constexpr ActivationName kActivations[] = {
    {"none", Activation::none, 0, 0},
    {"relu", Activation::relu, 0, 0},
    {"clip", Activation::clip, -kInfinity, kInfinity},
    {"leaky_relu", Activation::leaky_relu, 0.01F, 0},
    {"prelu", Activation::prelu, 0, 0},
    {"sigmoid", Activation::sigmoid, 0, 0},
    {"silu", Activation::silu, 0, 0},
    {"hard_sigmoid", Activation::hard_sigmoid, 0.2F, 0.5F},
    {"hard_swish", Activation::hard_swish, 0, 0},
    {"tanh", Activation::tanh, 0, 0},
    {"gelu", Activation::gelu, 0, 0},
    {"gelu_tanh", Activation::gelu_tanh, 0, 0},
    {"elu", Activation::elu, 1, 0},
    {"exp", Activation::exp, 0, 0},
    {"log", Activation::log, 0, 0},
    {"sqrt", Activation::sqrt, 0, 0},
    {"abs", Activation::abs, 0, 0},
    {"neg", Activation::neg, 0, 0},
    {"reciprocal", Activation::reciprocal, 0, 0},
    {"floor", Activation::floor, 0, 0},
    {"ceil", Activation::ceil, 0, 0},
    {"round", Activation::round, 0, 0},
    {"erf", Activation::erf, 0, 0},
    {"softplus", Activation::softplus, 0, 0},
    {"softsign", Activation::softsign, 0, 0},
    {"mish", Activation::mish, 0, 0},
    {"selu", Activation::selu, 1.67326319F, 1.05070102F},
    {"celu", Activation::celu, 1, 0},
    {"sign", Activation::sign, 0, 0},
    {"thresholded_relu", Activation::thresholded_relu, 1, 0},
};

REEF_INLINE bool same_text(const char* a, const char* b) {
    while (*a != 0 && *a == *b) {
        ++a;
        ++b;
    }
    return *a == *b;
}

// Reads `activation`, `alpha` and `beta`. prelu needs an argument of its own, which the operator checks.
REEF_INLINE bool read_activation(Spec& spec, ActivationSpec& activation) {
    const char* name = spec.string("activation", "none");
    for (const ActivationName& known : kActivations) {
        if (same_text(name, known.name)) {
            activation.kind = known.kind;
            activation.alpha = static_cast<float>(spec.number("alpha", known.alpha));
            activation.beta = static_cast<float>(spec.number("beta", known.beta));
            return true;
        }
    }
    return spec.fail("unknown activation '%.40s'", name);
}

// ---- elementary functions

// e^x: x = n ln 2 + r, |r| <= ln 2 / 2, the series in r, scaled in two steps so that the ends of the range are exact.
REEF_INLINE Vec exponential(Vec x) {
    x = min(splat(89.0F), max(splat(-104.0F), x));
    const Vec n = round_even(x * 1.44269504F);
    Vec r = fma(n, splat(-0.693359375F), x);
    r = fma(n, splat(2.12194440e-4F), r);
    Vec p = splat(1.0F / 5040);
    p = fma(p, r, splat(1.0F / 720));
    p = fma(p, r, splat(1.0F / 120));
    p = fma(p, r, splat(1.0F / 24));
    p = fma(p, r, splat(1.0F / 6));
    p = fma(p, r, splat(0.5F));
    p = fma(p * r, r, r) + 1.0F;
    // A lane that is not a number converts to INT32_MIN: the scales are junk, and the product is still not a number.
    const IVec whole = to_int(n);
    const IVec half = whole >> 1;
    const Vec low = Vec((half + 127) << 23);
    const Vec high = Vec((whole - half + 127) << 23);
    return p * low * high;
}

REEF_INLINE Vec logarithm(Vec x) {
    const IVec tiny = x < splat(1.17549435e-38F);
    const Vec scaled = tiny ? x * 33554432.0F : x;
    // The mantissa between sqrt(1/2) and sqrt(2): f = m - 1 is small on both sides.
    const IVec bits = IVec(scaled) - 0x3F3504F3;
    const Vec exponent = to_float(bits >> 23) - (tiny ? splat(25.0F) : splat(0.0F));
    const Vec f = Vec((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0F;
    Vec p = splat(0.06971611471F);
    p = fma(p, f, splat(-0.1147973385F));
    p = fma(p, f, splat(0.1168541992F));
    p = fma(p, f, splat(-0.1242568733F));
    p = fma(p, f, splat(0.1424905765F));
    p = fma(p, f, splat(-0.1666780232F));
    p = fma(p, f, splat(0.2000071575F));
    p = fma(p, f, splat(-0.2499999696F));
    p = fma(p, f, splat(0.3333333118F));
    const Vec square = f * f;
    Vec y = p * f * square;
    y = fma(exponent, splat(-2.12194440e-4F), y);
    y = fma(square, splat(-0.5F), y);
    y = fma(exponent, splat(0.693359375F), f + y);
    y = x == splat(kInfinity) ? x : y;
    y = x == splat(0.0F) ? splat(-kInfinity) : y;
    return x >= splat(0.0F) ? y : splat(__builtin_nanf(""));
}

REEF_INLINE Vec logistic(Vec x) { return 1.0F / (1.0F + exponential(-x)); }

REEF_INLINE Vec hyperbolic_tangent(Vec x) {
    const Vec magnitude = absolute(x);
    const Vec square = x * x;
    Vec p = splat(0.002292744816F);
    p = fma(p, square, splat(-0.008343945516F));
    p = fma(p, square, splat(0.02176891865F));
    p = fma(p, square, splat(-0.05395925958F));
    p = fma(p, square, splat(0.1333330356F));
    p = fma(p, square, splat(-0.3333333317F));
    const Vec near = fma(p * square, x, x);
    const Vec far = with_sign(1.0F - 2.0F / (exponential(magnitude + magnitude) + 1.0F), x);
    return magnitude > splat(0.625F) ? far : near;
}

REEF_INLINE Vec error_function(Vec x) {
    const Vec magnitude = absolute(x);
    const Vec square = x * x;
    Vec near = splat(-9.667044571e-6F);
    near = fma(near, square, splat(0.0001126595903F));
    near = fma(near, square, splat(-0.0008484080406F));
    near = fma(near, square, splat(0.005221031808F));
    near = fma(near, square, splat(-0.02686543073F));
    near = fma(near, square, splat(0.112837825F));
    near = fma(near, square, splat(-0.3761263847F));
    near = fma(near, square, splat(1.128379167F)) * x;
    // Beyond 4 the complement is below half a unit in the last place of 1.
    const Vec bounded = min(splat(4.0F), magnitude);
    const Vec t = 1.0F / fma(bounded, splat(0.5F), splat(1.0F));
    Vec q = splat(0.01276844593F);
    q = fma(q, t, splat(0.06918565974F));
    q = fma(q, t, splat(-0.3857788877F));
    q = fma(q, t, splat(0.480926299F));
    q = fma(q, t, splat(-0.05446760269F));
    q = fma(q, t, splat(0.3292060511F));
    q = fma(q, t, splat(0.2640456529F));
    q = fma(q, t, splat(0.2843341703F));
    q = fma(q, t, splat(-0.0001208947218F));
    const Vec far = with_sign(1.0F - q * exponential(-bounded * bounded), x);
    return magnitude > splat(1.0F) ? far : near;
}

// ln(1 + e^x) without overflow: max(x, 0) + ln(1 + e^-|x|), with ln(1 + u) = ln(w) u / (w - 1), w = 1 + u rounded.
REEF_INLINE Vec soft_plus(Vec x) {
    const Vec u = exponential(-absolute(x));
    const Vec w = 1.0F + u;
    const Vec gained = w - 1.0F;
    const Vec tail = gained > splat(0.0F) ? logarithm(w) * (u / gained) : u;
    return max(splat(0.0F), x) + tail;
}

// e^x - 1, accurate near zero: tanh(x/2) (e^x + 1).
REEF_INLINE Vec exponential_minus_one(Vec x) {
    const Vec big = exponential(x);
    return absolute(x) < splat(0.5F) ? hyperbolic_tangent(x * 0.5F) * (big + 1.0F) : big - 1.0F;
}

// ---- the functions by name

template <Activation kKind> REEF_INLINE Vec apply(Vec x, Vec alpha, Vec beta) {
    const Vec zero{};
    switch (kKind) {
    case Activation::none:
        return x;
    case Activation::relu:
        return max(zero, x);
    case Activation::clip:
        return min(beta, max(alpha, x));
    case Activation::leaky_relu:
    case Activation::prelu:
        return x < zero ? x * alpha : x;
    case Activation::sigmoid:
        return logistic(x);
    case Activation::silu:
        return x * logistic(x);
    case Activation::hard_sigmoid:
        return min(splat(1.0F), max(zero, fma(alpha, x, beta)));
    case Activation::hard_swish:
        return x * min(splat(1.0F), max(zero, fma(x, splat(1.0F / 6), splat(0.5F))));
    case Activation::tanh:
        return hyperbolic_tangent(x);
    case Activation::gelu:
        return 0.5F * x * (1.0F + error_function(x * 0.707106781F));
    case Activation::gelu_tanh: {
        const Vec inner = 0.797884561F * fma(x * x * 0.044715F, x, x);
        return 0.5F * x * (1.0F + hyperbolic_tangent(inner));
    }
    case Activation::elu:
        return x < zero ? alpha * exponential_minus_one(x) : x;
    case Activation::exp:
        return exponential(x);
    case Activation::log:
        return logarithm(x);
    case Activation::sqrt:
        return square_root(x);
    case Activation::abs:
        return absolute(x);
    case Activation::neg:
        return -x;
    case Activation::reciprocal:
        return 1.0F / x;
    case Activation::floor:
        return floor(x);
    case Activation::ceil:
        return ceil(x);
    case Activation::round:
        return round_even(x);
    case Activation::erf:
        return error_function(x);
    case Activation::softplus:
        return soft_plus(x);
    case Activation::softsign:
        return x / (1.0F + absolute(x));
    case Activation::mish:
        return x * hyperbolic_tangent(soft_plus(x));
    case Activation::selu:
        return beta * (x > zero ? x : alpha * exponential_minus_one(x));
    case Activation::celu:
        return max(zero, x) + min(zero, alpha * exponential_minus_one(x / alpha));
    case Activation::sign:
        return x > zero ? splat(1.0F) : (x < zero ? splat(-1.0F) : x);
    case Activation::thresholded_relu:
        return x > alpha ? x : zero;
    }
    return x;
}

template <Activation kKind> void apply_all(const float* x, float* y, int64_t count, float alpha, float beta) {
    const Vec a = splat(alpha);
    const Vec b = splat(beta);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        store(y + i, apply<kKind>(load(x + i), a, b));
    }
    if (i < count) {
        const int rest = static_cast<int>(count - i);
        store_first(y + i, apply<kKind>(load_first(x + i, rest), a, b), rest);
    }
}

// y may be x. prelu takes alpha as its slope.
[[maybe_unused]] __attribute__((noinline)) void activate_all(const ActivationSpec& activation, const float* x, float* y,
                                                             int64_t count) {
    using Loop = void (*)(const float*, float*, int64_t, float, float);
    static constexpr Loop loops[] = {
        apply_all<Activation::none>,       apply_all<Activation::relu>,         apply_all<Activation::clip>,
        apply_all<Activation::leaky_relu>, apply_all<Activation::prelu>,        apply_all<Activation::sigmoid>,
        apply_all<Activation::silu>,       apply_all<Activation::hard_sigmoid>, apply_all<Activation::hard_swish>,
        apply_all<Activation::tanh>,       apply_all<Activation::gelu>,         apply_all<Activation::gelu_tanh>,
        apply_all<Activation::elu>,        apply_all<Activation::exp>,          apply_all<Activation::log>,
        apply_all<Activation::sqrt>,       apply_all<Activation::abs>,          apply_all<Activation::neg>,
        apply_all<Activation::reciprocal>, apply_all<Activation::floor>,        apply_all<Activation::ceil>,
        apply_all<Activation::round>,      apply_all<Activation::erf>,          apply_all<Activation::softplus>,
        apply_all<Activation::softsign>,   apply_all<Activation::mish>,         apply_all<Activation::selu>,
        apply_all<Activation::celu>,       apply_all<Activation::sign>,         apply_all<Activation::thresholded_relu>,
    };
    static_assert(sizeof loops / sizeof *loops == sizeof kActivations / sizeof *kActivations);
    loops[static_cast<int>(activation.kind)](x, y, count, activation.alpha, activation.beta);
}

// An end that is only a bound, or a slope for what is negative, is done in registers; anything else needs a pass of its own.
struct Bounds {
    float low, high;
    bool bent;
};

REEF_INLINE bool simple_end(const ActivationSpec& activation, Bounds& bounds) {
    bounds = {-kInfinity, kInfinity, false};
    switch (activation.kind) {
    case Activation::none:
        return true;
    case Activation::relu:
        bounds.low = 0;
        return true;
    case Activation::clip:
        bounds.low = activation.alpha;
        bounds.high = activation.beta;
        return true;
    case Activation::leaky_relu:
    case Activation::prelu:
        bounds.bent = true;
        return true;
    default:
        return false;
    }
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
