// SPDX-License-Identifier: Apache-2.0
// What the operators' table (kernels/cpu/operators.inc) says of the arguments of one kernel instance.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model.hpp"

namespace reef {

struct OperatorArgument {
    std::string name;
    Access access;
    bool in_place;  // read: element i only by the block that writes element i of the result, before it does
};

// One for each of `count` arguments. Nothing for an operator that is not in the table; ModelError, which does not name
// the kernel, where the operator has no such number of arguments.
std::optional<std::vector<OperatorArgument>> operator_arguments(std::string_view op, const Attributes& attributes,
                                                                size_t count);

}  // namespace reef
