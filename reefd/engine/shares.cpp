// SPDX-License-Identifier: Apache-2.0
#include "shares.hpp"

#include <algorithm>

namespace reef {
namespace {

constexpr int64_t kScale = 100;  // the default weight: virtual time passes as time on the whole device does

}  // namespace

// UINT64_MAX: it has no request.
uint64_t Shares::first_arrival(const Task& task) {
    uint64_t first = UINT64_MAX;
    for (const Request* request = task.started.front(); request; request = decltype(task.started)::next(*request)) {
        first = std::min(first, request->arrival);
    }
    for (const TaskModel& model : task.models) {
        first = model.waiting.empty() ? first : std::min(first, model.waiting.front()->arrival);
    }
    return first;
}

void Shares::refresh(Task& task) {
    const uint64_t arrival = first_arrival(task);
    const bool queued = decltype(runnable_)::contains(task);
    if (queued && (arrival == UINT64_MAX || by_arrival_)) {
        runnable_.remove(task);
    }
    if (arrival != UINT64_MAX && (!queued || by_arrival_)) {
        // A task that was away does not get back the time in which it asked for nothing.
        task.virtual_time = by_arrival_ ? arrival : std::max(task.virtual_time, now_);
        runnable_.push(task);
    }
}

void Shares::charge(Task& task, uint64_t width, int64_t ns) {
    if (by_arrival_) {
        return;
    }
    const bool queued = decltype(runnable_)::contains(task);
    if (queued) {
        runnable_.remove(task);
    }
    const int64_t share =
        ns * kScale * static_cast<int64_t>(width) / static_cast<int64_t>(uint64_t{task.spec.weight} * units_);
    task.virtual_time = static_cast<uint64_t>(std::max<int64_t>(0, static_cast<int64_t>(task.virtual_time) + share));
    if (queued) {
        runnable_.push(task);
    }
}

}  // namespace reef
