// SPDX-License-Identifier: Apache-2.0
#include "scheduler.hpp"

#include <algorithm>
#include <cerrno>

namespace reef {
namespace {

constexpr uint64_t kNever = UINT64_MAX;
constexpr uint32_t kMaxRunnable = 4096;
constexpr uint64_t kShareSlack = 2;    // windows by which a task may be ahead of its share
constexpr uint64_t kShareScale = 100;  // the default weight: virtual time passes as real time does

// Marks are free-running.
bool reached(uint32_t retired, uint32_t mark) { return static_cast<int32_t>(retired - mark) >= 0; }

uint64_t deadline_of(const Request& request) { return request.deadline_ns ? request.deadline_ns : kNever; }

}  // namespace

bool Scheduler::Urgency::operator()(const Request& a, const Request& b) const {
    if (deadline_of(a) != deadline_of(b)) {
        return deadline_of(a) < deadline_of(b);
    }
    return a.priority != b.priority ? a.priority > b.priority : a.arrival < b.arrival;
}

bool Scheduler::Deadline::operator()(const Request& a, const Request& b) const {
    return a.deadline_ns != b.deadline_ns ? a.deadline_ns < b.deadline_ns : a.arrival < b.arrival;
}

bool Scheduler::Share::operator()(const Task& a, const Task& b) const {
    return a.virtual_time != b.virtual_time ? a.virtual_time < b.virtual_time : a.id < b.id;
}

Scheduler::Scheduler(Device& device, const Policy& policy, Completions& completions, const SchedulerLimits& limits)
    : device_(device), policy_(policy), completions_(completions), limits_(limits), queues_(device.info().queues) {
    set_aside_.reserve(kMaxRunnable);
}

void Scheduler::begin() {
    for (QueueId queue = 1; queue < queues_.size(); ++queue) {
        queues_[queue].mark = device_.retired(queue);
        device_.write_epoch(queue, queues_[queue].epoch);
    }
    real_time_mark_ = device_.retired(kRealTimeQueue);
}

// ---------------------------------------------------------------- requests come and go

void Scheduler::submit(Request& request) {
    request.ending = 0;
    request.in_flight = 0;
    request.launched = 0;
    request.stale = false;
    if (request.task->spec.real_time) {
        real_time_.push(request);
        return;
    }
    request.model->waiting.push_back(request);
    if (request.deadline_ns != 0) {
        deadlines_.push(request);
    }
    make_runnable(*request.task);
}

int32_t Scheduler::cancel(Request& request, int32_t status, uint64_t now_ns) {
    if (request.ending != 0) {
        return request.ending == status ? 0 : -EALREADY;
    }
    if (request.phase == Phase::idle || (request.task->spec.real_time && request.phase == Phase::started)) {
        return -EALREADY;
    }
    end(request, status, now_ns);
    return 0;
}

void Scheduler::end(Request& request, int32_t status, uint64_t now_ns) {
    if (request.phase == Phase::waiting) {
        if (request.task->spec.real_time) {
            real_time_.remove(request);
        } else {
            request.model->waiting.remove(request);
            drop_if_idle(*request.task);
        }
        finish(request, status, now_ns);
        return;
    }
    if (request.ending == 0) {
        request.ending = status;
    }
    if (request.task->spec.real_time) {
        return;
    }
    if (request.in_flight == 0) {
        finish(request, status, now_ns);
    } else if (!request.stale) {
        invalidate(request.queue, false);
    }
}

void Scheduler::start(Request& request, uint64_t now_ns) {
    request.context = request.model->free_contexts.back();
    request.model->free_contexts.pop_back();
    device_.clear_record(*request.context);
    completions_.launching(request, now_ns);
}

// Only for requests without a window in flight.
void Scheduler::finish(Request& request, int32_t status, uint64_t now_ns) {
    if (decltype(deadlines_)::contains(request)) {
        deadlines_.remove(request);
    }
    if (request.context) {
        request.model->free_contexts.push_back(request.context);
        request.context = nullptr;
    }
    if (List<Request, &Request::queue_link>::contains(request)) {
        request.task->started.remove(request);
    }
    if (!request.task->spec.real_time) {
        drop_if_idle(*request.task);
    }
    completions_.completed(request, status, now_ns);
}

void Scheduler::expire(uint64_t now_ns) {
    if (hold_until_ns_ != 0 && now_ns >= hold_until_ns_) {
        hold_until_ns_ = 0;
    }
    while (!real_time_.empty() && deadline_of(*real_time_.top()) <= now_ns) {
        Request& request = *real_time_.top();
        real_time_.remove(request);
        finish(request, -ETIME, now_ns);
    }
    while (!deadlines_.empty() && deadlines_.top()->deadline_ns <= now_ns) {
        Request& request = *deadlines_.top();
        deadlines_.remove(request);
        // With a window in flight it is no longer waiting: it ends late, or when it is preempted (retire()).
        if (request.in_flight == 0) {
            end(request, -ETIME, now_ns);
        }
    }
}

// ---------------------------------------------------------------- room for real-time work

void Scheduler::announce(const void* owner, uint64_t now_ns) {
    hold_owner_ = owner;
    hold_until_ns_ = now_ns + limits_.announce_hold_ns;
    policy_.vacate(*this);
}

uint64_t Scheduler::end_announcement(const void* owner, uint64_t now_ns) {
    if (hold_until_ns_ == 0 || hold_owner_ != owner) {
        return 0;
    }
    const uint64_t left_ns = hold_until_ns_ > now_ns ? hold_until_ns_ - now_ns : 0;
    hold_until_ns_ = 0;
    return left_ns;
}

void Scheduler::preempt() {
    for (QueueId queue = 1; queue < queues_.size(); ++queue) {
        invalidate(queue, true);
    }
}

// Old windows of the queue can never run again once this returns; what is on the device leaves at its next check point.
void Scheduler::invalidate(QueueId id, bool preempted) {
    Queue& queue = queues_[id];
    bool any = false;
    for (uint32_t i = 0; i < queue.count; ++i) {
        Flight& flight = queue.at(i);
        if (flight.stale) {
            continue;
        }
        any = true;
        flight.stale = true;
        ++stale_flights_;
        Request& request = *flight.request;
        if (preempted && !request.stale && request.preemptions != UINT16_MAX) {
            ++request.preemptions;
        }
        request.stale = true;
        sync::add_relaxed<uint64_t>(request.task->counters.abandoned_windows, 1);
    }
    if (any) {
        device_.write_epoch(id, ++queue.epoch);
    }
}

void Scheduler::launch_real_time(uint64_t now_ns) {
    if (running_ || real_time_.empty()) {
        return;
    }
    const bool vacated = flights_ == 0;
    policy_.vacate(*this);
    if (!policy_.real_time_may_launch(*this)) {
        return;
    }
    Request& request = *real_time_.top();
    real_time_.remove(request);
    start(request, now_ns);
    running_ = &request;
    real_time_launch_ns_ = now_ns;
    if (!vacated && stale_flights_ != 0) {
        vacating_for_ = request.task;
        vacating_since_ns_ = now_ns;
    }
    device_.launch(kRealTimeQueue,
                   {request.context, request.binding, 0, request.model->kernels, 0, false, ++real_time_mark_});
}

// ---------------------------------------------------------------- best effort

bool Scheduler::has_work(const Task& task) {
    if (!task.started.empty()) {
        return true;
    }
    return std::any_of(task.models.begin(), task.models.end(),
                       [](const TaskModel& model) { return !model.waiting.empty(); });
}

void Scheduler::make_runnable(Task& task) {
    if (!decltype(runnable_)::contains(task)) {
        // A task that was away does not get back the time in which it asked for nothing.
        task.virtual_time = policy_.by_arrival() ? first_arrival(task) : std::max(task.virtual_time, virtual_now_);
        runnable_.push(task);
    }
}

void Scheduler::drop_if_idle(Task& task) {
    if (!decltype(runnable_)::contains(task)) {
        return;
    }
    if (!has_work(task)) {
        runnable_.remove(task);
    } else if (policy_.by_arrival()) {
        runnable_.remove(task);
        make_runnable(task);
    }
}

uint64_t Scheduler::first_arrival(const Task& task) {
    uint64_t first = kNever;
    for (const Request* request = task.started.front(); request; request = decltype(task.started)::next(*request)) {
        first = std::min(first, request->arrival);
    }
    for (const TaskModel& model : task.models) {
        first = model.waiting.empty() ? first : std::min(first, model.waiting.front()->arrival);
    }
    return first;
}

// By the part of the device that the window can use.
void Scheduler::charge(Task& task, const Flight& flight, int64_t ns) {
    if (policy_.by_arrival()) {
        return;
    }
    const bool queued = decltype(runnable_)::contains(task);
    if (queued) {
        runnable_.remove(task);
    }
    const auto part = static_cast<int64_t>(kShareScale * flight.width);
    const int64_t share = ns * part / static_cast<int64_t>(uint64_t{task.spec.weight} * device_.info().compute_units);
    task.virtual_time = static_cast<uint64_t>(std::max<int64_t>(0, static_cast<int64_t>(task.virtual_time) + share));
    if (queued) {
        runnable_.push(task);
    }
}

// A request of the task that may have its next window on this queue: one that is there already or nowhere, oldest first;
// else a new one that finds an execution context.
Request* Scheduler::choose(Task& task, QueueId queue, uint64_t now_ns) {
    for (Request* request = task.started.front(); request; request = decltype(task.started)::next(*request)) {
        if (!request->stale && request->ending == 0 && request->launched < request->model->kernels &&
            (request->in_flight == 0 || request->queue == queue)) {
            return request;
        }
    }
    TaskModel* oldest = nullptr;
    for (TaskModel& model : task.models) {
        if (!model.waiting.empty() && !model.free_contexts.empty() &&
            (!oldest || model.waiting.front()->arrival < oldest->waiting.front()->arrival)) {
            oldest = &model;
        }
    }
    if (!oldest) {
        return nullptr;
    }
    Request& request = *oldest->waiting.front();
    oldest->waiting.remove(request);
    start(request, now_ns);
    task.started.push_back(request);
    return &request;
}

uint32_t Scheduler::window_end(const Request& request, uint64_t& estimate_ns) const {
    const auto& cost = request.model->cost_ns;
    const uint64_t guess = limits_.window_ns / limits_.first_window_kernels;
    uint32_t last = request.launched;
    estimate_ns = 0;
    while (last < request.model->kernels) {
        const uint64_t next = cost[last] ? cost[last] : guess;
        if (last > request.launched && estimate_ns + next > limits_.window_ns && policy_.checks() != Checks::none) {
            break;
        }
        estimate_ns += next;
        ++last;
    }
    return last;
}

// The average over the window's kernels of the compute units that each can use.
uint64_t Scheduler::width(const Request& request, uint32_t last) const {
    const std::vector<uint32_t>& blocks = request.model->model->facts().blocks;
    uint64_t sum = 0;
    for (uint32_t k = request.launched; k < last; ++k) {
        sum += std::min(blocks[k], device_.info().compute_units);
    }
    return std::max<uint64_t>(1, sum / std::max(1u, last - request.launched));
}

void Scheduler::launch_window(QueueId id, Request& request, uint64_t now_ns) {
    Queue& queue = queues_[id];
    uint64_t estimate;
    const uint32_t last = window_end(request, estimate);
    account(now_ns);
    Flight& flight = queue.at(queue.count++);
    flight = {&request, request.launched, last, ++queue.mark, false, now_ns, estimate, 0, width(request, last)};
    device_.launch(id, {.context = request.context,
                        .binding = request.binding,
                        .first = request.launched,
                        .last = last,
                        .epoch = queue.epoch,
                        .preemptible = policy_.checks() != Checks::none,
                        .mark = queue.mark,
                        .finish_blocks = policy_.checks() == Checks::between_blocks});
    request.launched = last;
    request.queue = id;
    ++request.in_flight;
    ++flights_;
    virtual_now_ = std::max(virtual_now_, request.task->virtual_time);
    charge(*request.task, flight, static_cast<int64_t>(estimate));
}

// How many compute units the windows at the heads of the queues can use together.
uint64_t Scheduler::width_in_flight() const {
    uint64_t width = 0;
    for (QueueId id = 1; id < queues_.size(); ++id) {
        width += queues_[id].count != 0 ? queues_[id].at(0).width : 0;
    }
    return width;
}

// Gives the time since the last call to the windows at the heads of the queues: as if each had run alone, so that what
// is charged and learned does not depend on how many ran beside it. Before every change of a head.
void Scheduler::account(uint64_t now_ns) {
    const uint64_t units = device_.info().compute_units;
    const uint64_t passed = now_ns - accounted_ns_;
    accounted_ns_ = now_ns;
    const uint64_t wanted = flights_ != 0 ? std::max(width_in_flight(), units) : 0;
    for (QueueId id = 1; wanted != 0 && id < queues_.size(); ++id) {
        if (queues_[id].count != 0) {
            queues_[id].at(0).served_ns += passed * units / wanted;
        }
    }
}

// One more window on this queue, of the task with the least virtual time that has one for it. A task that is ahead of its
// share may only take what would be idle: side by side, the device would give every queue the same.
bool Scheduler::fill(QueueId queue, uint64_t now_ns) {
    Request* request = nullptr;
    set_aside_.clear();
    const uint64_t least = runnable_.empty() ? 0 : runnable_.top()->virtual_time;
    const bool full = width_in_flight() >= device_.info().compute_units;
    while (!runnable_.empty() && !request && set_aside_.size() < set_aside_.capacity()) {
        Task& task = *runnable_.top();
        if (full && task.virtual_time > least + kShareSlack * limits_.window_ns) {
            break;
        }
        request = choose(task, queue, now_ns);
        if (!request) {
            runnable_.remove(task);
            set_aside_.push_back(&task);
        }
    }
    for (Task* task : set_aside_) {
        runnable_.push(*task);
    }
    if (request) {
        launch_window(queue, *request, now_ns);
    }
    return request != nullptr;
}

void Scheduler::launch_best_effort(uint32_t windows, uint64_t now_ns) {
    // Every queue gets its first window before any gets a second: requests run side by side.
    for (uint32_t depth = 0; depth < std::min(kFlights, device_.info().queue_depth); ++depth) {
        for (QueueId queue = 1; queue < queues_.size() && !runnable_.empty() && flights_ < windows; ++queue) {
            if (queues_[queue].count == depth && !fill(queue, now_ns) && depth == 0) {
                break;  // nothing that is nowhere yet: the other empty queues would find nothing either
            }
        }
    }
}

void Scheduler::learn(const Flight& flight) {
    auto& cost = flight.request->model->cost_ns;
    for (uint32_t k = flight.first; k < flight.last; ++k) {
        const uint64_t guess = limits_.window_ns / limits_.first_window_kernels;
        const uint64_t old = cost[k] ? cost[k] : guess;
        const uint64_t seen = std::max<uint64_t>(1, old * flight.served_ns / std::max<uint64_t>(1, flight.estimate_ns));
        cost[k] = cost[k] ? std::max<uint64_t>(1, old + seen / 4 - old / 4) : seen;
    }
}

void Scheduler::retire(QueueId id, uint64_t now_ns) {
    account(now_ns);
    Queue& queue = queues_[id];
    const Flight flight = queue.at(0);
    queue.head = (queue.head + 1) % kFlights;
    --queue.count;
    --flights_;

    Request& request = *flight.request;
    --request.in_flight;
    charge(*request.task, flight, static_cast<int64_t>(flight.served_ns) - static_cast<int64_t>(flight.estimate_ns));
    if (flight.stale) {
        if (--stale_flights_ == 0 && vacating_for_) {
            vacating_for_->counters.preemption.record(now_ns - vacating_since_ns_);
            vacating_for_ = nullptr;
        }
    } else {
        learn(flight);
    }
    if (request.in_flight != 0) {
        return;
    }
    const bool preempted = request.stale;
    const uint32_t done = device_.kernels_done(*request.context);
    request.stale = false;
    request.launched = done;
    if (request.ending != 0) {
        finish(request, request.ending, now_ns);
    } else if (done == request.model->kernels) {
        finish(request, 0, now_ns);
    } else if (preempted && request.deadline_ns != 0 && request.deadline_ns <= now_ns) {
        finish(request, -ETIME, now_ns);
    }
}

// ---------------------------------------------------------------- a turn

bool Scheduler::progress(uint64_t now_ns) {
    bool any = false;
    if (running_ && reached(device_.retired(kRealTimeQueue), real_time_mark_)) {
        Request& request = *running_;
        running_ = nullptr;
        finish(request, request.ending, now_ns);
        any = true;
    }
    for (QueueId id = 1; flights_ != 0 && id < queues_.size(); ++id) {
        Queue& queue = queues_[id];
        if (queue.count == 0) {
            continue;
        }
        const uint32_t retired = device_.retired(id);
        while (queue.count != 0 && reached(retired, queue.at(0).mark)) {
            retire(id, now_ns);
            any = true;
        }
    }
    return any;
}

void Scheduler::dispatch(uint64_t now_ns) {
    expire(now_ns);
    launch_real_time(now_ns);
    if (!runnable_.empty()) {
        launch_best_effort(policy_.best_effort(*this).windows, now_ns);
    }
}

uint64_t Scheduler::next_timer_ns() const {
    uint64_t next = hold_until_ns_ != 0 ? hold_until_ns_ : kNever;
    if (!real_time_.empty()) {
        next = std::min(next, deadline_of(*real_time_.top()));
    }
    if (!deadlines_.empty()) {
        next = std::min(next, deadlines_.top()->deadline_ns);
    }
    return next;
}

uint64_t Scheduler::oldest_launch_ns(QueueId& queue) const {
    uint64_t oldest = running_ ? real_time_launch_ns_ : kNever;
    queue = kRealTimeQueue;
    for (QueueId id = 1; flights_ != 0 && id < queues_.size(); ++id) {
        if (queues_[id].count != 0 && queues_[id].at(0).launched_ns < oldest) {
            oldest = queues_[id].at(0).launched_ns;
            queue = id;
        }
    }
    return oldest == kNever ? 0 : oldest;
}

}  // namespace reef
