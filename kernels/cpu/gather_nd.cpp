// SPDX-License-Identifier: Apache-2.0
// gather_nd: the last axis of the indices names a place in the axes of x after the first `batch_dims`; any type. A place
// outside gives zeros.
#include "indexing.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 64 << 10;  // bytes of y, about

struct Params {
    uint32_t depth;                    // indices to a place
    size_t batch, per_batch, x_batch;  // places; places in a batch; bytes of x in a batch
    size_t inner;                      // bytes of a place
    int64_t extent[8];
    size_t stride[8];  // bytes
    size_t per_block;
    bool wide;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        Indices indices{args.args[1], p.wide};
        size_t from = args.block * p.per_block, to = smaller(from + p.per_block, p.batch * p.per_batch);
        for (size_t row = from; row < to; row++) {
            if (check.stale())
                return false;
            const char* source = static_cast<const char*>(args.args[0]) + row / p.per_batch * p.x_batch;
            bool inside = true;
            for (uint32_t d = 0; d < p.depth; d++) {
                int64_t place = indices.place(row * p.depth + d, p.extent[d]);
                inside = inside && place >= 0;
                source += static_cast<size_t>(place < 0 ? 0 : place) * p.stride[d];
            }
            char* y = static_cast<char*>(args.args[2]) + row * p.inner;
            if (inside)
                memcpy(y, source, p.inner);
            else
                memset(y, 0, p.inner);
        }
        return true;
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 2) || !check_indices(spec, spec.tensor(1)))
        return false;
    const TensorView &x = spec.tensor(0), &indices = spec.tensor(1), &y = spec.tensor(2);
    int64_t batch = spec.integer("batch_dims", 0);
    if (indices.rank == 0 || batch < 0 || batch >= static_cast<int64_t>(indices.rank) ||
        batch >= static_cast<int64_t>(x.rank))
        return spec.fail("batch_dims %lld", static_cast<long long>(batch));
    int64_t depth = indices.shape[indices.rank - 1];
    if (depth > static_cast<int64_t>(x.rank) - batch || x.dtype != y.dtype)
        return spec.fail("'%s' names %lld axes", indices.name, static_cast<long long>(depth));
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    uint32_t first = static_cast<uint32_t>(batch);
    p->depth = static_cast<uint32_t>(depth);
    p->wide = indices.dtype == DType::i64;
    p->batch = extent_of(x, 0, first);
    if (extent_of(indices, 0, first) != p->batch)
        return spec.fail("'%s' and '%s' differ in their batch", x.name, indices.name);
    p->per_batch = extent_of(indices, first, indices.rank - 1);
    p->x_batch = extent_of(x, first, x.rank) * item_size(x.dtype);
    p->inner = extent_of(x, first + p->depth, x.rank) * item_size(x.dtype);
    for (uint32_t d = 0; d < p->depth; d++) {
        p->extent[d] = x.shape[first + d];
        p->stride[d] = extent_of(x, first + d + 1, x.rank) * item_size(x.dtype);
    }
    if (y.bytes != p->batch * p->per_batch * p->inner)
        return spec.fail("'%s' has not the size that the indices give", y.name);
    p->per_block = p->inner >= kBlock ? 1 : kBlock / p->inner / 4 + 1;
    return finish<Body>(spec, kernel, p, ceil_div(p->batch * p->per_batch, p->per_block));
}

}  // namespace

extern const Operator gather_nd;
const Operator gather_nd{"gather_nd", create};

}  // namespace reef::cpu::REEF_ISA
