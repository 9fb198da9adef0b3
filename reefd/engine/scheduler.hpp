// SPDX-License-Identifier: Apache-2.0
// Who runs next, on which queue, and what becomes of it. Engine thread only; reads time and progress from the device.
//
// Real-time requests run one at a time, plain kernels, the whole model as one window: earliest deadline first, then
// priority, then arrival. Best-effort requests run side by side, one queue each, in windows bounded by their estimated
// time; the task with the least virtual time (use / weight) gets the next window.
//
// Retirement comes before everything: a request with a window in flight is not moved, not completed, not cleared, and its
// context is not given to another, whatever its progress says.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "device.hpp"
#include "policy.hpp"
#include "request.hpp"
#include "task.hpp"

namespace reef {

// Completed requests leave through this.
class Completions {
public:
    virtual void launching(Request& request, uint64_t now_ns) = 0;
    virtual void completed(Request& request, int32_t status, uint64_t now_ns) = 0;

protected:
    ~Completions() = default;
};

struct SchedulerLimits {
    uint64_t window_ns = 2'000'000;         // estimated time of one best-effort window
    uint32_t first_window_kernels = 8;      // while nothing is known of a model's kernels
    uint64_t announce_hold_ns = 5'000'000;  // how long an announcement keeps best-effort work away
};

class Scheduler {
public:
    Scheduler(Device& device, const Policy& policy, Completions& completions, const SchedulerLimits& limits);

    // Before the first turn: goes on from the marks and epochs of those who used the device before.
    void begin();

    void submit(Request& request);
    // 0: it ends with `status`; -EALREADY: too late.
    int32_t cancel(Request& request, int32_t status, uint64_t now_ns);
    // Ends a request of a session that is going away: now, or with `status` when the device lets go of it.
    void end(Request& request, int32_t status, uint64_t now_ns);
    // Real-time work of `owner` (any pointer that tells sessions apart) follows soon.
    void announce(const void* owner, uint64_t now_ns);
    // It came, or was announced again. Returns how much of the announcement's time was not used.
    uint64_t end_announcement(const void* owner, uint64_t now_ns);

    // Reads retirements and completes what is done. True when something was.
    bool progress(uint64_t now_ns);
    // Expires, preempts and launches.
    void dispatch(uint64_t now_ns);
    // Invalidates and forgets everything that was launched on the best-effort queues.
    void preempt();

    bool real_time_queued() const { return running_ != nullptr || !real_time_.empty(); }
    bool real_time_pending() const { return real_time_queued() || hold_until_ns_ != 0; }  // or announced
    bool real_time_running() const { return running_ != nullptr; }
    bool best_effort_in_flight() const { return flights_ != 0; }
    bool in_flight() const { return flights_ != 0 || running_ != nullptr; }
    // The next moment at which dispatch() has something to do without a retirement; UINT64_MAX: none.
    uint64_t next_timer_ns() const;
    // Of the oldest window in flight; 0: none. And the queue it is on.
    uint64_t oldest_launch_ns(QueueId& queue) const;
    uint64_t now_ns() const { return device_.now_ns(); }

private:
    // A window that was launched and is not retired.
    struct Flight {
        Request* request;
        uint32_t first, last;
        uint32_t mark;
        bool stale;
        uint64_t launched_ns;
        uint64_t estimate_ns;
        uint64_t served_ns;  // at the head of the queue, as if alone
        uint64_t width;      // compute units that it can use
    };
    static constexpr uint32_t kFlights = 2;  // on one queue: one runs, one waits, so that the device has no gap
    struct Queue {
        uint32_t epoch = kFirstEpoch;
        uint32_t mark = 0;
        uint32_t head = 0;
        uint32_t count = 0;
        std::array<Flight, kFlights> flights{};
        Flight& at(uint32_t i) { return flights[(head + i) % kFlights]; }
        const Flight& at(uint32_t i) const { return flights[(head + i) % kFlights]; }
    };

    struct Urgency {
        bool operator()(const Request& a, const Request& b) const;
    };
    struct Deadline {
        bool operator()(const Request& a, const Request& b) const;
    };
    struct Share {
        bool operator()(const Task& a, const Task& b) const;
    };

    void launch_real_time(uint64_t now_ns);
    void launch_best_effort(uint32_t windows, uint64_t now_ns);
    bool fill(QueueId queue, uint64_t now_ns);
    Request* choose(Task& task, QueueId queue, uint64_t now_ns);
    void launch_window(QueueId queue, Request& request, uint64_t now_ns);
    uint64_t width_in_flight() const;
    uint64_t width(const Request& request, uint32_t last) const;
    uint32_t window_end(const Request& request, uint64_t& estimate_ns) const;
    void retire(QueueId queue, uint64_t now_ns);
    void account(uint64_t now_ns);
    void learn(const Flight& flight);
    void charge(Task& task, const Flight& flight, int64_t ns);
    void start(Request& request, uint64_t now_ns);
    void finish(Request& request, int32_t status, uint64_t now_ns);
    void invalidate(QueueId queue, bool preempted);
    void expire(uint64_t now_ns);
    void make_runnable(Task& task);
    void drop_if_idle(Task& task);
    static bool has_work(const Task& task);
    static uint64_t first_arrival(const Task& task);

    Device& device_;
    const Policy& policy_;
    Completions& completions_;
    const SchedulerLimits limits_;

    Heap<Request, &Request::order_node, Urgency> real_time_;
    Request* running_ = nullptr;  // on the real-time queue
    uint32_t real_time_mark_ = 0;
    uint64_t real_time_launch_ns_ = 0;

    Heap<Task, &Task::share_node, Share> runnable_;
    Heap<Request, &Request::deadline_node, Deadline> deadlines_;
    std::vector<Queue> queues_;
    std::vector<Task*> set_aside_;  // scratch of fill()
    uint32_t flights_ = 0;
    uint64_t virtual_now_ = 0;
    uint64_t accounted_ns_ = 0;

    uint64_t hold_until_ns_ = 0;
    const void* hold_owner_ = nullptr;

    // Preemption latency: from the request that caused it to the last stale window's retirement.
    Task* vacating_for_ = nullptr;
    uint64_t vacating_since_ns_ = 0;
    uint32_t stale_flights_ = 0;
};

}  // namespace reef
