// SPDX-License-Identifier: Apache-2.0
#include "scheduler.hpp"

#include <algorithm>
#include <cerrno>

namespace reef {

Scheduler::Scheduler(Device& device, const Policy& policy, Completions& completions, const SchedulerLimits& limits)
    : device_(device), policy_(policy), completions_(completions), limits_(limits),
      real_time_(device, policy, completions), best_effort_(device, policy, completions, limits),
      announcements_(limits.announce_hold_ns) {}

void Scheduler::begin() {
    real_time_.begin();
    best_effort_.begin();
}

// ---------------------------------------------------------------- requests come and go

void Scheduler::submit(Request& request) {
    request.ending = 0;
    request.in_flight = 0;
    request.launched = 0;
    request.stale = false;
    request.served = false;
    request.abandonments = 0;
    if (request.alone) {
        retries_.push_back(request);
    } else {
        hand_over(request);
    }
}

void Scheduler::hand_over(Request& request) {
    request.task->spec.real_time ? real_time_.submit(request) : best_effort_.submit(request);
}

int32_t Scheduler::cancel(Request& request, int32_t status, uint64_t now_ns) {
    if (request.ending != 0) {
        return request.ending == status ? 0 : -EALREADY;
    }
    if (request.phase == Phase::idle ||
        (request.phase == Phase::started && request.task->spec.real_time && !real_time_.paused(request))) {
        return -EALREADY;
    }
    end(request, status, now_ns);
    return 0;
}

void Scheduler::end(Request& request, int32_t status, uint64_t now_ns) {
    if (request.alone && &request != retry_) {
        retries_.remove(request);
        completions_.completed(request, status, now_ns);
        return;
    }
    request.task->spec.real_time ? real_time_.end(request, status, now_ns) : best_effort_.end(request, status, now_ns);
}

void Scheduler::announce(Announcement& announcement, Task& task, uint64_t now_ns) {
    if (policy_.checks() != Checks::none && announcements_.add(announcement, now_ns)) {
        const TaskModel& model = task.models.front();
        device_.expect(model.contexts.empty() ? nullptr : model.contexts.front().get(), announcement.until_ns);
    }
}

void Scheduler::end_announcement(Announcement& announcement, uint64_t now_ns) {
    if (announcements_.remove(announcement, now_ns) && announcements_.empty()) {
        device_.expect(nullptr, 0);
    }
}

// ---------------------------------------------------------------- a turn

bool Scheduler::progress(uint64_t now_ns) {
    const bool real_time = real_time_.progress(now_ns);
    const bool best_effort = best_effort_.progress(now_ns);
    if (vacating_for_ && best_effort_.stale() == 0) {
        completions_.vacated(*vacating_for_, now_ns - vacating_since_ns_, now_ns);
        vacating_for_ = nullptr;
    }
    return real_time || best_effort;
}

void Scheduler::dispatch(uint64_t now_ns) {
    if (announcements_.expire(now_ns) && announcements_.empty()) {
        device_.expect(nullptr, 0);
    }
    real_time_.expire(now_ns);
    best_effort_.expire(now_ns);
    retry(now_ns);
    launch_real_time(now_ns);
    const Grant allowed_now = allowed();
    if (!best_effort_.empty()) {
        best_effort_.launch(unless_suspended(allowed_now), retrying(), now_ns);
    }
    device_.poll(allowed_now.units == 0);
}

// The next retry begins when the device is empty.
void Scheduler::retry(uint64_t now_ns) {
    if (retry_ && !retry_->alone) {
        retry_ = nullptr;
    }
    for (Request* request = retries_.front(); request;) {
        Request* next = decltype(retries_)::next(*request);
        if (request->deadline_ns != 0 && request->deadline_ns <= now_ns) {
            end(*request, -ETIME, now_ns);
        }
        request = next;
    }
    if (!retry_ && retrying() && !in_flight()) {
        retry_ = retries_.front();
        retries_.remove(*retry_);
        hand_over(*retry_);
    }
}

// Whoever holds the execution context that the next retry needs has to go on.
bool Scheduler::retrying() const {
    return retry_ || (!retries_.empty() && !retries_.front()->model->free_contexts.empty());
}

void Scheduler::set_step(Step step) {
    step_ = step;
    real_time_.set_padding(step < Step::no_padding);
    best_effort_.set_small_windows(step >= Step::small_windows);
    if (policy_.checks() != Checks::none) {
        best_effort_.confine(grant().units);
    }
}

Grant Scheduler::grant() const { return unless_suspended(allowed()); }

// While best effort is suspended, what was launched before still gets its tensors.
Grant Scheduler::unless_suspended(Grant granted) const { return step_ == Step::suspended ? kNothing : granted; }

Grant Scheduler::allowed() const {
    const Grant granted = policy_.best_effort(*this);
    const bool beside = granted.units < device_.info().compute_units;
    const bool apart = step_ >= Step::no_padding || retrying();
    return apart && beside ? kNothing : granted;
}

// What best-effort work has to leave is invalidated first: its blocks leave while the real-time model is launched.
void Scheduler::launch_real_time(uint64_t now_ns) {
    const bool vacated = !best_effort_.in_flight();
    if (!vacated && policy_.checks() != Checks::none) {
        best_effort_.confine(grant().units);
    }
    if (!policy_.real_time_may_launch(*this)) {
        return;
    }
    const Request* request = real_time_.launch(now_ns);
    if (request && !vacated && policy_.checks() != Checks::none) {
        best_effort_.confine(grant().units);  // it may have taken another's place on the device
    }
    if (request && !vacated && best_effort_.stale() != 0) {
        vacating_for_ = request->task;
        vacating_since_ns_ = now_ns;
        sync::add_relaxed<uint64_t>(request->task->counters.behind_shielded, best_effort_.shielding());
    }
}

uint64_t Scheduler::next_timer_ns() const {
    uint64_t next = announcements_.next_ns();
    for (const Request* request = retries_.front(); request; request = decltype(retries_)::next(*request)) {
        next = request->deadline_ns != 0 ? std::min(next, request->deadline_ns) : next;
    }
    return std::min({next, real_time_.next_deadline_ns(), best_effort_.next_deadline_ns()});
}

}  // namespace reef
