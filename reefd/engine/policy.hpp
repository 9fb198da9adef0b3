// SPDX-License-Identifier: Apache-2.0
// What may be tried against each other: when real-time and best-effort work gives way to the other. Everything else
// (queues, deadlines, shares, progress, retirement) is the scheduler's and the same for all policies.
#pragma once
#include <memory>
#include <string>

namespace reef {

class Scheduler;

class Policy {
public:
    virtual ~Policy() = default;
    virtual const char* name() const = 0;
    // Best-effort windows carry the checks that let them be abandoned.
    virtual bool preemptible() const = 0;
    // Real-time work waits to be launched, or was announced: make room.
    virtual void vacate(Scheduler& scheduler) const = 0;
    virtual bool real_time_may_launch(const Scheduler& scheduler) const = 0;
    virtual bool best_effort_may_launch(const Scheduler& scheduler) const = 0;
};

std::unique_ptr<Policy> make_reset_policy();

// By the name of the manifest or the command line; null when there is none of that name.
std::unique_ptr<Policy> make_policy(const std::string& name);

}  // namespace reef
