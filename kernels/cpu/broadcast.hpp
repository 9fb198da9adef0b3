// SPDX-License-Identifier: Apache-2.0
// Walking several operands that broadcast to one dense result: the frame of binary and where.
#pragma once
#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWalkBlock = 16384;  // elements of a block
constexpr size_t kWalkStep = 2048;    // elements between two check points

// Neighbouring axes that every operand walks in one go are joined, so the last one is long where it can be.
template <int kOperands> struct Walk {
    uint32_t rank;
    size_t elements;
    size_t shape[8];
    size_t stride[kOperands][8];  // in elements; 0 where an operand is repeated. Along the last axis 0 or 1.

    size_t blocks() const { return ceil_div(elements, kWalkBlock); }

    // Calls row(at, to, count) for runs along the last axis: operand k from at[k], the result from `to`.
    template <class Check, class Row> bool block(uint32_t block, const Check& check, const Row& row) const {
        size_t length = shape[rank - 1], from = block * kWalkBlock, end = smaller(from + kWalkBlock, elements);
        size_t since = kWalkStep;
        while (from < end) {
            if (since >= kWalkStep) {
                if (check.stale())
                    return false;
                since = 0;
            }
            size_t column = from % length, rest = from / length, at[kOperands];
            for (int k = 0; k < kOperands; k++)
                at[k] = column * stride[k][rank - 1];
            for (uint32_t d = rank - 1; d-- > 0; rest /= shape[d])
                for (int k = 0; k < kOperands; k++)
                    at[k] += rest % shape[d] * stride[k][d];
            size_t count = smaller(smaller(length - column, end - from), kWalkStep);
            row(at, from, count);
            from += count;
            since += count + 16;
        }
        return true;
    }
};

// false: spec.fail() was called.
template <int kOperands>
bool plan_walk(Spec& spec, const TensorView* const (&operands)[kOperands], const TensorView& y, Walk<kOperands>& walk) {
    size_t step[kOperands];
    size_t stride[kOperands][8];
    for (int k = 0; k < kOperands; k++) {
        const TensorView& x = *operands[k];
        if (x.rank > y.rank)
            return spec.fail("'%s' has more axes than '%s'", x.name, y.name);
        step[k] = 1;
        for (uint32_t d = y.rank, missing = y.rank - x.rank; d-- > 0;) {
            int64_t extent = d < missing ? 1 : x.shape[d - missing];
            if (extent != 1 && extent != y.shape[d])
                return spec.fail("'%s' does not broadcast to '%s'", x.name, y.name);
            stride[k][d] = extent == 1 ? 0 : step[k];
            step[k] *= static_cast<size_t>(extent);
        }
    }
    walk.rank = 0;
    walk.elements = elements(y);
    for (uint32_t d = 0; d < y.rank; d++) {
        size_t extent = static_cast<size_t>(y.shape[d]);
        if (extent == 1)
            continue;
        bool joins = walk.rank > 0;
        for (int k = 0; joins && k < kOperands; k++)
            joins = walk.stride[k][walk.rank - 1] == stride[k][d] * extent;
        if (!joins)
            walk.shape[walk.rank++] = 1;
        walk.shape[walk.rank - 1] *= extent;
        for (int k = 0; k < kOperands; k++)
            walk.stride[k][walk.rank - 1] = stride[k][d];
    }
    if (walk.rank == 0) {
        walk.rank = 1;
        walk.shape[0] = 1;
        for (int k = 0; k < kOperands; k++)
            walk.stride[k][0] = 0;
    }
    return true;
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
