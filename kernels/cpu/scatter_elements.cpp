// SPDX-License-Identifier: Apache-2.0
// scatter_elements: x with the updates put at the places along `axis` that the indices name, in their order. A block does
// whole lines, so no two blocks write the same element. An index outside the axis is passed over.
#include "indexing.hpp"
#include "scatter.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 8192;  // elements of a block, about

struct Params {
    DType dtype;
    Reduction reduction;
    uint32_t rank, axis;
    size_t shape[8], stride[8];  // of x
    size_t update_shape[8], update_stride[8];
    size_t lines, per_block;
    bool wide;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        Indices indices{args.args[1], p.wide};
        size_t from = args.block * p.per_block, to = smaller(from + p.per_block, p.lines);
        return with_update(p.reduction, p.dtype, [&]<class T>(Tag<T>) {
            const T *x = static_cast<const T*>(args.args[0]), *updates = static_cast<const T*>(args.args[2]);
            T* y = static_cast<T*>(args.args[3]);
            size_t extent = p.shape[p.axis], step = p.stride[p.axis];
            for (size_t line = from; line < to; line++) {
                size_t at = 0, update = 0, rest = line;
                bool touched = true;
                for (uint32_t d = p.rank; d-- > 0;) {
                    if (d == p.axis)
                        continue;
                    size_t place = rest % p.shape[d];
                    rest /= p.shape[d];
                    at += place * p.stride[d];
                    update += place * p.update_stride[d];
                    touched = touched && place < p.update_shape[d];
                }
                for (size_t i = 0; i < extent; i++) {
                    if (i % 1024 == 0 && check.stale())
                        return false;
                    y[at + i * step] = x[at + i * step];
                }
                for (size_t i = 0; touched && i < p.update_shape[p.axis]; i++) {
                    if (i % 1024 == 0 && check.stale())
                        return false;
                    size_t source = update + i * p.update_stride[p.axis];
                    int64_t place = indices.place(source, static_cast<int64_t>(extent));
                    if (place >= 0) {
                        T& held = y[at + static_cast<size_t>(place) * step];
                        held = updated(p.reduction, held, updates[source]);
                    }
                }
            }
            return true;
        });
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 3) || !check_indices(spec, spec.tensor(1)))
        return false;
    const TensorView &x = spec.tensor(0), &indices = spec.tensor(1), &updates = spec.tensor(2), &y = spec.tensor(3);
    int64_t axis = spec.integer("axis", 0);
    if (axis < 0 || axis >= static_cast<int64_t>(x.rank) || !same_shape(x, y) || !same_shape(indices, updates) ||
        indices.rank != x.rank || x.dtype != y.dtype || x.dtype != updates.dtype)
        return spec.fail("'%s', '%s', '%s' and '%s' do not fit", x.name, indices.name, updates.name, y.name);
    Params* p = allocate<Params>(spec);
    if (!p || !read_reduction(spec, x.dtype, p->reduction))
        return false;
    p->dtype = x.dtype;
    p->rank = x.rank;
    p->axis = static_cast<uint32_t>(axis);
    p->wide = indices.dtype == DType::i64;
    for (uint32_t d = 0; d < x.rank; d++) {
        if (d != p->axis && indices.shape[d] > x.shape[d])
            return spec.fail("axis %u of '%s' is longer than that of '%s'", d, indices.name, x.name);
        p->shape[d] = static_cast<size_t>(x.shape[d]);
        p->stride[d] = extent_of(x, d + 1, x.rank);
        p->update_shape[d] = static_cast<size_t>(indices.shape[d]);
        p->update_stride[d] = extent_of(indices, d + 1, x.rank);
    }
    p->lines = elements(x) / p->shape[axis];
    size_t work = p->shape[axis] + p->update_shape[axis];
    p->per_block = work >= kWork ? 1 : kWork / work;
    return finish<Body>(spec, kernel, p, ceil_div(p->lines, p->per_block));
}

}  // namespace

extern const Operator scatter_elements;
const Operator scatter_elements{"scatter_elements", create};

}  // namespace reef::cpu::REEF_ISA
