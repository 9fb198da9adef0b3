// SPDX-License-Identifier: Apache-2.0
// cast: every element in another type. A float becomes the integer towards zero; one that does not fit becomes the
// nearest that does, and one that is not a number becomes 0. Anything but 0 is true.
#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 16384;  // elements of a block
constexpr size_t kStep = 2048;    // elements between two check points

struct Bool {};
struct Half {};

struct Params {
    size_t elements;
    uint32_t item_in, item_out;
    void (*row)(const void* x, void* y, size_t count);
};

template <class To, class From> To convert(From value) {
    if constexpr (is_float<From> && !is_float<To>) {
        constexpr int bits = 8 * sizeof(To) - (is_signed<To> ? 1 : 0);
        constexpr double limit = static_cast<double>(uint64_t{1} << (bits - 1)) * 2;
        if (value != value)
            return 0;
        if (static_cast<double>(value) >= limit)
            return static_cast<To>(~uint64_t{0} >> (64 - bits));
        if (static_cast<double>(value) < (is_signed<To> ? -limit : 0.0))
            return is_signed<To> ? static_cast<To>(uint64_t{1} << bits) : To{0};
    }
    return static_cast<To>(value);
}

template <class From, class To> void row(const void* x_, void* y_, size_t count) {
    if constexpr (__is_same(From, Half)) {
        const uint16_t* x = static_cast<const uint16_t*>(x_);
        if constexpr (__is_same(To, Half))
            memcpy(y_, x_, count * 2);
        else if constexpr (__is_same(To, Bool))
            for (size_t i = 0; i < count; i++)
                static_cast<uint8_t*>(y_)[i] = (x[i] & 0x7FFF) != 0;
        else
            for (size_t i = 0; i < count; i++)
                static_cast<To*>(y_)[i] = convert<To>(half_to_float(x[i]));
    } else if constexpr (__is_same(From, Bool)) {
        const uint8_t* x = static_cast<const uint8_t*>(x_);
        if constexpr (__is_same(To, Half))
            for (size_t i = 0; i < count; i++)
                static_cast<uint16_t*>(y_)[i] = x[i] ? 0x3C00 : 0;
        else if constexpr (__is_same(To, Bool))
            memcpy(y_, x_, count);
        else
            for (size_t i = 0; i < count; i++)
                static_cast<To*>(y_)[i] = static_cast<To>(x[i] != 0);
    } else {
        const From* x = static_cast<const From*>(x_);
        if constexpr (__is_same(To, Half))
            for (size_t i = 0; i < count; i++)
                static_cast<uint16_t*>(y_)[i] = float_to_half(static_cast<float>(x[i]));
        else if constexpr (__is_same(To, Bool))
            for (size_t i = 0; i < count; i++)
                static_cast<uint8_t*>(y_)[i] = x[i] != 0;
        else
            for (size_t i = 0; i < count; i++)
                static_cast<To*>(y_)[i] = convert<To>(x[i]);
    }
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
            p.row(x + from * p.item_in, y + from * p.item_out, smaller(kStep, to - from));
        }
        return true;
    }
};

template <class F> bool with_any(DType dtype, const F& f) {
    if (dtype == DType::b)
        return f(Tag<Bool>{});
    if (dtype == DType::f16)
        return f(Tag<Half>{});
    return with_number(dtype, f);
}

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    if (elements(x) != elements(y))
        return spec.fail("'%s' and '%s' differ in size", x.name, y.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->elements = elements(y);
    p->item_in = static_cast<uint32_t>(item_size(x.dtype));
    p->item_out = static_cast<uint32_t>(item_size(y.dtype));
    with_any(x.dtype, [&]<class From>(Tag<From>) {
        return with_any(y.dtype, [&]<class To>(Tag<To>) {
            p->row = row<From, To>;
            return true;
        });
    });
    return finish<Body>(spec, kernel, p, ceil_div(p->elements, kBlock));
}

}  // namespace

extern const Operator cast;
const Operator cast{"cast", create};

}  // namespace reef::cpu::REEF_ISA
