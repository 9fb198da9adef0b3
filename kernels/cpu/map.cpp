// SPDX-License-Identifier: Apache-2.0
// map: y = function(x), one element at a time; the functions and types that unary, the vectorised one, does not have.
#include <math.h>

#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 4096;  // elements of a block
constexpr size_t kStep = 512;    // elements between two check points

struct Params {
    size_t elements;
    uint32_t item_in, item_out;
    double alpha, beta;
    void (*row)(const void* x, void* y, size_t count, double alpha, double beta);
};

// Each function is a type with a name, what it is for, and a formula. Real ones are computed in double.
#define REEF_REAL(id, formula)                                                                                         \
    struct id {                                                                                                        \
        static double real(double x, [[maybe_unused]] double alpha, [[maybe_unused]] double beta) { return formula; }  \
    };
REEF_REAL(Relu, x > 0 ? x : x == x ? 0 : x)
REEF_REAL(Clip, x<alpha ? alpha : x> beta ? beta : x)
REEF_REAL(LeakyRelu, x < 0 ? alpha * x : x)
REEF_REAL(Sigmoid, 1 / (1 + ::exp(-x)))
REEF_REAL(Silu, x / (1 + ::exp(-x)))
REEF_REAL(HardSigmoid, ::fmin(1, ::fmax(0, alpha* x + beta)))
REEF_REAL(HardSwish, x* ::fmin(1, ::fmax(0, x / 6 + 0.5)))
REEF_REAL(Tanh, ::tanh(x))
REEF_REAL(Gelu, 0.5 * x * (1 + ::erf(x * 0.70710678118654752440)))
REEF_REAL(GeluTanh, 0.5 * x * (1 + ::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x))))
REEF_REAL(Elu, x < 0 ? alpha * ::expm1(x) : x)
REEF_REAL(Celu, ::fmax(0, x) + ::fmin(0, alpha* ::expm1(x / alpha)))
REEF_REAL(Selu, beta*(x > 0 ? x : alpha * ::expm1(x)))
REEF_REAL(Exp, ::exp(x))
REEF_REAL(Log, ::log(x))
REEF_REAL(Sqrt, ::sqrt(x))
REEF_REAL(Reciprocal, 1 / x)
REEF_REAL(Floor, ::floor(x))
REEF_REAL(Ceil, ::ceil(x))
REEF_REAL(Round, ::nearbyint(x))
REEF_REAL(Erf, ::erf(x))
REEF_REAL(Softplus, ::fmax(x, 0) + ::log1p(::exp(-::fabs(x))))
REEF_REAL(Softsign, x / (1 + ::fabs(x)))
REEF_REAL(Mish, x* ::tanh(::fmax(x, 0) + ::log1p(::exp(-::fabs(x)))))
REEF_REAL(ThresholdedRelu, x > alpha ? x : 0)
REEF_REAL(Sin, ::sin(x))
REEF_REAL(Cos, ::cos(x))
REEF_REAL(Tan, ::tan(x))
REEF_REAL(Asin, ::asin(x))
REEF_REAL(Acos, ::acos(x))
REEF_REAL(Atan, ::atan(x))
REEF_REAL(Sinh, ::sinh(x))
REEF_REAL(Cosh, ::cosh(x))
REEF_REAL(Asinh, ::asinh(x))
REEF_REAL(Acosh, ::acosh(x))
REEF_REAL(Atanh, ::atanh(x))
#undef REEF_REAL

template <class F, class T> void real_row(const void* x, void* y, size_t count, double alpha, double beta) {
    for (size_t i = 0; i < count; i++)
        static_cast<T*>(y)[i] = static_cast<T>(F::real(static_cast<double>(static_cast<const T*>(x)[i]), alpha, beta));
}

// Those that have a meaning for integers, exact for each type.
struct Abs {
    template <class T> static T value(T x, double, double) {
        if constexpr (is_float<T>)
            return static_cast<T>(::fabs(static_cast<double>(x)));
        else
            return x < 0 ? static_cast<T>(0 - static_cast<uint64_t>(x)) : x;
    }
};
struct Neg {
    template <class T> static T value(T x, double, double) {
        if constexpr (is_float<T>)
            return -x;
        else
            return static_cast<T>(0 - static_cast<uint64_t>(x));
    }
};
struct Sign {
    template <class T> static T value(T x, double, double) { return x > 0 ? T{1} : x < 0 ? static_cast<T>(-1) : x; }
};
struct IntegerRelu {
    template <class T> static T value(T x, double, double) { return x > 0 ? x : T{0}; }
};
struct BitNot {
    template <class T> static T value(T x, double, double) {
        if constexpr (is_float<T>)
            return x;
        else
            return static_cast<T>(~x);
    }
};
// x beyond +-alpha moved by beta towards zero, 0 between.
struct Shrink {
    template <class T> static T value(T x, double alpha, double beta) {
        double real = static_cast<double>(x);
        return real < -alpha ? static_cast<T>(real + beta) : real > alpha ? static_cast<T>(real - beta) : T{0};
    }
};

template <class F, class T> void exact_row(const void* x, void* y, size_t count, double alpha, double beta) {
    for (size_t i = 0; i < count; i++)
        static_cast<T*>(y)[i] = F::template value<T>(static_cast<const T*>(x)[i], alpha, beta);
}

// Those that answer a question.
struct Not {
    static bool test(uint8_t x, double, double) { return !x; }
};
struct IsNan {
    static bool test(double x, double, double) { return x != x; }
};
struct IsInf {
    static bool test(double x, double negative, double positive) {
        return (positive != 0 && x > 1.7976931348623157e308) || (negative != 0 && x < -1.7976931348623157e308);
    }
};

template <class F, class T> void test_row(const void* x, void* y, size_t count, double alpha, double beta) {
    for (size_t i = 0; i < count; i++)
        static_cast<uint8_t*>(y)[i] = F::test(static_cast<const T*>(x)[i], alpha, beta);
}

using Row = void (*)(const void*, void*, size_t, double, double);

struct Entry {
    const char* name;
    Row f32, f64;  // real functions and tests
};

#define REEF_ENTRY(name, id) {name, real_row<id, float>, real_row<id, double>},
constexpr Entry kReal[] = {
    REEF_ENTRY("relu", Relu) REEF_ENTRY("clip", Clip) REEF_ENTRY("leaky_relu", LeakyRelu) REEF_ENTRY("sigmoid", Sigmoid)
        REEF_ENTRY("silu", Silu) REEF_ENTRY("hard_sigmoid", HardSigmoid) REEF_ENTRY("hard_swish", HardSwish)
            REEF_ENTRY("tanh", Tanh) REEF_ENTRY("gelu", Gelu) REEF_ENTRY("gelu_tanh", GeluTanh) REEF_ENTRY("elu", Elu)
                REEF_ENTRY("celu", Celu) REEF_ENTRY("selu", Selu) REEF_ENTRY("exp", Exp) REEF_ENTRY("log", Log)
                    REEF_ENTRY("sqrt", Sqrt) REEF_ENTRY("reciprocal", Reciprocal) REEF_ENTRY("floor", Floor)
                        REEF_ENTRY("ceil", Ceil) REEF_ENTRY("round", Round) REEF_ENTRY("erf", Erf)
                            REEF_ENTRY("softplus", Softplus) REEF_ENTRY("softsign", Softsign) REEF_ENTRY("mish", Mish)
                                REEF_ENTRY("thresholded_relu", ThresholdedRelu) REEF_ENTRY("sin", Sin)
                                    REEF_ENTRY("cos", Cos) REEF_ENTRY("tan", Tan) REEF_ENTRY("asin", Asin)
                                        REEF_ENTRY("acos", Acos) REEF_ENTRY("atan", Atan) REEF_ENTRY("sinh", Sinh)
                                            REEF_ENTRY("cosh", Cosh) REEF_ENTRY("asinh", Asinh)
                                                REEF_ENTRY("acosh", Acosh) REEF_ENTRY("atanh", Atanh)};
#undef REEF_ENTRY
constexpr Entry kTests[] = {
    {"is_nan", test_row<IsNan, float>, test_row<IsNan, double>},
    {"is_inf", test_row<IsInf, float>, test_row<IsInf, double>},
};

template <class F> Row exact(DType dtype) {
    Row row = nullptr;
    with_number(dtype, [&]<class T>(Tag<T>) {
        row = exact_row<F, T>;
        return true;
    });
    return row;
}

Row find(const char* name, DType in, DType out) {
    bool real = in == DType::f32 || in == DType::f64;
    if (in == DType::b || out == DType::b) {
        if (in == DType::b && out == DType::b && strcmp(name, "not") == 0)
            return test_row<Not, uint8_t>;
        for (const Entry& entry : kTests)
            if (real && out == DType::b && strcmp(name, entry.name) == 0)
                return in == DType::f32 ? entry.f32 : entry.f64;
        return nullptr;
    }
    if (in != out)
        return nullptr;
    if (strcmp(name, "abs") == 0)
        return exact<Abs>(in);
    if (strcmp(name, "neg") == 0)
        return exact<Neg>(in);
    if (strcmp(name, "sign") == 0)
        return exact<Sign>(in);
    if (strcmp(name, "shrink") == 0)
        return exact<Shrink>(in);
    if (!real && strcmp(name, "relu") == 0)
        return exact<IntegerRelu>(in);
    if (!real && strcmp(name, "bit_not") == 0)
        return exact<BitNot>(in);
    for (const Entry& entry : kReal)
        if (real && strcmp(name, entry.name) == 0)
            return in == DType::f32 ? entry.f32 : entry.f64;
    return nullptr;
}

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        const char* x = static_cast<const char*>(args.args[0]);
        char* y = static_cast<char*>(args.args[1]);
        size_t from = args.block * kBlock, to = smaller(from + kBlock, p.elements);
        for (; from < to; from += kStep) {
            if (check.stale())
                return false;
            p.row(x + from * p.item_in, y + from * p.item_out, smaller(kStep, to - from), p.alpha, p.beta);
        }
        return true;
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    if (elements(x) != elements(y))
        return spec.fail("'%s' and '%s' differ in size", x.name, y.name);
    const char* name = spec.string("function", "");
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->row = find(name, x.dtype, y.dtype);
    if (!p->row)
        return spec.fail("function '%.40s' has no kernel for these types", name);
    p->elements = elements(y);
    p->item_in = static_cast<uint32_t>(item_size(x.dtype));
    p->item_out = static_cast<uint32_t>(item_size(y.dtype));
    p->alpha = spec.number("alpha", strcmp(name, "clip") == 0 ? -INFINITY : 0);
    p->beta = spec.number("beta", strcmp(name, "clip") == 0 ? INFINITY : 0);
    return finish<Body>(spec, kernel, p, ceil_div(p->elements, kBlock));
}

}  // namespace

extern const Operator map;
const Operator map{"map", create};

}  // namespace reef::cpu::REEF_ISA
