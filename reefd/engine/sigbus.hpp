// SPDX-License-Identifier: Apache-2.0
// A client can truncate region C, or punch holes into it while tmpfs is full; the next touch is a SIGBUS in the engine
// thread or in a worker. The handler maps zero pages over the region and counts the fault in the session's word; the
// instruction is repeated and finds zeros. Faults anywhere else go to the handler that was there before.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace reef::sigbus {

inline constexpr uint32_t kRanges = 4096;

void install();  // once for the process; again does nothing

// Guards [base, base + size): a fault in it makes *faulted 1. Returns a handle for release(); -1: the table is full.
int guard(std::byte* base, size_t size, std::atomic<uint32_t>* faulted);
// After the last access and before the range is unmapped.
void release(int handle);

// Counts faults in guarded ranges: the engine looks for marked sessions only when it has changed.
uint32_t faults();

}  // namespace reef::sigbus
