// SPDX-License-Identifier: Apache-2.0
// Who runs next, and what becomes of it: real-time requests (real_time.hpp), best-effort requests (best_effort.hpp), and the
// policy between the two. Engine thread only; reads time and progress from the device. Nothing here allocates or loops over
// requests or tasks: the cost of a turn grows with what arrives and ends in it.
#pragma once
#include <cstdint>

#include "announcements.hpp"
#include "best_effort.hpp"
#include "completions.hpp"
#include "device.hpp"
#include "policy.hpp"
#include "real_time.hpp"
#include "request.hpp"
#include "task.hpp"

namespace reef {

class Scheduler {
public:
    Scheduler(Device& device, const Policy& policy, Completions& completions, const SchedulerLimits& limits);
    // Before the first turn: goes on from the marks of those who used the device before.
    void begin();

    void submit(Request& request);
    // 0: it ends with `status`; -EALREADY: too late.
    int32_t cancel(Request& request, int32_t status, uint64_t now_ns);
    // Ends a request of a session that is going away: now, or with `status` when the device lets go of it.
    void end(Request& request, int32_t status, uint64_t now_ns);
    // A request of this task follows soon.
    void announce(Announcement& announcement, Task& task, uint64_t now_ns);
    // It came, or was announced again, or will not come.
    void end_announcement(Announcement& announcement, uint64_t now_ns);

    // Reads retirements and completes what is done. True when something was.
    bool progress(uint64_t now_ns);
    // Expires, preempts and launches.
    void dispatch(uint64_t now_ns);
    // Launches nothing any more: only tensors that are on their way go on.
    void drain() { device_.poll(false); }
    // What best-effort work loses for latencies that are broken (ladder.hpp).
    void set_step(Step step);
    // Invalidates everything that was launched on the best-effort queues.
    void preempt() { best_effort_.confine(0); }

    bool real_time_queued() const { return !real_time_.empty(); }
    bool real_time_pending() const { return real_time_queued() || !announcements_.empty(); }
    bool real_time_running() const { return real_time_.running(); }
    bool best_effort_in_flight() const { return best_effort_.in_flight(); }
    bool landing() const { return best_effort_.landing() || real_time_.landing(); }
    // The device works for a request, or reads or writes its memory.
    bool in_flight() const {
        return best_effort_.in_flight() || real_time_.in_flight() || landing() || device_.copying();
    }
    // Tensors of requests are on their way to the device or from it: a turn is due soon.
    bool transferring() const { return device_.transferring() || device_.copying() || landing(); }
    // Compute units beside the real-time model that runs or is next; 0 while none is but one was announced.
    uint32_t split() const { return real_time_queued() ? real_time_.split() : 0; }
    // The next moment at which dispatch() has something to do without a retirement; UINT64_MAX: none.
    uint64_t next_timer_ns() const;
    Oldest oldest(QueueId queue) const {
        return queue == kRealTimeQueue ? real_time_.oldest() : best_effort_.oldest(queue);
    }
    // What is in flight on a best-effort queue leaves at its next check point and is launched again.
    void relaunch(QueueId queue) { best_effort_.relaunch(queue); }

private:
    void hand_over(Request& request);
    void retry(uint64_t now_ns);
    bool retrying() const;
    void launch_real_time(uint64_t now_ns);
    Grant grant() const;
    Grant allowed() const;
    Grant unless_suspended(Grant granted) const;

    Device& device_;
    const Policy& policy_;
    Completions& completions_;
    const SchedulerLimits limits_;
    Step step_ = Step::normal;
    RealTime real_time_;
    BestEffort best_effort_;

    // Requests that were on the device when a daemon died. One after the other, and while one runs nothing else does but
    // real-time requests, which run one at a time themselves: if the daemon dies again, it is known of which.
    List<Request, &Request::queue_link> retries_;
    Request* retry_ = nullptr;  // the one that runs, or ran last

    Announcements announcements_;

    // Preemption latency: from the request that caused it to the last stale window's retirement.
    Task* vacating_for_ = nullptr;
    uint64_t vacating_since_ns_ = 0;
};

}  // namespace reef
