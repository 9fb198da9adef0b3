// SPDX-License-Identifier: Apache-2.0
// Promised latencies: which are broken, and what best-effort work loses for it. Engine thread only; no allocation.
//
// A task may promise bounds, and a share of its requests that may break them (its budget). Each request earns its task
// that share of a token, each broken one costs a whole token; a task without tokens moves the daemon one step down:
//   0 normal | 1 smaller best-effort windows | 2 and no padding | 3 and best effort suspended
// Hysteresis: after a step there is time for it to show before the next; a step back comes when no task has overdrawn its
// budget for a while, and that while doubles each time a step back proves to have been too early.
#pragma once
#include <array>
#include <cstdint>

#include "events.hpp"

namespace reef {

struct Session;
struct Task;

enum class Latency : uint8_t { queueing, preemption, execution, end_to_end };
inline constexpr uint32_t kLatencies = 4;

inline constexpr const char* kLatencyNames[kLatencies] = {"queueing", "preemption", "execution", "end_to_end"};

struct Bounds {
    std::array<uint64_t, kLatencies> limit_ns{};  // by Latency; 0: nothing is promised
    uint32_t budget_ppm = 0;                      // of a million requests so many may break one
};
inline constexpr int64_t kBoundToken = 1'000'000;  // what a broken bound costs

enum class Step : uint8_t { normal, small_windows, no_padding, suspended };
const char* step_name(Step step);

struct LadderLimits {
    uint64_t settle_ns = 200'000'000;  // between two steps down
    uint64_t calm_ns = 5'000'000'000;  // without an overdrawn budget before a step back
    uint64_t calm_max_ns = 80'000'000'000;
};

class Ladder {
public:
    Ladder(EventRing& events, const LadderLimits& limits)
        : events_(events), limits_(limits), calm_ns_(limits.calm_ns) {}

    // A request of the task took so long. Counts, and steps down where the budget is overdrawn.
    void observe(Task& task, Latency what, uint64_t ns, uint64_t now_ns);
    // Steps back when it is time.
    void tick(uint64_t now_ns);
    // When tick() has something to do; UINT64_MAX: never.
    uint64_t next_ns() const;

    Step step() const { return step_; }
    uint64_t down() const { return down_; }
    uint64_t up() const { return up_; }

private:
    void overdrawn(Task& task, Latency what, uint64_t ns, uint64_t now_ns);

    EventRing& events_;
    const LadderLimits limits_;
    Step step_ = Step::normal;
    uint64_t calm_ns_;
    uint64_t overdrawn_ns_ = 0;  // last time
    uint64_t stepped_ns_ = 0;    // down, last time
    uint64_t back_ns_ = 0;       // up, last time
    uint64_t down_ = 0;
    uint64_t up_ = 0;
};

}  // namespace reef
