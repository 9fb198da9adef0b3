// SPDX-License-Identifier: Apache-2.0
// slice: place i of axis d of y is place starts[d] + i * steps[d] of x; any type. Steps may be negative.
#include "strided.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1) || !check_same_dtype(spec))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    int64_t starts[8], steps[8], stride[8];
    int rank = static_cast<int>(x.rank);
    if (x.rank != y.rank)
        return spec.fail("'%s' and '%s' differ in rank", x.name, y.name);
    if (!read_list(spec, "starts", starts, rank, 0) || !read_list(spec, "steps", steps, rank, 1))
        return false;
    StridedCopy* p = allocate<StridedCopy>(spec);
    if (!p)
        return false;
    p->rank = x.rank;
    p->item = item_size(x.dtype);
    dense_strides(x, stride);
    for (uint32_t d = 0; d < x.rank; d++) {
        constexpr int64_t kLimit = int64_t{1} << 40;  // keeps the product below within 64 bits
        if (steps[d] <= -kLimit || steps[d] >= kLimit || y.shape[d] > kLimit >> 18)
            if (y.shape[d] > 1)
                return spec.fail("step %lld of axis %u", static_cast<long long>(steps[d]), d);
        int64_t last = y.shape[d] == 1 ? starts[d] : starts[d] + (y.shape[d] - 1) * steps[d];
        if (starts[d] < 0 || starts[d] >= x.shape[d] || last < 0 || last >= x.shape[d])
            return spec.fail("places %lld to %lld of an axis of %lld", static_cast<long long>(starts[d]),
                             static_cast<long long>(last), static_cast<long long>(x.shape[d]));
        p->start += starts[d] * stride[d];
        p->shape[d] = static_cast<size_t>(y.shape[d]);
        p->stride[d] = y.shape[d] == 1 ? 0 : steps[d] * stride[d];
    }
    return finish_strided(spec, kernel, p);
}

}  // namespace

extern const Operator slice;
const Operator slice{"slice", create};

}  // namespace reef::cpu::REEF_ISA
