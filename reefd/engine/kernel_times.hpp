// SPDX-License-Identifier: Apache-2.0
// How long each kernel of a model takes on the whole device when nothing runs beside it: from its profile, and corrected by
// what its windows took. What has neither is guessed.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace reef {

class KernelTimes {
public:
    static constexpr uint64_t kGuessNs = 250'000;  // short enough for a few kernels in the first window

    // `profile` is empty or has one time for each kernel; `blocks` of each; `units` of the device.
    void set(const std::vector<uint64_t>& profile, const std::vector<uint32_t>& blocks, uint32_t units);

    // Of kernel `kernel` on `units` compute units: it takes as many times longer as it needs more rounds of blocks. Where a
    // unit holds several blocks at once that is too much (ResNet-50 on 16 of the 132 units of an H200: 3.9 times in place of
    // 8), so what a part of the device takes by this rule is learned apart: it says nothing of the whole.
    uint64_t estimate_ns(uint32_t kernel, uint32_t units) const {
        const uint64_t known = known_ns_[kernel] != 0 ? known_ns_[kernel] : kGuessNs;
        const uint64_t by_rounds = known * rounds(kernel, units) / rounds(kernel, units_);
        return units == units_ ? known : std::max<uint64_t>(1, by_rounds * split_scale_ / kWhole);
    }
    // The compute units that kernels [first, last) can use of `units`, on average.
    uint64_t width(uint32_t first, uint32_t last, uint32_t units) const;
    // Kernels [first, last) took `took_ns` on `units` compute units, where `estimate_ns` was expected.
    void learn(uint32_t first, uint32_t last, uint32_t units, uint64_t estimate_ns, uint64_t took_ns);

private:
    static constexpr uint64_t kWhole = 1024;  // a scale of one
    static constexpr uint64_t kLeastScale = kWhole / 64, kMostScale = kWhole * 64;

    uint64_t rounds(uint32_t kernel, uint32_t units) const { return (blocks_[kernel] + units - 1) / units; }

    std::vector<uint64_t> known_ns_;  // 0: neither measured nor seen
    std::vector<uint32_t> blocks_;
    uint32_t units_ = 1;
    uint64_t split_scale_ = kWhole;  // of estimates for a part of the device
};

}  // namespace reef
