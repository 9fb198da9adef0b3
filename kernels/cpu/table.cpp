// SPDX-License-Identifier: Apache-2.0
// The operators of one instruction set. operators.inc lists them: one line for each operator file.
#include "kernel.hpp"

#define REEF_JOIN_(a, b) a##b
#define REEF_JOIN(a, b) REEF_JOIN_(a, b)

namespace reef::cpu {

namespace REEF_ISA {
#define OPERATOR(name, arguments) extern const Operator name;
#include "operators.inc"
#undef OPERATOR
}  // namespace REEF_ISA

namespace {
// Addresses, not copies: the table is complete when the module is mapped, and no code runs to fill it.
#define OPERATOR(name, arguments) &REEF_ISA::name,
const Operator* const table[] = {
#include "operators.inc"
    nullptr};
#undef OPERATOR
}  // namespace

OperatorTable REEF_JOIN(operators_, REEF_ISA)() { return table; }

}  // namespace reef::cpu
