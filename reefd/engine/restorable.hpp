// SPDX-License-Identifier: Apache-2.0
// Which kernel instances may be begun again after they were abandoned, and what has to be saved for those that may not.
//
// Restorable: in the whole instance, no block (itself included) writes what any block reads, and nothing is written twice.
// What an instance reads and writes is declared in the operators' table; of an operator that is not in it, by the resource,
// and an argument that nobody declares counts as read and written. The same is checked, and proved at length, by
// reefd/resource/restorable.py.
#pragma once
#include <vector>

#include "model.hpp"

namespace reef {

// By kernel. ModelError, with the kernel's name and the bytes, for an instance that has no right answer however it is run
// (blocks of it read or write what other blocks write), and for one that uses an argument otherwise than its operator.
std::vector<Unit> find_units(const ModelSpec& spec);

}  // namespace reef
