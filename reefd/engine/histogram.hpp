// SPDX-License-Identifier: Apache-2.0
// Latency histograms: eight buckets an octave (12.5 % wide), one writer, any number of readers, no lock.
#pragma once
#include <array>
#include <bit>
#include <cstdint>

#include "sync.hpp"

namespace reef {

class Histogram {
public:
    static constexpr uint32_t kSubBits = 3;
    static constexpr uint32_t kBuckets =
        8 + 8 * 40;  // up to 2^43 ns, more than two hours; longer ones count in the last

    void record(uint64_t ns) {
        sync::add_relaxed<uint64_t>(counts_[index(ns)], 1);
        sync::add_relaxed<uint64_t>(sum_ns_, ns);
        if (ns > max_ns_) {
            sync::store_relaxed(max_ns_, ns);
        }
    }

    uint64_t count(uint32_t bucket) const { return sync::load_relaxed(counts_[bucket]); }
    uint64_t sum_ns() const { return sync::load_relaxed(sum_ns_); }
    uint64_t max_ns() const { return sync::load_relaxed(max_ns_); }

    // The smallest value that no longer belongs to the bucket.
    static uint64_t upper_ns(uint32_t bucket) {
        if (bucket < 8) {
            return bucket + 1;
        }
        const uint32_t octave = (bucket - 8) / 8;
        return uint64_t{9 + (bucket - 8) % 8} << octave;
    }

private:
    static uint32_t index(uint64_t ns) {
        if (ns < 8) {
            return static_cast<uint32_t>(ns);
        }
        const uint32_t octave = static_cast<uint32_t>(std::bit_width(ns)) - 1 - kSubBits;
        const uint32_t bucket = 8 + octave * 8 + static_cast<uint32_t>((ns >> octave) & 7);
        return bucket < kBuckets ? bucket : kBuckets - 1;
    }

    std::array<uint64_t, kBuckets> counts_{};
    uint64_t sum_ns_ = 0;
    uint64_t max_ns_ = 0;
};

}  // namespace reef
