// SPDX-License-Identifier: Apache-2.0
#include "cpu_signals.hpp"

#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <system_error>

namespace reef {

CpuSignals::CpuSignals() : event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (event_fd_ < 0)
        throw std::system_error(errno, std::generic_category(), "eventfd");
}

CpuSignals::~CpuSignals() { close(event_fd_); }

void CpuSignals::work(uint32_t workers) {
    if (workers == 0 || sleepers_.load(std::memory_order_seq_cst) == 0)
        return;
    word_.fetch_add(1, std::memory_order_seq_cst);
    syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, workers < INT_MAX ? static_cast<int>(workers) : INT_MAX, nullptr,
            nullptr, 0);
}

void CpuSignals::wait(uint32_t value) { syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0); }

void CpuSignals::retired() {
    if (!armed_.load(std::memory_order_seq_cst))
        return;
    if (!armed_.exchange(false, std::memory_order_seq_cst))
        return;
    uint64_t one = 1;
    // Cannot block or fail: at most one write for each arming, and the counter is drained there.
    [[maybe_unused]] ssize_t written = write(event_fd_, &one, sizeof one);
}

void CpuSignals::arm() {
    // Still armed: nobody has written since. Else a worker has written, or is about to, which only wakes us once more.
    if (!armed_.load(std::memory_order_relaxed)) {
        uint64_t count;
        [[maybe_unused]] ssize_t got = read(event_fd_, &count, sizeof count);
    }
    armed_.store(true, std::memory_order_seq_cst);
}

}  // namespace reef
