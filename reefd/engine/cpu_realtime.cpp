// SPDX-License-Identifier: Apache-2.0
#include "cpu_realtime.hpp"

#include <algorithm>

#include "clock.hpp"

namespace reef {

void RealtimePurse::account(uint64_t now_ns, bool in_fifo) {
    int64_t passed = static_cast<int64_t>(now_ns - last_ns_);
    last_ns_ = now_ns;
    balance_ns_ = std::min(balance_ns_ + passed / 5 * 4 - (in_fifo ? passed : 0), kCapacityNs);
}

RealtimeThread::RealtimeThread(uint64_t now_ns) : purse_(now_ns), own_policy_(sched_getscheduler(0)) {
    sched_getparam(0, &own_priority_);
}

bool RealtimeThread::probe(int priority) {
    if (!set(SCHED_FIFO, priority))
        return false;
    set(own_policy_, own_priority_.sched_priority);
    priority_ = priority;
    return true;
}

bool RealtimeThread::set(int policy, int priority) {
    sched_param parameters{};
    parameters.sched_priority = priority;
    return sched_setscheduler(0, policy, &parameters) == 0;
}

void RealtimeThread::raise() {
    if (priority_ != 0 && !raised_ && purse_.may_raise())
        raised_ = set(SCHED_FIFO, priority_);
}

void RealtimeThread::lower() {
    if (raised_)
        raised_ = !set(own_policy_, own_priority_.sched_priority);
}

void RealtimeThread::enter_real_time(uint64_t now_ns) {
    if (priority_ == 0)
        return;
    purse_.account(now_ns, raised_);
    raise();
}

void RealtimeThread::enter_best_effort() {
    if (!raised_)
        return;
    purse_.account(monotonic_ns(), true);
    lower();
}

void RealtimeThread::go_to_sleep(uint64_t now_ns) { enter_real_time(now_ns); }

void RealtimeThread::woke(uint64_t now_ns) {
    if (priority_ != 0)
        purse_.account(now_ns, false);
}

void RealtimeThread::spent(uint64_t now_ns) {
    if (priority_ == 0)
        return;
    purse_.account(now_ns, raised_);
    if (purse_.empty())
        lower();
}

}  // namespace reef
