// SPDX-License-Identifier: Apache-2.0
// What the kernels of a model cost on this processor: their times on the device, and the times of their blocks between
// check points. The device must be idle, and nobody else may use it meanwhile.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu_device.hpp"

namespace reef {

// One entry for each kernel instance, one after the other for each round: nanoseconds from the end of the instance before
// to its own. The rounds follow each other without a gap on the real-time queue, so no worker has to be woken for one.
std::vector<uint64_t> kernel_times(CpuDevice& device, const std::shared_ptr<DeviceModel>& model, const Binding& binding,
                                   uint32_t rounds);

struct BlockTimes {
    uint64_t block_ns;  // the longest block
    uint64_t check_ns;  // the longest time between check points; the block's begin and end count as such
    uint64_t copy_ns;   // a unit: the longest piece of its snapshot, saved or put back; 0: restorable
};

// Of each kernel instance: the longest of its blocks and of the pieces of its snapshot, where each block counts with the
// least of `rounds` runs, as far as they are told apart (kBuckets). What an interrupt adds to one run is not the kernel's. The preemptible code runs, on
// `threads` threads at once, which share caches and memory as workers do; before each instance the caches are emptied.
std::vector<BlockTimes> block_times(const std::shared_ptr<DeviceModel>& model, const Binding& binding, uint32_t threads,
                                    uint32_t rounds);

}  // namespace reef
