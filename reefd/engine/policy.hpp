// SPDX-License-Identifier: Apache-2.0
// What may be tried against each other: when real-time and best-effort work gives way to the other. Everything else
// (queues, deadlines, shares, progress, retirement) is the scheduler's and the same for all policies.
//
// A policy has no state: it looks at the scheduler and answers. Each is a file of its own, policy_<name>.cpp.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "device.hpp"

namespace reef {

class Scheduler;

// What blocks of best-effort windows look at the queue epoch for.
enum class Checks : uint8_t {
    none,            // plain kernels; a request is one window and runs to its end
    between_blocks,  // a block that has begun runs to its end
    within_blocks,   // also at check points inside
};

// What best-effort work may have now.
struct Grant {
    uint32_t windows;  // that may be in flight
    uint32_t units;    // the last ones of the device; what may run on more is taken back, where blocks have checks
};
inline constexpr Grant kNothing{0, 0};
inline constexpr Grant kEverything{UINT32_MAX, UINT32_MAX};

class Policy {
public:
    virtual ~Policy() = default;
    virtual const char* name() const = 0;
    virtual Checks checks() const = 0;
    // DeviceOptions::exclusive.
    virtual bool exclusive() const { return true; }
    // Best-effort requests start in order of arrival, not by the shares of their tasks.
    virtual bool by_arrival() const { return false; }
    // Real-time models leave the compute units of their padding plan aside.
    virtual bool pads() const { return false; }
    virtual bool real_time_may_launch(const Scheduler& scheduler) const = 0;
    virtual Grant best_effort(const Scheduler& scheduler) const = 0;
};

// Null when there is none of that name.
std::unique_ptr<Policy> make_policy(const std::string& name);
std::vector<std::string> policy_names();

// What make_policy() chooses from, policy_<name>.cpp.
std::unique_ptr<Policy> make_reef_policy();
std::unique_ptr<Policy> make_reset_policy();
std::unique_ptr<Policy> make_wait_policy();
std::unique_ptr<Policy> make_streams_policy();
std::unique_ptr<Policy> make_sequential_policy();

}  // namespace reef
