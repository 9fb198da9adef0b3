// SPDX-License-Identifier: Apache-2.0
#include "cpu_context.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

namespace reef {
namespace {

// Each kernel's bits begin with a word of their own; element `kernels` is the number of words.
std::vector<uint32_t> first_words(const CpuModel& model) {
    std::vector<uint32_t> first{0};
    for (const CpuKernel& instance : model.instances)
        first.push_back(first.back() + (instance.kernel.blocks + 63) / 64);
    return first;
}

// Arguments, which every block reads, have cache lines that no block writes.
size_t arguments_bytes(const CpuModel& model) {
    return (model.arguments.size() * sizeof(void*) + kLine - 1) / kLine * kLine;
}

size_t record_bytes(const CpuModel& model, size_t words) {
    return arguments_bytes(model) + words * sizeof(uint64_t) + model.instances.size() * sizeof(uint32_t);
}

}  // namespace

CpuContext::CpuContext(std::shared_ptr<const CpuModel> model, std::shared_ptr<CpuExpectation> expectation)
    : model_(std::move(model)), expectation_(std::move(expectation)), first_word_(first_words(*model_)),
      arena_(model_->facts().arena_bytes), record_(record_bytes(*model_, first_word_.back())),
      snapshot_(model_->facts().snapshot_bytes) {
    const size_t words = first_word_.back(), arguments = model_->arguments.size(), kernels = model_->instances.size();
    arena_.fill(model_->facts().arena_bytes);
    snapshot_.fill(model_->facts().snapshot_bytes);
    record_.fill(record_bytes(*model_, words));
    std::byte* at = record_.data();
    arguments_ = new (at) void* [arguments] {};
    at += arguments_bytes(*model_);
    bits_ = {new (at) std::atomic<uint64_t>[words] {}, words};
    at += words * sizeof(uint64_t);
    full_words_ = {new (at) std::atomic<uint32_t>[kernels] {}, kernels};
    for (uint32_t i = 0; i < arguments; i++) {
        const CpuArgument& argument = model_->arguments[i];
        if (argument.kind == StorageKind::weight)
            arguments_[i] = const_cast<std::byte*>(argument.constant);
        else if (argument.kind == StorageKind::arena)
            arguments_[i] = arena_.data() + argument.offset;
        else
            patches_.push_back({i, argument.kind, argument.offset});
    }
}

CpuContext::~CpuContext() {
    if (expectation_)
        expectation_->forget(*this);
}

void CpuContext::bind(const Binding& binding) {
    if (binding.inputs == binding_.inputs && binding.outputs == binding_.outputs)
        return;
    binding_ = binding;
    for (const Patch& patch : patches_)
        arguments_[patch.argument] =
            (patch.kind == StorageKind::input ? binding.inputs : binding.outputs) + patch.offset;
}

void CpuContext::clear() {
    for (std::atomic<uint64_t>& word : bits_)
        word.store(0, std::memory_order_relaxed);
    for (std::atomic<uint32_t>& count : full_words_)
        count.store(0, std::memory_order_relaxed);
    kernels_done_.store(0, std::memory_order_relaxed);
    tried_kernel_ = UINT32_MAX;
    torn_.store(kNoKernel, std::memory_order_relaxed);
}

uint32_t CpuContext::blocks_done(uint32_t kernel) const {
    int blocks = 0;
    for (uint32_t word = first_word_[kernel]; word < first_word_[kernel + 1]; word++)
        blocks += std::popcount(bits_[word].load(std::memory_order_relaxed));
    return static_cast<uint32_t>(blocks);
}

bool CpuContext::begin_again(uint32_t kernel, uint32_t limit) {
    copied_.store(0, std::memory_order_relaxed);  // a copy that was interrupted counts for nothing
    // A unit that is preempted loses all it did: it gets no further but by finishing.
    const bool unit = model_->instances[kernel].unit != nullptr;
    const uint32_t count = blocks_done(kernel);
    // Windows before this one let no block be abandoned: those that finished stand, and nothing was saved.
    if (unit && count != 0 && torn_.load(std::memory_order_relaxed) != kernel)
        return true;
    uint32_t abandoned = abandoned_.load(std::memory_order_relaxed);
    if (tried_kernel_ != kernel) {
        fruitless_ = 0;
    } else if (fruitless_ < limit) {
        if (!unit && count != tried_count_)
            fruitless_ = 0;
        else if (unit || abandoned != tried_abandoned_)
            fruitless_++;
    }
    tried_kernel_ = kernel;
    tried_count_ = count;
    tried_abandoned_ = abandoned;
    return fruitless_ >= limit;
}

Claim CpuContext::first_claim(uint32_t kernel, bool runs_to_end) const {
    const CpuKernel& instance = model_->instances[kernel];
    if (instance.unit && (!runs_to_end || torn_.load(std::memory_order_relaxed) == kernel))
        return {kernel, true, instance.unit->pieces, 0};
    return {kernel, false, instance.kernel.blocks, 0};
}

void CpuContext::copy(uint32_t kernel, uint32_t piece) {
    const bool back = torn_.load(std::memory_order_relaxed) == kernel;
    uint64_t at = piece * kSnapshotPiece, left = kSnapshotPiece, before = 0;
    for (const ByteRange& range : model_->instances[kernel].unit->ranges) {
        if (left != 0 && at < before + range.bytes) {
            const uint64_t within = at - before, bytes = std::min(left, range.bytes - within);
            std::byte* area = range.kind == StorageKind::arena ? arena_.data() : binding_.outputs;
            std::byte *held = area + range.offset + within, *saved = snapshot_.data() + at;
            std::memcpy(back ? held : saved, back ? saved : held, bytes);
            at += bytes;
            left -= bytes;
        }
        before += range.bytes;
    }
}

bool CpuContext::piece_done(uint32_t kernel, bool runs_to_end) {
    // SYNC BLOCKS, both halves: the blocks of the unit begin after every piece.
    if (copied_.fetch_add(1, std::memory_order_acq_rel) + 1 != model_->instances[kernel].unit->pieces)
        return false;
    copied_.store(0, std::memory_order_relaxed);
    if (torn_.load(std::memory_order_relaxed) == kernel) {
        for (uint32_t word = first_word_[kernel]; word < first_word_[kernel + 1]; word++)
            bits_[word].store(0, std::memory_order_relaxed);
        full_words_[kernel].store(0, std::memory_order_relaxed);
    }
    torn_.store(runs_to_end ? kNoKernel : kernel, std::memory_order_relaxed);
    return true;
}

}  // namespace reef
