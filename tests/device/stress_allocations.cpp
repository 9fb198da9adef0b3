// SPDX-License-Identifier: Apache-2.0
// Counts what operator new is asked for. In a file of its own: inlined, it would meet the compiler's idea of new and delete.
#include <new>

#include "stress.hpp"

std::atomic<uint64_t> stress::allocations;

void* operator new(size_t bytes) {
    stress::allocations.fetch_add(1, std::memory_order_relaxed);
    void* piece = std::malloc(bytes ? bytes : 1);
    if (!piece)
        throw std::bad_alloc();
    return piece;
}

void operator delete(void* piece) noexcept { std::free(piece); }

void operator delete(void* piece, size_t) noexcept { std::free(piece); }
