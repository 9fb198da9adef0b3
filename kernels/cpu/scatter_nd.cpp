// SPDX-License-Identifier: Apache-2.0
// scatter_nd: x with updates put at the places that the last axis of the indices names, in their order. A block does a
// range of what lies within a place, for all places, so no two blocks write the same element. A place outside is passed over.
#include "indexing.hpp"
#include "scatter.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kRange = 1024;  // elements within a place, of a block

struct Params {
    DType dtype;
    Reduction reduction;
    uint32_t depth;
    int64_t extent[8];
    size_t stride[8];
    size_t places, inner, updates;
    bool wide;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        Indices indices{args.args[1], p.wide};
        size_t first = args.block * kRange, count = smaller(kRange, p.inner - first), since = kRange;
        return with_update(p.reduction, p.dtype, [&]<class T>(Tag<T>) {
            const T *x = static_cast<const T*>(args.args[0]), *updates = static_cast<const T*>(args.args[2]);
            T* y = static_cast<T*>(args.args[3]);
            auto pause = [&] {
                since += count + 4;
                if (since < kRange)
                    return false;
                since = 0;
                return check.stale();
            };
            for (size_t place = 0; place < p.places; place++) {
                if (pause())
                    return false;
                memcpy(y + place * p.inner + first, x + place * p.inner + first, count * sizeof(T));
            }
            for (size_t update = 0; update < p.updates; update++) {
                if (pause())
                    return false;
                size_t at = first;
                bool inside = true;
                for (uint32_t d = 0; d < p.depth; d++) {
                    int64_t place = indices.place(update * p.depth + d, p.extent[d]);
                    inside = inside && place >= 0;
                    at += static_cast<size_t>(place < 0 ? 0 : place) * p.stride[d];
                }
                for (size_t i = 0; inside && i < count; i++)
                    y[at + i] = updated(p.reduction, y[at + i], updates[update * p.inner + first + i]);
            }
            return true;
        });
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 3) || !check_indices(spec, spec.tensor(1)))
        return false;
    const TensorView &x = spec.tensor(0), &indices = spec.tensor(1), &updates = spec.tensor(2), &y = spec.tensor(3);
    if (indices.rank == 0 || !same_shape(x, y) || x.dtype != y.dtype || x.dtype != updates.dtype)
        return spec.fail("'%s', '%s' and '%s' do not fit", x.name, updates.name, y.name);
    int64_t depth = indices.shape[indices.rank - 1];
    if (depth > static_cast<int64_t>(x.rank))
        return spec.fail("'%s' names %lld axes", indices.name, static_cast<long long>(depth));
    Params* p = allocate<Params>(spec);
    if (!p || !read_reduction(spec, x.dtype, p->reduction))
        return false;
    p->dtype = x.dtype;
    p->depth = static_cast<uint32_t>(depth);
    p->wide = indices.dtype == DType::i64;
    p->inner = extent_of(x, p->depth, x.rank);
    p->places = extent_of(x, 0, p->depth);
    p->updates = extent_of(indices, 0, indices.rank - 1);
    if (elements(updates) != p->updates * p->inner)
        return spec.fail("'%s' has not the size that the indices ask for", updates.name);
    for (uint32_t d = 0; d < p->depth; d++) {
        p->extent[d] = x.shape[d];
        p->stride[d] = extent_of(x, d + 1, x.rank);
    }
    return finish<Body>(spec, kernel, p, ceil_div(p->inner, kRange));
}

}  // namespace

extern const Operator scatter_nd;
const Operator scatter_nd{"scatter_nd", create};

}  // namespace reef::cpu::REEF_ISA
