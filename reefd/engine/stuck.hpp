// SPDX-License-Identifier: Apache-2.0
// Finds out whether the device still gets on with what was launched. Engine thread; looked at several times a second.
//
// A window counts as stalled while none of its blocks finishes, at the times when it should: best-effort windows may
// wait as long as real-time work is on the device, stale ones may not. What is summed up is time between looks, each
// counted up to a limit, so that a process that was stopped as a whole, or a suspended machine, is not the device's fault.
#pragma once
#include <cstdint>
#include <vector>

#include "device.hpp"
#include "scheduler.hpp"

namespace reef {

class StuckWatch {
public:
    enum class Finding : uint8_t {
        none,
        slow,   // half of the limit: its epoch is to be bumped
        stuck,  // the whole limit
    };
    struct Report {
        Finding finding = Finding::none;
        QueueId queue = 0;
        Request* request = nullptr;
        uint64_t stalled_ns = 0;
    };

    StuckWatch(uint32_t queues, uint64_t limit_ns, uint64_t longest_step_ns)
        : limit_ns_(limit_ns), longest_step_ns_(longest_step_ns), watched_(queues) {}

    // The worst of what is in flight.
    Report look(const Scheduler& scheduler, const Device& device, uint64_t now_ns);

private:
    struct Watched {
        uint32_t mark = 0;
        uint64_t progress = 0;
        uint64_t stalled_ns = 0;
    };

    const uint64_t limit_ns_;
    const uint64_t longest_step_ns_;
    uint64_t last_ns_ = 0;
    std::vector<Watched> watched_;  // by queue: its oldest window
};

}  // namespace reef
