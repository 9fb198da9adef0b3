// SPDX-License-Identifier: Apache-2.0
// arg_reduce: where the largest (`max`) or smallest (`min`) value along `axis` is, as int64; the first of equals, or the last
// with `last`. y has extent 1 along the axis.
#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 32 << 10;  // elements read by a block, about
constexpr size_t kStep = 4 << 10;   // elements read between two check points, about

struct Params {
    DType dtype;
    bool largest, last;
    size_t extent, inner, results, per_block;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        int64_t* y = static_cast<int64_t*>(args.args[1]);
        size_t from = args.block * p.per_block, to = smaller(from + p.per_block, p.results), since = kStep;
        return with_number(p.dtype, [&]<class T>(Tag<T>) {
            for (size_t result = from; result < to; result++) {
                const T* x =
                    static_cast<const T*>(args.args[0]) + result / p.inner * p.extent * p.inner + result % p.inner;
                size_t best = 0;
                for (size_t i = 0; i < p.extent; i++, since++) {
                    if (since >= kStep) {
                        if (check.stale())
                            return false;
                        since = 0;
                    }
                    T value = x[i * p.inner], held = x[best * p.inner];
                    if ((p.largest ? value > held : value < held) || (p.last && value == held))
                        best = i;
                }
                y[result] = static_cast<int64_t>(best);
            }
            return true;
        });
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    int64_t axis = spec.integer("axis", 0);
    const char* function = spec.string("function", "max");
    bool largest = strcmp(function, "max") == 0;
    if (!largest && strcmp(function, "min") != 0)
        return spec.fail("unknown function '%.40s'", function);
    if (x.rank != y.rank || axis < 0 || axis >= static_cast<int64_t>(x.rank) || y.dtype != DType::i64)
        return spec.fail("axis %lld, '%s' must be int64 of the rank of '%s'", static_cast<long long>(axis), y.name,
                         x.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->inner = 1;
    for (uint32_t d = 0; d < x.rank; d++) {
        bool along = static_cast<int64_t>(d) == axis;
        if (y.shape[d] != (along ? 1 : x.shape[d]))
            return spec.fail("axis %u of '%s' has extent %lld", d, y.name, static_cast<long long>(y.shape[d]));
        if (static_cast<int64_t>(d) > axis)
            p->inner *= static_cast<size_t>(x.shape[d]);
    }
    if (!with_number(x.dtype, [](auto) { return true; }))
        return spec.fail("'%s' has a type that cannot be compared", x.name);
    p->dtype = x.dtype;
    p->largest = largest;
    p->last = spec.integer("last", 0) != 0;
    p->extent = static_cast<size_t>(x.shape[axis]);
    p->results = elements(y);
    p->per_block = p->extent >= kWork ? 1 : kWork / p->extent;
    return finish<Body>(spec, kernel, p, ceil_div(p->results, p->per_block));
}

}  // namespace

extern const Operator arg_reduce;
const Operator arg_reduce{"arg_reduce", create};

}  // namespace reef::cpu::REEF_ISA
