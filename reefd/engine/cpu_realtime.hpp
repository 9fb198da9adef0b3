// SPDX-License-Identifier: Apache-2.0
// A worker's scheduling class: SCHED_FIFO for real-time blocks and while it sleeps, so that it wakes at once, and the
// ordinary class for best-effort blocks.
//
// A worker in the ordinary class can be off its processor when real-time work comes: it would not see the epoch, nor
// leave its block, before the kernel's scheduler gives it another turn, milliseconds later. So whoever launches real-time
// work raises it from outside (urge), and it takes the processor, sees the epoch and leaves.
//
// Linux stops FIFO threads that use more than 95 % of a second, for the rest of it. So a worker spends from a purse that
// fills at 80 % of the time that passes and holds at most 100 ms: never more than 0.9 s in any second. With an empty
// purse it goes on in the ordinary class.
#pragma once
#include <sched.h>
#include <sys/types.h>

#include <atomic>
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
    // When it may, if the thread does not run in FIFO until then.
    uint64_t may_raise_ns() const;
    bool empty() const { return balance_ns_ <= 0; }

private:
    int64_t balance_ns_ = kCapacityNs;
    uint64_t last_ns_;
};

// Of the thread that makes it. Every call but urge() comes from that thread.
class RealtimeThread {
public:
    explicit RealtimeThread(uint64_t now_ns);
    // Tries the class once. False: not permitted, and nothing below does anything.
    bool probe(int priority);

    void enter_real_time(uint64_t now_ns);  // before real-time blocks
    bool enter_best_effort();           // before best-effort blocks; true: it changed its class, and time has passed
    void go_to_sleep(uint64_t now_ns);  // raised while asleep, which costs nothing
    void woke(uint64_t now_ns);
    void spent(uint64_t now_ns);  // after a real-time block

    // One other thread, after it made real-time work visible that this one looks for before each best-effort block.
    void urge(uint64_t now_ns);

private:
    // `raising`: whoever stored it raises the thread and stores `raised`. `lowering`: the thread lowers itself; where one
    // stores `raising` over it, the thread raises itself again too, since it cannot know whose call came last.
    enum State : uint32_t { ordinary, lowering, raising, raised };

    bool set(int policy, int priority);
    void account(uint64_t now_ns);
    void raise();
    void lower();

    const pid_t thread_;
    RealtimePurse purse_;
    int ordinary_policy_;
    int priority_ = 0;      // 0: not permitted
    bool in_fifo_ = false;  // as far as the purse knows
    std::atomic<uint32_t> state_ = ordinary;
    std::atomic<uint64_t> may_raise_ns_ = 0;  // when the purse will allow it; stored before `lowering`
    std::atomic<uint64_t> urged_ns_ = 0;      // stored before `raising`
};

}  // namespace reef
