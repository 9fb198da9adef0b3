// SPDX-License-Identifier: Apache-2.0
// binary: y = activation(function(a, b)), broadcasting as NumPy does. Comparisons give bool, whatever they compare; the
// activation is for float32 only. Integer division by zero gives 0: a client's data must not stop the daemon.
#include <math.h>

#include "activation.hpp"
#include "broadcast.hpp"
#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

enum class Function : uint32_t {
    add,
    sub,
    mul,
    div,
    pow,
    min,
    max,
    mod,
    fmod,
    prelu,
    bit_and,
    bit_or,
    bit_xor,
    shift_left,
    shift_right,
    and_,
    or_,
    xor_,
    equal,
    less,
    less_equal,
    greater,
    greater_equal,
};
constexpr const char* kNames[] = {
    "add",  "sub",   "mul",     "div",    "pow",        "min",        "max",           "mod",
    "fmod", "prelu", "bit_and", "bit_or", "bit_xor",    "shift_left", "shift_right",   "and",
    "or",   "xor",   "equal",   "less",   "less_equal", "greater",    "greater_equal",
};

struct Params {
    Walk<2> walk;
    ActivationSpec activation;
    // One run: a and b walk with stride 0 or 1.
    void (*row)(const void* a, size_t step_a, const void* b, size_t step_b, void* y, size_t count);
    uint32_t item_in, item_out;
};

template <class T> T int_pow(T base, T exponent) {
    if constexpr (is_signed<T>)
        if (exponent < 0)
            return base == 1 ? T{1} : base == -1 ? (exponent % 2 ? T(-1) : T{1}) : T{0};
    uint64_t result = 1, factor = static_cast<uint64_t>(base);
    for (uint64_t rest = static_cast<uint64_t>(exponent); rest; rest >>= 1, factor *= factor)
        if (rest & 1)
            result *= factor;
    return static_cast<T>(result);
}

template <class T> T int_div(T a, T b) {
    if (b == 0)
        return 0;
    if constexpr (is_signed<T>)
        if (b == -1)  // the most negative value has no opposite
            return static_cast<T>(0 - static_cast<uint64_t>(a));
    return static_cast<T>(a / b);
}

template <class T> T int_rest(T a, T b) {
    if (b == 0)
        return 0;
    if constexpr (is_signed<T>)
        if (b == -1)
            return 0;
    return static_cast<T>(a % b);
}

template <Function kFunction, class T> auto compute(T a, T b) {
    if constexpr (kFunction == Function::equal)
        return a == b;
    else if constexpr (kFunction == Function::less)
        return a < b;
    else if constexpr (kFunction == Function::less_equal)
        return a <= b;
    else if constexpr (kFunction == Function::greater)
        return a > b;
    else if constexpr (kFunction == Function::greater_equal)
        return a >= b;
    else if constexpr (kFunction == Function::prelu)
        return static_cast<T>(a < 0 ? a * b : a);
    else if constexpr (is_float<T>) {
        if constexpr (kFunction == Function::add)
            return a + b;
        else if constexpr (kFunction == Function::sub)
            return a - b;
        else if constexpr (kFunction == Function::mul)
            return a * b;
        else if constexpr (kFunction == Function::div)
            return a / b;
        else if constexpr (kFunction == Function::min)
            return a != a || a < b ? a : b;
        else if constexpr (kFunction == Function::max)
            return a != a || a > b ? a : b;
        else if constexpr (kFunction == Function::pow)
            return static_cast<T>(::pow(static_cast<double>(a), static_cast<double>(b)));
        else {
            T rest = static_cast<T>(::fmod(static_cast<double>(a), static_cast<double>(b)));
            if constexpr (kFunction == Function::mod)
                return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
            return rest;
        }
    } else {
        // Wrapping, as the hardware does: in unsigned arithmetic, where C++ defines it.
        using U = uint64_t;
        if constexpr (kFunction == Function::add)
            return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
        else if constexpr (kFunction == Function::sub)
            return static_cast<T>(static_cast<U>(a) - static_cast<U>(b));
        else if constexpr (kFunction == Function::mul)
            return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
        else if constexpr (kFunction == Function::div)
            return int_div(a, b);
        else if constexpr (kFunction == Function::min)
            return a < b ? a : b;
        else if constexpr (kFunction == Function::max)
            return a > b ? a : b;
        else if constexpr (kFunction == Function::pow)
            return int_pow(a, b);
        else if constexpr (kFunction == Function::bit_and)
            return static_cast<T>(a & b);
        else if constexpr (kFunction == Function::bit_or)
            return static_cast<T>(a | b);
        else if constexpr (kFunction == Function::bit_xor)
            return static_cast<T>(a ^ b);
        else if constexpr (kFunction == Function::shift_left)
            return static_cast<T>(static_cast<U>(b) < 8 * sizeof(T) ? static_cast<U>(a) << b : 0);
        else if constexpr (kFunction == Function::shift_right)
            return static_cast<T>(static_cast<U>(b) < 8 * sizeof(T) ? a >> b : a < 0 ? -1 : 0);
        else if constexpr (kFunction == Function::and_)
            return static_cast<T>(a && b);
        else if constexpr (kFunction == Function::or_)
            return static_cast<T>(a || b);
        else if constexpr (kFunction == Function::xor_)
            return static_cast<T>(!a != !b);
        else {
            T rest = int_rest(a, b);
            if constexpr (kFunction == Function::mod && is_signed<T>)
                return static_cast<T>(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
            return rest;
        }
    }
}

template <Function kFunction, class T>
void row(const void* a_, size_t step_a, const void* b_, size_t step_b, void* y_, size_t count) {
    using R = decltype(compute<kFunction, T>(T{}, T{}));
    const T *a = static_cast<const T*>(a_), *b = static_cast<const T*>(b_);
    R* y = static_cast<R*>(y_);
    if constexpr (!__is_same(T, float)) {
        // The types that networks seldom compute with: one plain loop each, or the file would take minutes to compile.
        for (size_t i = 0; i < count; i++)
            y[i] = compute<kFunction, T>(a[i * step_a], b[i * step_b]);
    } else if (step_a && step_b) {
        for (size_t i = 0; i < count; i++)
            y[i] = compute<kFunction, T>(a[i], b[i]);
    } else if (step_a) {
        T right = b[0];
        for (size_t i = 0; i < count; i++)
            y[i] = compute<kFunction, T>(a[i], right);
    } else if (step_b) {
        T left = a[0];
        for (size_t i = 0; i < count; i++)
            y[i] = compute<kFunction, T>(left, b[i]);
    } else {
        R same = compute<kFunction, T>(a[0], b[0]);
        for (size_t i = 0; i < count; i++)
            y[i] = same;
    }
}

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        const char *a = static_cast<const char*>(args.args[0]), *b = static_cast<const char*>(args.args[1]);
        char* y = static_cast<char*>(args.args[2]);
        size_t step_a = p.walk.stride[0][p.walk.rank - 1], step_b = p.walk.stride[1][p.walk.rank - 1];
        return p.walk.block(args.block, check, [&](const size_t* at, size_t to, size_t count) {
            char* out = y + to * p.item_out;
            p.row(a + at[0] * p.item_in, step_a, b + at[1] * p.item_in, step_b, out, count);
            if (p.activation.kind != Activation::none)
                activate_all(p.activation, reinterpret_cast<float*>(out), reinterpret_cast<float*>(out),
                             static_cast<int64_t>(count));
        });
    }
};

template <class T> bool choose(Function function, Params& p) {
    // clang-format off
#define REEF_ROW(name) case Function::name: p.row = row<Function::name, T>; return true;
    switch (function) {
        REEF_ROW(add) REEF_ROW(sub) REEF_ROW(mul) REEF_ROW(div) REEF_ROW(pow) REEF_ROW(min) REEF_ROW(max)
        REEF_ROW(mod) REEF_ROW(fmod) REEF_ROW(prelu)
        REEF_ROW(equal) REEF_ROW(less) REEF_ROW(less_equal) REEF_ROW(greater) REEF_ROW(greater_equal)
    default: break;
    }
    if constexpr (!is_float<T>)
        switch (function) {
            REEF_ROW(bit_and) REEF_ROW(bit_or) REEF_ROW(bit_xor) REEF_ROW(shift_left) REEF_ROW(shift_right)
            REEF_ROW(and_) REEF_ROW(or_) REEF_ROW(xor_)
        default: break;
        }
#undef REEF_ROW
    // clang-format on
    return false;
}

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 2))
        return false;
    const TensorView &a = spec.tensor(0), &b = spec.tensor(1), &y = spec.tensor(2);
    const char* name = spec.string("function", "");
    int found = find_name(name, kNames);
    if (found < 0)
        return spec.fail("unknown function '%.40s'", name);
    Function function = static_cast<Function>(found);
    bool compares = function >= Function::equal, logical = function >= Function::and_ && !compares;
    if (a.dtype != b.dtype)
        return spec.fail("'%s' and '%s' differ in type", a.name, b.name);
    if (y.dtype != (compares ? DType::b : a.dtype) || (logical && a.dtype != DType::b) ||
        (a.dtype == DType::b && !logical && function != Function::equal))
        return spec.fail("'%s' has a type that %s does not give", y.name, name);
    Params* p = allocate<Params>(spec);
    if (!p || !plan_walk<2>(spec, {&a, &b}, y, p->walk) || !read_activation(spec, p->activation))
        return false;
    if (p->activation.kind == Activation::prelu)
        return spec.fail("activation 'prelu' needs a slope: use unary");
    if (p->activation.kind != Activation::none && y.dtype != DType::f32)
        return spec.fail("an activation needs float32");
    DType dtype = a.dtype == DType::b ? DType::u8 : a.dtype;
    bool known = with_number(dtype, [&]<class T>(Tag<T>) { return choose<T>(function, *p); });
    if (!known)
        return spec.fail("%s has no kernel for the type of '%s'", name, a.name);
    p->item_in = static_cast<uint32_t>(item_size(a.dtype));
    p->item_out = static_cast<uint32_t>(item_size(y.dtype));
    return finish<Body>(spec, kernel, p, p->walk.blocks());
}

}  // namespace

extern const Operator binary;
const Operator binary{"binary", create};

}  // namespace reef::cpu::REEF_ISA
