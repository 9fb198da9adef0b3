// SPDX-License-Identifier: Apache-2.0
// How the CPU device wakes its workers, and the engine thread.
//
// Workers sleep on one futex word of the device. SYNC SLEEP: a worker counts itself as a sleeper, then looks at the
// queues once more; who makes work visible stores it, then reads the count. All four are sequentially consistent, so one
// of the two sees the other. The word's value, taken before the look, keeps a wake-up in between from being lost.
//
// SYNC ARM: the engine thread sets `armed`, then reads the marks; a worker stores a mark, then reads `armed`.
#pragma once
#include <atomic>
#include <cstdint>

namespace reef {

class CpuSignals {
public:
    CpuSignals();
    ~CpuSignals();
    CpuSignals(const CpuSignals&) = delete;
    CpuSignals& operator=(const CpuSignals&) = delete;

    // ---- anyone
    // Something became visible that up to `workers` workers can share.
    void work(uint32_t workers);
    // A mark was stored.
    void retired();

    // ---- workers
    // look() true: there is something to do. Returns after a wake-up, or at once when look() is true.
    template <class Look> void sleep(const Look& look) {
        uint32_t value = word_.load(std::memory_order_seq_cst);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        if (!look())
            wait(value);
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }

    // ---- engine thread
    int event_fd() const { return event_fd_; }
    void arm();

private:
    void wait(uint32_t value);

    int event_fd_;
    alignas(128) std::atomic<uint32_t> word_ = 0;
    alignas(128) std::atomic<uint32_t> sleepers_ = 0;
    alignas(128) std::atomic<bool> armed_ = false;
};

}  // namespace reef
