// SPDX-License-Identifier: Apache-2.0
// Which processors threads run on.
#pragma once
#include <vector>

namespace reef {

// Those that the calling thread may use; {-1} where that cannot be told.
std::vector<int> allowed_cpus();

// The calling thread, from now on; -1: leaves it where it may run now.
void pin_to(int cpu);

}  // namespace reef
