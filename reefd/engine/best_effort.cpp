// SPDX-License-Identifier: Apache-2.0
#include "best_effort.hpp"

#include <algorithm>
#include <cerrno>

namespace reef {
namespace {

constexpr uint64_t kShareSlack = 2;  // windows by which a task may be ahead of its share

uint32_t windows_each(const DeviceInfo& info) { return info.windows_each != 0 ? info.windows_each : UINT32_MAX; }

}  // namespace

BestEffort::BestEffort(Device& device, const Policy& policy, Completions& completions, const SchedulerLimits& limits)
    : device_(device), policy_(policy), completions_(completions), limits_(limits), units_(device.info().compute_units),
      depth_(std::min({kFlights, device.info().queue_depth, windows_each(device.info())})),
      shares_(units_, policy.by_arrival()), queues_(device.info().queues), landings_(device) {
    // What fill() sets aside has a window in flight on another queue.
    set_aside_.reserve(queues_.size() * kFlights);
    epochs_.reserve(queues_.size());
}

void BestEffort::begin() {
    for (QueueId queue = 1; queue < queues_.size(); ++queue) {
        queues_[queue].mark = device_.retired(queue);
        device_.write_epoch(queue, queues_[queue].epoch);
    }
}

// ---------------------------------------------------------------- requests come and go

void BestEffort::submit(Request& request) {
    if (request.alone) {
        request.model->waiting.push_front(request);
    } else {
        request.model->waiting.push_back(request);
    }
    if (request.deadline_ns != 0) {
        deadlines_.push(request);
    }
    shares_.refresh(*request.task);
}

void BestEffort::end(Request& request, int32_t status, uint64_t now_ns) {
    if (request.phase == Phase::waiting) {
        request.model->waiting.remove(request);
        finish(request, status, now_ns);
        return;
    }
    if (request.ending == 0) {
        request.ending = status;
    }
    if (request.in_flight != 0) {
        if (!request.stale) {
            invalidate(request.queue, false);
        }
    } else if (landings_.drop(request)) {
        finish(request, request.ending, now_ns);
    }
}

void BestEffort::expire(uint64_t now_ns) {
    while (!deadlines_.empty() && deadlines_.top()->deadline_ns <= now_ns) {
        Request& request = *deadlines_.top();
        deadlines_.remove(request);
        // With a window in flight it is no longer waiting: it ends late, or when it is preempted (retire()). With its outputs
        // on their way it ends late.
        if (request.in_flight == 0 && !Landings::contains(request)) {
            end(request, -ETIME, now_ns);
        }
    }
}

// Only for requests without a window in flight.
void BestEffort::finish(Request& request, int32_t status, uint64_t now_ns) {
    if (decltype(deadlines_)::contains(request)) {
        deadlines_.remove(request);
    }
    give_context_back(request);
    leave_started(request);
    completions_.completed(request, status, now_ns);
}

void BestEffort::leave_started(Request& request) {
    if (List<Request, &Request::queue_link>::contains(request)) {
        request.task->started.remove(request);
    }
    shares_.refresh(*request.task);
}

// ---------------------------------------------------------------- taken back

void BestEffort::confine(uint32_t units) {
    epochs_.clear();
    for (QueueId id = 1; flights_ != stale_ && id < queues_.size(); ++id) {
        Queue& queue = queues_[id];
        for (uint32_t i = 0; i < queue.count; ++i) {
            if (!queue.at(i).stale && units_of(queue.at(i)) > units) {
                make_stale(queue, true);
                epochs_.push_back({id, ++queue.epoch});
                break;
            }
        }
    }
    if (!epochs_.empty()) {
        device_.write_epochs(epochs_);
    }
}

void BestEffort::invalidate(QueueId id, bool preempted) {
    Queue& queue = queues_[id];
    if (make_stale(queue, preempted)) {
        device_.write_epoch(id, ++queue.epoch);
    }
}

bool BestEffort::make_stale(Queue& queue, bool preempted) {
    bool any = false;
    for (uint32_t i = 0; i < queue.count; ++i) {
        Flight& flight = queue.at(i);
        if (flight.stale) {
            continue;
        }
        any = true;
        flight.stale = true;
        ++stale_;
        Request& request = *flight.request;
        if (preempted && !request.stale && request.preemptions != UINT16_MAX) {
            ++request.preemptions;
        }
        request.stale = true;
        sync::add_relaxed<uint64_t>(request.task->counters.abandoned_windows, 1);
    }
    return any;
}

// ---------------------------------------------------------------- launching

// A request of the task that may have its next window on this queue: one that is there already or nowhere, oldest first,
// with its inputs on the device; else a new one that finds an execution context, whose inputs may have to be fetched first.
Request* BestEffort::choose(Task& task, QueueId queue, uint64_t now_ns) {
    for (Request* request = task.started.front(); request; request = decltype(task.started)::next(*request)) {
        if ((!retrying_ || request->alone) && !request->stale && request->ending == 0 &&
            request->launched < request->model->kernels && (request->in_flight == 0 || request->queue == queue) &&
            device_.fetch(*request->context, request->binding)) {
            return request;
        }
    }
    TaskModel* oldest = nullptr;
    for (TaskModel& model : task.models) {
        if (!model.waiting.empty() && !model.free_contexts.empty() && (!retrying_ || model.waiting.front()->alone) &&
            (!oldest || model.waiting.front()->arrival < oldest->waiting.front()->arrival)) {
            oldest = &model;
        }
    }
    if (!oldest) {
        return nullptr;
    }
    Request& request = *oldest->waiting.front();
    oldest->waiting.remove(request);
    take_context(device_, request);
    completions_.launching(request, now_ns);
    task.started.push_back(request);
    return device_.fetch(*request.context, request.binding) ? &request : nullptr;
}

// At least one kernel; plain kernels are not taken back, so all of them. Not over the end of a graph, and all of a graph that takes
// little longer than a window should: its parts would be launched kernel by kernel.
uint32_t BestEffort::window_end(const Request& request, uint32_t units, uint64_t& estimate_ns) const {
    const bool bounded = policy_.checks() != Checks::none;
    const uint32_t graph = device_.info().window_kernels;
    uint32_t end = request.model->kernels;
    uint64_t limit_ns = bounded ? window_ns(units) : UINT64_MAX;
    if (bounded && graph != 0) {
        end = std::min(end, (request.launched / graph + 1) * graph);
        uint64_t graph_ns = 0;
        for (uint32_t k = request.launched; k < end; ++k) {
            graph_ns += request.model->times.estimate_ns(k, units);
        }
        limit_ns = graph_ns <= limit_ns + limit_ns / 2 ? UINT64_MAX : limit_ns;
    }
    uint32_t last = request.launched;
    estimate_ns = 0;
    do {
        const uint64_t next = request.model->times.estimate_ns(last, units);
        if (last > request.launched && estimate_ns + next > limit_ns) {
            break;
        }
        estimate_ns += next;
        ++last;
    } while (last < end && !(bounded && shield(request)));
    return last;
}

void BestEffort::launch_window(QueueId id, Request& request, uint32_t units, uint64_t now_ns) {
    account(now_ns);
    Queue& queue = queues_[id];
    Flight& flight = queue.at(queue.count++);
    flight = {};
    flight.request = &request;
    flight.first = request.launched;
    flight.mark = ++queue.mark;
    flight.split = units == units_ ? kNoSplit : units;
    flight.shielded = shield(request);
    flight.last = window_end(request, units, flight.estimate_ns);
    flight.width = request.model->times.width(flight.first, flight.last, units);
    flight.load_ns = flight.estimate_ns * flight.width / units_;
    device_.launch(id, {.context = request.context,
                        .binding = request.binding,
                        .first = flight.first,
                        .last = flight.last,
                        .epoch = queue.epoch,
                        .preemptible = policy_.checks() != Checks::none,
                        .mark = flight.mark,
                        .finish_blocks = policy_.checks() == Checks::between_blocks || flight.shielded,
                        .split = flight.split});
    request.launched = flight.last;
    request.queue = id;
    ++request.in_flight;
    ++flights_;
    load_ns_ += flight.load_ns;
    shielded_ += flight.shielded;
    sync::add_relaxed<uint64_t>(request.task->counters.shielded, flight.shielded);
    shares_.serve(*request.task);
    shares_.charge(*request.task, flight.width, static_cast<int64_t>(flight.estimate_ns));
}

// Bounded by time, and on a queue by what its device says: two windows that use all of their units, or more that use less. But one window always
// waits behind the one that runs, so that the device has no gap, and compute units that nobody uses are for whoever can. A
// request of plain kernels is one window on a queue of its own, as it would be on a stream.
bool BestEffort::has_room(const Queue& queue, uint32_t units) const {
    if (queue.count == 0 && (policy_.checks() == Checks::none || width_in_flight() < units)) {
        return true;
    }
    return policy_.checks() != Checks::none && (load_ns_ < 2 * window_ns(units) * units / units_ || flights_ == 1);
}

// One more window on this queue, of the task with the least virtual time that has one for it. A task that is ahead of its
// share may only take what would be idle: side by side, the device would give every queue the same.
bool BestEffort::fill(QueueId queue, uint32_t units, uint64_t now_ns) {
    Request* request = nullptr;
    set_aside_.clear();
    const uint64_t least = shares_.empty() ? 0 : shares_.first().virtual_time;
    const bool full = width_in_flight() >= units;
    while (!shares_.empty() && !request && set_aside_.size() < set_aside_.capacity()) {
        Task& task = shares_.first();
        if (full && !policy_.by_arrival() && task.virtual_time > least + kShareSlack * limits_.window_ns) {
            break;
        }
        request = choose(task, queue, now_ns);
        if (!request) {
            shares_.set_aside(task);
            set_aside_.push_back(&task);
        }
    }
    for (Task* task : set_aside_) {
        shares_.put_back(*task);
    }
    if (request) {
        launch_window(queue, *request, units, now_ns);
    }
    return request != nullptr;
}

// Windows keep the units that they were launched on until their marks. One that would take long is launched again on all
// that there are now, at the cost of the blocks that it has begun.
void BestEffort::widen(uint32_t units, uint64_t now_ns) {
    if (policy_.checks() == Checks::none || flights_ == stale_) {
        return;
    }
    account(now_ns);
    for (QueueId id = 1; id < queues_.size(); ++id) {
        const Queue& queue = queues_[id];
        const Flight& head = queue.at(0);
        if (queue.count != 0 && !head.stale && units_of(head) < units &&
            head.estimate_ns > head.served_ns + limits_.widen_ns) {
            invalidate(id, false);
        }
    }
}

void BestEffort::launch(const Grant& grant, bool retrying, uint64_t now_ns) {
    retrying_ = retrying;
    const uint32_t units = std::min(grant.units, units_);
    if (units == 0) {
        return;
    }
    widen(units, now_ns);
    // Every queue gets its first window before any gets a second: requests run side by side.
    for (uint32_t depth = 0; depth < depth_; ++depth) {
        bool any = false;
        for (QueueId id = 1; id < queues_.size() && !shares_.empty() && flights_ < grant.windows; ++id) {
            if (queues_[id].count != depth) {
                any |= queues_[id].count > depth;
            } else if (has_room(queues_[id], units)) {
                if (fill(id, units, now_ns)) {
                    any = true;
                } else if (depth == 0) {
                    break;  // nothing that is nowhere yet: the other empty queues would find nothing either
                }
            }
        }
        if (!any) {
            break;
        }
    }
}

// How many compute units the windows at the heads of the queues can use together.
uint64_t BestEffort::width_in_flight() const {
    uint64_t width = 0;
    for (QueueId id = 1; flights_ != 0 && id < queues_.size(); ++id) {
        width += queues_[id].count != 0 ? queues_[id].at(0).width : 0;
    }
    return width;
}

// ---------------------------------------------------------------- progress

// Gives the time since the last call to the windows at the heads of the queues: as if each had run alone, so that what
// is charged and learned does not depend on how many ran beside it. Before every change of a head.
void BestEffort::account(uint64_t now_ns) {
    const uint64_t passed = now_ns - accounted_ns_;
    accounted_ns_ = now_ns;
    uint64_t units = 0;  // that the heads have together
    for (QueueId id = 1; flights_ != 0 && id < queues_.size(); ++id) {
        units = queues_[id].count != 0 ? std::max<uint64_t>(units, units_of(queues_[id].at(0))) : units;
    }
    const uint64_t wanted = units != 0 ? std::max(width_in_flight(), units) : 0;
    for (QueueId id = 1; wanted != 0 && id < queues_.size(); ++id) {
        if (queues_[id].count != 0) {
            queues_[id].at(0).served_ns += passed * units / wanted;
        }
    }
}

bool BestEffort::progress(uint64_t now_ns) {
    bool any = landings_.progress([&](Request& request) { finish(request, request.ending, now_ns); });
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

void BestEffort::retire(QueueId id, uint64_t now_ns) {
    account(now_ns);
    Queue& queue = queues_[id];
    const Flight flight = queue.at(0);
    queue.head = (queue.head + 1) % kFlights;
    --queue.count;
    --flights_;
    stale_ -= flight.stale;
    shielded_ -= flight.shielded;
    load_ns_ -= flight.load_ns;

    Request& request = *flight.request;
    --request.in_flight;
    shares_.charge(*request.task, flight.width,
                   static_cast<int64_t>(flight.served_ns) - static_cast<int64_t>(flight.estimate_ns));
    if (flight.stale) {
        request.served |= flight.served_ns != 0;
    } else {
        request.model->times.learn(flight.first, flight.last, units_of(flight), flight.estimate_ns, flight.served_ns);
    }
    if (request.in_flight != 0) {
        return;
    }
    const bool preempted = request.stale;
    request.stale = false;
    request.launched = device_.kernels_done(*request.context);
    if (preempted && request.served) {
        count_abandonment(request);
    }
    request.served = false;
    if (request.ending != 0) {
        finish(request, request.ending, now_ns);
    } else if (request.launched == request.model->kernels && landings_.deliver(request)) {
        finish(request, 0, now_ns);
    } else if (request.launched == request.model->kernels) {
        leave_started(request);
    } else if (preempted && request.deadline_ns != 0 && request.deadline_ns <= now_ns) {
        finish(request, -ETIME, now_ns);
    }
}

// An instance that was abandoned too often gets a window of its own, whose blocks run to their end once begun: each
// preemption then finishes a block of every unit, and costs real-time work at most that block's time.
bool BestEffort::shield(const Request& request) const {
    return request.abandonments >= limits_.shield_after && request.abandoned_kernel == request.launched;
}

void BestEffort::count_abandonment(Request& request) {
    request.abandonments = request.abandoned_kernel == request.launched ? request.abandonments + 1 : 1;
    request.abandoned_kernel = request.launched;
}

Oldest BestEffort::oldest(QueueId id) const {
    const Queue& queue = queues_[id];
    return queue.count != 0 ? Oldest{queue.at(0).request, queue.at(0).mark, queue.at(0).stale} : Oldest{};
}

}  // namespace reef
