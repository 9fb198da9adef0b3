// SPDX-License-Identifier: Apache-2.0
// Memory that is there when it is needed: mapped, and where the limits allow it touched and locked beforehand.
#pragma once
#include <cstddef>

namespace reef {

class LockedMemory {
public:
    // Reserves address space only; nothing is usable before fill().
    explicit LockedMemory(size_t bytes);
    ~LockedMemory();
    LockedMemory(const LockedMemory&) = delete;
    LockedMemory& operator=(const LockedMemory&) = delete;

    // Makes the first `bytes` present, zeroed where they were not yet. Locks them too, best effort (RLIMIT_MEMLOCK).
    // std::bad_alloc when there is no memory.
    void fill(size_t bytes);

    std::byte* data() const { return data_; }

private:
    std::byte* data_;
    size_t reserved_;
    size_t filled_ = 0;
};

}  // namespace reef
