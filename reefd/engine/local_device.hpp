// SPDX-License-Identifier: Apache-2.0
// A device and the one who launches on it: Python, for profiling and tests.
#pragma once
#include <memory>
#include <vector>

#include "runner.hpp"

namespace reef {

struct LocalDevice {
    explicit LocalDevice(std::unique_ptr<Device> made)
        : owned(std::move(made)), device(*owned), runner(device), marks(device.info().queues) {
        for (QueueId queue = 0; queue < marks.size(); queue++)
            marks[queue] = device.retired(queue);
    }
    const std::unique_ptr<Device> owned;
    Device& device;
    Runner runner;
    std::vector<uint32_t> marks;  // of the last window launched on each queue
};

}  // namespace reef
