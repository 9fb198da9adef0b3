// SPDX-License-Identifier: Apache-2.0
// How long best-effort blocks take to leave the workers when real-time work comes: `reefctl bench preempt`. The calling
// thread does what the engine thread does; it needs that thread's scheduling class to measure the same.
#pragma once
#include <array>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "cpu_device.hpp"

namespace reef {

// What best-effort blocks do when real-time work comes.
enum class Leaving : uint8_t {
    at_check_points,  // `reef`, `reset`: the epoch is written, blocks look for it while they run
    at_block_end,     // `wait`: the epoch is written, blocks that have begun finish
    as_it_comes,      // `streams`: nothing; workers that become free take real-time blocks first
    at_request_end,   // `sequential`: real-time work waits for the request
};

struct VacateOptions {
    Leaving leaving;
    uint64_t within_ns;  // real-time work comes at a random time after the launch, below this
    uint64_t seed;
};

struct VacateSample {
    uint64_t latency_ns;  // until the last worker had left the block that it was in; 0: none was in a block
    uint64_t own_ns;      // of it, until this thread had launched the real-time work and went to sleep
    uint64_t timer_ns;    // how late this thread's own timer was: the kernel's and the machine's part
    uint32_t redone;      // the most blocks that one worker abandoned
};

class VacateProbe {
public:
    struct Load {
        std::shared_ptr<DeviceModel> model;
        Binding binding;
    };
    // Nobody else may use the device meanwhile. For `as_it_comes` its workers must not be exclusive.
    VacateProbe(CpuDevice& device, const Load& best_effort, const Load& real_time);

    // Launches the best-effort model again and again, two requests at a time, and lets real-time work come once for each
    // sample.
    void run(std::span<VacateSample> samples, const VacateOptions& options);

private:
    static constexpr QueueId kQueue = 2;  // the first is Runner's, which counts its own epochs

    struct Request {
        std::unique_ptr<Context> context;
        uint32_t mark = 0;
    };

    void keep_busy_until(uint64_t until_ns);
    void launch(Request& request);
    bool in_flight(const Request& request) const;
    void wait(QueueId queue, uint32_t mark);
    VacateSample come();
    std::vector<WorkerStatistics> statistics() const;

    CpuDevice& device_;
    const Load best_effort_;
    const Load real_time_;
    std::array<Request, 2> requests_;  // the older one first
    std::unique_ptr<Context> real_time_context_;
    VacateOptions options_{};
    uint32_t epoch_ = 0;
    uint32_t mark_ = 0;
    uint32_t real_time_mark_ = 0;
};

}  // namespace reef
