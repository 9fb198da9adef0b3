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
    Checks checks() const override { return Checks::within_blocks; }
    bool real_time_may_launch(const Scheduler&) const override { return true; }
    Grant best_effort(const Scheduler& scheduler) const override {
        return scheduler.real_time_pending() ? kNothing : kEverything;
    }
};

}  // namespace

std::unique_ptr<Policy> make_reset_policy() { return std::make_unique<ResetPolicy>(); }

}  // namespace reef
