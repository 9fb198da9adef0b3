// SPDX-License-Identifier: Apache-2.0
// The scenarios, by file. Each fails by CHECK, or by never ending.
#pragma once
#include "stress.hpp"

namespace stress {

struct Arguments {
    uint32_t workers;
    uint32_t rounds;
    uint64_t seed;
};
using Scenario = void(const Arguments&);

// stress_exact.cpp
Scenario every_kernel, random_instants, redone, real_time, generations, retirement, shield, gate;
// stress_units.cpp
Scenario units, units_untreated, unit_windows, unit_shield, same_block;
// stress_order.cpp
Scenario real_time_first, stale_behind_real_time, plain_window, side_by_side, splits, uncovered, wakes_for_kernels,
    scheduling_class, purse, no_allocation;
// stress_signals.cpp
Scenario sleeping, arming;
// stress_class.cpp
Scenario urged;

}  // namespace stress
