// SPDX-License-Identifier: Apache-2.0
// The daemon's CPU device: the best instruction set of this machine.
#include "cpu_device.hpp"

namespace reef {

std::unique_ptr<Device> make_cpu_device(const DeviceOptions& options) {
    return std::make_unique<CpuDevice>(CpuOptions{.isa = choose_isa(""),
                                                  .workers = options.workers,
                                                  .realtime = options.realtime,
                                                  .exclusive = options.exclusive});
}

}  // namespace reef
