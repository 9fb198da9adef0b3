// SPDX-License-Identifier: Apache-2.0
// scan: running sums (or products) along `axis`; from the end with `reverse`, without the element itself with `exclusive`.
#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 16384;  // elements of a block, about
constexpr size_t kStep = 2048;   // elements between two check points

struct Params {
    DType dtype;
    bool product, reverse, exclusive;
    size_t extent, inner, lines, per_block;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        size_t from = args.block * p.per_block, to = smaller(from + p.per_block, p.lines);
        return with_number(p.dtype, [&]<class T>(Tag<T>) {
            for (size_t line = from; line < to; line++) {
                size_t at = line / p.inner * p.extent * p.inner + line % p.inner;
                const T* x = static_cast<const T*>(args.args[0]) + at;
                T* y = static_cast<T*>(args.args[1]) + at;
                T held = p.product ? T{1} : T{0};
                for (size_t i = 0; i < p.extent; i++) {
                    if (i % kStep == 0 && check.stale())
                        return false;
                    size_t place = (p.reverse ? p.extent - 1 - i : i) * p.inner;
                    T next;
                    if constexpr (is_float<T>)
                        next = p.product ? held * x[place] : held + x[place];
                    else
                        next =
                            static_cast<T>(p.product ? static_cast<uint64_t>(held) * static_cast<uint64_t>(x[place])
                                                     : static_cast<uint64_t>(held) + static_cast<uint64_t>(x[place]));
                    y[place] = p.exclusive ? held : next;
                    held = next;
                }
            }
            return true;
        });
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1) || !check_same_dtype(spec))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    int64_t axis = spec.integer("axis", 0);
    const char* function = spec.string("function", "sum");
    bool product = strcmp(function, "prod") == 0;
    if (!product && strcmp(function, "sum") != 0)
        return spec.fail("unknown function '%.40s'", function);
    if (axis < 0 || axis >= static_cast<int64_t>(x.rank) || !same_shape(x, y))
        return spec.fail("axis %lld", static_cast<long long>(axis));
    if (!with_number(x.dtype, [](auto) { return true; }))
        return spec.fail("'%s' has a type that cannot be added", x.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->dtype = x.dtype;
    p->product = product;
    p->reverse = spec.integer("reverse", 0) != 0;
    p->exclusive = spec.integer("exclusive", 0) != 0;
    p->extent = static_cast<size_t>(x.shape[axis]);
    p->inner = 1;
    for (uint32_t d = static_cast<uint32_t>(axis) + 1; d < x.rank; d++)
        p->inner *= static_cast<size_t>(x.shape[d]);
    p->lines = elements(x) / p->extent;
    p->per_block = p->extent >= kWork ? 1 : kWork / p->extent;
    return finish<Body>(spec, kernel, p, ceil_div(p->lines, p->per_block));
}

}  // namespace

extern const Operator scan;
const Operator scan{"scan", create};

}  // namespace reef::cpu::REEF_ISA
