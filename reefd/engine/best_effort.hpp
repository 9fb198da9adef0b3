// SPDX-License-Identifier: Apache-2.0
// Best-effort requests: side by side, a queue each, in windows that are bounded by their estimated time.
//
// Retirement comes before everything: a request with a window in flight is not moved, not completed, not cleared, and its
// context is not given to another, whatever its progress says.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "completions.hpp"
#include "device.hpp"
#include "intrusive.hpp"
#include "landings.hpp"
#include "policy.hpp"
#include "request.hpp"
#include "shares.hpp"
#include "task.hpp"

namespace reef {

struct SchedulerLimits {
    uint64_t window_ns = 2'000'000;         // estimated time of one best-effort window on the whole device
    uint64_t padding_window_ns = 250'000;   // of one beside a real-time model: it keeps its few units until it retires
    uint64_t widen_ns = 250'000;            // what is left of such a window when all units are free: it moves there
    uint64_t announce_hold_ns = 5'000'000;  // how long an announcement keeps best-effort work away
    uint32_t shield_after = 8;              // abandonments of an instance, until its blocks run to their end
};

class BestEffort {
public:
    BestEffort(Device& device, const Policy& policy, Completions& completions, const SchedulerLimits& limits);
    void begin();

    void submit(Request& request);
    // Now, or when its windows have retired, which are invalidated.
    void end(Request& request, int32_t status, uint64_t now_ns);
    void expire(uint64_t now_ns);

    // Invalidates the windows that may run on more compute units than the last `units`. They can never run again once this
    // returns; what is on the device leaves at its next check point.
    void confine(uint32_t units);
    // `retrying`: only what is marked to run alone is launched.
    void launch(const Grant& grant, bool retrying, uint64_t now_ns);
    // Reads retirements and completes what is done. True when something retired.
    bool progress(uint64_t now_ns);

    // A quarter of the usual time.
    void set_small_windows(bool small) { window_part_ = small ? 4 : 1; }

    bool empty() const { return shares_.empty(); }
    bool in_flight() const { return flights_ != 0; }
    // Outputs are on their way, or requests that are to end wait for the device to let go of their memory.
    bool landing() const { return !landings_.empty(); }
    uint32_t stale() const { return stale_; }  // windows in flight that were invalidated
    // A window is in flight whose blocks, once begun, run to their end because its instance was abandoned too often.
    bool shielding() const { return shielded_ != 0; }
    uint64_t next_deadline_ns() const { return deadlines_.empty() ? UINT64_MAX : deadlines_.top()->deadline_ns; }
    Oldest oldest(QueueId queue) const;
    // What is in flight on a queue leaves at its next check point and is launched again.
    void relaunch(QueueId queue) { invalidate(queue, false); }

private:
    // A window that was launched and is not retired.
    struct Flight {
        Request* request;
        uint32_t first, last;
        uint32_t mark;
        uint32_t split;
        bool stale;
        bool shielded;
        uint64_t estimate_ns;
        uint64_t served_ns;  // at the head of the queue, as if alone on its units
        uint64_t width;      // compute units that it can use
        uint64_t load_ns;    // estimate_ns by the part of the device that it uses
    };
    static constexpr uint32_t kFlights = 8;  // on one queue
    struct Queue {
        uint32_t epoch = kFirstEpoch;
        uint32_t mark = 0;
        uint32_t head = 0;
        uint32_t count = 0;
        std::array<Flight, kFlights> flights{};
        Flight& at(uint32_t i) { return flights[(head + i) % kFlights]; }
        const Flight& at(uint32_t i) const { return flights[(head + i) % kFlights]; }
    };
    struct Deadline {
        bool operator()(const Request& a, const Request& b) const {
            return a.deadline_ns != b.deadline_ns ? a.deadline_ns < b.deadline_ns : a.arrival < b.arrival;
        }
    };

    void widen(uint32_t units, uint64_t now_ns);
    uint64_t window_ns(uint32_t units) const {
        return (units == units_ ? limits_.window_ns : limits_.padding_window_ns) / window_part_;
    }
    bool has_room(const Queue& queue, uint32_t units) const;
    bool fill(QueueId queue, uint32_t units, uint64_t now_ns);
    Request* choose(Task& task, QueueId queue, uint64_t now_ns);
    void launch_window(QueueId queue, Request& request, uint32_t units, uint64_t now_ns);
    uint32_t window_end(const Request& request, uint32_t units, uint64_t& estimate_ns) const;
    uint64_t width_in_flight() const;
    uint32_t units_of(const Flight& flight) const { return flight.split != 0 ? flight.split : units_; }
    void account(uint64_t now_ns);
    void invalidate(QueueId queue, bool preempted);
    // The queue's next epoch has to be written.
    bool make_stale(Queue& queue, bool preempted);
    void retire(QueueId queue, uint64_t now_ns);
    bool shield(const Request& request) const;
    static void count_abandonment(Request& request);
    void leave_started(Request& request);
    void finish(Request& request, int32_t status, uint64_t now_ns);

    Device& device_;
    const Policy& policy_;
    Completions& completions_;
    const SchedulerLimits limits_;
    const uint32_t units_;
    const uint32_t depth_;
    uint32_t window_part_ = 1;
    bool retrying_ = false;

    Shares shares_;
    Heap<Request, &Request::deadline_node, Deadline> deadlines_;
    std::vector<Queue> queues_;       // by QueueId; the first one is not ours
    std::vector<Task*> set_aside_;    // scratch of fill()
    std::vector<QueueEpoch> epochs_;  // and of confine()
    Landings landings_;
    uint32_t flights_ = 0;
    uint32_t stale_ = 0;
    uint32_t shielded_ = 0;
    uint64_t load_ns_ = 0;
    uint64_t accounted_ns_ = 0;
};

}  // namespace reef
