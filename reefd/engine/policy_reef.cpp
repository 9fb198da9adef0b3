// SPDX-License-Identifier: Apache-2.0
// `reef`: reset, and best-effort work goes on beside a real-time model on the compute units that its plan leaves idle.
// Without a padding plan for the running model it is reset.
#include "policy.hpp"
#include "scheduler.hpp"

namespace reef {
namespace {

class ReefPolicy final : public Policy {
public:
    const char* name() const override { return "reef"; }
    Checks checks() const override { return Checks::within_blocks; }
    bool pads() const override { return true; }
    bool real_time_may_launch(const Scheduler&) const override { return true; }
    Grant best_effort(const Scheduler& scheduler) const override {
        return scheduler.real_time_pending() ? Grant{UINT32_MAX, scheduler.split()} : kEverything;
    }
};

}  // namespace

std::unique_ptr<Policy> make_reef_policy() { return std::make_unique<ReefPolicy>(); }

}  // namespace reef
