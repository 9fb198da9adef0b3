// SPDX-License-Identifier: Apache-2.0
// A process that shares this one's memory, has nothing else of it, and ends after it.
//
// When a process dies the kernel takes its memory down before it closes its descriptors, and that takes milliseconds for
// some tens of megabytes: so long a client that polls its socket does not know of the death. While somebody else holds
// the memory there is nothing to take down: the descriptors close at once, and the keeper, which waits for the end of the
// process, takes the memory down behind it.
#pragma once

namespace reef {

// Process-wide, once, by the main thread. False where the kernel refuses it (pidfds are of Linux 5.3, close_range() of
// 5.9): then the death is seen later, and nothing else changes.
bool keep_memory();

}  // namespace reef
