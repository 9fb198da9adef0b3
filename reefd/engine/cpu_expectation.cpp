// SPDX-License-Identifier: Apache-2.0
#include "cpu_expectation.hpp"

#include <sched.h>

#include <algorithm>

#include "cpu_context.hpp"

namespace reef {
namespace {

constexpr size_t kLineBytes = 64;      // of a cache
constexpr uint32_t kMostPieces = 256;  // more would push out what was brought first

}  // namespace

void CpuExpectation::set(const CpuContext* context, uint64_t until_ns) {
    next_.store(0, std::memory_order_relaxed);
    context_.store(context, std::memory_order_seq_cst);
    until_ns_.store(until_ns, std::memory_order_seq_cst);
}

// SYNC FORGET: a worker counts itself in, then reads the context; here it is taken away, then the count is read. One of the
// two sees the other.
void CpuExpectation::forget(const CpuContext& context) {
    const CpuContext* expected = &context;
    context_.compare_exchange_strong(expected, nullptr, std::memory_order_seq_cst);
    while (inside_.load(std::memory_order_seq_cst) != 0)
        sched_yield();
}

bool CpuExpectation::bring_near() {
    inside_.fetch_add(1, std::memory_order_seq_cst);
    const CpuContext* context = context_.load(std::memory_order_seq_cst);
    bool any = false;
    if (context) {
        const auto& weights = context->model().weights;
        const uint32_t piece = next_.fetch_add(1, std::memory_order_relaxed);
        any = piece < std::min<size_t>(weights.size(), kMostPieces);
        for (size_t at = 0; any && at < weights[piece].size(); at += kLineBytes)
            __builtin_prefetch(weights[piece].data() + at, 0, 2);
    }
    inside_.fetch_sub(1, std::memory_order_seq_cst);
    return any;
}

}  // namespace reef
