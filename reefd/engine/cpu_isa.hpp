// SPDX-License-Identifier: Apache-2.0
// Which operator table this machine runs: portable, avx2 or avx512.
#pragma once
#include <kernel.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace reef {

struct CpuIsa {
    std::string name;
    cpu::OperatorTable operators;
};

// Those that this machine can run, best last.
std::vector<CpuIsa> available_isas();

// The best one; or the one asked for by name, or by the environment variable REEF_CPU_ISA when the name is empty.
// ModelError for one that does not exist or that this machine cannot run.
CpuIsa choose_isa(std::string_view name);

}  // namespace reef
