// SPDX-License-Identifier: Apache-2.0
// The activation functions of kernels/README.md, on floats.
#pragma once

enum class Activation {
    none, relu, clip, leaky_relu, sigmoid, silu, hard_sigmoid, hard_swish, tanh, gelu, gelu_tanh, elu, exp, log, sqrt,
    reciprocal, neg, abs, square, softplus, erf, mish, floor, ceil,
    round, sign, softsign, selu, celu, thresholded_relu, sin, cos,
};

REEF_DEVICE float exponential(float x) { return exp2_fast(x * 1.4426950408889634f); }
REEF_DEVICE float logistic(float x) { return reciprocal(1.0f + exponential(-x)); }
REEF_DEVICE float hyperbolic_tangent(float x) {
    // Near zero the quotient below cancels; the odd series is exact to a float there.
    float s = x * x;
    if (s < 0.01f) return x * (1.0f + s * (-0.33333334f + s * (0.13333334f - s * 0.053968254f)));
    float e = exponential(-2.0f * (x < 0 ? -x : x));
    float t = (1.0f - e) * reciprocal(1.0f + e);
    return x < 0 ? -t : t;
}
// Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
REEF_DEVICE float error_function(float x) {
    float a = x < 0 ? -x : x;
    float t = reciprocal(1.0f + 0.3275911f * a);
    float p = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    float y = 1.0f - p * exponential(-a * a);
    return x < 0 ? -y : y;
}

REEF_DEVICE float whole_below(float x) {
    if (!(x > -8388608.0f && x < 8388608.0f)) return x;  // has no fraction, or is not a number
    float t = (float)(int)x;
    return t > x ? t - 1 : t;
}
REEF_DEVICE float nearest_whole(float x) {
    float below = whole_below(x), rest = x - below;
    bool odd = below * 0.5f != whole_below(below * 0.5f);
    return rest > 0.5f || (rest == 0.5f && odd) ? below + 1 : below;
}
// sin(x + quarters * pi / 2): the argument is reduced by pi / 2 in three parts (Cody and Waite), then the Taylor polynomials.
// Within 1e-6 for arguments up to some thousands.
REEF_DEVICE float sine(float x, int quarters) {
    float k = nearest_whole(x * 0.63661977f);
    float r = fused_multiply_add(k, -1.5707855f, x);
    r = fused_multiply_add(k, -1.0804334e-5f, r);
    r = fused_multiply_add(k, -6.0770943e-11f, r);
    float s = r * r;
    int turn = ((int)k + quarters) & 3;
    float odd = r * (1.0f + s * (-0.16666667f + s * (8.3333333e-3f + s * (-1.9841270e-4f + s * 2.7557319e-6f))));
    float even = 1.0f + s * (-0.5f + s * (4.1666667e-2f + s * (-1.3888889e-3f + s * (2.4801587e-5f - s * 2.7557319e-7f))));
    float y = turn & 1 ? even : odd;
    return turn & 2 ? -y : y;
}

template <Activation A> REEF_DEVICE float activate(float x, float alpha, float beta) {
    if constexpr (A == Activation::relu) return x > 0 ? x : 0;
    if constexpr (A == Activation::clip) return x < alpha ? alpha : x > beta ? beta : x;
    if constexpr (A == Activation::leaky_relu) return x >= 0 ? x : alpha * x;
    if constexpr (A == Activation::sigmoid) return logistic(x);
    if constexpr (A == Activation::silu) return x * logistic(x);
    if constexpr (A == Activation::hard_sigmoid) {
        float y = alpha * x + beta;
        return y < 0 ? 0 : y > 1 ? 1 : y;
    }
    if constexpr (A == Activation::hard_swish) {
        float y = x * (1.0f / 6) + 0.5f;
        return x * (y < 0 ? 0 : y > 1 ? 1 : y);
    }
    if constexpr (A == Activation::tanh) return hyperbolic_tangent(x);
    if constexpr (A == Activation::gelu) return 0.5f * x * (1.0f + error_function(x * 0.70710678f));
    if constexpr (A == Activation::gelu_tanh)
        return 0.5f * x * (1.0f + hyperbolic_tangent(0.7978845608f * (x + 0.044715f * x * x * x)));
    if constexpr (A == Activation::elu) return x >= 0 ? x : alpha * (exponential(x) - 1.0f);
    if constexpr (A == Activation::exp) return exponential(x);
    if constexpr (A == Activation::log) return log2_fast(x) * 0.6931471805599453f;
    if constexpr (A == Activation::sqrt) return root(x);
    if constexpr (A == Activation::reciprocal) return reciprocal(x);
    if constexpr (A == Activation::neg) return -x;
    if constexpr (A == Activation::abs) return x < 0 ? -x : x;
    if constexpr (A == Activation::square) return x * x;
    if constexpr (A == Activation::softplus)
        return (x > 0 ? x : 0) + 0.6931471805599453f * log2_fast(1.0f + exponential(x < 0 ? x : -x));
    if constexpr (A == Activation::erf) return error_function(x);
    if constexpr (A == Activation::mish)
        return x * hyperbolic_tangent((x > 0 ? x : 0) + 0.6931471805599453f * log2_fast(1.0f + exponential(x < 0 ? x : -x)));
    if constexpr (A == Activation::floor) return whole_below(x);
    if constexpr (A == Activation::ceil) return -whole_below(-x);
    if constexpr (A == Activation::round) return nearest_whole(x);
    if constexpr (A == Activation::sign) return x > 0 ? 1.0f : x < 0 ? -1.0f : x;
    if constexpr (A == Activation::softsign) return x / (1.0f + (x < 0 ? -x : x));
    if constexpr (A == Activation::selu) return beta * (x > 0 ? x : alpha * (exponential(x) - 1.0f));
    if constexpr (A == Activation::celu) return x > 0 ? x : alpha * (exponential(x / alpha) - 1.0f);
    if constexpr (A == Activation::thresholded_relu) return x > alpha ? x : 0;
    if constexpr (A == Activation::sin) return sine(x, 0);
    if constexpr (A == Activation::cos) return sine(x, 1);
    return x;
}
