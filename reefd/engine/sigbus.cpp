// SPDX-License-Identifier: Apache-2.0
// The handler uses nothing but mmap(2) and lock-free words: it is async-signal-safe.
#include "sigbus.hpp"

#include <sys/mman.h>

#include <array>
#include <csignal>
#include <mutex>

namespace reef::sigbus {
namespace {

struct Range {
    std::atomic<uintptr_t> begin{0};  // 0: unused
    std::atomic<size_t> size{0};
    std::atomic<std::atomic<uint32_t>*> faulted{nullptr};
};

std::array<Range, kRanges> table;
std::mutex table_writers;
std::atomic<uint32_t> used{0};  // entries at and above it were never used
std::atomic<uint32_t> fault_count{0};
struct sigaction previous;

void pass_on(int signal, siginfo_t* info, void* context) {
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signal);
    } else {
        // Back to the default: the instruction faults again and ends the process, with the right address in the core.
        struct sigaction fatal{};
        fatal.sa_handler = SIG_DFL;
        sigaction(SIGBUS, &fatal, nullptr);
    }
}

void handle(int signal, siginfo_t* info, void* context) {
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    const uint32_t count = used.load(std::memory_order_acquire);
    for (uint32_t i = 0; i < count; ++i) {
        const uintptr_t begin = table[i].begin.load(std::memory_order_acquire);
        const size_t size = table[i].size.load(std::memory_order_relaxed);
        if (begin == 0 || address - begin >= size) {
            continue;
        }
        void* zeros = mmap(reinterpret_cast<void*>(begin), size, PROT_READ | PROT_WRITE,
                           MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (zeros != MAP_FAILED) {
            table[i].faulted.load(std::memory_order_relaxed)->store(1, std::memory_order_release);
            fault_count.fetch_add(1, std::memory_order_release);
            return;
        }
    }
    pass_on(signal, info, context);
}

}  // namespace

void install() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action{};
        action.sa_sigaction = handle;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigemptyset(&action.sa_mask);
        sigaction(SIGBUS, &action, &previous);
    });
}

int guard(std::byte* base, size_t size, std::atomic<uint32_t>* faulted) {
    std::lock_guard lock(table_writers);
    for (uint32_t i = 0; i < kRanges; ++i) {
        if (table[i].begin.load(std::memory_order_relaxed) == 0) {
            table[i].faulted.store(faulted, std::memory_order_relaxed);
            table[i].size.store(size, std::memory_order_relaxed);
            table[i].begin.store(reinterpret_cast<uintptr_t>(base), std::memory_order_release);
            if (i >= used.load(std::memory_order_relaxed)) {
                used.store(i + 1, std::memory_order_release);
            }
            return static_cast<int>(i);
        }
    }
    return -1;
}

void release(int handle) { table[static_cast<size_t>(handle)].begin.store(0, std::memory_order_release); }

uint32_t faults() { return fault_count.load(std::memory_order_acquire); }

}  // namespace reef::sigbus
