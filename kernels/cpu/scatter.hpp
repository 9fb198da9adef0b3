// SPDX-License-Identifier: Apache-2.0
// What scatter_elements and scatter_nd do with an update and what is there already.
#pragma once
#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

enum class Reduction : uint32_t { none, add, mul, min, max };
constexpr const char* kReductionNames[] = {"none", "add", "mul", "min", "max"};

template <class T> T updated(Reduction reduction, T held, T value) {
    switch (reduction) {
    case Reduction::none:
        return value;
    case Reduction::min:
        return value < held ? value : held;
    case Reduction::max:
        return value > held ? value : held;
    case Reduction::add:
        if constexpr (is_float<T>)
            return held + value;
        else
            return static_cast<T>(static_cast<uint64_t>(held) + static_cast<uint64_t>(value));
    case Reduction::mul:
        break;
    }
    if constexpr (is_float<T>)
        return held * value;
    else
        return static_cast<T>(static_cast<uint64_t>(held) * static_cast<uint64_t>(value));
}

// Without a reduction only the size of an element matters.
template <class F> bool with_update(Reduction reduction, DType dtype, const F& f) {
    return reduction == Reduction::none ? with_size(dtype, f) : with_number(dtype, f);
}

inline bool read_reduction(Spec& spec, DType dtype, Reduction& reduction) {
    const char* name = spec.string("reduction", "none");
    int found = find_name(name, kReductionNames);
    if (found < 0)
        return spec.fail("unknown reduction '%.40s'", name);
    reduction = static_cast<Reduction>(found);
    if (!with_update(reduction, dtype, [](auto) { return true; }))
        return spec.fail("reduction %s has no kernel for this type", name);
    return true;
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
