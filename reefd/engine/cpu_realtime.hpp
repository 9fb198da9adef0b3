// SPDX-License-Identifier: Apache-2.0
// A worker's scheduling class: SCHED_FIFO for real-time blocks and while it sleeps, so that it wakes at once, and its
// own class for best-effort blocks.
//
// Linux stops FIFO threads that use more than 95 % of a second, for the rest of it. So a worker spends from a purse that
// fills at 80 % of the time that passes and holds at most 100 ms: never more than 0.9 s in any second. With an empty
// purse it goes on in its own class.
#pragma once
#include <sched.h>

#include <cstdint>

namespace reef {

class RealtimePurse {
public:
    static constexpr int64_t kCapacityNs = 100'000'000;
    static constexpr int64_t kReserveNs = 10'000'000;  // needed to raise: no changing class for every block

    explicit RealtimePurse(uint64_t now_ns) : last_ns_(now_ns) {}
    // Accounts for the time since the last call, in which the thread ran in FIFO or did not.
    void account(uint64_t now_ns, bool in_fifo);
    bool may_raise() const { return balance_ns_ >= kReserveNs; }
    bool empty() const { return balance_ns_ <= 0; }

private:
    int64_t balance_ns_ = kCapacityNs;
    uint64_t last_ns_;
};

// Of the calling thread; every call comes from it.
class RealtimeThread {
public:
    explicit RealtimeThread(uint64_t now_ns);
    // Tries the class once. False: not permitted, and nothing below does anything.
    bool probe(int priority);

    void enter_real_time(uint64_t now_ns);  // before real-time blocks
    void enter_best_effort();               // before best-effort blocks
    void go_to_sleep(uint64_t now_ns);      // raised while asleep, which costs nothing
    void woke(uint64_t now_ns);
    void spent(uint64_t now_ns);  // after a real-time block

private:
    bool set(int policy, int priority);
    void raise();
    void lower();

    RealtimePurse purse_;
    int own_policy_;
    sched_param own_priority_;
    int priority_ = 0;  // 0: not permitted
    bool raised_ = false;
};

}  // namespace reef
