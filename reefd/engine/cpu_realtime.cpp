// SPDX-License-Identifier: Apache-2.0
#include "cpu_realtime.hpp"

#include <unistd.h>

#include <algorithm>

#include "clock.hpp"

namespace reef {
namespace {

// The daemon's own class, for best-effort blocks; never FIFO or another real-time class, whatever it was started in.
int ordinary_policy() {
    const int own = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;
    return own == SCHED_BATCH || own == SCHED_IDLE ? own : SCHED_OTHER;
}

}  // namespace

void RealtimePurse::account(uint64_t now_ns, bool in_fifo) {
    int64_t passed = static_cast<int64_t>(now_ns - last_ns_);
    last_ns_ = now_ns;
    balance_ns_ = std::min(balance_ns_ + passed / 5 * 4 - (in_fifo ? passed : 0), kCapacityNs);
}

uint64_t RealtimePurse::may_raise_ns() const {
    const int64_t missing = std::max<int64_t>(0, kReserveNs - balance_ns_);
    return last_ns_ + static_cast<uint64_t>(missing / 4 * 5);
}

RealtimeThread::RealtimeThread(uint64_t now_ns)
    : thread_(gettid()), purse_(now_ns), ordinary_policy_(ordinary_policy()) {
    set(ordinary_policy_, 0);
}

bool RealtimeThread::probe(int priority) {
    if (!set(SCHED_FIFO, priority))
        return false;
    set(ordinary_policy_, 0);
    priority_ = priority;
    return true;
}

bool RealtimeThread::set(int policy, int priority) {
    sched_param parameters{};
    parameters.sched_priority = priority;
    return sched_setscheduler(thread_, policy, &parameters) == 0;
}

void RealtimeThread::account(uint64_t now_ns) {
    if (!in_fifo_ && state_.load(std::memory_order_acquire) == raised) {
        purse_.account(urged_ns_.load(std::memory_order_relaxed), false);
        in_fifo_ = true;
    }
    purse_.account(now_ns, in_fifo_);
}

void RealtimeThread::raise() {
    if (in_fifo_ || !purse_.may_raise())
        return;
    uint32_t seen = ordinary;
    if (state_.compare_exchange_strong(seen, raising, std::memory_order_acquire)) {
        in_fifo_ = set(SCHED_FIFO, priority_);
        state_.store(in_fifo_ ? raised : ordinary, std::memory_order_release);
    } else {
        in_fifo_ = set(SCHED_FIFO, priority_);  // urged at this moment: not to begin before that is done
    }
}

void RealtimeThread::lower() {
    // An urge that is under way ends: its thread waits for nothing.
    while (state_.load(std::memory_order_acquire) == raising) {
    }
    may_raise_ns_.store(purse_.may_raise_ns(), std::memory_order_relaxed);
    state_.store(lowering, std::memory_order_release);
    in_fifo_ = !set(ordinary_policy_, 0);
    uint32_t seen = lowering;
    if (state_.compare_exchange_strong(seen, in_fifo_ ? raised : ordinary, std::memory_order_acq_rel))
        return;
    // Urged meanwhile, perhaps before the call above took effect. Whoever did it stores `raised`, and nobody else: else that
    // store could come after the next lowering.
    in_fifo_ = set(SCHED_FIFO, priority_);
}

void RealtimeThread::enter_real_time(uint64_t now_ns) {
    if (priority_ == 0)
        return;
    account(now_ns);
    raise();
}

bool RealtimeThread::enter_best_effort() {
    if (!in_fifo_ && state_.load(std::memory_order_relaxed) == ordinary)
        return false;
    account(monotonic_ns());
    lower();
    return true;
}

void RealtimeThread::go_to_sleep(uint64_t now_ns) { enter_real_time(now_ns); }

void RealtimeThread::woke(uint64_t now_ns) {
    if (priority_ != 0)
        purse_.account(now_ns, false);
}

void RealtimeThread::spent(uint64_t now_ns) {
    if (priority_ == 0)
        return;
    account(now_ns);
    if (in_fifo_ && purse_.empty())
        lower();
}

void RealtimeThread::urge(uint64_t now_ns) {
    uint32_t seen = state_.load(std::memory_order_acquire);
    do {
        if (priority_ == 0 || seen >= raising || now_ns < may_raise_ns_.load(std::memory_order_relaxed))
            return;
        urged_ns_.store(now_ns, std::memory_order_relaxed);
    } while (!state_.compare_exchange_weak(seen, raising, std::memory_order_acq_rel));
    // One that is lowering itself too: another thread may have taken its processor in the middle of that.
    state_.store(set(SCHED_FIFO, priority_) ? raised : ordinary, std::memory_order_release);
}

}  // namespace reef
