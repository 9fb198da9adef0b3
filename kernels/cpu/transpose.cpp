// SPDX-License-Identifier: Apache-2.0
// transpose: axis d of y is axis perm[d] of x; any type. With the identity it is a copy.
#include "strided.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1) || !check_same_dtype(spec))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    int64_t perm[8];
    if (x.rank != y.rank || spec.integers("perm", perm, 8) != static_cast<int>(x.rank))
        return spec.fail("perm must have one axis for each of '%s'", x.name);
    StridedCopy* p = allocate<StridedCopy>(spec);
    if (!p)
        return false;
    p->rank = x.rank;
    p->item = item_size(x.dtype);
    int64_t stride[8];
    dense_strides(x, stride);
    bool seen[8] = {};
    for (uint32_t d = 0; d < y.rank; d++) {
        if (perm[d] < 0 || perm[d] >= static_cast<int64_t>(x.rank) || seen[perm[d]])
            return spec.fail("perm is no permutation");
        seen[perm[d]] = true;
        if (y.shape[d] != x.shape[perm[d]])
            return spec.fail("'%s' has not the shape of '%s' permuted", y.name, x.name);
        p->shape[d] = static_cast<size_t>(y.shape[d]);
        p->stride[d] = stride[perm[d]];
    }
    return finish_strided(spec, kernel, p);
}

}  // namespace

extern const Operator transpose;
const Operator transpose{"transpose", create};

}  // namespace reef::cpu::REEF_ISA
