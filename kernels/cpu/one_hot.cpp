// SPDX-License-Identifier: Apache-2.0
// one_hot: along the new axis `axis` the place that an index names gets values[1], the others values[0]; any type of values.
// Indices of any arithmetic type; one outside names no place.
#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 16384;  // elements of a block
constexpr size_t kStep = 1024;    // elements between two check points

struct Params {
    DType dtype, index;
    size_t count, depth, inner;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        size_t from = args.block * kBlock, to = smaller(from + kBlock, p.count);
        return with_size(p.dtype, [&]<class T>(Tag<T>) {
            return with_number(p.index, [&]<class I>(Tag<I>) {
                const I* indices = static_cast<const I*>(args.args[0]);
                const T* values = static_cast<const T*>(args.args[1]);
                T off = values[0], on = values[1];
                T* y = static_cast<T*>(args.args[2]);
                for (size_t i = from; i < to; i++) {
                    if ((i - from) % kStep == 0 && check.stale())
                        return false;
                    double index = static_cast<double>(indices[i / p.inner / p.depth * p.inner + i % p.inner]);
                    double depth = static_cast<double>(p.depth), place = static_cast<double>(i / p.inner % p.depth);
                    y[i] = (index < 0 ? index + depth : index) == place ? on : off;
                }
                return true;
            });
        });
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 2))
        return false;
    const TensorView &indices = spec.tensor(0), &values = spec.tensor(1), &y = spec.tensor(2);
    int64_t axis = spec.integer("axis", 0);
    if (axis < 0 || axis >= static_cast<int64_t>(y.rank) || elements(values) != 2 || values.dtype != y.dtype ||
        y.rank != indices.rank + 1)
        return spec.fail("'%s', '%s' and '%s' do not fit", indices.name, values.name, y.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->dtype = y.dtype;
    p->index = indices.dtype;
    p->count = elements(y);
    p->depth = static_cast<size_t>(y.shape[axis]);
    p->inner = 1;
    for (uint32_t d = static_cast<uint32_t>(axis) + 1; d < y.rank; d++)
        p->inner *= static_cast<size_t>(y.shape[d]);
    if (elements(indices) * p->depth != p->count || !with_number(indices.dtype, [](auto) { return true; }))
        return spec.fail("'%s' has another size or type", indices.name);
    return finish<Body>(spec, kernel, p, ceil_div(p->count, kBlock));
}

}  // namespace

extern const Operator one_hot;
const Operator one_hot{"one_hot", create};

}  // namespace reef::cpu::REEF_ISA
