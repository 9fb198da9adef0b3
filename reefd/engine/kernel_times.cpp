// SPDX-License-Identifier: Apache-2.0
#include "kernel_times.hpp"

namespace reef {

void KernelTimes::set(const std::vector<uint64_t>& profile, const std::vector<uint32_t>& blocks, uint32_t units) {
    known_ns_ = profile;
    known_ns_.resize(blocks.size(), 0);
    blocks_ = blocks;
    units_ = units;
}

uint64_t KernelTimes::width(uint32_t first, uint32_t last, uint32_t units) const {
    uint64_t sum = 0;
    for (uint32_t kernel = first; kernel < last; ++kernel) {
        sum += std::min(blocks_[kernel], units);
    }
    return std::max<uint64_t>(1, sum / std::max(1u, last - first));
}

// Averages that forget by a quarter; the first sight of a kernel counts in full, wherever it was.
void KernelTimes::learn(uint32_t first, uint32_t last, uint32_t units, uint64_t estimate_ns, uint64_t took_ns) {
    const auto end = known_ns_.begin() + last;
    if (units != units_ && std::find(known_ns_.begin() + first, end, 0) == end) {
        const uint64_t seen = split_scale_ * took_ns / std::max<uint64_t>(1, estimate_ns);
        split_scale_ = std::clamp(split_scale_ + seen / 4 - split_scale_ / 4, kLeastScale, kMostScale);
        return;
    }
    for (uint32_t kernel = first; kernel < last; ++kernel) {
        uint64_t& known = known_ns_[kernel];
        const uint64_t old = known != 0 ? known : kGuessNs;
        const uint64_t seen = std::max<uint64_t>(1, old * took_ns / std::max<uint64_t>(1, estimate_ns));
        known = known != 0 ? std::max<uint64_t>(1, old + seen / 4 - old / 4) : seen;
    }
}

}  // namespace reef
