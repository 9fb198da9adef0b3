// SPDX-License-Identifier: Apache-2.0
// `wait` (REEF-N): what is queued on the device is invalidated, but blocks that run are waited for. The epoch is looked at
// before a block begins, never inside, so real-time work waits for up to the longest block.
#include "policy.hpp"
#include "scheduler.hpp"

namespace reef {
namespace {

class WaitPolicy final : public Policy {
public:
    const char* name() const override { return "wait"; }
    Checks checks() const override { return Checks::between_blocks; }
    bool real_time_may_launch(const Scheduler&) const override { return true; }
    Grant best_effort(const Scheduler& scheduler) const override {
        return scheduler.real_time_pending() ? kNothing : kEverything;
    }
};

}  // namespace

std::unique_ptr<Policy> make_wait_policy() { return std::make_unique<WaitPolicy>(); }

}  // namespace reef
