// SPDX-License-Identifier: Apache-2.0
// `sequential`: one request at a time, real time first, then in order of arrival, plain kernels. What runs is waited for.
#include "policy.hpp"
#include "scheduler.hpp"

namespace reef {
namespace {

class SequentialPolicy final : public Policy {
public:
    const char* name() const override { return "sequential"; }
    Checks checks() const override { return Checks::none; }
    bool by_arrival() const override { return true; }
    bool real_time_may_launch(const Scheduler& scheduler) const override { return !scheduler.best_effort_in_flight(); }
    Grant best_effort(const Scheduler& scheduler) const override {
        return scheduler.real_time_queued() ? kNothing : Grant{1, UINT32_MAX};
    }
};

}  // namespace

std::unique_ptr<Policy> make_sequential_policy() { return std::make_unique<SequentialPolicy>(); }

}  // namespace reef
