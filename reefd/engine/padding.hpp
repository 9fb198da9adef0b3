// SPDX-License-Identifier: Apache-2.0
// What a model's profile tells the scheduler: how long its kernels take, and how many compute units best-effort work may
// have beside it.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "device.hpp"

namespace reef {

// A run of a real-time model's kernels, up to `last`, beside which best-effort work may have `split` compute units.
struct Segment {
    uint32_t last;
    uint32_t split;
};

struct ModelProfile {
    std::vector<uint64_t> kernel_ns;  // of each kernel alone on the whole device; empty: not measured
    std::vector<Segment> padding;     // in order, the last one up to the model's last kernel; empty: no plan
};

// "": it fits the model and the device. Else what is wrong.
std::string profile_problem(const ModelProfile& profile, uint32_t kernels, const DeviceInfo& device);

// The segment that kernel `first` lies in. Without a plan: all that is left of the model, nothing beside it.
Segment segment_at(std::span<const Segment> padding, uint32_t first, uint32_t kernels);

}  // namespace reef
