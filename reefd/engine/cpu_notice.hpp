// SPDX-License-Identifier: Apache-2.0
// What the machine adds to every preemption: how long bare threads, as many as a device has workers and on the same
// processors, take to notice a word that another thread wrote. The control of `reefctl bench preempt` (cpu_vacate.hpp).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace reef {

struct NoticeOptions {
    uint32_t threads;    // thread i on the i-th CPU that the caller may use, in turn, as a device's workers are
    size_t memory;       // bytes that each reads over and over while it looks; 0: it does nothing but look
    uint64_t within_ns;  // the word is written at a random time after the one before was noticed, below this
    uint64_t seed;
};

struct NoticeSample {
    uint64_t latency_ns;  // from before the store until the last thread had noticed
    uint64_t timer_ns;    // how late the caller's own timer was
};

// The caller, who writes the word, sleeps in between, as an engine thread does.
void measure_notice(std::span<NoticeSample> samples, const NoticeOptions& options);

}  // namespace reef
