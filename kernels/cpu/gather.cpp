// SPDX-License-Identifier: Apache-2.0
// gather: the places of axis `axis` of x that the indices name; any type. An index outside the axis gives zeros.
#include "indexing.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 64 << 10;  // bytes of y, about
constexpr size_t kStep = 8 << 10;    // bytes between two check points

struct Params {
    size_t indices, extent, inner;  // inner: bytes of one place
    size_t rows, per_block;
    bool wide;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        const char* x = static_cast<const char*>(args.args[0]);
        Indices indices{args.args[1], p.wide};
        char* y = static_cast<char*>(args.args[2]);
        size_t from = args.block * p.per_block, to = smaller(from + p.per_block, p.rows), since = kStep;
        for (size_t row = from; row < to; row++) {
            int64_t place = indices.place(row % p.indices, static_cast<int64_t>(p.extent));
            const char* source =
                x + (row / p.indices * p.extent + static_cast<size_t>(place < 0 ? 0 : place)) * p.inner;
            for (size_t done = 0; done < p.inner;) {
                if (since >= kStep) {
                    if (check.stale())
                        return false;
                    since = 0;
                }
                size_t piece = smaller(p.inner - done, kStep);
                if (place < 0)
                    memset(y + row * p.inner + done, 0, piece);
                else
                    memcpy(y + row * p.inner + done, source + done, piece);
                done += piece;
                since += piece + 64;
            }
        }
        return true;
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 2) || !check_indices(spec, spec.tensor(1)))
        return false;
    const TensorView &x = spec.tensor(0), &indices = spec.tensor(1), &y = spec.tensor(2);
    int64_t given = spec.integer("axis", 0);
    if (given < 0 || given >= static_cast<int64_t>(x.rank))
        return spec.fail("axis %lld", static_cast<long long>(given));
    uint32_t axis = static_cast<uint32_t>(given);
    bool fits = x.dtype == y.dtype && y.rank == x.rank - 1 + indices.rank;
    for (uint32_t d = 0; fits && d < y.rank; d++) {
        int64_t wanted = d < axis                  ? x.shape[d]
                         : d < axis + indices.rank ? indices.shape[d - axis]
                                                   : x.shape[d - indices.rank + 1];
        fits = y.shape[d] == wanted;
    }
    if (!fits)
        return spec.fail("'%s' has not the shape that '%s' and '%s' give", y.name, x.name, indices.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->indices = elements(indices);
    p->extent = static_cast<size_t>(x.shape[axis]);
    p->inner = extent_of(x, axis + 1, x.rank) * item_size(x.dtype);
    p->rows = extent_of(x, 0, axis) * p->indices;
    p->wide = indices.dtype == DType::i64;
    p->per_block = p->inner >= kBlock ? 1 : kBlock / p->inner;
    return finish<Body>(spec, kernel, p, ceil_div(p->rows, p->per_block));
}

}  // namespace

extern const Operator gather;
const Operator gather{"gather", create};

}  // namespace reef::cpu::REEF_ISA
