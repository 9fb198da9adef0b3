// SPDX-License-Identifier: Apache-2.0
#include "real_time.hpp"

#include <algorithm>
#include <cerrno>

namespace reef {
namespace {

uint64_t deadline_of(const Request& request) { return request.deadline_ns ? request.deadline_ns : UINT64_MAX; }

}  // namespace

bool RealTime::more_urgent(const Request& a, const Request& b) {
    return deadline_of(a) != deadline_of(b) ? deadline_of(a) < deadline_of(b) : a.priority > b.priority;
}

void RealTime::begin() {
    mark_ = device_.retired(kRealTimeQueue);
    device_.write_epoch(kRealTimeQueue, epoch_);
}

// ---------------------------------------------------------------- requests come and go

void RealTime::leave_waiting(Request& request) {
    waiting_.remove(request);
    if (request.phase == Phase::started) {
        request.model->paused.remove(request);
    }
}

void RealTime::end(Request& request, int32_t status, uint64_t now_ns) {
    if (decltype(waiting_)::contains(request)) {
        leave_waiting(request);
        finish(request, status, now_ns);
        return;
    }
    if (request.ending == 0) {
        request.ending = status;
    }
    if (Landings::contains(request) && landings_.drop(request)) {
        finish(request, request.ending, now_ns);
    }
}

void RealTime::expire(uint64_t now_ns) {
    while (!waiting_.empty() && deadline_of(*waiting_.top()) <= now_ns) {
        end(*waiting_.top(), -ETIME, now_ns);
    }
}

// Every kernel of it.
void RealTime::done(Request& request, uint64_t now_ns) {
    if (request.ending != 0 || landings_.deliver(request)) {
        finish(request, request.ending, now_ns);
    }
}

void RealTime::finish(Request& request, int32_t status, uint64_t now_ns) {
    give_context_back(request);
    completions_.completed(request, status, now_ns);
}

// ---------------------------------------------------------------- launching

// The most urgent request; or, where it needs an execution context, the one that keeps it while paused. Null: the context
// comes back with a retirement.
Request* RealTime::next_to_run() const {
    if (waiting_.empty()) {
        return nullptr;
    }
    Request& top = *waiting_.top();
    const bool has_context = top.phase == Phase::started || !top.model->free_contexts.empty();
    return has_context ? &top : top.model->paused.front();
}

Request* RealTime::launch(uint64_t now_ns) {
    Request* next = next_to_run();
    if (!next) {
        return nullptr;
    }
    if (running_) {
        if (!checked(*running_) || !more_urgent(*next, *running_)) {
            return nullptr;
        }
        pause();
    }
    leave_waiting(*next);
    if (next->phase == Phase::waiting) {
        take_context(device_, *next);
        completions_.launching(*next, now_ns);
    }
    running_ = next;
    launch_windows();
    return next;
}

// As many windows as the device takes; progress() launches the others.
void RealTime::launch_windows() {
    Request& request = *running_;
    const std::span<const Segment> padding = padding_ ? std::span(request.model->padding) : std::span<Segment>();
    const uint32_t kernels = request.model->kernels;
    while (request.launched < kernels && count_ < std::min(kFlights, device_.info().queue_depth)) {
        const Segment segment = segment_at(padding, request.launched, kernels);
        at(count_++) = {&request, ++mark_, segment.split, false};
        device_.launch(kRealTimeQueue, {.context = request.context,
                                        .binding = request.binding,
                                        .first = request.launched,
                                        .last = segment.last,
                                        .epoch = epoch_,
                                        .preemptible = checked(request),
                                        .mark = mark_,
                                        .finish_blocks = policy_.checks() == Checks::between_blocks,
                                        .split = segment.split});
        request.launched = segment.last;
        ++request.in_flight;
    }
}

void RealTime::pause() {
    for (uint32_t i = 0; i < count_; ++i) {
        at(i).stale = true;
    }
    if (running_->preemptions != UINT16_MAX) {
        ++running_->preemptions;
    }
    device_.write_epoch(kRealTimeQueue, ++epoch_);
    Request& request = *running_;
    running_ = nullptr;
    if (request.in_flight == 0) {  // it had not found room on the queue yet
        request.model->paused.push_back(request);
        waiting_.push(request);
    }
}

// ---------------------------------------------------------------- progress

bool RealTime::progress(uint64_t now_ns) {
    bool any = landings_.progress([&](Request& request) { finish(request, request.ending, now_ns); });
    if (count_ != 0) {
        const uint32_t mark = device_.retired(kRealTimeQueue);
        while (count_ != 0 && reached(mark, at(0).mark)) {
            const Flight flight = at(0);
            head_ = (head_ + 1) % kFlights;
            --count_;
            retired(flight, now_ns);
            any = true;
        }
    }
    if (any && running_) {
        launch_windows();
    }
    return any;
}

void RealTime::retired(const Flight& flight, uint64_t now_ns) {
    Request& request = *flight.request;
    if (--request.in_flight != 0 || (&request == running_ && request.launched < request.model->kernels)) {
        return;
    }
    if (&request == running_) {
        running_ = nullptr;
        done(request, now_ns);
        return;
    }
    // It gave way.
    request.launched = device_.kernels_done(*request.context);
    if (request.ending != 0 || request.launched == request.model->kernels) {
        done(request, now_ns);
    } else if (deadline_of(request) <= now_ns) {
        finish(request, -ETIME, now_ns);
    } else {
        request.model->paused.push_back(request);
        waiting_.push(request);
    }
}

uint32_t RealTime::split() const {
    for (uint32_t i = 0; i < count_; ++i) {
        if (!at(i).stale) {
            return at(i).split;
        }
    }
    const Request* next = next_to_run();
    return next && padding_ ? segment_at(next->model->padding, next->launched, next->model->kernels).split : 0;
}

uint64_t RealTime::next_deadline_ns() const { return waiting_.empty() ? UINT64_MAX : deadline_of(*waiting_.top()); }

}  // namespace reef
