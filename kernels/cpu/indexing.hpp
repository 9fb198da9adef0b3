// SPDX-License-Identifier: Apache-2.0
// Indices that come with a request. A client may change them while a kernel runs, so each is loaded once and checked.
#pragma once
#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

struct Indices {
    const void* data;
    bool wide;  // int64, else int32
    // The place on an axis of `extent` that index i names, counted from the end where it is negative; -1: none.
    int64_t place(size_t i, int64_t extent) const {
        int64_t index = wide ? __atomic_load_n(static_cast<const int64_t*>(data) + i, __ATOMIC_RELAXED)
                             : __atomic_load_n(static_cast<const int32_t*>(data) + i, __ATOMIC_RELAXED);
        if (index < 0)
            index += extent;
        return index < 0 || index >= extent ? -1 : index;
    }
};

inline bool check_indices(Spec& spec, const TensorView& x) {
    if (x.dtype != DType::i64 && x.dtype != DType::i32)
        return spec.fail("'%s' is not int32 or int64", x.name);
    return true;
}

// The product of a range of a shape.
inline size_t extent_of(const TensorView& x, uint32_t from, uint32_t to) {
    size_t product = 1;
    for (uint32_t d = from; d < to; d++)
        product *= static_cast<size_t>(x.shape[d]);
    return product;
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
