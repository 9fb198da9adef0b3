// SPDX-License-Identifier: Apache-2.0
#include "ladder.hpp"

#include <algorithm>

#include "sync.hpp"
#include "task.hpp"

namespace reef {
namespace {

constexpr int64_t kSavedRequests = 1000;  // what a task can save up: the budget of so many requests

uint64_t packed(Step from, Step to, Latency what) {
    return static_cast<uint64_t>(from) | static_cast<uint64_t>(to) << 8 | static_cast<uint64_t>(what) << 16;
}

}  // namespace

const char* step_name(Step step) {
    switch (step) {
    case Step::normal:
        return "normal";
    case Step::small_windows:
        return "smaller best-effort windows";
    case Step::no_padding:
        return "no padding";
    case Step::suspended:
        return "best effort suspended";
    }
    return "unknown";
}

void Ladder::observe(Task& task, Latency what, uint64_t ns, uint64_t now_ns) {
    const Bounds& bounds = task.spec.bounds;
    if (what == Latency::end_to_end) {  // once for each request
        const int64_t most = std::max(kBoundToken, int64_t{bounds.budget_ppm} * kSavedRequests);
        task.tokens = std::min(most, task.tokens + bounds.budget_ppm);
    }
    const auto index = static_cast<size_t>(what);
    if (bounds.limit_ns[index] == 0 || ns <= bounds.limit_ns[index]) {
        return;
    }
    sync::add_relaxed<uint64_t>(task.counters.broken[index], 1);
    task.tokens -= kBoundToken;
    if (task.tokens < 0) {
        task.tokens = 0;
        overdrawn(task, what, ns, now_ns);
    }
}

void Ladder::overdrawn(Task& task, Latency what, uint64_t ns, uint64_t now_ns) {
    overdrawn_ns_ = now_ns;
    if (step_ == Step::suspended || (down_ != 0 && now_ns - stepped_ns_ < limits_.settle_ns)) {
        return;
    }
    const bool too_early = up_ != 0 && now_ns - back_ns_ < calm_ns_;
    calm_ns_ = too_early ? std::min(2 * calm_ns_, limits_.calm_max_ns) : limits_.calm_ns;
    const Step from = step_;
    step_ = static_cast<Step>(static_cast<uint8_t>(step_) + 1);
    stepped_ns_ = now_ns;
    ++down_;
    const auto index = static_cast<size_t>(what);
    events_.push({EventKind::bounds,
                  0,
                  now_ns,
                  0,
                  task.id,
                  {packed(from, step_, what), ns, task.spec.bounds.limit_ns[index], task.counters.broken[index]}});
}

void Ladder::tick(uint64_t now_ns) {
    if (now_ns < next_ns()) {
        return;
    }
    const Step from = step_;
    step_ = static_cast<Step>(static_cast<uint8_t>(step_) - 1);
    back_ns_ = now_ns;
    ++up_;
    events_.push({EventKind::bounds, 0, now_ns, 0, 0, {packed(from, step_, {}), now_ns - overdrawn_ns_, 0, 0}});
}

uint64_t Ladder::next_ns() const {
    if (step_ == Step::normal) {
        return UINT64_MAX;
    }
    return std::max({overdrawn_ns_, stepped_ns_, back_ns_}) + calm_ns_;
}

}  // namespace reef
