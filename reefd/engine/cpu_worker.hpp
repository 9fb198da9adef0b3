// SPDX-License-Identifier: Apache-2.0
// A worker of the CPU device: one thread, one compute unit. It serves both classes, so that preemption is the device's
// own: real-time windows first, then the best-effort queues in turn.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>

#include "cpu_expectation.hpp"
#include "cpu_memory.hpp"
#include "cpu_queue.hpp"
#include "cpu_realtime.hpp"
#include "cpu_signals.hpp"

namespace reef {

// What the workers of a device share.
struct CpuShared {
    std::span<CpuQueue> queues;  // the real-time queue first
    CpuSignals signals;
    const std::shared_ptr<CpuExpectation> expectation = std::make_shared<CpuExpectation>();
    uint32_t workers;
    uint64_t spin_ns;                    // how long a worker waits for others in the same window before it sleeps
    int fifo_priority;                   // 0: never SCHED_FIFO
    bool exclusive;                      // DeviceOptions::exclusive
    std::atomic<uint64_t> asked_ns = 0;  // who is in a best-effort block at this time notes when it leaves
    std::atomic<bool> stopping = false;

    CpuWindow::View real_time() const { return queues[kRealTimeQueue].view_of_any(); }
    // A split belongs to the last workers.
    bool aside(uint32_t worker, uint32_t split) const { return worker >= workers - split; }
    // The worker is for `real_time`, the window at the head of the real-time queue, and for nothing else.
    bool real_time_first(const CpuWindow::View& real_time, uint32_t worker) const {
        if (real_time.state == CpuWindow::State::absent || aside(worker, real_time.split))
            return false;
        return exclusive || real_time.state == CpuWindow::State::claimable;
    }
    // Blocks of a best-effort window with this split may begin on the worker.
    bool best_effort_may_begin(uint32_t split, uint32_t worker) const {
        const CpuWindow::View now = real_time();
        if (real_time_first(now, worker))
            return false;
        if (split == kNoSplit)
            return !exclusive || now.state == CpuWindow::State::absent;
        return aside(worker, split);
    }
    // SYNC SLEEP: also the look of a worker that has counted itself as a sleeper. While real-time work is on the device,
    // a worker without a block waits for its next kernel: a best-effort block begun now would delay it.
    bool something_to_do(uint32_t worker) const;
    // After a gate was closed or left: retires what can be, and wakes workers for what that uncovered.
    void retire(CpuQueue& queue);
};

// For the calling thread, before it runs blocks: subnormal numbers count as zero. Some processors take a hundred times
// longer for them, which breaks every bound.
void flush_subnormals();

class CpuWorker {
public:
    CpuWorker(CpuShared& shared, uint32_t index);
    ~CpuWorker();  // after shared.stopping and a wake-up: joins

    // Starts the thread on `cpu` (-1: anywhere). Returns when it runs and has tried its scheduling class.
    void start(int cpu);
    void fill_scratch(size_t bytes) { scratch_.fill(bytes); }
    bool real_time() const { return real_time_granted_; }
    int cpu() const { return cpu_; }
    // Engine thread, after it opened a real-time window: a worker that is off its processor gets there at once.
    void urge(uint64_t now_ns) { class_->urge(now_ns); }
    WorkerStatistics statistics() const;

private:
    void main();
    bool work();
    bool serve(CpuQueue& queue, bool real_time);
    bool run_blocks(CpuQueue& queue, CpuWindow& window, bool real_time);
    bool may_begin(const CpuQueue& queue, CpuWindow& window, bool real_time);
    bool run_block(CpuQueue& queue, CpuWindow& window, const Claim& claim, bool real_time);
    enum class Next { look, begin, over };  // for more blocks; with the one in hand; nothing is left of the window
    Next finish_block(CpuQueue& queue, CpuWindow& window, Claim& claim, bool real_time);
    bool wait_for_others() const;
    bool wait_for_expected();

    CpuShared& shared_;
    const uint32_t index_;
    uint32_t turn_;           // best-effort queue to look at first
    const CpuQueue* served_;  // last
    uint64_t now_ns_ = 0;     // while it serves a window; the clock is read once for each block
    LockedMemory scratch_;
    std::thread thread_;
    RealtimeThread* class_ = nullptr;  // lives on the thread's stack
    int cpu_ = -1;
    bool real_time_granted_ = false;
    std::atomic<bool> started_ = false;

    // One writer, this worker; read by anyone.
    alignas(kLine) std::atomic<uint64_t> real_time_ns_ = 0;
    std::atomic<uint64_t> best_effort_ns_ = 0;
    std::atomic<uint64_t> blocks_ = 0;
    std::atomic<uint64_t> abandoned_ = 0;
    std::atomic<uint64_t> left_ns_ = 0;
};

}  // namespace reef
