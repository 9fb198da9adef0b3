// SPDX-License-Identifier: Apache-2.0
// The operators of one instruction set. One line for each operator file, in alphabetical order.
#include "kernel.hpp"

#define REEF_OPERATORS(entry) entry(binary) entry(unary)

#define REEF_JOIN_(a, b) a##b
#define REEF_JOIN(a, b) REEF_JOIN_(a, b)

namespace reef::cpu {

namespace REEF_ISA {
#define REEF_DECLARE(name) extern const Operator name;
REEF_OPERATORS(REEF_DECLARE)
}  // namespace REEF_ISA

namespace {
// Addresses, not copies: the table is complete when the module is mapped, and no code runs to fill it.
#define REEF_ENTRY(name) &REEF_ISA::name,
const Operator* const table[] = {REEF_OPERATORS(REEF_ENTRY) nullptr};
}  // namespace

OperatorTable REEF_JOIN(operators_, REEF_ISA)() { return table; }

}  // namespace reef::cpu
