// SPDX-License-Identifier: Apache-2.0
// Windows in flight on the CPU device, and the words by which workers enter, share and leave them.
//
// A queue is a ring of window slots. Only the oldest window that has not retired, the head, can be entered. Each slot has
//   gate    {mark, retired, closed, split, active}: a worker enters by compare-and-swap and leaves by subtraction. A closed
//           gate lets nobody in, and a gate of another mark is another window's, so a recycled slot is never entered by
//           mistake. The split says which workers may enter, to those who look from outside.
//   claim   {kernel, blocks, next}: a fetch-add takes the next block of the current kernel; the word says by itself
//           whether blocks are left. Whoever completes a kernel stores the next one's word, and takes its first block by
//           that: it need not fetch the word again from those who wait for it.
// A window retires when its gate is closed and nobody is inside. Whoever completes its last kernel closes it, and so do
// the engine thread and any worker inside that finds its epoch stale. Epochs only ever move on: a stale window stays so.
//
// Orderings. Each label stands at both ends of the pair it names.
//   SYNC LAUNCH    the window's fields before its open gate; a worker enters before it reads them.
//   SYNC BLOCKS    a block's outputs before its bit; whoever sets the last bit sees them all.
//   SYNC ADVANCE   the previous kernel's outputs, or a snapshot, before the claim word; a worker claims before it uses them.
//   SYNC RETIRE    a worker's last access before its leaving; the engine, and workers of the next window, read the mark
//                  first and then reuse what the window used.
//   SYNC CHAIN     two stale windows: the next one's gate is closed, then the mark read; the mark is stored, then the next
//                  gate read. One of the two threads sees both, and retires the next one.
//   SYNC SLEEP, SYNC ARM: cpu_signals.hpp.
// The queue epoch itself needs no ordering: a block that reads it late only leaves later, and who enters the window behind
// an abandoned one reads no older epoch than the thread that retired that, by SYNC RETIRE: nothing of it begins without the
// kernels before it. What may be reused, and when, follows from retirement alone.
#pragma once
#include <atomic>
#include <cstdint>

#include "device.hpp"

namespace reef {

class CpuContext;
class CpuSignals;

inline constexpr size_t kLine = 128;  // two cache lines: the adjacent-line prefetcher pairs them
inline constexpr uint32_t kQueueDepth = 8;
inline constexpr uint32_t kMaxWorkers = 1024;
inline constexpr uint32_t kNoKernel = UINT32_MAX;

// A claim word: kernel in bits 48..63, copies in 47, blocks in 24..46, next in 0..23. `next` may exceed `blocks` by one for
// each of kMaxWorkers workers, which blocks <= kMaxBlocks < 2^23 leaves room for.
struct Claim {
    uint32_t kernel;
    bool copies;  // the blocks are pieces of the kernel's snapshot (CpuContext::copy), not of the kernel
    uint32_t blocks;
    uint32_t next;
    bool left() const { return next < blocks; }
    static Claim unpack(uint64_t word) {
        return {static_cast<uint32_t>(word >> 48), (word >> 47 & 1) != 0, static_cast<uint32_t>(word >> 24) & 0x7fffff,
                static_cast<uint32_t>(word) & 0xffffff};
    }
    uint64_t pack() const {
        return static_cast<uint64_t>(kernel) << 48 | uint64_t{copies} << 47 | static_cast<uint64_t>(blocks) << 24 |
               next;
    }
};

class CpuWindow {
public:
    // ---- fields, written by the engine thread before the gate opens, read by workers inside
    CpuContext* context = nullptr;
    uint32_t first = 0;             // the only instance of which blocks may be done when the gate opens
    uint32_t last = 0;              // kernel instances up to here
    uint32_t shielded = kNoKernel;  // the instance whose blocks, once begun, ignore the epoch
    uint32_t epoch = 0;
    bool preemptible = false;
    bool finish_blocks = false;  // the same for every instance
    uint32_t split = kNoSplit;   // the gate's
    // Blocks of this kernel that have begun run to their end in this window.
    bool runs_to_end(uint32_t kernel) const { return !preemptible || finish_blocks || kernel == shielded; }

    // ---- engine thread
    void open(uint32_t mark, uint64_t first_claim, uint32_t split = kNoSplit);
    void open_closed(uint32_t mark);  // nothing to run: only retires in its turn
    // Nobody enters any more. Anyone inside or the engine thread may call it.
    void close();

    // ---- workers
    bool enter(uint32_t mark);
    // True when the caller was the last inside a closed window: it must have the queue retire it.
    bool leave();
    // Marks the window retired. True for exactly one caller, once it is closed and empty.
    bool retire(uint32_t mark);

    enum class State { absent, exhausted, claimable };
    struct View {
        State state;
        uint32_t split;
    };
    // A hint for choosing: absent when it cannot be entered.
    View view(uint32_t mark) const;

    // SYNC ADVANCE, second half. Only by a worker that saw blocks left since its last claim found none: `next` has room for
    // one vain claim of each.
    Claim take() { return Claim::unpack(claim_.fetch_add(1, std::memory_order_acquire)); }
    // SYNC ADVANCE, first half; sequentially consistent for SYNC SLEEP.
    void advance(const Claim& next) { claim_.store(next.pack(), std::memory_order_seq_cst); }

private:
    static constexpr uint64_t kClosed = 1ull << 31;
    static constexpr uint64_t kRetired = 1ull << 30;
    static constexpr int kSplitShift = 12;
    static constexpr uint64_t kActive = (1ull << kSplitShift) - 1;
    static_assert(kMaxWorkers <= kActive && kMaxWorkers <= kRetired >> kSplitShift);

    alignas(kLine) std::atomic<uint64_t> gate_ = kClosed | kRetired;
    alignas(kLine) std::atomic<uint64_t> claim_ = 0;
};

class CpuQueue {
public:
    // ---- engine thread
    void launched(uint32_t mark) { launched_ = mark; }
    uint32_t launched() const { return launched_; }
    void write_epoch(uint32_t epoch);  // closes every stale window; the caller has them retired

    // ---- anyone
    // SYNC RETIRE, second half; sequentially consistent for SYNC CHAIN, SYNC SLEEP and SYNC ARM.
    uint32_t retired() const { return retired_.load(std::memory_order_seq_cst); }
    uint32_t head() const { return retired() + 1; }
    CpuWindow& window(uint32_t mark) { return windows_[mark % kQueueDepth]; }
    const CpuWindow& window(uint32_t mark) const { return windows_[mark % kQueueDepth]; }
    CpuWindow::View view() const {
        uint32_t mark = head();
        return window(mark).view(mark);
    }
    // The same, but exhausted where the head is closed, not retired yet, and another window waits behind it: whoever would
    // begin something else meanwhile would find that one there.
    CpuWindow::View view_of_any() const {
        const uint32_t mark = head();
        const CpuWindow::View first = window(mark).view(mark);
        if (first.state != CpuWindow::State::absent)
            return first;
        const CpuWindow::View next = window(mark + 1).view(mark + 1);
        if (next.state == CpuWindow::State::absent)
            return first;
        return {CpuWindow::State::exhausted, next.split};
    }
    // Retires every closed, empty window from the head on. True: at least one.
    bool retire(CpuSignals& signals);

    uint32_t epoch() const { return epoch_.load(std::memory_order_relaxed); }
    const uint32_t* epoch_word() const { return reinterpret_cast<const uint32_t*>(&epoch_); }
    // When the last stale window was found empty.
    uint64_t vacated_ns() const { return vacated_ns_.load(std::memory_order_relaxed); }

private:
    static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) && std::atomic<uint32_t>::is_always_lock_free);
    uint32_t launched_ = 0;  // engine thread only
    alignas(kLine) std::atomic<uint32_t> epoch_ = 0;
    alignas(kLine) std::atomic<uint32_t> retired_ = 0;
    std::atomic<uint64_t> vacated_ns_ = 0;
    alignas(kLine) CpuWindow windows_[kQueueDepth];
};

}  // namespace reef
