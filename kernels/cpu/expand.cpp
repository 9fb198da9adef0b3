// SPDX-License-Identifier: Apache-2.0
// expand: y repeats x along axes of extent 1, and along leading axes that x lacks, as NumPy broadcasts; any type.
#include "strided.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1) || !check_same_dtype(spec))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    if (x.rank > y.rank)
        return spec.fail("'%s' has more axes than '%s'", x.name, y.name);
    StridedCopy* p = allocate<StridedCopy>(spec);
    if (!p)
        return false;
    p->rank = y.rank;
    p->item = item_size(x.dtype);
    int64_t stride[8];
    dense_strides(x, stride);
    uint32_t missing = y.rank - x.rank;
    for (uint32_t d = 0; d < y.rank; d++) {
        int64_t extent = d < missing ? 1 : x.shape[d - missing];
        if (extent != 1 && extent != y.shape[d])
            return spec.fail("'%s' does not broadcast to '%s'", x.name, y.name);
        p->shape[d] = static_cast<size_t>(y.shape[d]);
        p->stride[d] = extent == 1 ? 0 : stride[d - missing];
    }
    return finish_strided(spec, kernel, p);
}

}  // namespace

extern const Operator expand;
const Operator expand{"expand", create};

}  // namespace reef::cpu::REEF_ISA
