// SPDX-License-Identifier: Apache-2.0
#include "padding.hpp"

namespace reef {

std::string profile_problem(const ModelProfile& profile, uint32_t kernels, const DeviceInfo& device) {
    const uint32_t granule = device.split_granule;
    if (!profile.kernel_ns.empty() && profile.kernel_ns.size() != kernels) {
        return "it has times of " + std::to_string(profile.kernel_ns.size()) + " kernels, the model has " +
               std::to_string(kernels);
    }
    uint32_t first = 0;
    for (const Segment& segment : profile.padding) {
        if (segment.last <= first || segment.last > kernels) {
            return "padding: a segment ends at kernel " + std::to_string(segment.last) + ", the one before at " +
                   std::to_string(first) + ", the model at " + std::to_string(kernels);
        }
        if (segment.split >= device.compute_units) {
            return "padding: " + std::to_string(segment.split) + " compute units beside the model, the device has " +
                   std::to_string(device.compute_units);
        }
        if (segment.split != 0 && (granule == 0 || segment.split % granule != 0)) {
            return "padding: " + std::to_string(segment.split) + " compute units cannot be set aside: " +
                   (granule == 0 ? "the device has no splits" : "its granule is " + std::to_string(granule));
        }
        if (segment.split > device.split_most) {
            return "padding: " + std::to_string(segment.split) + " compute units cannot be set aside: at most " +
                   std::to_string(device.split_most) + " can";
        }
        first = segment.last;
    }
    return first == 0 || first == kernels ? "" : "padding: the plan ends at kernel " + std::to_string(first);
}

Segment segment_at(std::span<const Segment> padding, uint32_t first, uint32_t kernels) {
    for (const Segment& segment : padding) {
        if (first < segment.last) {
            return segment;
        }
    }
    return {kernels, 0};
}

}  // namespace reef
