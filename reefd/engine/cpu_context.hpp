// SPDX-License-Identifier: Apache-2.0
// An execution context of the CPU device: the activation arena, the progress record and the arguments of every kernel
// instance of one running request.
#pragma once
#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "clock.hpp"
#include "cpu_expectation.hpp"
#include "cpu_memory.hpp"
#include "cpu_model.hpp"
#include "cpu_queue.hpp"
#include "device.hpp"

namespace reef {

class CpuContext final : public Context {
public:
    explicit CpuContext(std::shared_ptr<const CpuModel> model, std::shared_ptr<CpuExpectation> expectation = nullptr);
    ~CpuContext() override;

    const CpuModel& model() const { return *model_; }

    // ---- engine thread
    void bind(const Binding& binding);
    void clear();
    // Called for each launch that begins at `kernel`, the first unfinished one. True: its blocks were abandoned `limit` times
    // and got no further, so from now on a block of it that has begun runs to its end.
    bool begin_again(uint32_t kernel, uint32_t limit);
    // Profiling: where to note when each kernel was done, one word each; null: nowhere.
    void note_ends(uint64_t* ends) { ends_ = ends; }
    // Anyone; acquire, so that a reader may rely on what those kernels wrote.
    uint32_t kernels_done() const { return kernels_done_.load(std::memory_order_acquire); }

    uint64_t progress() const {
        const uint32_t done = kernels_done();
        return uint64_t{done} << 32 | (done < model_->instances.size() ? blocks_done(done) : 0);
    }

    // ---- workers inside a window of this context
    uint32_t* crashes() const { return binding_.crashes; }
    void* const* arguments(const CpuKernel& instance) const { return arguments_ + instance.first_argument; }
    bool is_done(uint32_t kernel, uint32_t block) const {
        return word(kernel, block).load(std::memory_order_relaxed) >> (block % 64) & 1;
    }
    // Records a finished block. True for whoever records the last one of its kernel. The word of bits is the count as
    // well: workers that finish blocks side by side pass one cache line to each other, not two.
    bool block_done(uint32_t kernel, uint32_t block) {
        // A block finishes once, so adding its bit sets it: one instruction that tells what the others had set, where an
        // `or` would need a loop. SYNC BLOCKS, both halves. SYNC RETIRE carries the bits to whoever resumes.
        const uint64_t bit = 1ull << (block % 64);
        const uint64_t now = word(kernel, block).fetch_add(bit, std::memory_order_acq_rel) + bit;
        const uint32_t blocks = model_->instances[kernel].kernel.blocks, words = (blocks + 63) / 64;
        if (now != (block / 64 + 1 < words ? ~0ull : ~0ull >> (words * 64 - blocks)))
            return false;
        // SYNC BLOCKS, from word to word.
        return words == 1 || full_words_[kernel].fetch_add(1, std::memory_order_acq_rel) + 1 == words;
    }
    void kernel_done(uint32_t kernel) {
        if (ends_)
            ends_[kernel] = monotonic_ns();
        kernels_done_.store(kernel + 1, std::memory_order_release);
    }
    void block_abandoned() { abandoned_.fetch_add(1, std::memory_order_relaxed); }

    // ---- units: whoever is about to let the blocks of a kernel begin, engine thread or worker, asks what comes first.
    // `runs_to_end`: no block of it will be abandoned, so it needs no snapshot.
    Claim first_claim(uint32_t kernel, bool runs_to_end) const;
    // Copies one piece of the kernel's snapshot: into it, or back where blocks of the kernel may have begun.
    void copy(uint32_t kernel, uint32_t piece);
    // After each piece. True for whoever copied the last one: the blocks may begin now.
    bool piece_done(uint32_t kernel, bool runs_to_end);

private:
    struct Patch {
        uint32_t argument;
        StorageKind kind;
        uint64_t offset;
    };

    std::atomic<uint64_t>& word(uint32_t kernel, uint32_t block) const {
        return bits_[first_word_[kernel] + block / 64];
    }
    uint32_t blocks_done(uint32_t kernel) const;

    std::shared_ptr<const CpuModel> model_;
    std::shared_ptr<CpuExpectation> expectation_;  // the device's; null: none
    std::vector<Patch> patches_;                   // the arguments that lie in the slot
    std::vector<uint32_t> first_word_;             // of each kernel's bits
    LockedMemory arena_;
    LockedMemory record_;    // arguments, bits, full words
    LockedMemory snapshot_;  // of one unit at a time
    std::span<std::atomic<uint64_t>> bits_;
    std::span<std::atomic<uint32_t>> full_words_;  // of each kernel's bits
    void** arguments_ = nullptr;
    uint64_t* ends_ = nullptr;
    Binding binding_{};
    // Written at every kernel: apart from what workers read at every block.
    alignas(kLine) std::atomic<uint32_t> kernels_done_ = 0;
    std::atomic<uint32_t> abandoned_ = 0;
    // The unit whose blocks may have begun and been abandoned since its snapshot was taken. Atomic only because the engine
    // thread may look while a window works on an earlier one; ordered by SYNC LAUNCH, SYNC ADVANCE and SYNC RETIRE.
    std::atomic<uint32_t> torn_ = kNoKernel;
    std::atomic<uint32_t> copied_ = 0;  // pieces

    // Engine thread: how often the instance below was begun again without any block of it done in between.
    uint32_t tried_kernel_ = UINT32_MAX;
    uint32_t tried_count_ = 0;
    uint32_t tried_abandoned_ = 0;
    uint32_t fruitless_ = 0;
};

}  // namespace reef
