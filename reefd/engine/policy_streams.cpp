// SPDX-License-Identifier: Apache-2.0
// `streams`: the vendor's stream priorities and nothing else. Both classes are on the device at the same time, as plain
// kernels; a compute unit that becomes free takes a real-time block if there is one. Nothing is ever taken back.
#include "policy.hpp"
#include "scheduler.hpp"

namespace reef {
namespace {

class StreamsPolicy final : public Policy {
public:
    const char* name() const override { return "streams"; }
    Checks checks() const override { return Checks::none; }
    bool exclusive() const override { return false; }
    bool real_time_may_launch(const Scheduler&) const override { return true; }
    Grant best_effort(const Scheduler&) const override { return kEverything; }
};

}  // namespace

std::unique_ptr<Policy> make_streams_policy() { return std::make_unique<StreamsPolicy>(); }

}  // namespace reef
