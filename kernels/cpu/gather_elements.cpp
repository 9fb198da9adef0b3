// SPDX-License-Identifier: Apache-2.0
// gather_elements: y has the shape of the indices; each replaces its own place along `axis`. Any type; an index outside the
// axis gives 0.
#include "dispatch.hpp"
#include "indexing.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 8192;  // elements of a block
constexpr size_t kStep = 1024;   // elements between two check points

struct Params {
    DType dtype;
    uint32_t rank, axis;
    size_t count, extent;
    size_t shape[8], stride[8];  // of the indices; of x
    bool wide;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        Indices indices{args.args[1], p.wide};
        size_t from = args.block * kBlock, to = smaller(from + kBlock, p.count);
        return with_size(p.dtype, [&]<class T>(Tag<T>) {
            const T* x = static_cast<const T*>(args.args[0]);
            T* y = static_cast<T*>(args.args[2]);
            for (size_t i = from; i < to; i++) {
                if ((i - from) % kStep == 0 && check.stale())
                    return false;
                size_t at = 0, rest = i;
                for (uint32_t d = p.rank; d-- > 0; rest /= p.shape[d])
                    if (d != p.axis)
                        at += rest % p.shape[d] * p.stride[d];
                int64_t place = indices.place(i, static_cast<int64_t>(p.extent));
                y[i] = place < 0 ? T{0} : x[at + static_cast<size_t>(place) * p.stride[p.axis]];
            }
            return true;
        });
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 2) || !check_indices(spec, spec.tensor(1)))
        return false;
    const TensorView &x = spec.tensor(0), &indices = spec.tensor(1), &y = spec.tensor(2);
    int64_t axis = spec.integer("axis", 0);
    if (axis < 0 || axis >= static_cast<int64_t>(x.rank) || x.rank != indices.rank || !same_shape(indices, y) ||
        x.dtype != y.dtype)
        return spec.fail("'%s', '%s' and '%s' do not fit", x.name, indices.name, y.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->dtype = x.dtype;
    p->rank = x.rank;
    p->axis = static_cast<uint32_t>(axis);
    p->count = elements(y);
    p->extent = static_cast<size_t>(x.shape[axis]);
    p->wide = indices.dtype == DType::i64;
    for (uint32_t d = 0; d < x.rank; d++) {
        if (static_cast<int64_t>(d) != axis && indices.shape[d] > x.shape[d])
            return spec.fail("axis %u of '%s' is longer than that of '%s'", d, indices.name, x.name);
        p->shape[d] = static_cast<size_t>(indices.shape[d]);
        p->stride[d] = extent_of(x, d + 1, x.rank);
    }
    return finish<Body>(spec, kernel, p, ceil_div(p->count, kBlock));
}

}  // namespace

extern const Operator gather_elements;
const Operator gather_elements{"gather_elements", create};

}  // namespace reef::cpu::REEF_ISA
