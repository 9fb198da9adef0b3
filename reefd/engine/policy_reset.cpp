// SPDX-License-Identifier: Apache-2.0
// `reset`: real-time work takes the whole device at once. Best-effort windows are invalidated, not waited for, and
// resume from their first unfinished kernel when no real-time work is left.
#include "policy.hpp"
#include "scheduler.hpp"

namespace reef {
namespace {

class ResetPolicy final : public Policy {
public:
    const char* name() const override { return "reset"; }
    bool preemptible() const override { return true; }
    void vacate(Scheduler& scheduler) const override { scheduler.preempt(); }
    bool real_time_may_launch(const Scheduler&) const override { return true; }
    bool best_effort_may_launch(const Scheduler& scheduler) const override { return !scheduler.real_time_pending(); }
};

}  // namespace

std::unique_ptr<Policy> make_reset_policy() { return std::make_unique<ResetPolicy>(); }

std::unique_ptr<Policy> make_policy(const std::string& name) {
    // `reef` is reset plus padding; without a padding plan for the running model it is reset.
    if (name == "reef" || name == "reset") {
        return make_reset_policy();
    }
    return nullptr;
}

}  // namespace reef
