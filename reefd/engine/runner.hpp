// SPDX-License-Identifier: Apache-2.0
// Runs a model on a device without an engine thread: the caller is the engine. For profiling and tests; it can interrupt
// the run wherever asked, and resumes it each time.
#pragma once
#include <random>
#include <span>

#include "device.hpp"

namespace reef {

struct RunOptions {
    bool preemptible = false;                  // else plain kernels, and nothing below matters
    std::span<const uint32_t> interrupt_at{};  // kernel indices in ascending order: each is begun, then interrupted
    uint32_t interrupts = 0;                   // then so many more, one after the other
    uint64_t within_ns = 100'000;              // an interruption comes at a random time after the launch, below this
    uint64_t seed = 1;
};

struct RunReport {
    uint64_t start_ns;
    uint64_t end_ns;
    uint32_t launches;
    uint32_t preempted;         // interruptions that came before the end
    uint64_t vacated_ns_worst;  // longest time from an epoch written to the last block left
};

// Until something retires that the caller has not looked at, at most so long. What it looks at in between is its own.
void sleep_on(Device& device, uint64_t longest_ns = 1'000'000'000);

class Runner {
public:
    // Nobody else may use the real-time queue and `queue` meanwhile.
    explicit Runner(Device& device, QueueId queue = 1) : device_(device), queue_(queue) {}
    RunReport run(Context& context, uint32_t kernels, const Binding& binding, const RunOptions& options);

private:
    // Runs kernels [first unfinished, last) as one window; with `interrupted`, writes the epoch a moment after the launch.
    void window(Context& context, const Binding& binding, uint32_t last, bool interrupted);

    Device& device_;
    const QueueId queue_;
    uint32_t epoch_ = 0;
    RunOptions options_;
    RunReport report_{};
    std::mt19937_64 random_;
};

}  // namespace reef
