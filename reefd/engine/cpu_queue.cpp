// SPDX-License-Identifier: Apache-2.0
#include "cpu_queue.hpp"

#include "clock.hpp"
#include "cpu_signals.hpp"

namespace reef {

void CpuWindow::open(uint32_t mark, uint64_t first_claim, uint32_t split) {
    claim_.store(first_claim, std::memory_order_relaxed);
    // SYNC LAUNCH, first half; sequentially consistent for SYNC SLEEP.
    gate_.store(static_cast<uint64_t>(mark) << 32 | static_cast<uint64_t>(split) << kSplitShift,
                std::memory_order_seq_cst);
}

void CpuWindow::open_closed(uint32_t mark) {
    gate_.store(static_cast<uint64_t>(mark) << 32 | kClosed, std::memory_order_seq_cst);
}

void CpuWindow::close() {
    // SYNC CHAIN, first half of the closer.
    gate_.fetch_or(kClosed, std::memory_order_seq_cst);
}

bool CpuWindow::enter(uint32_t mark) {
    uint64_t gate = gate_.load(std::memory_order_relaxed);
    do {
        if (gate >> 32 != mark || (gate & kClosed))
            return false;
        // SYNC LAUNCH, second half.
    } while (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed));
    return true;
}

bool CpuWindow::leave() {
    // SYNC RETIRE: what this worker did, before the count that lets another thread retire the window.
    uint64_t before = gate_.fetch_sub(1, std::memory_order_acq_rel);
    return (before & kClosed) && (before & kActive) == 1;
}

bool CpuWindow::retire(uint32_t mark) {
    // SYNC RETIRE: acquires what every worker released by leaving. SYNC CHAIN, second half of the retirer. Once a gate is
    // closed and empty, only this changes it.
    uint64_t gate = gate_.load(std::memory_order_seq_cst);
    if (gate >> 32 != mark || (gate & (kClosed | kRetired | kActive)) != kClosed)
        return false;
    return gate_.compare_exchange_strong(gate, gate | kRetired, std::memory_order_seq_cst);
}

CpuWindow::View CpuWindow::view(uint32_t mark) const {
    // SYNC SLEEP: a worker about to sleep reads these after it has counted itself as a sleeper.
    uint64_t gate = gate_.load(std::memory_order_seq_cst);
    if (gate >> 32 != mark || (gate & kClosed))
        return {State::absent, kNoSplit};
    const bool left = Claim::unpack(claim_.load(std::memory_order_seq_cst)).left();
    return {left ? State::claimable : State::exhausted, static_cast<uint32_t>((gate & (kRetired - 1)) >> kSplitShift)};
}

void CpuQueue::write_epoch(uint32_t epoch) {
    epoch_.store(epoch, std::memory_order_seq_cst);
    for (uint32_t mark = head(); mark != launched_ + 1; mark++) {
        CpuWindow& stale = window(mark);
        if (stale.preemptible && stale.epoch != epoch)
            stale.close();
    }
}

bool CpuQueue::retire(CpuSignals& signals) {
    uint32_t mark = head();
    bool any = false;
    for (; window(mark).retire(mark); mark++, any = true) {
        // Nobody else retires a window of this queue until the mark is stored, so the fields are still this window's.
        const CpuWindow& left = window(mark);
        if (left.preemptible && left.epoch != epoch())
            vacated_ns_.store(monotonic_ns(), std::memory_order_relaxed);
        // SYNC RETIRE, first half; SYNC CHAIN, first half of the retirer; SYNC SLEEP; SYNC ARM.
        retired_.store(mark, std::memory_order_seq_cst);
        signals.retired();
    }
    return any;
}

}  // namespace reef
