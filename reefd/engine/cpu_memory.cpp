// SPDX-License-Identifier: Apache-2.0
#include "cpu_memory.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <new>

namespace reef {
namespace {

constexpr size_t kPage = 4096;

size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

LockedMemory::LockedMemory(size_t bytes) : reserved_(whole_pages(bytes ? bytes : 1)) {
    void* mapped = mmap(nullptr, reserved_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        throw std::bad_alloc();
    data_ = static_cast<std::byte*>(mapped);
    madvise(data_, reserved_, MADV_HUGEPAGE);  // fewer TLB misses where the system has them; refused elsewhere
}

LockedMemory::~LockedMemory() { munmap(data_, reserved_); }

void LockedMemory::fill(size_t bytes) {
    bytes = whole_pages(bytes);
    if (bytes > reserved_)
        throw std::bad_alloc();
    if (bytes <= filled_)
        return;
    std::byte* from = data_ + filled_;
    size_t more = bytes - filled_;
#ifdef MADV_POPULATE_WRITE
    bool present = madvise(from, more, MADV_POPULATE_WRITE) == 0;
    if (!present && errno == ENOMEM)
        throw std::bad_alloc();
#else
    bool present = false;
#endif
    if (!present)  // kernels before 5.14
        for (size_t at = 0; at < more; at += kPage)
            static_cast<volatile std::byte*>(from)[at] = std::byte{0};
    mlock(from, more);
    filled_ = bytes;
}

}  // namespace reef
